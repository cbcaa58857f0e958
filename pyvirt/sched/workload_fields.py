"""Workloads by kind, as a scenario file has them.

A kind is the name of a class of `pyvirt.sched.workloads` in small letters, and its keys are the
class's attributes: times without ``_ns`` and with a unit, and ``work_is`` for the distribution
`work`.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from typing import Any

import numpy.typing as npt

from pyvirt.errors import InvalidValueError
from pyvirt.sched import workloads
from pyvirt.sched.fields import Fields
from pyvirt.units import parse_time

__all__ = ["kinds", "read_workload"]

DISTRIBUTIONS = typing.get_args(workloads.Distribution)
#: Its work comes from a caller, which a file has not.
WITHOUT = ("Jobs",)
MOST = 1 << 50


def kinds() -> dict[str, Any]:
    """Give the classes of workloads by the names that a file has for them."""
    classes = typing.get_args(workloads.Workload)
    return {_snake(c.__name__): c for c in classes if c.__name__ not in WITHOUT}


def read_workload(fields: Fields | None) -> Any:
    """Read what each vCPU does; by default it always wants the CPU."""
    if fields is None:
        return workloads.Always()
    return _read(fields, kinds(), "workload")


def _read(fields: Fields, known: dict[str, Any], what: str) -> Any:
    """Read a table of `kind` and the attributes of the class that it names."""
    kind = fields.choice("kind", known, f"one of {', '.join(known)}") or ""
    made = known[kind]
    hints = typing.get_type_hints(made)
    values = {}
    for each in dataclasses.fields(made):
        value = _value(fields, each, hints[each.name])
        if value is not None:
            values[each.name] = value
    fields.finish(f"the {what} {kind}")
    return fields.said(None, lambda: made(**values))


def _value(fields: Fields, each: dataclasses.Field[Any], hint: Any) -> Any:
    """Read an attribute of a kind that its type tells; None if the file has none."""
    missing = each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
    key = each.name.removesuffix("_ns")
    if hint == npt.ArrayLike:
        return _list(fields, key, key != each.name, "a list" if missing else None)
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    if key != each.name:
        classes: dict[str, Any] = {
            _snake(c.__name__): c
            for c in options
            if isinstance(c, type) and dataclasses.is_dataclass(c)
        }
        if classes and isinstance(fields.raw(key), dict):
            table = fields.table(key)
            assert table is not None
            return _read(table, classes, "time")
        # Lengths are positive; what has a default may be nothing.
        return fields.time(key, 1 if missing else 0, "a time" if missing else None)
    if typing.get_origin(hint) is typing.Literal:
        accepted = typing.get_args(hint)
        return fields.choice(f"{key}_is" if accepted == DISTRIBUTIONS else key, accepted)
    needed = "a value" if missing else None
    if bool in options:
        return fields.flag(key) if key in fields else None
    if float in options:
        return fields.number(key, needed)
    if int in options:
        return fields.integer(key, -MOST, MOST, needed)
    if missing:
        raise InvalidValueError(f"{fields.name()}: no file can have its {key!r}")
    return None


def _list(fields: Fields, key: str, times: bool, needed: str | None) -> list[Any] | None:
    """Read a list of times, or of numbers."""
    given = fields.raw(key, needed)
    if given is None:
        return None
    accepted = 'times, such as ["0s", "5min"]' if times else "numbers"
    if not isinstance(given, list) or not given:
        fields.refuse(key, f"a list of {accepted}")
    if times:
        return fields.said(key, lambda: [parse_time(each, "each time") for each in given])
    if not all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in given):
        fields.refuse(key, f"a list of {accepted}")
    return given


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
