"""The guest: initial memory, one processor in one of three modes, delivery of page faults."""

from __future__ import annotations

from typing import Protocol

from oracle.slowshadow.counters import Counters
from oracle.slowshadow.guestwalk import GuestFault, Registers
from oracle.slowshadow.memory import NX, Memory
from oracle.slowshadow.nested import NestedMMU
from oracle.slowshadow.rules import KVM, Rules
from oracle.slowshadow.shadow import ShadowMMU

MODES = ("npt_tdp_mmu", "npt_legacy_mmu", "shadow")

IDT_GATE_14 = (0x20E0, 0x20E8)
GDT_CODE, GDT_DATA = 0x3008, 0x3010
CODE = 0x10000
STACK_TOP = 0x2FFF0
LOW_PDPT, LOW_PD, LOW_PTS = 0x101000, 0x102000, 0x103000
IDENTITY_END = 0x800000


class MMU(Protocol):
    """What the guest needs of a mode. Accesses raise `GuestFault` if its tables refuse them."""

    memory: Memory
    registers: Registers
    counters: Counters

    def load(self, va: int) -> int: ...
    def store(self, va: int, value: int) -> None: ...
    def fetch(self, va: int) -> None: ...
    def invlpg(self, va: int) -> None: ...
    def mov_cr3(self, value: int) -> None: ...
    def mov_cr0(self, value: int) -> None: ...
    def mov_cr4(self, value: int) -> None: ...


def build_mmu(
    mode: str,
    memory: Memory,
    *,
    huge_backing: bool = False,
    page_limit: int = 327,
    rules: Rules = KVM,
) -> MMU:
    if mode == "shadow":
        return ShadowMMU(memory, huge_backing=huge_backing, page_limit=page_limit, rules=rules)
    if mode not in MODES:
        raise ValueError(f"mode {mode!r}: one of {MODES}")
    return NestedMMU(memory, huge_backing=huge_backing, legacy=mode == "npt_legacy_mmu")


def write_identity_map(memory: Memory) -> None:
    """programs: "0x101000 low PDPT, 0x102000 low PD, 0x103000-0x106000 low PTs: identity map of
    0x1000-0x7fffff, `frame|3`, plus NX from 0x100000 up; VA 0 unmapped; the low PDPT and PD hold
    `next|7`".
    """
    memory.write(LOW_PDPT, LOW_PD | 7)
    for i in range(4):
        memory.write(LOW_PD + 8 * i, LOW_PTS + 0x1000 * i | 7)
    for gpa in range(0x1000, IDENTITY_END, 0x1000):
        memory.write(LOW_PTS + (gpa >> 12) * 8, gpa | 3 | (NX if gpa >= 0x100000 else 0))


class Guest:
    """Instructions of a program at page 0x10000, each fetched before its accesses."""

    def __init__(self, mmu: MMU) -> None:
        self.mmu = mmu

    def load(self, va: int) -> int:
        self.mmu.fetch(CODE)
        return self.mmu.load(va)

    def store(self, va: int, value: int) -> None:
        self.mmu.fetch(CODE)
        self.mmu.store(va, value)

    def call(self, va: int) -> None:
        """Call code that only returns (programs, EXEC)."""
        self.mmu.fetch(CODE)
        self.mmu.store(STACK_TOP - 8, CODE)
        self.mmu.fetch(va)
        self.mmu.load(STACK_TOP - 8)

    def out(self) -> None:
        """OUT: the port is the hypervisor's, but the instruction is fetched like any other."""
        self.mmu.fetch(CODE)

    def invlpg(self, va: int) -> None:
        self.mmu.fetch(CODE)
        self.mmu.invlpg(va)

    def mov_cr3(self, value: int) -> None:
        self.mmu.fetch(CODE)
        self.mmu.mov_cr3(value)

    def mov_cr0(self, value: int) -> None:
        self.mmu.fetch(CODE)
        self.mmu.mov_cr0(value)

    def mov_cr4(self, value: int) -> None:
        self.mmu.fetch(CODE)
        self.mmu.mov_cr4(value)

    def deliver(self, fault: GuestFault, rsp: int = STACK_TOP) -> int:
        """Deliver a #PF; the stack pointer that its handler starts with.

        programs: "hardware reads the gate (0x20e0, 0x20e8) and 0x3008, pushes six words". The
        processor aligns the stack to 16 bytes first. Of the words only the code is read again.
        """
        for gpa in (*IDT_GATE_14, GDT_CODE):
            self.mmu.load(gpa)
        rsp &= -16
        for word in (16, rsp, 2, 8, CODE, fault.code):
            rsp -= 8
            self.mmu.store(rsp, word)
        return rsp
