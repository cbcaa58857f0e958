"""Tables of a TOML file, read key by key; what is wrong is told with its line and key."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, TypeVar

from pyvirt.errors import InvalidTypeError, InvalidValueError, PyvirtError
from pyvirt.spec.lines import Path, key_lines, place
from pyvirt.units import parse_time

__all__ = ["Fields", "key_lines"]

T = TypeVar("T")


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
        return place(self._source, path, self._lines)

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
