"""Traces as lines of text: valgrind's lackey, Dinero, CSV."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pyvirt._core import lines
from pyvirt.traces.codec import Bytes, Decoder, Encoder, Step, as_bytes
from pyvirt.traces.events import Events, Op
from pyvirt.traces.sources import Piece

__all__ = [
    "COLUMNS",
    "CsvDecoder",
    "CsvEncoder",
    "DinDecoder",
    "DinEncoder",
    "LackeyDecoder",
    "LackeyEncoder",
    "csv_columns",
]

COLUMNS = ("op", "size", "vcpu", "arg", "addr", "value")
"""Of CSV files, in the order of a file without a heading."""

_LONGEST = 60  # of a line, in messages
_FULL = 1
_NAME = 16  # bytes of an operation's name, padded
_NUMBERS = bytes(Op)
_SMALL = np.zeros((len(Op), _NAME), np.uint8)  # names as the parser looks them up
_LARGE = np.zeros((256, _NAME), np.uint8)  # and as the writer writes them
for _i, _op in enumerate(Op):
    _name = _op.name.encode()
    _SMALL[_i, : len(_name)] = np.frombuffer(_name.lower(), np.uint8)
    _LARGE[_op, : len(_name)] = np.frombuffer(_name, np.uint8)


class _LinesDecoder(Decoder):
    """Counts lines and words what is wrong with one.

    Parameters
    ----------
    arg : int
        For accesses, where the format does not say.
    """

    unit = "line"
    what: ClassVar[str]

    def __init__(self, arg: int = 0) -> None:
        self._arg = arg

    def _step(self, data: Piece, done: tuple[int, int, int, int, int]) -> Step:
        status, used, made, count, skipped = done
        self.records += count
        self.skipped += skipped
        if status <= _FULL:
            return Step(used, made, status == _FULL)
        line = bytes(data[used : used + _LONGEST + 1]).partition(b"\n")[0]
        shown = line[:_LONGEST].decode("ascii", "backslashreplace").rstrip("\r")
        why = {
            2: f"is not {self.what}",
            3: "has a number that is none, or too large for its field",
            4: f"has an operation that {self.what} does not have",
            5: "has another number of columns than the first line",
            6: "has a size above 65535, or above 255 for what is no access",
        }[status]
        return Step(used, made, problem=f"{shown!r} {why}")


class LackeyDecoder(_LinesDecoder):
    """Lines of ``valgrind --tool=lackey --trace-mem=yes``."""

    what = "a line of lackey (give valgrind --log-file, to keep the program's output out)"

    def decode(self, data: Piece, out: Events, last: bool) -> Step:
        """Decode whole lines."""
        return self._step(data, lines.parse_lackey(data, as_bytes(out), last, self._arg))


class DinDecoder(_LinesDecoder):
    """Lines of Dinero: label and hexadecimal address, or letter, address and size."""

    what = "a line of din"

    def decode(self, data: Piece, out: Events, last: bool) -> Step:
        """Decode whole lines."""
        return self._step(data, lines.parse_din(data, as_bytes(out), last, self._arg))


def csv_columns(line: bytes) -> tuple[str, ...] | None:
    """Tell the columns from the first line of a CSV file.

    Parameters
    ----------
    line : bytes
        The first that is not empty and no comment.

    Returns
    -------
    tuple of str or None
        Names, or None where the line is a row and not a heading.
    """
    names = tuple(
        word.strip().strip('"').lower() for word in line.decode("ascii", "replace").split(",")
    )
    if "addr" in names and set(names) <= set(COLUMNS) and len(set(names)) == len(names):
        return names
    return None


def _names_something(line: bytes) -> bool:
    """Tell a heading, with whatever names, from a row."""
    words = [word.strip().upper() for word in line.decode("ascii", "replace").split(",")]
    return any(word[:1].isalpha() and word not in Op.__members__ for word in words)


class CsvDecoder(_LinesDecoder):
    """Rows with the fields of events; the heading may name some of them in any order."""

    what = "a trace of pyvirt"

    def __init__(self) -> None:
        super().__init__()
        self._kinds = b""

    def decode(self, data: Piece, out: Events, last: bool) -> Step:
        """Decode whole lines, of which the first one tells the columns."""
        start = 0
        while not self._kinds:
            end = bytes(data[start : start + (1 << 16)]).find(b"\n") + start
            if end < start:
                if not last:
                    return Step(start, 0)
                end = len(data)
            if start == len(data):
                return Step(start, 0)
            line = bytes(data[start:end]).removeprefix(b"\xef\xbb\xbf").strip()
            if not line or line.startswith(b"#"):
                start = min(end + 1, len(data))
                self.records += 1
                continue
            columns = csv_columns(line)
            if columns is not None:
                start = min(end + 1, len(data))
                self.records += 1
            elif _names_something(line):
                problem = f"its columns must be among {', '.join(COLUMNS)}, with addr"
                return Step(start, 0, problem=problem)
            else:
                columns = ("addr",) if b"," not in line else COLUMNS
            self._kinds = bytes(COLUMNS.index(name) for name in columns)
        rest = memoryview(data)[start:]
        done = lines.parse_csv(rest, as_bytes(out), last, self._kinds, _SMALL, _NUMBERS)
        step = self._step(rest, done)
        return step._replace(used=step.used + start)


class LackeyEncoder(Encoder):
    """Accesses as lackey writes them; which vCPU they are of is lost."""

    def encode(self, events: Events) -> Bytes:
        """Write lines."""
        return lines.format_lackey(as_bytes(events))


class DinEncoder(Encoder):
    """Accesses as Dinero reads them; sizes are lost, and MODIFY is a read and a write."""

    def encode(self, events: Events) -> Bytes:
        """Write lines."""
        return lines.format_din(as_bytes(events))


class CsvEncoder(Encoder):
    """All fields of all events."""

    accesses_only = False
    vcpus = True

    def begin(self) -> bytes:
        """Write the heading."""
        return ",".join(COLUMNS).encode() + b"\n"

    def encode(self, events: Events) -> Bytes:
        """Write rows; operations without a name are refused before."""
        return lines.format_csv(as_bytes(events), _LARGE)
