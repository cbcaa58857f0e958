"""New event programs of the data's kind, for comparisons of engines on what no file holds.

Same machine, operations and tables as programs/README.md. Its paragraph "Flushes" is obeyed: the
program is run on the guest's own tables while it is made, with a journal of each table word, and
an INVLPG or a CR3 load is put before each access that a held translation could answer otherwise.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from oracle.slowshadow.flushes import Journal, held_translations
from oracle.slowshadow.guestwalk import (
    CR0_WP,
    CR4_PGE,
    CR4_SMAP,
    CR4_SMEP,
    FETCH,
    READ,
    WRITE,
    GuestFault,
    Walk,
    allowed,
    guest_walk,
)
from oracle.slowshadow.machine import IDENTITY_END, LOW_PDPT
from oracle.slowshadow.memory import (
    DATA,
    ENTRIES,
    NX,
    PS,
    A,
    D,
    P,
    U,
    W,
    index_of,
)
from oracle.slowshadow.nested import NestedMMU
from oracle.slowshadow.programs import LIST, Op, Program, initial_memory

ROOT, POOL_START = 0x100000, 0x107000
ROOT_INDICES, PDPT_INDICES, PD_INDICES, PT_INDICES = (
    (0x20, 0x21, 0x190),
    (0, 1),
    range(4),
    range(32),
)
DATA_OFFSETS = (0x8, 0x10, 0x18, 0x28, 0x48, 0x78)
"""Never 0, where a root has the identity map and a data frame its address."""
EXEC_OFFSET = 0xFF8
BIG_FRAMES = range(DATA.start, DATA.stop, 0x200000)
PAGE_LIMIT, SMALL_LIMITS = 327, (32, 48, 64)
"""KVM's own, and some that short programs reach (the data has 64)."""
DEFAULT_OPS = 200

ACTIONS: dict[str, dict[str, int]] = {
    "plain": {"leaf": 20},
    "leaf": {"leaf": 20, "bits": 6, "upper": 2},
    "ad": {"leaf": 5, "bits": 5, "clear_ad": 25, "upper": 1},
    "upper": {"leaf": 8, "bits": 4, "upper": 25},
    "big": {"leaf": 4, "bits": 4, "upper": 8, "big": 15, "big_bits": 8},
    "cr": {"leaf": 5, "bits": 8, "upper": 6, "cr0": 8, "cr4": 6},
    "reuse": {"leaf": 6, "upper": 10, "data": 8, "rebuild": 4},
    "mixed": {
        **{"leaf": 8, "bits": 5, "clear_ad": 5, "upper": 8, "big": 4, "big_bits": 2},
        **{"cr0": 2, "cr4": 2, "data": 3, "rebuild": 1},
    },
}
"""Weights of what changes tables or registers, beside `EVERYWHERE`. The names are the data's;
`huge` and `limit` are `big` and `mixed` with 2M backing or few shadow pages."""
EVERYWHERE = {"read": 20, "write": 20, "execute": 5, "invlpg": 4, "cr3": 7}


@dataclass
class Layout:
    """The table frames of one program by the level at which they start out."""

    roots: list[int]
    pts: list[int]
    pds: list[int]
    pdpts: list[int]
    frames: list[int]
    """Data frames that leaf entries use: few, so that they are shared."""

    @classmethod
    def draw(cls, rng: random.Random, spaces: int) -> Layout:
        counts = [rng.randint(4, 7), rng.randint(2, 5), rng.randint(2, 4)]
        tables = iter(range(POOL_START, 1 << 21, 0x1000))
        roots = [ROOT] + [next(tables) for _ in range(spaces - 1)]
        pts, pds, pdpts = ([next(tables) for _ in range(n)] for n in counts)
        frames = rng.sample(range(DATA.start, DATA.stop, 0x1000), rng.randint(12, 40))
        return cls(roots, pts, pds, pdpts, sorted(frames))

    @property
    def tables(self) -> list[int]:
        return self.roots + self.pts + self.pds + self.pdpts


