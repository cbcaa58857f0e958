"""Selectors, segment descriptors and gates as values (SDM vol. 3, 3.4.2, 3.4.5, 3.5, 5.8.3)."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from enum import IntEnum
from typing import Self, SupportsIndex

from pyvirt.errors import InvalidTypeError, InvalidValueError

__all__ = ["Descriptor", "Gate", "Selector", "SystemType"]


class SystemType(IntEnum):
    """Types of system descriptors and gates; those from 9 on are of 64 bits in long mode."""

    TSS16 = 1
    LDT = 2
    TSS16_BUSY = 3
    CALL16 = 4
    TASK_GATE = 5
    INT16 = 6
    TRAP16 = 7
    TSS32 = 9
    TSS32_BUSY = 11
    CALL32 = 12
    INT32 = 14
    TRAP32 = 15


def within(value: SupportsIndex, name: str, high: int) -> int:
    """Give `value` as an integer from 0 to `high`, or the error that names it."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise InvalidTypeError(f"{name} must be an integer, not {value!r:.80}") from error
    if not 0 <= number <= high:
        raise InvalidValueError(f"{name} must be in [0, {high:#x}], got {number:#x}")
    return number


@dataclass(frozen=True, slots=True)
class Selector:
    """A segment selector (SDM vol. 3, 3.4.2).

    Attributes
    ----------
    index : int
        Of the descriptor in its table, 0 to 8191.
    rpl : int, default 0
        Requested privilege level, 0 to 3.
    local : bool, default False
        In the LDT, not the GDT.
    """

    index: int
    rpl: int = 0
    local: bool = False

    def __post_init__(self) -> None:
        within(self.index, "index", 0x1FFF)
        within(self.rpl, "rpl", 3)

    def pack(self) -> int:
        """Give the 16 bits."""
        return self.index << 3 | self.local << 2 | self.rpl

    @classmethod
    def unpack(cls, value: SupportsIndex) -> Self:
        """Take 16 bits apart."""
        bits = within(value, "selector", 0xFFFF)
        return cls(bits >> 3, bits & 3, bool(bits & 4))

    @property
    def null(self) -> bool:
        """Whether it names the first entry of the GDT, which stands for no segment."""
        return not self.index and not self.local

    def __index__(self) -> int:
        return self.pack()


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A code, data or system descriptor of eight bytes (SDM vol. 3, 3.4.5).

    Attributes
    ----------
    type : int
        Four bits. Of segments: 8 code, 4 conforming code or data that expand down, 2 readable code
        or writable data, 1 accessed. Of system descriptors a `SystemType`.
    dpl : int, default 0
        Descriptor privilege level, 0 to 3.
    s : bool, default True
        A segment, not a system descriptor.
    p : bool, default True
        Present.
    base : int, default 0
        32 bits.
    limit : int, default 0xFFFFFFFF
        In bytes, the last offset inside (expand-down: outside). With `g` its lowest 12 bits are
        ones; without, it has 20 bits.
    avl, l, db : bool
        Free to software; 64-bit code; 32-bit default or B flag (default True).
    g : bool, default True
        The limit is in pages of 4 KiB.
    """

    type: int
    dpl: int = 0
    s: bool = True
    p: bool = True
    base: int = 0
    limit: int = 0xFFFFFFFF
    avl: bool = False
    l: bool = False  # noqa: E741  (the manual's name)
    db: bool = True
    g: bool = True

    def __post_init__(self) -> None:
        within(self.type, "type", 15)
        within(self.dpl, "dpl", 3)
        within(self.base, "base", 0xFFFFFFFF)
        within(self.limit, "limit", 0xFFFFFFFF if self.g else 0xFFFFF)
        if self.g and self.limit & 0xFFF != 0xFFF:
            raise InvalidValueError(f"limit must end in 0xfff where g is set, got {self.limit:#x}")

    def pack(self) -> int:
        """Give the eight bytes as a little-endian number."""
        limit = self.limit >> 12 if self.g else self.limit
        flags = self.avl | self.l << 1 | self.db << 2 | self.g << 3
        access = self.type | self.s << 4 | self.dpl << 5 | self.p << 7
        return (
            limit & 0xFFFF
            | (self.base & 0xFFFFFF) << 16
            | access << 40
            | limit >> 16 << 48
            | flags << 52
            | self.base >> 24 << 56
        )

    @classmethod
    def unpack(cls, value: SupportsIndex) -> Self:
        """Take eight bytes apart."""
        raw = within(value, "descriptor", 2**64 - 1)
        limit = raw & 0xFFFF | raw >> 32 & 0xF0000
        g = bool(raw >> 55 & 1)
        return cls(
            type=raw >> 40 & 15,
            dpl=raw >> 45 & 3,
            s=bool(raw >> 44 & 1),
            p=bool(raw >> 47 & 1),
            base=raw >> 16 & 0xFFFFFF | raw >> 56 << 24,
            limit=limit << 12 | 0xFFF if g else limit,
            avl=bool(raw >> 52 & 1),
            l=bool(raw >> 53 & 1),
            db=bool(raw >> 54 & 1),
            g=g,
        )

    @classmethod
    def code(
        cls,
        dpl: int = 0,
        *,
        conforming: bool = False,
        readable: bool = True,
        present: bool = True,
        long: bool = False,
    ) -> Self:
        """Give flat code: 32-bit, or 64-bit with `long`."""
        kind = 8 | conforming << 2 | readable << 1
        return cls(kind, dpl, p=present, l=long, db=not long)

    @classmethod
    def data(cls, dpl: int = 0, *, writable: bool = True, present: bool = True) -> Self:
        """Give flat 32-bit data."""
        return cls(writable << 1, dpl, p=present)

    @property
    def is_code(self) -> bool:
        """Code, conforming or not."""
        return self.s and bool(self.type & 8)

    @property
    def conforming(self) -> bool:
        """Code that runs at the privilege of who enters it."""
        return self.s and self.type & 12 == 12

    @property
    def readable(self) -> bool:
        """Data, or code whose bytes may be read."""
        return self.s and (not self.type & 8 or bool(self.type & 2))

    @property
    def writable(self) -> bool:
        """Data that may be written."""
        return self.s and self.type & 10 == 2

    def __index__(self) -> int:
        return self.pack()


@dataclass(frozen=True, slots=True)
class Gate:
    """A call, task, interrupt or trap gate of eight bytes (SDM vol. 3, 5.8.3, 6.11, 7.2.5).

    In long mode it is the lower half of sixteen; no check looks at the upper one.

    Attributes
    ----------
    type : int
        A `SystemType` of a gate.
    selector : int or Selector
        Of the code segment, or of the TSS.
    dpl : int, default 0
        0 to 3.
    p : bool, default True
        Present.
    offset : int, default 0
        32 bits (of 16-bit gates the lower 16 count).
    count : int, default 0
        Parameters that a call gate copies, 0 to 31; in long mode 0 to 7 of interrupt and trap
        gates are the interrupt stack table.
    """

    type: int
    selector: int | Selector
    dpl: int = 0
    p: bool = True
    offset: int = 0
    count: int = 0

    def __post_init__(self) -> None:
        kinds = (4, 5, 6, 7, 12, 14, 15)
        if within(self.type, "type", 15) not in kinds:
            raise InvalidValueError(f"type must be that of a gate, {kinds}, got {self.type}")
        within(self.selector, "selector", 0xFFFF)
        within(self.dpl, "dpl", 3)
        within(self.offset, "offset", 0xFFFFFFFF)
        within(self.count, "count", 31)

    def pack(self) -> int:
        """Give the eight bytes as a little-endian number."""
        access = self.type | self.dpl << 5 | self.p << 7
        return (
            self.offset & 0xFFFF
            | operator.index(self.selector) << 16
            | self.count << 32
            | access << 40
            | self.offset >> 16 << 48
        )

    @classmethod
    def unpack(cls, value: SupportsIndex) -> Self:
        """Take eight bytes apart.

        Raises
        ------
        InvalidValueError
            They are no gate.
        """
        raw = within(value, "gate", 2**64 - 1)
        if raw >> 44 & 1:
            raise InvalidValueError(f"{raw:#018x} is a segment descriptor, not a gate")
        return cls(
            type=raw >> 40 & 15,
            selector=raw >> 16 & 0xFFFF,
            dpl=raw >> 45 & 3,
            p=bool(raw >> 47 & 1),
            offset=raw & 0xFFFF | raw >> 48 << 16,
            count=raw >> 32 & 31,
        )

    def __index__(self) -> int:
        return self.pack()
