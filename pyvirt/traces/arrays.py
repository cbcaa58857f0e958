"""Traces as NumPy files: events, or addresses alone."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np
import numpy.lib.format as npy
import numpy.typing as npt

from pyvirt.traces.codec import Bytes, Decoder, Encoder, Step, as_bytes
from pyvirt.traces.events import EVENT_DTYPE, Events, Op
from pyvirt.traces.sources import Piece

__all__ = ["MAGIC", "NpyDecoder", "NpyEncoder", "npy_header"]

MAGIC = b"\x93NUMPY"
_HEADER = 256  # bytes of what is written: fields and any count fit
_LONGEST_HEADER = 1 << 16


class _Layout(NamedTuple):
    """What a header says, and where it ends."""

    dtype: np.dtype[Any]
    length: int
    start: int


def _read_header(head: bytes, last: bool) -> _Layout | str | None:
    """Read a header; say what is wrong with it; or neither, where it is not complete."""
    if head[: len(MAGIC)] != MAGIC[: len(head)]:
        return "it does not begin with the header of a NumPy file"
    width = {1: 2, 2: 4, 3: 4}.get(head[6] if len(head) > 6 else 1)
    if width is None:
        return f"NumPy files of version {head[6]} are not known"
    start = 8 + width + int.from_bytes(head[8 : 8 + width], "little")
    if len(head) >= 8 + width and start > _LONGEST_HEADER:
        return "its header is too long"
    if len(head) < 8 + width or len(head) < start:
        return "the file ends within its header" if last else None
    file = io.BytesIO(head)
    try:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file)
    except Exception:  # NumPy raises many kinds, some with addresses of objects in their words
        return "its header is damaged"
    wrong = f"it holds an array of shape {shape} and dtype {dtype}, not addresses or events"
    if len(shape) != 1 or shape[0] < 0 or dtype.hasobject or not dtype.itemsize:
        return wrong
    if dtype.names is None:
        return _Layout(dtype, int(shape[0]), start) if dtype.kind in "iu" else wrong
    kinds = {dtype[name].kind for name in dtype.names}
    known = set(dtype.names) <= set(EVENT_DTYPE.names or ())
    return _Layout(dtype, int(shape[0]), start) if known and kinds <= set("iu") else wrong


class NpyDecoder(Decoder):
    """Events as they are; addresses become loads; records with some of the fields get the rest.

    Parameters
    ----------
    arg : int
        For addresses alone.
    """

    def __init__(self, arg: int = 0) -> None:
        self._arg = arg
        self._layout: _Layout | None = None

    def decode(self, data: Piece, out: Events, last: bool) -> Step:
        """Decode the header, then whole elements."""
        start = 0
        if self._layout is None:
            layout = _read_header(bytes(data[:_LONGEST_HEADER]), last)
            if not isinstance(layout, _Layout):
                return Step(0, 0, problem=layout)
            self._layout = layout
            start = layout.start
        size = self._layout.dtype.itemsize
        left = self._layout.length - self.records
        ready = min(left, (len(data) - start) // size)
        count = min(ready, len(out))
        used = start + count * size
        values = np.frombuffer(data, self._layout.dtype, count, start)
        problem = self._fill(values, out[:count])
        if problem is not None:
            return Step(start, 0, problem=problem)
        self.records += count
        if count == left:
            if len(data) > used:
                return Step(used, count, problem="the file goes on after the last element")
        elif last and count == ready:
            problem = f"the file ends {left - count:,} elements before what its header says"
            return Step(used, count, problem=problem)
        return Step(used, count, count < ready)

    def in_place(self, mapping: memoryview) -> npt.NDArray[Any] | None:
        """Give the array over a mapped file, as far as it goes."""
        layout = _read_header(bytes(mapping[:_LONGEST_HEADER]), True)
        if not isinstance(layout, _Layout):
            return None
        whole = min(layout.length, (len(mapping) - layout.start) // layout.dtype.itemsize)
        return np.frombuffer(mapping, layout.dtype, whole, layout.start)

    def begin(self, mapping: memoryview) -> int:
        """Take the header for read, and tell where the elements begin."""
        layout = _read_header(bytes(mapping[:_LONGEST_HEADER]), True)
        assert isinstance(layout, _Layout)  # the caller has an array over the file
        self._layout = layout
        return layout.start

    def _fill(self, values: npt.NDArray[Any], out: Events) -> str | None:
        """Copy elements to events, or say which value does not fit."""
        if values.dtype == EVENT_DTYPE:
            out[:] = values
            return None
        out[:] = np.zeros((), EVENT_DTYPE)
        out["op"] = Op.LOAD
        out["arg"] = self._arg
        if values.dtype.names is None:
            values = values.view([("addr", values.dtype)])
        for name in values.dtype.names or ():
            column = values[name]
            info = np.iinfo(EVENT_DTYPE[name])
            if column.size and not (int(column.min()) >= 0 and int(column.max()) <= info.max):
                return f"its {name} are not all in [0, {info.max:#x}]"
            out[name] = column
        return None


def npy_header(count: int) -> bytes:
    """Make the header of a file of events, of the same length for any count.

    Parameters
    ----------
    count : int
        How many.

    Returns
    -------
    bytes
        To stand before the events.
    """
    text = f"{{'descr': {EVENT_DTYPE.descr!r}, 'fortran_order': False, 'shape': ({count},), }}"
    room = _HEADER - len(MAGIC) - 4
    return MAGIC + b"\x01\0" + room.to_bytes(2, "little") + f"{text:<{room - 1}}\n".encode()


class NpyEncoder(Encoder):
    """All events as they are. The header is written at the end, when their number is known."""

    accesses_only = False
    vcpus = True

    def begin(self) -> bytes:
        """Leave room for the header."""
        return npy_header(0)

    def encode(self, events: Events) -> Bytes:
        """Give the bytes."""
        return as_bytes(events)
