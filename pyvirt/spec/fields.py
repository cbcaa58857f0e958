"""Fields of specifications: what each accepts, in a parser and in a JSON schema."""

from __future__ import annotations

import dataclasses
import difflib
import operator
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, NoReturn

from pyvirt.errors import InvalidTypeError, InvalidValueError, PyvirtError
from pyvirt.units import parse_frequency, parse_size, parse_time

if TYPE_CHECKING:
    from pyvirt.spec.base import Spec

__all__ = [
    "blame",
    "check_text",
    "choose",
    "count",
    "flag",
    "fraction",
    "frequency",
    "label",
    "make_field",
    "names",
    "nbytes",
    "number",
    "one_of",
    "part",
    "parts",
    "refuse",
    "share",
    "some_of",
    "text",
    "time",
]

#: The largest whole number that a double, and so any reader of JSON, has exactly.
MOST = 2**53 - 1
MOST_SHARES = 10**15
LEVELS = ("low", "normal", "high")
SIZE = r"^\s*(0[xX][0-9a-fA-F]+|[0-9]+(\.[0-9]+)?)\s*([bB]|[kKmMgGtTpPeE]([iI][bB])?)?\s*$"


Parser = Callable[[Any, str], Any]
Schema = dict[str, Any]


# --- what went wrong, and where ---------------------------------------------------------------


def blame(error: PyvirtError, *path: str | int) -> PyvirtError:
    """Say in an error below which keys its cause is; readers of files show them."""
    error.__dict__["path"] = (*path, *error.__dict__.get("path", ()))
    return error


def refuse(message: str, *path: str | int) -> NoReturn:
    """Raise an error of a value at a path of keys."""
    raise blame(InvalidValueError(message), *path)


# --- numbers with units ------------------------------------------------------------------------


def nbytes(default: int | None = 0, *, least: int = 0, optional: bool = False) -> Any:
    """A field of bytes: a whole number, or text as ``"4GiB"``."""
    schema = _either(_integer(least, MOST), SIZE)
    return make_field(default, parse_size, least, MOST, optional, schema)


def time(default: int | None = 0, *, least: int = 0, optional: bool = False) -> Any:
    """A field of nanoseconds: a whole number, or text as ``"10ms"``."""
    schema = _either(_integer(least, MOST), r"^\s*[0-9]+(\.[0-9]+)?\s*(ns|us|ms|s|min|h)\s*$")
    return make_field(default, _time, least, MOST, optional, schema)


def frequency(default: float | None = 0.0, *, least: float = 0.0, optional: bool = False) -> Any:
    """A field of MHz: a number, or text as ``"2.6GHz"``."""
    most = MOST / 1000
    schema = _either(
        {"type": "number", "minimum": least, "maximum": most},
        r"^\s*[0-9]+(\.[0-9]+)?\s*([kKmMgG]?[hH][zZ])\s*$",
    )
    return make_field(default, _frequency, least, most, optional, schema)


def count(
    default: int | None = 0, *, least: int = 0, most: int = MOST, optional: bool = False
) -> Any:
    """A field of a whole number."""
    return make_field(default, _whole, least, most, optional, _integer(least, most))


def number(
    default: float | None = 0.0,
    *,
    least: float = 0.0,
    most: float = 1e15,
    optional: bool = False,
) -> Any:
    """A field of a number."""
    schema = {"type": "number", "minimum": least, "maximum": most}
    return make_field(default, _number, least, most, optional, schema)


def fraction(default: float | None = 0.0, *, optional: bool = False) -> Any:
    """A field of a number from 0 to 1."""
    return number(default, most=1.0, optional=optional)


# --- words -------------------------------------------------------------------------------------


def label() -> Any:
    """A field of a name: text that must be there, and is not empty."""

    def parse(value: Any, what: str) -> str:
        made = check_text(value, what)
        if not made or any(ord(letter) < 32 for letter in made):
            raise InvalidValueError(
                f"{what} must be text that is not empty and has no control characters, "
                f"got {value!r:.80}"
            )
        return made

    schema = {"type": "string", "pattern": r"^[^\u0000-\u001f]+$"}
    return make_field(None, parse, None, None, False, schema)


def text(default: str = "") -> Any:
    """A field of any text."""
    return make_field(default, check_text, None, None, False, {"type": "string"})


def flag(default: bool | None, *, optional: bool = False) -> Any:
    """A field that is true or false."""
    return make_field(default, _flag, None, None, optional, {"type": "boolean"})


def one_of(
    default: Any,
    choices: tuple[Any, ...],
    *,
    also: Mapping[str, Any] | None = None,
    optional: bool = False,
) -> Any:
    """A field that is one of some words or numbers; `also` are other words for them."""
    others = dict(also or {})

    def parse(value: Any, what: str) -> Any:
        known = others.get(value, value) if isinstance(value, str) else value
        return choose(known, choices, what)

    schema = {"enum": [*choices, *others]}
    return make_field(default, parse, None, None, optional, schema)


def some_of(choices: tuple[str, ...]) -> Any:
    """A field of some of some words, each once."""

    def parse(value: Any, what: str) -> tuple[str, ...]:
        return tuple(choose(one, choices, f"each of {what}") for one in _names(value, what))

    schema = {"type": "array", "items": {"enum": list(choices)}, "uniqueItems": True}
    return make_field((), parse, None, None, False, schema)


