"""Numbers with their sources: rules of kernels, and what programs do, as TOML files."""

from __future__ import annotations

import difflib
import functools
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from pyvirt.errors import InvalidValueError

__all__ = ["Value", "names", "numbers", "read"]

_FOLDER = Path(__file__).with_name("profile_data")


class Value(NamedTuple):
    """One number and where it comes from.

    Attributes
    ----------
    value : int, float or bool
        The number.
    source : str
        A document, a measurement, or words that say why it was taken.
    recalled : bool
        There is no source that could be named.
    """

    value: Any
    source: str
    recalled: bool


def names() -> list[str]:
    """Give the names of all profiles, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


@functools.cache
def read(name: str) -> dict[str, dict[str, Value]]:
    """Read a profile: its values by table and name.

    Parameters
    ----------
    name : str
        One of `names`.

    Raises
    ------
    InvalidValueError
        A profile that there is not.
    """
    if name not in names():
        near = difflib.get_close_matches(str(name), names(), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InvalidValueError(
            f"profile must be one of {', '.join(names())}, got {name!r:.80}{hint}"
        )
    data = tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    sources = data["sources"]
    return {
        table: {
            key: Value(
                entry["value"],
                sources.get(entry["source"], entry["source"]),
                bool(entry.get("recalled", False)),
            )
            for key, entry in values.items()
        }
        for table, values in data.items()
        if table not in ("title", "notes", "sources")
    }


def numbers(name: str, table: str) -> dict[str, Any]:
    """Give the values of one table of a profile, without their sources."""
    return {key: entry.value for key, entry in read(name)[table].items()}
