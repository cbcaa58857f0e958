"""Guest memory as 64-bit words, bits of table entries, and the hash that the data publishes."""

from __future__ import annotations

import numpy as np

SIZE = 64 << 20
"""programs: "One memory slot, 64 MiB at gpa 0"."""

P, W, U, A, D, PS = 1, 2, 4, 0x20, 0x40, 0x80
NX = 1 << 63
FRAME = 0x000F_FFFF_FFFF_F000

X = 1
"""Execution, in a mask of rights: entries say NX, rights say X; W and U are the entry's bits."""
ALL = W | U | X

ENTRIES = 512
TABLES = range(0x100000, 0x200000)
DATA = range(0x800000, 0x1000000)

FNV_START, FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3


class OutsideMemory(Exception):
    """An access or a table entry leads beyond the one memory slot (no MMIO here)."""


class Memory:
    """The memory slot, zero at first; only whole aligned words are read and written."""

    def __init__(self) -> None:
        # numpy's zeros cost memory only where they are touched.
        self.words = memoryview(np.zeros(SIZE >> 3, np.uint64))

    def read(self, gpa: int) -> int:
        if gpa >= SIZE:
            raise OutsideMemory(f"{gpa:#x}")
        return self.words[gpa >> 3]

    def write(self, gpa: int, value: int) -> None:
        if gpa >= SIZE:
            raise OutsideMemory(f"{gpa:#x}")
        self.words[gpa >> 3] = value

    def hash(self, span: range, cleared: int = 0) -> int:
        """FNV-1a over the words of a span, with bits of each word cleared first.

        A zero word multiplies only, so runs of zeros are one power.
        """
        words = np.frombuffer(self.words, np.uint64)[span.start >> 3 : span.stop >> 3]
        words = words & np.uint64(~cleared & (1 << 64) - 1)
        h, done = FNV_START, 0
        for at in np.flatnonzero(words).tolist():
            h = h * pow(FNV_PRIME, at - done, 1 << 64)
            h = (h ^ int(words[at])) * FNV_PRIME & (1 << 64) - 1
            done = at + 1
        return h * pow(FNV_PRIME, len(words) - done, 1 << 64) & (1 << 64) - 1


def rights_of(entry: int) -> int:
    """The rights that one entry gives."""
    return entry & (W | U) | (0 if entry & NX else X)


def index_of(va: int, level: int) -> int:
    """Which entry of a table of a level (1: leaf table, 4: root) translates the address."""
    return va >> 3 + 9 * level & ENTRIES - 1
