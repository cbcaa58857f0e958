"""Tables of a TOML file, read key by key; what is wrong is told with its line and key."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, TypeVar

from pyvirt.errors import InvalidTypeError, InvalidValueError, PyvirtError
from pyvirt.units import parse_time

__all__ = ["Fields", "key_lines"]

T = TypeVar("T")
Path = tuple[str | int, ...]

_STRING = r'"(?:[^"\\]|\\.)*"' + r"|'[^']*'"
_KEY = rf"(?:[A-Za-z0-9_-]+|{_STRING})"
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]\]?")
_ASSIGN = re.compile(rf"\s*({_DOTTED})\s*=")
_LONG = re.compile(r'""".*?(?:"""|\Z)' + r"|'''.*?(?:'''|\Z)", re.DOTALL)


class Fields:
    """One table of a file. Each key is asked for once; `finish` refuses the others.

    Parameters
    ----------
    values : mapping
        What the table holds.
    source : str
        The file's name, for messages.
    path : tuple
        Keys and numbers that lead to the table.
    lines : dict
        From `key_lines`.
    """

    def __init__(
        self, values: Mapping[str, Any], source: str, path: Path, lines: Mapping[Path, int]
    ) -> None:
        self._values = values
        self._source = source
        self._path = path
        self._lines = lines
        self._asked: dict[str, None] = {}

    @classmethod
    def parse(cls, text: str, source: str) -> Fields:
        """Read a whole file.

        Raises
        ------
        InvalidValueError
            For what is no TOML.
        """
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InvalidValueError(f"{source}: {error}") from None
        return cls(values, source, (), key_lines(text))

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def name(self, key: str | None = None) -> str:
        """Give file, line and key as messages show them."""
        path = self._path if key is None else (*self._path, key)
        place = path
        while place and place not in self._lines:
            place = place[:-1]
        line = f":{self._lines[place]}" if place else ""
        dotted = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
        return f"{self._source}{line}: {dotted.lstrip('.')}".strip(": ")

    def refuse(self, key: str | None, accepted: str) -> NoReturn:
        """Say that the value of a key is not what is accepted."""
        value = self._values if key is None else self._values.get(key)
        raise InvalidValueError(f"{self.name(key)} must be {accepted}, got {value!r:.80}")

    def said(self, key: str | None, call: Callable[[], T]) -> T:
        """Call something, and name the key in what it finds wrong."""
        try:
            return call()
        except PyvirtError as error:
            raise InvalidValueError(f"{self.name(key)}: {error}") from None

    def _get(self, key: str, needed: str | None = None) -> Any:
        self._asked[key] = None
        if needed is not None and key not in self._values:
            place = self.name() if self._path else self._source
            near = difflib.get_close_matches(key, self._values, 1)
            hint = f"; it has {near[0]!r}" if near else ""
            raise InvalidValueError(f"{place} lacks {key!r}, {needed}{hint}")
        return self._values.get(key)

    # --- values of a kind; None where the key is not there ---

    def text(self, key: str, needed: str | None = None) -> str | None:
        """Give text."""
        value = self._get(key, needed)
        if value is not None and (not isinstance(value, str) or not value):
            self.refuse(key, "text")
        return value

    def choice(self, key: str, accepted: Iterable[str], needed: str | None = None) -> str | None:
        """Give one of some names; the message for another has the nearest of them."""
        value = self._get(key, needed)
        if value is not None and value not in tuple(accepted):
            near = difflib.get_close_matches(str(value), tuple(accepted), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InvalidValueError(
                f"{self.name(key)} must be one of {', '.join(accepted)}, got {value!r:.80}{hint}"
            )
        return value

    def integer(self, key: str, least: int, most: int, needed: str | None = None) -> int | None:
        """Give an integer within bounds."""
        value = self._get(key, needed)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            self.refuse(key, f"an integer from {least:,} to {most:,}")
        return value

    def number(self, key: str, needed: str | None = None) -> float | None:
        """Give a number."""
        value = self._get(key, needed)
        if value is not None and (not isinstance(value, (int, float)) or isinstance(value, bool)):
            self.refuse(key, "a number")
        return value

    def flag(self, key: str) -> bool:
        """Give true or false; false where the key is not there."""
        value = self._get(key)
        if value is not None and not isinstance(value, bool):
            self.refuse(key, "true or false")
        return bool(value)

    def time(self, key: str, least: int = 1, needed: str | None = None) -> int | None:
        """Give nanoseconds, of text with a unit."""
        value = self._get(key, needed)
        if value is None:
            return None
        try:
            ns = parse_time(value, self.name(key))
        except InvalidTypeError as error:
            raise InvalidValueError(str(error)) from None
        if ns < least:
            self.refuse(key, f"at least {least} ns")
        return ns

    def raw(self, key: str, needed: str | None = None) -> Any:
        """Give whatever is there."""
        return self._get(key, needed)

    def table(self, key: str) -> Fields | None:
        """Give a table."""
        value = self._get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.refuse(key, "a table")
        return Fields(value, self._source, (*self._path, key), self._lines)

    def tables(self, key: str, needed: str | None = None) -> list[Fields]:
        """Give an array of tables."""
        value = self._get(key, needed)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            self.refuse(key, f"tables, each under [[{key}]]")
        return [
            Fields(each, self._source, (*self._path, key, i), self._lines)
            for i, each in enumerate(value)
        ]

    def finish(self, what: str) -> None:
        """Refuse keys that nobody asked for; `what` is what the table describes."""
        for key in self._values:
            if key not in self._asked:
                near = difflib.get_close_matches(key, self._asked, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(self._asked)}"
                raise InvalidValueError(f"{self.name(key)}: {what} has no {key!r:.80}; {hint}")


def key_lines(text: str) -> dict[Path, int]:
    """Give the line of each key and table of a TOML file, by its path.

    Keys within inline tables and arrays have none: they stand on the line of what holds them.
    """
    # What long strings hold is no key; their line ends stay.
    text = _LONG.sub(lambda found: '"' + "\n" * found[0].count("\n") + '"', text)
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    depth = 0
    for number, line in enumerate(text.splitlines(), 1):
        found = None if depth else _HEADER.match(line)
        if found:
            table = _resolve(_keys(found[2]), counts)
            if found[1] == "[[":
                lines.setdefault(table, number)
                counts[table] = counts.get(table, -1) + 1
                table = (*table, counts[table])
            lines.setdefault(table, number)
            continue
        found = None if depth else _ASSIGN.match(line)
        if found:
            path = (*table, *_keys(found[1]))
            for end in range(len(table) + 1, len(path) + 1):
                lines.setdefault(path[:end], number)
            line = line[found.end() :]
        plain = re.sub(rf"{_STRING}|#.*", "", line)
        depth += sum(plain.count(c) for c in "[{") - sum(plain.count(c) for c in "]}")
    return lines


def _keys(dotted: str) -> Path:
    return tuple(key.strip("\"'") for key in re.findall(_KEY, dotted))


def _resolve(keys: Path, counts: Mapping[Path, int]) -> Path:
    """Put the numbers of the latest elements into a header's path."""
    path: Path = ()
    for i, key in enumerate(keys):
        path = (*path, key)
        if i < len(keys) - 1 and path in counts:
            path = (*path, counts[path])
    return path
