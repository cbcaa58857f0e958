"""NPT as KVM fills it: nothing exits but the first use of a guest frame."""

from __future__ import annotations

from oracle.slowshadow.counters import Counters
from oracle.slowshadow.guestwalk import (
    FETCH,
    READ,
    WRITE,
    GuestFault,
    Registers,
    guest_walk,
    mark_above,
    mark_used,
)
from oracle.slowshadow.memory import Memory

PREFETCHED = 8


class NestedMMU:
    """exits: "NPT: every guest table read and the final gpa need an NPT entry; TDP MMU fills one
    page (4K, or 2M), legacy all absent entries of the aligned 8 (4K only)."
    """

    def __init__(self, memory: Memory, *, huge_backing: bool = False, legacy: bool = False) -> None:
        self.memory = memory
        self.registers = Registers()
        self.counters = Counters()
        self.legacy = legacy
        self.level = 2 if huge_backing else 1
        """Of the leaf entries."""
        self.mapped: set[int] = set()
        """Pages of the leaf's size."""
        self.pages: set[tuple[int, int]] = set()
        """(level, number) of the NPT's own pages, which only the legacy MMU counts."""

    def load(self, va: int) -> int:
        return self.memory.read(self._access(va, READ))

    def fetch(self, va: int) -> None:
        self._access(va, FETCH)

    def store(self, va: int, value: int) -> None:
        self.memory.write(self._access(va, WRITE), value)

    def _access(self, va: int, kind: str) -> int:
        walk = guest_walk(self.memory, self.registers, va, kind, reading=self._need)
        if walk.code is not None:
            mark_above(self.memory, walk)
            raise GuestFault(walk.code, va)
        mark_used(self.memory, walk, kind)
        gpa = (walk.frame << 12) + (va & 0xFFF)
        self._need(gpa)
        return gpa

    def _need(self, gpa: int) -> None:
        """Exit and fill if the NPT has no entry for a guest address."""
        shift = 3 + 9 * self.level
        page = gpa >> shift
        if page in self.mapped:
            return
        for name in ("x_npf", "pf_taken", "pf_fixed"):
            self.counters.add(name)
        new = {page}
        if self.legacy and self.level == 1:
            first = page & -PREFETCHED
            new = set(range(first, first + PREFETCHED)) - self.mapped
        self.mapped |= new
        self.counters.add("pages_4k" if self.level == 1 else "pages_2m", len(new))
        if self.legacy:
            # exits: "`mmu_cache_miss`: new shadow pages (legacy NPT: per 2 MiB)"
            path = {(level, gpa >> 12 + 9 * level) for level in (3, 2, 1) if level >= self.level}
            self.counters.add("mmu_cache_miss", len(path - self.pages))
            self.pages |= path

    # programs (NPT): "INVLPG and MOV CR3 do not exit, CR0 and CR4 writes do."

    def invlpg(self, va: int) -> None:
        pass

    def mov_cr3(self, value: int) -> None:
        self.registers.cr3 = value

    def mov_cr0(self, value: int) -> None:
        self.counters.add("x_cr0")
        self.registers.cr0 = value

    def mov_cr4(self, value: int) -> None:
        self.counters.add("x_cr4")
        self.registers.cr4 = value
