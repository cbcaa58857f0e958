"""Plain data as the text of a TOML file, exactly: `tomllib` gives equal data back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pyvirt.errors import InvalidTypeError

__all__ = ["write_toml"]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def write_toml(data: Mapping[str, Any]) -> str:
    """Write a table.

    Parameters
    ----------
    data : mapping of str to object
        Texts, numbers, booleans, lists of those, tables, and lists of tables.

    Raises
    ------
    InvalidTypeError
        Something else.
    """
    return "".join(f"{line}\n" for line in _table(data, ())).lstrip("\n")


def _table(data: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """Write what is not a table first, since what follows a header is of that table."""
    below: list[tuple[str, Any]] = []
    for key, value in data.items():
        if _is_below(value):
            below.append((key, value))
        else:
            yield f"{_key(key)} = {_value(value)}"
    for key, value in below:
        inner = (*path, key)
        header = ".".join(map(_key, inner))
        if isinstance(value, Mapping):
            if not value or not all(map(_is_below, value.values())):  # else those below name it
                yield from ("", f"[{header}]")
            yield from _table(value, inner)
            continue
        for one in value:
            yield from ("", f"[[{header}]]")
            yield from _table(one, inner)


def _is_below(value: Any) -> bool:
    """Say whether a value is a table or tables, under headers of their own."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(one, Mapping) for one in value)
    return isinstance(value, Mapping)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)  # the shortest digits that read as the same number
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    raise InvalidTypeError(f"a TOML file cannot hold {value!r:.80}")


def _text(text: str) -> str:
    return '"' + "".join(_ESCAPES.get(c) or _letter(c) for c in text) + '"'


def _letter(letter: str) -> str:
    control = letter < " " or letter == "\x7f"
    return f"\\u{ord(letter):04x}" if control else letter