def share(default: str | None = "normal", *, optional: bool = False) -> Any:
    """A field of shares: a number, or the level ``"low"``, ``"normal"`` or ``"high"``."""
    schema = {"anyOf": [_integer(0, MOST_SHARES), {"enum": list(LEVELS)}]}
    return make_field(default, _shares, None, None, optional, schema)


def names(default: tuple[str, ...] = ()) -> Any:
    """A field of names, each once."""
    schema = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
    return make_field(default, _names, None, None, False, schema)


# --- specifications in specifications -----------------------------------------------------------


def part(kind: type[Spec], *, default: Spec | None = None, optional: bool = True) -> Any:
    """A field of one specification; or none, or with a default."""

    def parse(value: Any, what: str) -> Spec:
        if isinstance(value, kind):
            return value
        if isinstance(value, Mapping):
            return kind.from_dict(value)
        if kind.SHORT and (isinstance(value, str) or not hasattr(value, "__iter__")):
            return kind.from_dict({kind.SHORT: value})
        raise InvalidTypeError(
            f"{what} must be a table of fields of {kind.__name__}, not {value!r:.80}"
        )

    return make_field(default, parse, None, None, optional, {"spec": kind})


def parts(kind: type[Spec], *, named: bool = True) -> Any:
    """A field of specifications of one kind, whose names differ."""

    def parse(value: Any, what: str) -> tuple[Spec, ...]:
        if isinstance(value, (str, Mapping)) or not hasattr(value, "__iter__"):
            raise InvalidTypeError(f"{what} must be a list of {kind.__name__}, not {value!r:.80}")
        made: list[Spec] = []
        seen: set[str] = set()
        for at, one in enumerate(value):
            try:
                made.append(one if isinstance(one, kind) else kind.from_dict(one))
            except (InvalidValueError, InvalidTypeError) as error:
                raise blame(error, at) from error.__cause__
            if not named:
                continue
            label = getattr(made[-1], "name", "")
            if label in seen:
                refuse(f"{what} must differ in name, two are {label!r:.80}", at, "name")
            seen.add(label)
        return tuple(made)

    return make_field((), parse, None, None, False, {"specs": kind})


# --- parsers -----------------------------------------------------------------------------------


def choose(value: Any, choices: Iterable[Any], what: str) -> Any:
    """Check that a value is one of some, and hint at the nearest."""
    accepted = tuple(choices)
    value = value.value if isinstance(value, Enum) else value
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        for one in accepted:
            if one == value:
                return one
    words = [str(one) for one in accepted]
    near = difflib.get_close_matches(value, words, 1) if isinstance(value, str) else []
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InvalidValueError(f"{what} must be one of {', '.join(words)}, got {value!r:.80}{hint}")


def check_text(value: Any, what: str) -> str:
    """Check that a value is text that a file can hold."""
    if not isinstance(value, str):
        raise InvalidTypeError(f"{what} must be text, not {value!r:.80}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidValueError(
            f"{what} must be text in Unicode, without lone surrogates, got {value!r:.80}"
        ) from None
    return str(value)


def check_range(value: Any, least: Any, most: Any, what: str) -> None:
    """Check a number's bounds; None: it has none."""
    if least is None or not isinstance(value, (int, float)):
        return
    if not least <= value <= most:
        ends = ", ".join(str(one) if isinstance(one, int) else f"{one:g}" for one in (least, most))
        raise InvalidValueError(f"{what} must be in [{ends}], got {value!r}")


def make_field(
    default: Any, parse: Parser, least: Any, most: Any, optional: bool, schema: Schema
) -> Any:
    """Make a field of a kind of its own.

    Parameters
    ----------
    default : object
        None: the field must be given, unless it is optional.
    parse : callable
        Takes a value and what it is for messages; gives the value as it is kept, or raises.
    least, most : number or None
        Bounds of what is kept; None: it has none.
    optional : bool
        Whether None is accepted.
    schema : dict
        A JSON schema of what is accepted.
    """
    metadata = {
        "parse": parse,
        "least": least,
        "most": most,
        "optional": optional,
        "schema": schema,
    }
    if default is None and not optional:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def _integer(least: int, most: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most}


def _either(plain: Schema, pattern: str) -> Schema:
    return {"anyOf": [plain, {"type": "string", "pattern": pattern}]}


def _whole(value: Any, what: str) -> int:
    if isinstance(value, (bool, str)):
        raise InvalidTypeError(f"{what} must be a whole number, not {value!r:.80}")
    try:
        return operator.index(value)
    except TypeError as error:
        raise InvalidTypeError(f"{what} must be a whole number, not {value!r:.80}") from error


def _number(value: Any, what: str) -> float:
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise InvalidTypeError(f"{what} must be a number, not {value!r:.80}")
    # Zero has one sign, so that what is equal is written alike.
    return float(value) + 0.0


def _frequency(value: Any, what: str) -> float:
    return parse_frequency(value, what) + 0.0


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
        if value not in LEVELS:
            raise InvalidValueError(
                f'{what} must be a number, "low", "normal" or "high", got {value!r:.80}'
            )
        return value
    made = _whole(value, what)
    check_range(made, 0, MOST_SHARES, what)
    return made


def _names(value: Any, what: str) -> tuple[str, ...]:
    if isinstance(value, (str, Mapping)) or not hasattr(value, "__iter__"):
        raise InvalidTypeError(f"{what} must be a list of names, not {value!r:.80}")
    made = tuple(check_text(one, f"each of {what}") for one in value)
    if len(set(made)) < len(made):
        twice = next(one for one in made if made.count(one) > 1)
        raise InvalidValueError(f"{what} must name each once, two are {twice!r:.80}")
    return made
