"""A small guest for the tests of the hypervisor: tables at known places, events by name."""

from __future__ import annotations

import numpy as np

import pyvirt as pv
from pyvirt.traces import EVENT_DTYPE, Arg, Op

SIZE = 8 << 20
PML4, PDPT, PD, PT = 0x100000, 0x101000, 0x102000, 0x103000
OTHER_PT, OTHER_PML4 = 0x104000, 0x105000
#: The page with index i is at VA + 4096 * i and maps DATA + 4096 * i; 512 to 1023 are in OTHER_PT.
VA, DATA = 0x40000000, 0x200000
#: All memory, as systems map it for themselves: by 4 KiB pages, used and writable.
PHYSMAP = 0xFFFF800000000000
W, U, A, D, NX = 2, 4, 0x20, 0x40, 1 << 63


def page(i: int) -> int:
    return VA + 4096 * i


def pte(i: int) -> int:
    """Where the entry of page i lies."""
    return PT + 8 * i


class Machine(pv.Hypervisor):
    """The guest under a hypervisor, with shorthands for single events."""

    def __init__(self, size: int = SIZE, flags: int = 3, **options) -> None:
        memory = pv.PhysicalMemory(size)
        words = {PML4: PDPT | 7, PDPT + 8: PD | 7, PD: PT | 7, PD + 8: OTHER_PT | 7}
        for i in range(1024):
            words[PT + 8 * i] = DATA + 4096 * i | flags
        for root in (PML4, OTHER_PML4):
            words[root] = PDPT | 7
            words[root + 8 * 256] = 0x110000 | 7 | A
        words[0x110000] = 0x111000 | 7 | A
        for i in range(size >> 21):
            words[0x111000 + 8 * i] = 0x112000 + 4096 * i | 7 | A
        for i in range(size >> 12):
            words[0x112000 + 8 * i] = 4096 * i | 3 | A | D
        at = np.fromiter(words, np.uint64, len(words))
        memory.write_batch(at, np.fromiter(words.values(), np.uint64, len(words)))
        options.setdefault("cr3", PML4)
        super().__init__(memory, **options)

    def do(self, op: Op, addr: int = 0, value: int = 0, arg: int = 0, size: int = 8, vcpu: int = 0):
        """Run one event; give its code and value."""
        event = np.zeros(1, EVENT_DTYPE)
        event[0] = (
            op,
            size if op in (Op.LOAD, Op.STORE, Op.FETCH, Op.MODIFY) else 0,
            vcpu,
            arg,
            addr,
            value,
        )
        codes, values = np.zeros(1, np.uint16), np.zeros(1, np.uint64)
        self.run(event, codes=codes, values=values)
        return int(codes[0]), int(values[0])

    def load(self, va: int, user: bool = False, **options):
        return self.do(Op.LOAD, va, arg=int(user), **options)

    def store(self, va: int, value: int = 0, user: bool = False, **options):
        return self.do(Op.STORE, va, value, int(user) | Arg.GIVEN, **options)

    def fetch(self, va: int, user: bool = False, **options):
        return self.do(Op.FETCH, va, arg=int(user), **options)

    def edit(self, gpa: int, value: int, **options):
        """Store to a table through the guest's own mapping of it."""
        return self.store(PHYSMAP + gpa, value, **options)

    def invlpg(self, va: int, **options):
        return self.do(Op.INVLPG, va, **options)

    def mov_cr3(self, value: int = PML4, **options):
        return self.do(Op.MOV_CR3, value=value, **options)

    def count(self, name: str) -> int:
        return int(self.counters[name][0])

    def since(self, *names: str):
        """Give what these counters grew by, called later."""
        start = self.counters.copy()

        def grown():
            found = tuple(int(self.counters[n][0]) - int(start[n][0]) for n in names)
            return found if len(found) > 1 else found[0]

        return grown

    def entry(self, va: int):
        """The flags and the frame of the leaf that maps an address now; None without one."""
        for leaf in self.leaves():
            span = 1 << int(leaf["page_shift"])
            if int(leaf["address"]) & ~(span - 1) & (1 << 64) - 1 == va & ~(span - 1):
                return int(leaf["flags"]), int(leaf["gpa"])
        return None


def random_stream(rng: np.random.Generator, count: int) -> np.ndarray:
    """Edits of leaf and upper entries, each with its flush, between accesses."""
    rows = []
    for _ in range(count):
        i = int(rng.integers(24))
        kind = rng.integers(10)
        user = int(rng.integers(2))
        if kind < 3:
            rows.append((Op.LOAD, page(i), 0, user))
        elif kind < 6:
            rows.append((Op.STORE, page(i), int(rng.integers(1 << 30)) << 12, user | Arg.GIVEN))
        elif kind < 8:
            frame = int(rng.choice([DATA + 4096 * int(rng.integers(32)), PT, 0x104000]))
            value = (
                frame
                | int(rng.choice([0, 1, 3, 5, 7, 7, 7]))
                | int(rng.choice([0, A, A | D]))
                | int(rng.integers(2)) << 63
            )
            rows.append((Op.STORE, PHYSMAP + pte(i), value, Arg.GIVEN))
            rows.append((Op.INVLPG, page(i), 0, 0))
        elif kind == 8:
            target = int(rng.choice([PT, 0x104000, 0])) | int(rng.choice([3, 7, 7, 7]))
            rows.append((Op.STORE, PHYSMAP + 0x102000, target if target > 7 else 0, Arg.GIVEN))
            rows.append((Op.MOV_CR3, 0, 0x100000, 0))
        else:
            rows.append((Op.MOV_CR3, 0, int(rng.choice([0x100000, 0x105000])), 0))
    events = np.zeros(len(rows), EVENT_DTYPE)
    for event, (op, addr, value, arg) in zip(events, rows, strict=True):
        event["op"], event["size"] = op, 8 if op in (Op.LOAD, Op.STORE) else 0
        event["addr"], event["value"], event["arg"] = addr, value, int(arg)
    return events
