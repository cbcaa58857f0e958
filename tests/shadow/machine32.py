"""Guests with 32-bit and PAE tables for the tests of the hypervisor: tables at known places."""

from __future__ import annotations

import numpy as np

import pyvirt as pv
from pyvirt.traces import EVENT_DTYPE, Arg, Op

SIZE = 8 << 20
ROOT, OTHER_ROOT = 0x100000, 0x108000
#: The page with index i is at VA + 4096 * i and maps DATA + 4096 * i.
VA, DATA = 0x40000000, 0x200000
BIG, BIG_FRAME = VA + (2 << 22), 0x400000
#: All memory, by 4 KiB pages.
PHYSMAP = 0xC0000000
PT, OTHER_PT = 0x103000, 0x104000
P, W, U, A, D, LARGE = 1, 2, 4, 0x20, 0x40, 0x80
PSE, PAE, PGE = 1 << 4, 1 << 5, 1 << 7


def page(i: int) -> int:
    return VA + 4096 * i


class Guest32(pv.Hypervisor):
    """One of the two formats under a hypervisor, with shorthands for single events.

    ``size`` is that of an entry, ``span`` the entries of a table, ``directory`` where the
    directory of the pages lies, and ``pde`` its first entry for them.
    """

    def __init__(self, format: str, *, flags: int = 7, **options) -> None:
        self.format = format
        self.size = 4 if format == "x86-32" else 8
        self.span = 4096 // self.size
        self.directory = ROOT if format == "x86-32" else 0x101000
        memory = pv.PhysicalMemory(SIZE)
        self.pde = self.directory + (VA >> 22) * 4 if self.size == 4 else self.directory
        own = self._own_tables()
        words = {
            self.pde: PT | 7,
            self.pde + self.size: OTHER_PT | 7,
            self.at_pde(BIG): BIG_FRAME | 0x87,
            **own,
        }
        for i in range(2 * self.span):
            words[PT + self.size * i] = DATA + 4096 * (i % 512) | flags
        for address, word in words.items():
            memory.write(address, word.to_bytes(self.size, "little"))
        if format == "pae":
            for root in (ROOT, OTHER_ROOT):
                for gib, directory in ((1, 0x101000), (3, 0x102000)):
                    memory.write_u64(root + 8 * gib, directory | P)
        else:
            memory.write(OTHER_ROOT, memory.read(ROOT, 4096))
        options.setdefault("cr3", ROOT)
        options.setdefault("cr4", PSE)
        super().__init__(memory, format=format, **options)

    def at_pde(self, va: int) -> int:
        """Where the entry of the directory is."""
        shift = 22 if self.size == 4 else 21
        return self.pde + self.size * ((va - VA) >> shift)

    def at_pte(self, i: int) -> int:
        return PT + self.size * i

    def _own_tables(self) -> dict[int, int]:
        words = {}
        for frame in range(SIZE >> 12):
            words[0x110000 + self.size * frame] = frame << 12 | 3 | A | D
        first = ROOT + (PHYSMAP >> 22) * 4 if self.size == 4 else 0x102000
        for table in range(SIZE // (4096 * self.span)):
            words[first + self.size * table] = 0x110000 + 4096 * table | 7 | A
        return words

    def do(self, op: Op, addr: int = 0, value: int = 0, arg: int = 0, size: int = 0):
        """Run one event; give its code and value."""
        event = np.zeros(1, EVENT_DTYPE)
        event[0] = op, size, 0, arg, addr, value
        codes, values = np.zeros(1, np.uint16), np.zeros(1, np.uint64)
        self.run(event, codes=codes, values=values)
        return int(codes[0]), int(values[0])

    def load(self, va: int, user: bool = False):
        return self.do(Op.LOAD, va, arg=int(user), size=4)

    def store(self, va: int, value: int = 0, user: bool = False, size: int = 4):
        return self.do(Op.STORE, va, value, int(user) | Arg.GIVEN, size)

    def edit(self, gpa: int, value: int, size: int = 0):
        """Store to a table through the guest's own mapping of it."""
        return self.store(PHYSMAP + gpa, value, size=size or self.size)

    def mov_cr3(self, value: int = ROOT):
        return self.do(Op.MOV_CR3, value=value)

    def count(self, name: str) -> int:
        return int(self.counters[name][0])

    def since(self, *names: str):
        """Give what these counters grew by, called later."""
        start = self.counters.copy()

        def grown():
            found = tuple(int(self.counters[n][0]) - int(start[n][0]) for n in names)
            return found if len(found) > 1 else found[0]

        return grown

    def space(self) -> pv.AddressSpace:
        """Walk the guest's own tables, by the registers as they are."""
        r = self.registers()
        return pv.AddressSpace(
            self.mem,
            r["cr3"],
            format=self.format,
            pa_width=48,
            cr0=r["cr0"],
            cr4=r["cr4"],
            efer=r["efer"],
        )