@dataclass
class Author:
    """Writes one program, operation by operation, and runs it as it goes."""

    rng: random.Random
    family: str
    layout: Layout
    memory: Journal
    ops: list[Op] = field(default_factory=list)
    flushed: int = 0
    """When CR3 was loaded last, or a write of CR4 forgot all translations."""
    invalidated: dict[int, int] = field(default_factory=dict)
    """When each page met its last INVLPG."""

    def __post_init__(self) -> None:
        # Results are those of the guest's tables alone, in NPT as in every mode.
        self.mmu = NestedMMU(self.memory)
        self.registers = self.mmu.registers
        universe = [
            self._canonical(root << 39 | pdpt << 30 | pd << 21 | pt << 12)
            for root in ROOT_INDICES
            for pdpt in PDPT_INDICES
            for pd in PD_INDICES
            for pt in self.rng.sample(PT_INDICES, 6)
        ]
        self.pages = self.rng.sample(universe, 40)
        weights = {**EVERYWHERE, **ACTIONS[self.family]}
        self.actions, self.weights = list(weights), list(weights.values())

    @staticmethod
    def _canonical(va: int) -> int:
        return va | (0xFFFF << 48 if va >> 47 & 1 else 0)

    def write_program(self, length: int) -> None:
        while len(self.ops) < length:
            (action,) = self.rng.choices(self.actions, self.weights)
            getattr(self, action)()

    # -- emitting, and what flushes must come first

    def _emit(self, op: str, address: int = 0, value: int = 0) -> None:
        self.memory.now += 1
        self.ops.append(Op(op, address, value))

    def _held(self, va: int) -> set[tuple[int, int]] | None:
        since = max(self.flushed, self.invalidated.get(va >> 12, 0))
        return held_translations(self.memory, self.registers, va, since, self._own)

    def _own(self, frame: int) -> bool:
        """Whether a program may reach a frame: its tables and the data."""
        return frame << 12 in DATA or frame << 12 in self.layout.tables

    def _walk(self, va: int, kind: str) -> Walk | None:
        """The walk of an access that is safe to emit, after the flush that it needs; or None."""
        if va < IDENTITY_END:
            return guest_walk(self.memory, self.registers, va, kind)
        held = self._held(va)
        walk = guest_walk(self.memory, self.registers, va, kind)
        if held is None or not self._safe(walk):
            return None
        r = self.registers
        for frame, rights in held:
            may = allowed(rights, kind, wp=r.wp, smep=r.smep, smap=r.smap)
            if frame != walk.frame or (may and walk.code is not None):
                self._flush(va)
                walk = guest_walk(self.memory, self.registers, va, kind)
                return walk if self._safe(walk) else None
        return walk

    def _safe(self, walk: Walk) -> bool:
        """No 1G page, no table or page outside the program's frames (P=0 has frame 0)."""
        for step in walk.steps:
            big = step.entry & P and step.entry & PS and step.level > 2
            if big or not self._own(step.table):
                return False
        return not walk.frame or self._own(walk.frame)

    def _flush(self, va: int) -> None:
        if self.rng.random() < 0.8:
            self._invlpg(va)
        else:
            self._load_cr3(self.registers.cr3 if self.rng.random() < 0.5 else self._any_root())

    def _invlpg(self, va: int) -> None:
        self._emit("INVLPG", va if self.rng.random() < 0.5 else va & ~0xFFF)
        self.invalidated[va >> 12] = self.memory.now

    def _load_cr3(self, value: int) -> None:
        self._emit("CR3", 0, value)
        self.mmu.mov_cr3(value)
        self.flushed = self.memory.now

    def _any_root(self) -> int:
        return self.rng.choice(self.layout.roots)

    # -- accesses

    def _access(self, op: str, va: int, value: int = 0) -> None:
        """Emit one READ, WRITE, AND or OR where it is safe, and run it."""
        kinds = {"READ": [READ], "WRITE": [WRITE]}.get(op, [READ, WRITE])
        if any(self._walk(va, kind) is None for kind in kinds):
            return
        self._emit(op, va, value)
        try:
            old = self.mmu.load(va) if READ in kinds else 0
            if WRITE in kinds:
                new = {"WRITE": value, "AND": old & value, "OR": old | value}[op]
                self.mmu.store(va, new)
        except GuestFault:
            pass

    def _data_va(self) -> int:
        return self.rng.choice(self.pages) + self.rng.choice(DATA_OFFSETS)

    def _data_value(self) -> int:
        """Even, so that it is no present entry where a table is written as data."""
        return self.rng.getrandbits(40) << 1

    def read(self) -> None:
        va = self._data_va()
        self._access("READ", va if self.rng.random() < 0.9 else va & ~0xFFF)

    def write(self) -> None:
        va = self._data_va()
        walk = guest_walk(self.memory, self.registers, va, WRITE)
        if walk.code is None and walk.frame << 12 in self.layout.tables and self.rng.random() < 0.5:
            # An edit of a table through an alias of it.
            self._access("WRITE", va, self._entry_for(walk.frame << 12))
        else:
            self._access("WRITE", va, self._data_value())

    def execute(self) -> None:
        va = self.rng.choice(self.pages) + EXEC_OFFSET
        walk = self._walk(va, FETCH)
        if walk is None or (walk.code is None and walk.frame << 12 not in DATA):
            return
        self._emit("EXEC", va)
        try:
            self.mmu.fetch(va)
        except GuestFault:
            pass

    def invlpg(self) -> None:
        self._invlpg(self._data_va())

    def cr3(self) -> None:
        self._load_cr3(self.registers.cr3 if self.rng.random() < 0.3 else self._any_root())

    # -- entries of tables

    def _leaf_entry(self) -> int:
        rng = self.rng
        frame = rng.choice(self.layout.frames)
        if self.family in ("reuse", "mixed") and rng.random() < 0.1:
            frame = rng.choice(self.layout.tables)
        rights = rng.choice((1, 3, 3, 3, 5, 7, 7))
        used = rng.choice((0, 0, A, A | D)) if self.family != "plain" else 0
        return frame | rights | used | (NX if rng.random() < 0.2 else 0)

    def _upper_entry(self, tables: list[int]) -> int:
        rng = self.rng
        if self.family == "reuse" and rng.random() < 0.2:
            tables = self.layout.tables
        rights = rng.choice((7, 7, 7, 7, 3, 5)) if self.family != "plain" else 7
        nx = NX if self.family != "plain" and rng.random() < 0.1 else 0
        return rng.choice(tables) | rights | rng.choice((0, 0, A)) | nx

    def _big_entry(self) -> int:
        used = self.rng.choice((0, A, A | D))
        nx = NX if self.rng.random() < 0.2 else 0
        return self.rng.choice(BIG_FRAMES) | PS | self.rng.choice((1, 3, 3, 5, 7)) | used | nx

    def _entry_for(self, table: int) -> int:
        """An entry as a table of the level that it started with has them."""
        if table in self.layout.pts:
            return self._leaf_entry()
        if table in self.layout.pds:
            return self._upper_entry(self.layout.pts)
        return self._upper_entry(
            self.layout.pds if table in self.layout.pdpts else self.layout.pdpts
        )

    def _slot(self, table: int) -> int:
        """Where an entry of a table lies that some address uses."""
        if table in self.layout.roots:
            indices = ROOT_INDICES
        elif table in self.layout.pts:
            # Half of them where a page of the program is.
            hot = [index_of(va, 1) for va in self.pages]
            indices = hot if self.rng.random() < 0.5 else PT_INDICES
        else:
            indices = PD_INDICES if table in self.layout.pds else PDPT_INDICES
        return table + 8 * self.rng.choice(indices)

    def leaf(self) -> None:
        at = self._slot(self.rng.choice(self.layout.pts))
        self._access("WRITE", at, 0 if self.rng.random() < 0.2 else self._leaf_entry())

    def bits(self) -> None:
        at = self._slot(self.rng.choice(self.layout.pts))
        self._change_bits(at)

    def _change_bits(self, at: int) -> None:
        bit = self.rng.choice((W, W, U, NX))
        if self.rng.random() < 0.5:
            self._access("AND", at, ~bit & (1 << 64) - 1)
        else:
            self._access("OR", at, bit)

    def clear_ad(self) -> None:
        table = self.rng.choice(self.layout.pts * 3 + self.layout.pds)
        self._access("AND", self._slot(table), ~self.rng.choice((A, D, A | D, W)) & (1 << 64) - 1)

    def upper(self) -> None:
        tables = self.layout.pds * 3 + self.layout.pdpts + self.layout.roots
        table = self.rng.choice(tables)
        at = self._slot(table)
        draw = self.rng.random()
        if draw < 0.2:
            self._access("WRITE", at, 0)
        elif draw < 0.4:
            self._change_bits(at)
        else:
            self._access("WRITE", at, self._entry_for(table))

    def big(self) -> None:
        self._access("WRITE", self._slot(self.rng.choice(self.layout.pds)), self._big_entry())

    def big_bits(self) -> None:
        self._change_bits(self._slot(self.rng.choice(self.layout.pds)))

    def data(self) -> None:
        """A table's frame used as data."""
        at = self.rng.choice(self.layout.tables) + self.rng.choice(DATA_OFFSETS)
        self._access("WRITE", at, self._data_value())

    def rebuild(self) -> None:
        """A burst of writes: a table is emptied, filled as one of any level, and linked there."""
        rng, layout = self.rng, self.layout
        table = rng.choice(layout.pts + layout.pds + layout.pdpts)
        for i in PT_INDICES:
            if self.memory.read(table + 8 * i):
                self._access("WRITE", table + 8 * i, 0)
        above, like = rng.choice(
            ((layout.pds, layout.pts), (layout.pdpts, layout.pds), (layout.roots, layout.pdpts))
        )
        for i in range(8 if like is layout.pts else 4):
            self._access("WRITE", table + 8 * i, self._entry_for(rng.choice(like)))
        for _ in range(rng.randint(1, 4)):
            self._access("WRITE", self._slot(rng.choice(above)), table | 7)

    # -- registers

    def cr0(self) -> None:
        value = self.registers.cr0 ^ CR0_WP
        self._emit("CR0", 0, value)
        self.mmu.mov_cr0(value)

    def cr4(self) -> None:
        # SMAP refuses most accesses, so it is left again soon.
        toggled = self.rng.choice((CR4_PGE, CR4_SMEP, CR4_SMAP, CR4_PGE | CR4_SMEP))
        value = self.registers.cr4 ^ toggled
        if self.registers.smap:
            value &= ~CR4_SMAP
        changed = value ^ self.registers.cr4
        self._emit("CR4", 0, value)
        self.mmu.mov_cr4(value)
        # mmu.md 2b: "MOV CR4: PGE changes [...]: everything [...]; PAE changes or SMEP 0->1"
        if changed & CR4_PGE or changed & value & CR4_SMEP:
            self.flushed = self.memory.now

    # -- the tables at the start

    def write_tables(self) -> None:
        rng, layout = self.rng, self.layout
        for root in layout.roots:
            self.memory.write(root, LOW_PDPT | 7)
            for i in ROOT_INDICES:
                self.memory.write(root + 8 * i, self._entry_for(root))
        for table, indices, density in (
            *((pdpt, PDPT_INDICES, 1.0) for pdpt in layout.pdpts),
            *((pd, PD_INDICES, 0.85) for pd in layout.pds),
            *((pt, PT_INDICES, 0.6) for pt in layout.pts),
        ):
            for i in indices:
                if rng.random() < density:
                    with_2m = table in layout.pds and "big" in self.actions and rng.random() < 0.3
                    entry = self._big_entry() if with_2m else self._entry_for(table)
                    self.memory.write(table + 8 * i, entry)

    def tables_now(self) -> dict[int, int]:
        gpas = (table + 8 * i for table in self.layout.tables for i in range(ENTRIES))
        return {gpa: self.memory.read(gpa) for gpa in sorted(gpas) if self.memory.read(gpa)}


