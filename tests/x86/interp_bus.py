"""A bus of the tests: its functions are Python's, called by the processor through C pointers."""

import ctypes as c
from typing import Any

NEVER = (1 << 64) - 1

IN = c.CFUNCTYPE(c.c_uint32, c.c_void_p, c.c_uint16, c.c_int)
OUT = c.CFUNCTYPE(None, c.c_void_p, c.c_uint16, c.c_int, c.c_uint32)
ACKNOWLEDGE = c.CFUNCTYPE(c.c_int, c.c_void_p)
ADVANCE = c.CFUNCTYPE(None, c.c_void_p, c.c_uint64)


class _Bus(c.Structure):
    _fields_ = [
        ("board", c.c_void_p), ("port_in", IN), ("port_out", OUT), ("acknowledge", ACKNOWLEDGE),
        ("advance", ADVANCE), ("now", c.c_uint64), ("next_event", c.c_uint64), ("line", c.c_int),
        ("stop", c.c_int),
    ]  # fmt: skip


class Bus:
    """A timer with a period, on vector 0x20, and a port 0x60 that counts its reads.

    OUT to port 0x20 ends an interrupt. ``writes`` has (time, port, size, value).
    """

    def __init__(self, period: int | None = None, first: int = 0) -> None:
        self.period = period
        self.reads = 0
        self.writes: list[tuple[int, int, int, int]] = []
        self.acknowledged: list[int] = []
        self._functions = (IN(self._in), OUT(self._out), ACKNOWLEDGE(self._ack), ADVANCE(self._due))
        start = NEVER if period is None else first or period
        self.struct = _Bus(None, *self._functions, 0, start, 0)
        new = c.pythonapi.PyCapsule_New
        new.restype = c.py_object
        new.argtypes = [c.c_void_p, c.c_char_p, c.c_void_p]
        self.capsule: Any = new(c.addressof(self.struct), b"pyvirt.bus_t", None)

    def _in(self, board: Any, port: int, size: int) -> int:
        self.reads += port == 0x60
        return self.reads if port == 0x60 else 0xFFFFFFFF >> (32 - 8 * size)

    def _out(self, board: Any, port: int, size: int, value: int) -> None:
        self.writes.append((self.struct.now, port, size, value))

    def _ack(self, board: Any) -> int:
        self.acknowledged.append(self.struct.now)
        self.struct.line = 0
        return 0x20

    def _due(self, board: Any, now: int) -> None:
        self.struct.line = 1
        assert self.period is not None
        while self.struct.next_event <= now:
            self.struct.next_event += self.period
