"""Geometries of processors and simulators by name, with the source of every value."""

from __future__ import annotations

import difflib
import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.mmu.geometry import Geometry

__all__ = ["Preset", "Source", "load", "names", "read", "sources"]

_FOLDER = Path(__file__).with_name("preset_data")


class Source(NamedTuple):
    """Where one value comes from.

    Attributes
    ----------
    field : str
        The value, for example ``"tlbs[L1 DTLB].entries"``.
    value : object
        As the geometry has it.
    source : str
        A document, a measurement or a program, with the place in it.
    recalled : bool
        There is none that could be named: `source` says why the value was taken.
    """

    field: str
    value: Any
    source: str
    recalled: bool


@dataclass(frozen=True, slots=True)
class Preset:
    """A geometry, and what is known of it.

    Attributes
    ----------
    name : str
        What `load` takes.
    title : str
        What it describes.
    notes : tuple of str
        Where sources disagree, and what is not modelled.
    geometry : Geometry
        The caches.
    sources : tuple of Source
        One for each value.
    """

    name: str
    title: str
    notes: tuple[str, ...]
    geometry: Geometry
    sources: tuple[Source, ...]


def names() -> list[str]:
    """Give the names that `load` takes, in alphabetical order."""
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in _FOLDER.iterdir()
        if entry.name.endswith(".toml")
    )


def load(name: str) -> Geometry:
    """Give a geometry by name.

    Parameters
    ----------
    name : str
        One of `names`; case does not matter.

    Raises
    ------
    InvalidValueError
        For a name that no preset has; the message gives the nearest.

    Examples
    --------
    >>> load("zen4").tlbs[1].cache.entries
    72
    """
    return read(name).geometry


def sources(name: str) -> list[Source]:
    """Give the source of every value of a preset.

    Parameters
    ----------
    name : str
        One of `names`.

    Raises
    ------
    InvalidValueError
        For a name that no preset has.
    """
    return list(read(name).sources)


def read(name: str) -> Preset:
    """Give a preset by name with its title, notes and sources.

    Parameters
    ----------
    name : str
        One of `names`; case does not matter.

    Raises
    ------
    InvalidValueError
        For a name that no preset has; the message gives the nearest.
    """
    if not isinstance(name, str):
        raise InvalidTypeError(f"name must be the name of a preset, got {name!r:.80}")
    if name.lower() not in names():
        near = difflib.get_close_matches(name.lower(), names(), 3, 0.4) or names()
        raise InvalidValueError(f"no preset is named {name!r:.80}; nearest: {', '.join(near)}")
    return _read(name.lower())


@functools.cache
def _read(name: str) -> Preset:
    """Parse the file of a preset."""
    data = tomllib.loads((_FOLDER / f"{name}.toml").read_text("utf-8"))
    title, notes, citations = data.pop("title"), data.pop("notes"), data.pop("sources")
    found: list[Source] = []
    geometry = _geometry(name, _values(data, "", citations, found))
    return Preset(name, title, tuple(notes), geometry, tuple(found))


def _values(node: Any, field: str, citations: Mapping[str, str], found: list[Source]) -> Any:
    """Replace each table of a value and its source by the value, and note the source."""
    if isinstance(node, list):
        return [
            _values(item, f"{field}[{item['name']}]", citations, found)
            if isinstance(item, dict)
            else item
            for item in node
        ]
    if not isinstance(node, dict):
        return node
    if "value" in node:
        source, recalled = node["source"], node.get("recalled", False)
        found.append(Source(field, node["value"], citations.get(source, source), recalled))
        return node["value"]
    prefix = f"{field}." if field else ""
    return {key: _values(item, prefix + key, citations, found) for key, item in node.items()}


def _geometry(name: str, data: dict[str, Any]) -> Geometry:
    """Build the geometry; the files keep an array's size beside what it holds."""
    for array in data["tlbs"]:
        size = ("entries", "ways", "policy", "hash")
        array["cache"] = {key: array.pop(key) for key in size if key in array}
    return Geometry.from_dict({"name": name, **data})
