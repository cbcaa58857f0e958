"""JSON schemas of specifications, for editors and other programs."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

from pyvirt.errors import InvalidTypeError
from pyvirt.spec.base import TIME, Spec, fields_of

__all__ = ["schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MOST_COUNT = 1_000_000
_ATTRIBUTE = re.compile(r"(\w+(?:, \w+)*) : .*")


def schema(kind: type[Spec]) -> dict[str, Any]:
    """Give the JSON schema (2020-12) of the files that describe one kind.

    It has what concerns one field at a time: names, types, units, bounds, words. What concerns
    several, such as a reservation above its limit, is found when the file is read.

    Parameters
    ----------
    kind : type
        A class of `pyvirt.spec`, such as `ScenarioSpec`.

    Returns
    -------
    dict
        Plain data, for `json.dumps`. Descriptions and defaults are those of the classes.

    Raises
    ------
    InvalidTypeError
        For what is not such a class.
    """
    if not _is_kind(kind):
        raise InvalidTypeError(f"kind must be a class of pyvirt.spec, not {kind!r:.80}")
    found: dict[str, dict[str, Any]] = {}
    _define(kind, found)
    found[kind.__name__]["properties"]["$schema"] = {"type": "string"}
    return {"$schema": DIALECT, "$ref": f"#/$defs/{kind.__name__}", "$defs": found}


def _is_kind(given: Any) -> bool:
    return isinstance(given, type) and issubclass(given, Spec) and dataclasses.is_dataclass(given)


def _define(kind: type[Spec], found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Add the definition of a kind, and of those in it; give a reference to it."""
    reference = {"$ref": f"#/$defs/{kind.__name__}"}
    if kind.__name__ in found:
        return reference
    made: dict[str, Any] = {"type": "object", "title": kind.WHAT}
    found[kind.__name__] = made
    told = _descriptions(kind)
    properties: dict[str, Any] = {}
    required: list[str] = []
    either: list[dict[str, Any]] = []
    for name, field in fields_of(kind).items():
        entry = _entry(field, found)
        if name in told:
            entry = {"description": told[name], **entry}
        if field.default is dataclasses.MISSING:
            if not name.endswith(TIME):
                required.append(name)
        elif not isinstance(field.default, (Spec, tuple)) and field.default is not None:
            entry["default"] = field.default
        properties[name] = entry
        if name.endswith(TIME):
            short = name.removesuffix(TIME)
            text = next(one for one in entry["anyOf"] if one.get("type") == "string")
            properties[short] = {"description": f"{name}, as text with a unit", **text}
            if field.default is dataclasses.MISSING:
                either.append({"oneOf": [{"required": [short]}, {"required": [name]}]})
            else:
                either.append({"not": {"required": [short, name]}})
    made |= {"properties": properties, "required": required, "additionalProperties": False}
    if either:
        made["allOf"] = either
    if kind.COUNTED:
        _allow_count(made, properties)
    return reference


def _entry(field: dataclasses.Field[Any], found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Give the schema of one field."""
    entry = dict(field.metadata["schema"])
    if "spec" in entry:
        inner: type[Spec] = entry.pop("spec")
        choices = [_define(inner, found)]
        if inner.SHORT:
            choices.append(_entry(fields_of(inner)[inner.SHORT], found))
        if inner.FILED:
            choices.append({"type": "string", "description": "the name of a file that has it"})
        entry = choices[0] if len(choices) == 1 else {"anyOf": choices}
    elif "specs" in entry:
        entry = {"type": "array", "items": _define(entry.pop("specs"), found)}
    if field.metadata["optional"]:
        others = entry["anyOf"] if list(entry) == ["anyOf"] else [entry]
        entry = {"anyOf": [*others, {"type": "null"}]}
    return entry


def _allow_count(made: dict[str, Any], properties: dict[str, Any]) -> None:
    """Let an entry stand for several; where they are may then be a list."""
    properties["count"] = {
        "description": "for how many it stands; their names get numbers from 0",
        "type": "integer",
        "minimum": 0,
        "maximum": MOST_COUNT,
    }
    if "host" not in properties:
        return
    one = properties["host"]
    plain = {key: value for key, value in one.items() if key not in ("description", "default")}
    rest = {key: value for key, value in one.items() if key in ("description", "default")}
    properties["host"] = rest | {"anyOf": [plain, {"type": "array", "items": plain, "minItems": 1}]}
    made["if"] = {"not": {"required": ["count"]}}
    made["then"] = {"properties": {"host": plain}}


def _descriptions(kind: type[Spec]) -> dict[str, str]:
    """Take what is said of each field from the docstrings of a class and its bases."""
    told: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        lines = inspect.cleandoc(each.__doc__ or "").splitlines()
        names: list[str] = []
        for line in lines[lines.index("Attributes") + 2 :] if "Attributes" in lines else []:
            found = _ATTRIBUTE.fullmatch(line)
            if found:
                names = found[1].split(", ")
                told |= dict.fromkeys(names, "")
            elif names and line.startswith("    "):
                told |= {name: f"{told[name]} {line.strip()}".strip() for name in names}
    return told
