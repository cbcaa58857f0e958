"""Descriptions in files: TOML and JSON."""

from __future__ import annotations

import json
import tomllib
from os import PathLike
from pathlib import Path
from typing import Any

from pyvirt.errors import InvalidValueError
from pyvirt.spec.cluster import ClusterSpec

__all__ = ["load_cluster"]

MOST = 1_000_000


def load_cluster(path: str | PathLike[str]) -> ClusterSpec:
    """Read the description of a cluster.

    Parameters
    ----------
    path : path-like
        A TOML file, or a JSON file where the name ends in ``.json``: the fields of `ClusterSpec`.
        A host or VM with a ``count`` stands for so many, whose names get numbers from 0; a VM's
        ``host`` may then be a list of names, which they take in turn.

    Returns
    -------
    ClusterSpec

    Raises
    ------
    InvalidValueError, InvalidTypeError
        The file is not well-formed, or a field is wrong.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
        data = json.loads(text) if file.suffix.lower() == ".json" else tomllib.loads(text)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InvalidValueError(f"{file.name}: {error}") from None
    if not isinstance(data, dict):
        raise InvalidValueError(f"{file.name} must hold a table of fields, not {data!r:.80}")
    for key in ("hosts", "vms"):
        if isinstance(data.get(key), list):
            data[key] = [one for entry in data[key] for one in _counted(entry, key)]
    return ClusterSpec.from_dict(data)


def _counted(entry: Any, key: str) -> list[Any]:
    if not isinstance(entry, dict) or ("count" not in entry and "host" not in entry):
        return [entry]
    fields = dict(entry)
    count = fields.pop("count", None)
    places = fields.get("host")
    if count is None:
        return [entry]
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MOST:
        raise InvalidValueError(
            f"count of {key} {fields.get('name', '')!r:.80} must be in [0, {MOST}], got {count!r}"
        )
    made = []
    for number in range(count):
        one = fields | {"name": f"{fields.get('name', '')}{number}"}
        if isinstance(places, list) and places:
            one["host"] = places[number % len(places)]
        made.append(one)
    return made