def random_program(
    rng: random.Random,
    family: str | None = None,
    *,
    ops: int = DEFAULT_OPS,
    huge_backing: bool | None = None,
    mmu_page_limit: int | None = None,
    name: str = "random",
) -> Program:
    """A new event program of about `ops` operations.

    `family` is a key of `ACTIONS`; what is None is drawn. All modes give equal results but for A
    and D bits that a READ sees in a table.
    """
    family = rng.choice(list(ACTIONS)) if family is None else family
    if huge_backing is None:
        huge_backing = family in ("big", "mixed") and rng.random() < 0.5
    if mmu_page_limit is None:
        small = family in ("cr", "mixed") and rng.random() < 0.5
        mmu_page_limit = rng.choice(SMALL_LIMITS) if small else PAGE_LIMIT
    spaces = rng.randint(2, 4)
    empty = Program(name, (), {}, huge_backing, mmu_page_limit, spaces)
    author = Author(rng, family, Layout.draw(rng, spaces), Journal(initial_memory(empty).words))
    author.write_tables()
    init = author.tables_now()
    author.write_program(ops)
    return _complete(replace(empty, init=init), author.ops)


def _complete(program: Program, body: list[Op]) -> Program:
    """Add what comes before BEGIN (an OR on each page of the list, its own length included)."""
    list_pages = 1
    while 16 * (len(body) + list_pages + 3) > 0x1000 * list_pages:
        list_pages += 1
    before = [Op("READ", 0, 0)] + [Op("OR", LIST + 0x1000 * i, 0) for i in range(list_pages)]
    ops = (*before, Op("BEGIN", 0, 0), *body, Op("END", 0, 0))
    return replace(program, ops=ops, begin=len(before), list_pages=list_pages)
