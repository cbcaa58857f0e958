"""Descriptions in files: TOML and JSON, read with what is wrong named by file, line and key."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path as File
from typing import Any, NoReturn, TypeVar

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.spec.base import TIME, Spec
from pyvirt.spec.cluster import ClusterSpec
from pyvirt.spec.fields import blame, refuse
from pyvirt.spec.lines import Path, key_lines, place
from pyvirt.spec.scenario import ScenarioSpec
from pyvirt.spec.toml import write_toml

__all__ = ["dump_json", "dump_toml", "load_cluster", "load_scenario"]

S = TypeVar("S", bound=Spec)
Lines = Callable[[], dict[Path, int]]

MOST = 1_000_000
COUNTED = ("hosts", "vms")


def load_scenario(path: str | PathLike[str]) -> ScenarioSpec:
    """Read a scenario from a file.

    Parameters
    ----------
    path : path-like
        A TOML file, or a JSON file where the name ends in ``.json``: the fields of `ScenarioSpec`.
        ``cluster`` may be the name of another file, from the folder of this one, that
        `load_cluster` reads. A host or VM with a ``count`` stands for so many, as there.

    Returns
    -------
    ScenarioSpec

    Raises
    ------
    InvalidValueError, InvalidTypeError
        The file is not well-formed, or a field is wrong: the message names the file, the line (of
        TOML), the path of keys, the value, and what is accepted.
    OSError
        The file cannot be read.
    """
    file = File(path)
    data, lines = _read(file)
    cluster = data.get("cluster")
    if isinstance(cluster, str):
        try:
            data["cluster"] = load_cluster(file.parent / cluster)
        except (OSError, ValueError) as error:
            if isinstance(error, InvalidValueError):
                raise
            where = place(str(file), ("cluster",), lines())
            raise InvalidValueError(
                f"{where}: cluster must be a table, or name a file that can be read, "
                f"got {cluster!r:.80} ({error})"
            ) from None
    return _make(ScenarioSpec, data, file, lines, ("cluster",))


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
    InvalidValueError, InvalidTypeError, OSError
        As for `load_scenario`.
    """
    file = File(path)
    data, lines = _read(file)
    return _make(ClusterSpec, data, file, lines, ())


def dump_toml(spec: Spec) -> str:
    """Write a description as the text of a TOML file, which reads as an equal one.

    Raises
    ------
    InvalidTypeError
        What is no specification.
    """
    return write_toml(_checked(spec).to_dict())


def dump_json(spec: Spec) -> str:
    """Write a description as the text of a JSON file, which reads as an equal one.

    Raises
    ------
    InvalidTypeError
        What is no specification.
    """
    return json.dumps(_checked(spec).to_dict(), indent=2, ensure_ascii=False) + "\n"


def _checked(spec: Spec) -> Spec:
    if not isinstance(spec, Spec):
        raise InvalidTypeError(f"spec must be a Spec, such as a ScenarioSpec, not {spec!r:.80}")
    return spec


def _read(file: File) -> tuple[dict[str, Any], Lines]:
    """Read a file's data, and how to find out where its keys are."""
    plain = file.suffix.lower() == ".json"
    try:
        text = file.read_text(encoding="utf-8")
        if plain:
            data = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
        else:
            data = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise InvalidValueError(f"{file} must be text in UTF-8: {error}") from None
    except RecursionError:
        raise InvalidValueError(f"{file} must not be nested deeper than Python can go") from None
    except ValueError as error:  # TOMLDecodeError and JSONDecodeError, which name line and column
        raise InvalidValueError(f"{file}: {error}") from None
    if not isinstance(data, dict):
        raise InvalidValueError(f"{file} must hold a table of fields, not {data!r:.80}")
    if not plain:
        return data, lambda: key_lines(text)
    data.pop("$schema", None)  # by which editors of JSON find the schema
    return data, dict


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object of JSON that has a key twice, as TOML does."""
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise InvalidValueError(f"an object must have each key once, two are {key!r:.80}")
        made[key] = value
    return made


def _no_constant(word: str) -> NoReturn:
    raise InvalidValueError(f"numbers must be finite, got {word}")


def _make(kind: type[S], data: dict[str, Any], file: File, lines: Lines, within: Path) -> S:
    """Make a specification, and say of what is wrong where in the file it stands."""
    origins: dict[Path, list[int]] = {}
    try:
        holder = data[within[0]] if within and within[0] in data else data
        if isinstance(holder, dict):
            for key in COUNTED:
                if isinstance(holder.get(key), list):
                    path = (*within, key)
                    holder[key], origins[path] = _expand(holder[key], path)
        return kind.from_dict(data)
    except (InvalidValueError, InvalidTypeError) as error:
        where = _original(_written(getattr(error, "path", ()), data), origins)
        raise type(error)(f"{place(str(file), where, lines())}: {error}") from None


def _written(path: Path, data: Any) -> Path:
    """Turn the names of fields into the keys that the file has for them."""
    keys: list[str | int] = []
    for step in path:
        if isinstance(step, str) and isinstance(data, dict):
            short = step.removesuffix(TIME)
            step = short if step not in data and short in data else step
            data = data.get(step)
        elif isinstance(step, int) and isinstance(data, (list, tuple)) and step < len(data):
            data = data[step]
        else:
            data = None
        keys.append(step)
    return tuple(keys)


def _original(path: Path, origins: Mapping[Path, list[int]]) -> Path:
    """Turn the number of a host or VM into that of the entry that stands for it."""
    for stem, entries in origins.items():
        at = path[len(stem)] if path[: len(stem)] == stem and len(path) > len(stem) else None
        if isinstance(at, int):
            return (*stem, entries[at], *path[len(stem) + 1 :])
    return path


def _expand(entries: list[Any], path: Path) -> tuple[list[Any], list[int]]:
    """Write out the entries that stand for several, and note which entry each came from."""
    made: list[Any] = []
    origins: list[int] = []
    for at, entry in enumerate(entries):
        several = _counted(entry, (*path, at)) if isinstance(entry, dict) else [entry]
        made += several
        origins += [at] * len(several)
    return made, origins


def _counted(entry: dict[str, Any], path: Path) -> list[Any]:
    if "count" not in entry:
        return [entry]
    fields = dict(entry)
    count, places = fields.pop("count"), fields.get("host")
    name = fields.get("name", "")
    what = f"count of {path[-2]} {name!r:.80}"
    if isinstance(count, bool) or not isinstance(count, int):
        raise blame(
            InvalidTypeError(f"{what} must be a whole number, not {count!r:.80}"),
            *(*path, "count"),
        )
    if not 0 <= count <= MOST:
        refuse(f"{what} must be in [0, {MOST}], got {count}", *path, "count")
    if not isinstance(name, str):
        return [fields]
    made = []
    for number in range(count):
        one = fields | {"name": f"{name}{number}"}
        if isinstance(places, list) and places:
            one["host"] = places[number % len(places)]
        made.append(one)
    return made
