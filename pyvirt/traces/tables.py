"""Text files of tables: their bytes, their headings, their columns as arrays."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pyvirt._core.cells import Keys, count_lines, parse_cells
from pyvirt.errors import TraceFormatError
from pyvirt.traces.sources import Source

__all__ = [
    *("KEY", "NUMBER", "OPTIONAL", "SKIP"),
    *("Table", "first_line", "line_of_row", "parse", "text_of"),
]

SKIP, NUMBER, OPTIONAL, KEY = range(4)
"""What is in a column: anything, a number, a number or nothing, a text that names something."""

_WORDS = {
    1: "is no number",
    2: "must be finite",
    3: "has another number of columns than {columns}",
    4: "is empty",
}


class Table(NamedTuple):
    """The columns of a file that were asked for."""

    numbers: npt.NDArray[np.float64]
    """Shape (columns, rows)."""
    codes: npt.NDArray[np.int64]
    """Numbers of keys, shape (columns, rows)."""


def text_of(path: Path) -> memoryview:
    """Give the bytes of a file: mapped, or expanded in memory if it is compressed."""
    source = Source(path)
    try:
        if (mapping := source.mapping()) is not None:
            if hasattr(mmap, "MADV_SEQUENTIAL") and isinstance(mapping.obj, mmap.mmap):
                mapping.obj.madvise(mmap.MADV_SEQUENTIAL)
            return mapping
        return memoryview(b"".join(source.pieces()))
    finally:
        source.close()


def first_line(text: memoryview) -> tuple[str, int]:
    """Give the first line that is not empty, and where the next one begins."""
    start = 0
    while start < len(text):
        chunk = bytes(text[start : start + (1 << 16)])
        line, newline, _ = chunk.partition(b"\n")
        after = start + len(line) + len(newline)
        if line.strip():
            return line.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").strip(), after
        start = after
    return "", start


def parse(
    where: str | os.PathLike[str],
    text: memoryview,
    separator: str,
    kinds: Sequence[int],
    keys: Sequence[Keys] = (),
    *,
    start: int = 0,
    columns: Sequence[str] = (),
) -> Table:
    """Read the rows of a table.

    Parameters
    ----------
    where : path
        For messages.
    text : memoryview
        All of the file.
    separator : str
        One character.
    kinds : sequence of int
        `SKIP`, `NUMBER`, `OPTIONAL` or `KEY` for each column.
    keys : sequence of Keys
        For each column of kind `KEY`; further files may go on with them.
    start : int, default 0
        Where the rows begin.
    columns : sequence of str
        Names of the columns, for messages.

    Returns
    -------
    Table

    Raises
    ------
    TraceFormatError
        With file, line and column.
    """
    skipped = count_lines(text[:start])
    rows = text[start:]
    room = count_lines(rows)
    numbers = np.empty((sum(kind in (NUMBER, OPTIONAL) for kind in kinds), room))
    codes = np.empty((sum(kind == KEY for kind in kinds), room), np.int64)
    status, count, line, column, first, last = parse_cells(
        rows, ord(separator), bytes(kinds), list(keys), numbers, codes
    )
    if status:
        cell = bytes(rows[first : min(last, first + 60)]).decode("utf-8", "backslashreplace")
        what = _WORDS[status].format(columns=len(kinds))
        name = f", {columns[column]}" if columns and status != 3 else ""
        raise TraceFormatError(
            f"{os.fspath(where)}: line {skipped + line + 1}{name}: {cell.strip()!r} {what}"
        )
    return Table(numbers[:, :count], codes[:, :count])


def line_of_row(text: memoryview, start: int, row: int) -> int:
    """Find the line of a row, for a message; from 1 on."""
    number = count_lines(text[:start])
    for line in bytes(text[start:]).split(b"\n"):
        number += 1
        if line.strip(bytes(range(33))):
            if row == 0:
                return number
            row -= 1
    return number
