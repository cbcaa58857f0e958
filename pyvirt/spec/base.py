"""What all specifications share: checked fields, units at the edge, plain data and back."""

from __future__ import annotations

import dataclasses
import math
import operator
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, ClassVar, Self

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.units import parse_frequency, parse_size, parse_time

__all__ = ["Spec", "count", "flag", "frequency", "names", "parts", "share", "size", "time"]

MOST = 2**53 - 1

Parser = Callable[[Any, str], Any]


def size(default: int | None = 0, *, least: int = 0, optional: bool = False) -> Any:
    """A field of bytes: a whole number, or text as ``"4GiB"``."""
    return _field(default, parse_size, least, MOST, optional)


def time(default: int | None = 0, *, least: int = 0, optional: bool = False) -> Any:
    """A field of nanoseconds: a whole number, or text as ``"10ms"``."""
    return _field(default, _time, least, MOST, optional)


def frequency(default: float | None = 0.0, *, least: float = 0.0, optional: bool = False) -> Any:
    """A field of MHz: a number, or text as ``"2.6GHz"``."""
    return _field(default, parse_frequency, least, MOST / 1000, optional)


def count(
    default: int | None = 0, *, least: int = 0, most: int = MOST, optional: bool = False
) -> Any:
    """A field of a whole number."""
    return _field(default, _whole, least, most, optional)


def flag(default: bool) -> Any:
    """A field that is true or false."""
    return _field(default, _flag, None, None, False)


def share() -> Any:
    """A field of shares: a number, or the level ``"low"``, ``"normal"`` or ``"high"``."""
    return _field("normal", _shares, None, None, False)


def names(default: tuple[str, ...] = ()) -> Any:
    """A field of names, each once."""
    return _field(default, _names, None, None, False)


def parts(kind: type[Spec]) -> Any:
    """A field of specifications of one kind, whose names differ."""

    def parse(value: Any, what: str) -> tuple[Spec, ...]:
        if isinstance(value, (str, Mapping)) or not hasattr(value, "__iter__"):
            raise InvalidTypeError(f"{what} must be a list of {kind.__name__}, not {value!r:.80}")
        made = tuple(one if isinstance(one, kind) else kind.from_dict(one) for one in value)
        seen: set[str] = set()
        for one in made:
            name = getattr(one, "name", "")
            if name in seen:
                raise InvalidValueError(f"{what} must differ in name, two are {name!r:.80}")
            seen.add(name)
        return made

    return _field((), parse, None, None, False)


class Spec:
    """A frozen description of something, checked when it is made.

    Subclasses are frozen dataclasses whose fields come from this module's functions.
    """

    WHAT: ClassVar[str] = "specification"

    def __post_init__(self) -> None:
        fields = typing.cast(Any, self).__dataclass_fields__
        label = getattr(self, "name", None)
        whose = f"{self.WHAT} {label!r:.80}" if isinstance(label, str) and label else self.WHAT
        for name, field in fields.items():
            value = getattr(self, name)
            what = f"{name} of {whose}"
            parse = field.metadata.get("parse")
            if parse is None:
                checked = _text(value, what)
            elif value is None and field.metadata["optional"]:
                continue
            else:
                checked = parse(value, what)
                _check_range(checked, field.metadata["least"], field.metadata["most"], what)
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
            Fields by name; those that are left out take their defaults.

        Raises
        ------
        InvalidValueError, InvalidTypeError
            An unknown field, or a value that its field does not accept.
        """
        if not isinstance(data, Mapping):
            raise InvalidTypeError(f"a {cls.WHAT} must be a table of fields, not {data!r:.80}")
        known = typing.cast(Any, cls).__dataclass_fields__
        unknown = sorted(str(key) for key in set(data) - set(known))
        if unknown:
            label = data.get("name", "")
            raise InvalidValueError(
                f"a {cls.WHAT} has no field {unknown[0]!r:.80} ({label!r:.80}); "
                f"there are {', '.join(known)}"
            )
        missing = [
            name
            for name, field in known.items()
            if name not in data
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        ]
        if missing:
            raise InvalidValueError(
                f"a {cls.WHAT} must have a {missing[0]}, got {dict(data)!r:.80}"
            )
        return cls(**data)

    def to_dict(self) -> dict[str, Any]:
        """Give plain data: numbers, texts, lists and tables; `from_dict` gives an equal one.

        Fields that have their default are left out.
        """
        made: dict[str, Any] = {}
        for name, field in typing.cast(Any, self).__dataclass_fields__.items():
            value = getattr(self, name)
            if field.default is not dataclasses.MISSING and value == field.default:
                continue
            made[name] = _plain(value)
        return made

    def replace(self, **changes: Any) -> Self:
        """Give one with other values in some fields."""
        return typing.cast(Self, dataclasses.replace(typing.cast(Any, self), **changes))


def _field(default: Any, parse: Parser, least: Any, most: Any, optional: bool) -> Any:
    metadata = {"parse": parse, "least": least, "most": most, "optional": optional}
    if default is None and not optional:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.to_dict()
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in value]
    if isinstance(value, Enum):
        return value.value
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise InvalidTypeError(f"{what} must be text, not {value!r:.80}")
    return value


def _whole(value: Any, what: str) -> int:
    if isinstance(value, (bool, str)):
        raise InvalidTypeError(f"{what} must be a whole number, not {value!r:.80}")
    try:
        return operator.index(value)
    except TypeError as error:
        raise InvalidTypeError(f"{what} must be a whole number, not {value!r:.80}") from error


def _time(value: Any, what: str) -> int:
    return parse_time(value, what) if isinstance(value, str) else _whole(value, what)


def _flag(value: Any, what: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidTypeError(f"{what} must be true or false, not {value!r:.80}")
    return value


def _shares(value: Any, what: str) -> int | str:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, str):
        if value not in ("low", "normal", "high"):
            raise InvalidValueError(
                f'{what} must be a number, "low", "normal" or "high", got {value!r:.80}'
            )
        return value
    number = _whole(value, what)
    _check_range(number, 0, 10**15, what)
    return number


def _names(value: Any, what: str) -> tuple[str, ...]:
    if isinstance(value, (str, Mapping)) or not hasattr(value, "__iter__"):
        raise InvalidTypeError(f"{what} must be a list of names, not {value!r:.80}")
    made = tuple(_text(one, f"each of {what}") for one in value)
    if len(set(made)) < len(made):
        twice = next(one for one in made if made.count(one) > 1)
        raise InvalidValueError(f"{what} must name each once, two are {twice!r:.80}")
    return made


def _check_range(value: Any, least: Any, most: Any, what: str) -> None:
    if least is None or not isinstance(value, (int, float)):
        return
    if not (math.isfinite(value) and least <= value <= most):
        raise InvalidValueError(f"{what} must be in [{least:g}, {most:g}], got {value!r}")
