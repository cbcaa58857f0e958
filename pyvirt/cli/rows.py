"""Write arrays as lines of text, millions a second: plain columns, CSV or JSON.

A line is a row of byte fields of fixed width, filled up with zero bytes that are dropped at
the end. So a block of lines is made by a few array operations, with no loop over its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["Column", "Style", "address", "decimal", "heading", "lines", "mapped"]

Style = Literal["plain", "csv", "json"]
Bytes = npt.NDArray[np.bytes_]
_HEX_PAIR = np.frombuffer(
    b"".join(b"%02x" % value for value in range(256)), dtype=np.uint16
)  # the two digits of every byte, as one number to look up


@dataclass(frozen=True, slots=True)
class Column:
    """A column of text.

    Attributes
    ----------
    name : str
        Its heading, and its key in JSON.
    cells : ndarray of bytes
        Empty where there is no value.
    text : bool
        Whether JSON puts it between quotes.
    right : bool
        Whether plain output aligns it to the right.
    width : int
        Room that plain output keeps for it, so that all blocks of lines agree.
    """

    name: str
    cells: Bytes
    text: bool = True
    right: bool = False
    width: int = 0


def address(
    name: str, values: npt.NDArray[np.uint64], shown: npt.NDArray[np.bool_] | None = None
) -> Column:
    """Write addresses with all 16 digits; only those that are `shown`."""
    digits = _HEX_PAIR[np.ascontiguousarray(values).astype(">u8").view(np.uint8)]
    cells = np.char.add(b"0x", digits.reshape(-1, 8).view("S16").reshape(-1))
    return Column(name, cells if shown is None else np.where(shown, cells, b""))


def mapped(name: str, values: npt.NDArray[Any], text: Callable[[int], str]) -> Column:
    """Write what `text` gives for each number; it is called once for each distinct one."""
    distinct, which = np.unique(values, return_inverse=True)
    table = np.array([text(int(value)).encode() for value in distinct], dtype=np.bytes_)
    if not table.size:
        table = np.array([b""], dtype=np.bytes_)
    return Column(name, table[which.reshape(-1)])


def decimal(
    name: str,
    values: npt.NDArray[Any],
    shown: npt.NDArray[np.bool_] | None = None,
    width: int = 0,
) -> Column:
    """Write numbers; only those that are `shown`."""
    cells = mapped(name, values, str).cells
    return Column(name, cells if shown is None else np.where(shown, cells, b""), False, True, width)


def lines(columns: Sequence[Column], style: Style) -> bytes:
    """Write a block of lines.

    Plain columns are two spaces apart and padded to their headings and widest cells; in JSON
    each line is one object, in which a cell without value is null; in CSV text that holds a
    comma stands between quotes.
    """
    rows = len(columns[0].cells)
    if rows == 0:
        return b""
    parts = {"plain": _plain, "csv": _csv, "json": _json}[style](columns)
    width = sum(part.itemsize for part in parts)
    block = np.empty((rows, width), dtype=np.uint8)
    at = 0
    for part in parts:
        size = part.itemsize
        block[:, at : at + size] = np.ascontiguousarray(part).view(np.uint8).reshape(-1, size)
        at += size
    text: bytes = block[block != 0].tobytes()
    return text


def _constant(text: bytes) -> Bytes:
    """Give one field that is the same in all rows."""
    return np.array([text], dtype=np.bytes_)


def _csv(columns: Sequence[Column]) -> list[Bytes]:
    parts = []
    for i, column in enumerate(columns):
        cells = column.cells
        comma = np.char.find(cells, b",") >= 0 if column.text else np.zeros(0, dtype=bool)
        if comma.any():
            cells = np.where(comma, np.char.add(np.char.add(b'"', cells), b'"'), cells)
        parts += [cells, _constant(b"\n" if i == len(columns) - 1 else b",")]
    return parts


def _json(columns: Sequence[Column]) -> list[Bytes]:
    parts = []
    for i, column in enumerate(columns):
        cells = column.cells
        empty = cells == b""
        if column.text:
            cells = np.char.add(np.char.add(b'"', cells), b'"')
        if empty.any():
            cells = np.where(empty, b"null", cells)
        key = b'%s"%s": ' % (b", " if i else b"{", column.name.encode())
        parts += [_constant(key), cells]
    return [*parts, _constant(b"}\n")]


def _plain(columns: Sequence[Column]) -> list[Bytes]:
    parts = []
    for i, column in enumerate(columns):
        cells = np.where(column.cells == b"", b"-", column.cells)
        last = i == len(columns) - 1
        if not last:
            pad = np.char.rjust if column.right else np.char.ljust
            cells = pad(cells, plain_width(column))
        parts += [cells, _constant(b"\n" if last else b"  ")]
    return parts


def plain_width(column: Column) -> int:
    """Give the width of a plain column."""
    return max(len(column.name), column.cells.itemsize, column.width)


def heading(columns: Sequence[Column], style: Style) -> bytes:
    """Write the line above the rows: none for JSON."""
    if style == "json":
        return b""
    if style == "csv":
        return ",".join(column.name for column in columns).encode() + b"\n"
    cells = [
        column.name.rjust(plain_width(column))
        if column.right
        else column.name.ljust(plain_width(column))
        for column in columns
    ]
    return "  ".join(cells).rstrip().encode() + b"\n"
