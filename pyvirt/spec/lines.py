"""On which line of a TOML file a key stands."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["Path", "key_lines", "place"]

Path = tuple[str | int, ...]

_STRING = r'"(?:[^"\\]|\\.)*"' + r"|'[^']*'"
_KEY = rf"(?:[A-Za-z0-9_-]+|{_STRING})"
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]\]?")
_ASSIGN = re.compile(rf"\s*({_DOTTED})\s*=")
_LONG = re.compile(r'""".*?(?:"""|\Z)' + r"|'''.*?(?:'''|\Z)", re.DOTALL)


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


def place(source: str, path: Path, lines: Mapping[Path, int]) -> str:
    """Give file, line and key as messages show them; the line of what holds the key will do."""
    known = path
    while known and known not in lines:
        known = known[:-1]
    line = f":{lines[known]}" if known else ""
    dotted = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return f"{source}{line}: {dotted.lstrip('.')}".strip(": ")
