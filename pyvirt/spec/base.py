"""What all specifications share: checked fields, units at the edge, plain data and back."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any, ClassVar, Self

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.spec.fields import blame, check_range, check_text, refuse

__all__ = ["Spec", "fields_of"]

TIME = "_ns"
_FIELDS: dict[Any, dict[str, dataclasses.Field[Any]]] = {}


class Spec:
    """A frozen description of something, checked when it is made.

    Subclasses are frozen dataclasses whose fields come from `pyvirt.spec.fields`.
    """

    __slots__ = ()

    WHAT: ClassVar[str] = "specification"
    #: Whether an entry of a file may stand for several, by ``count``.
    COUNTED: ClassVar[bool] = False
    #: Whether a file may name another file that has it.
    FILED: ClassVar[bool] = False
    #: The field that a bare value in place of a table is for; empty: there is none.
    SHORT: ClassVar[str] = ""

    def __post_init__(self) -> None:
        fields = fields_of(type(self))
        label = getattr(self, "name", None)
        whose = f"{self.WHAT} {label!r:.80}" if isinstance(label, str) and label else self.WHAT
        for name, field in fields.items():
            value = getattr(self, name)
            if value is field.default or (value is None and field.metadata.get("optional")):
                continue
            what = f"{name} of {whose}"
            parse = field.metadata.get("parse", check_text)
            try:
                checked = parse(value, what)
                check_range(checked, field.metadata.get("least"), field.metadata.get("most"), what)
            except (InvalidValueError, InvalidTypeError) as error:
                raise blame(error, name) from error.__cause__
            except (
                ValueError,
                OverflowError,
            ):  # Python's own, of numbers beyond its floats and text
                refuse(f"{what} must be a number that is not as long as that", name)
            object.__setattr__(self, name, checked)
        self.check(whose)

    def check(self, whose: str) -> None:
        """Check what concerns more than one field; subclasses fill this in."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Make one from plain data, such as a TOML or JSON file holds.

        Parameters
        ----------
        data : mapping
            Fields by name; those that are left out take their defaults. A time whose field ends
            in ``_ns`` may stand without this, as text with its unit: ``duration = "24h"``.

        Raises
        ------
        InvalidValueError, InvalidTypeError
            An unknown field, or a value that its field does not accept.
        """
        if not isinstance(data, Mapping):
            raise InvalidTypeError(f"{_a(cls.WHAT)} must be a table of fields, not {data!r:.80}")
        known = fields_of(cls)
        given: dict[str, Any] = {}
        for key, value in data.items():
            given[_field_name(cls, key, value, data)] = value
        missing = [
            name
            for name, field in known.items()
            if name not in given
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        ]
        if missing:
            refuse(f"{_a(cls.WHAT)} must have {_a(missing[0])}, got {dict(data)!r:.80}", missing[0])
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """Give plain data: numbers, texts, lists and tables; `from_dict` gives an equal one.

        Fields that have their default are left out.
        """
        made: dict[str, Any] = {}
        for name, field in fields_of(type(self)).items():
            value = getattr(self, name)
            if field.default is not dataclasses.MISSING and value == field.default:
                continue
            made[name] = _plain(value)
        return made

    def replace(self, **changes: Any) -> Self:
        """Give one with other values in some fields."""
        return typing.cast(Self, dataclasses.replace(typing.cast(Any, self), **changes))


def fields_of(cls: type[Spec]) -> dict[str, dataclasses.Field[Any]]:
    """Give the fields of a class by name, in order."""
    if cls not in _FIELDS:
        _FIELDS[cls] = {each.name: each for each in dataclasses.fields(typing.cast(Any, cls))}
    return _FIELDS[cls]


def _field_name(cls: type[Spec], key: Any, value: Any, data: Mapping[str, Any]) -> str:
    """Find the field that a key of a file means."""
    known = fields_of(cls)
    if key in known:
        return str(key)
    label = data.get("name", "")
    if isinstance(key, str) and key + TIME in known:
        if key + TIME in data:
            refuse(f"{_a(cls.WHAT)} must have one of {key} and {key}{TIME}, not both", key)
        if not isinstance(value, str):
            raise blame(
                InvalidTypeError(
                    f'{key} of {cls.WHAT} must be text with a unit, such as "10ms" '
                    f"(or {key}{TIME}, a whole number), not {value!r:.80}"
                ),
                key,
            )
        return key + TIME
    near = difflib.get_close_matches(str(key), known, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    refuse(
        f"{_a(cls.WHAT)} has no field {str(key)!r:.80} ({label!r:.80}); "
        f"there are {', '.join(known)}{hint}",
        str(key),
    )


def _a(word: str) -> str:
    return f"an {word}" if word.startswith(("a", "e", "i", "o", "u", "HA")) else f"a {word}"


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.to_dict()
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in value]
    if isinstance(value, Enum):
        return value.value
    return value
