"""The table builder against a dictionary of mappings; the slow walker reads what it wrote."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest

from core.compare import values_of, words_of
from core.strategies import GIB, MIB, SHAPES, Tape, quick_and_slow
from oracle.slowwalk import CR4_PSE, Dim, SlowMemory, SlowWalk, flags_of
from pyvirt import FrameExhaustedError, MappingError, PageTables, PhysicalMemory, Walker

LOWER = {30: 21, 21: 12, 22: 12}


class Model:
    """Mappings as a dictionary: start -> (shift, physical address, rights, attributes)."""

    def __init__(self) -> None:
        self.leaves: dict[int, tuple[int, int, str, int]] = {}

    def inside(self, lo: int, hi: int) -> list[int]:
        """Starts of the mappings that touch [lo, hi)."""
        return [va for va, leaf in self.leaves.items() if va < hi and lo < va + (1 << leaf[0])]

    def carve(self, lo: int, hi: int) -> list[int]:
        """Split mappings until none sticks out of [lo, hi); returns those inside."""
        while True:
            touched = self.inside(lo, hi)
            out = [va for va in touched if va < lo or va + (1 << self.leaves[va][0]) > hi]
            if not out:
                return touched
            for va in out:
                shift, pa, rights, attrs = self.leaves.pop(va)
                step = LOWER[shift]
                for part in range(0, 1 << shift, 1 << step):
                    self.leaves[va + part] = step, pa + part, rights, attrs

    def unmap(self, lo: int, hi: int) -> int:
        gone = [self.leaves.pop(va) for va in self.carve(lo, hi)]
        return sum(1 << leaf[0] for leaf in gone)

    def protect(self, lo: int, hi: int, rights: str) -> int:
        inside = self.carve(lo, hi)
        for va in inside:
            shift, pa, _, attrs = self.leaves[va]
            self.leaves[va] = shift, pa, rights, attrs
        return sum(1 << self.leaves[va][0] for va in inside)

    def map(self, va: int, pa: int, shift: int, rights: str, attrs: int) -> None:
        self.unmap(va, va + (1 << shift))
        self.leaves[va] = shift, pa, rights, attrs


class Site:
    """A builder, its model, and the addresses that a case works on."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        kind, levels = tape.pick(SHAPES)
        self.dim = Dim(kind, 0, levels, cr4=CR4_PSE, mbec=kind == "ept" and tape.chance(50))
        self.memory = PhysicalMemory(64 * MIB)
        self.outer, self.outer_dims = None, ()
        if kind not in ("ept", "npt") and tape.chance(35):
            self.nest()
        options = {"cr4": CR4_PSE, "mbec": self.dim.mbec}
        self.tables = PageTables(
            self.memory,
            format=kind,
            levels=levels,
            frames=(MIB, 4 * MIB),
            outer=self.outer,
            **options,
        )
        self.model = Model()
        self.small = kind in ("pae", "x86-32")
        self.shifts = {"x86-32": [12, 22], "pae": [12, 21]}.get(kind, [12, 21, 30])
        bases = [0, 3 * GIB] if self.small else [0, 5 * GIB, (1 << 11 + 9 * levels) - 2 * GIB]
        if kind == "x86-64":
            bases.append((1 << 64) - 2 * GIB)
        self.bases = bases

    def nest(self) -> None:
        """Put the tables into a guest: its frames are spread over host memory."""
        kind = self.tape.pick(("ept", "npt"))
        host = PageTables(self.memory, format=kind, frames=(32 * MIB, 4 * MIB))
        gpas = np.arange(MIB, 5 * MIB, 4096, dtype=np.uint64)
        host.map(gpas, gpas[::-1] + np.uint64(8 * MIB), rights="rwxu" if kind == "npt" else "rwx")
        self.outer = Walker(self.memory, host.root, format=kind)
        self.outer_dims = (Dim(kind, host.root),)

    def address(self, shift: int) -> int:
        """A page start; pages of all sizes meet in a few places."""
        base = self.tape.pick(self.bases)
        near = self.tape.pick((0, 0, 1 << self.shifts[-1] - 1))
        address = (base + near + (self.tape.below(6) << shift)) & ~((1 << shift) - 1)
        fits = address + (1 << shift) <= self.end_after(base)
        return address if fits else base & ~((1 << shift) - 1)

    def end_after(self, va: int) -> int:
        """Where the addresses that tables can map end, from a mapped one on."""
        if self.small:
            return 1 << 32
        top = 12 + 9 * self.dim.levels
        if self.dim.format != "x86-64":
            return 1 << top
        return 1 << 64 if va >> 63 else 1 << top - 1

    def rights(self) -> str:
        if self.dim.format == "ept":
            pool = ("rwx", "r", "rw", "rx", "x")
            return self.tape.pick(pool) + ("u" if self.dim.mbec and self.tape.chance(50) else "")
        if self.dim.format == "x86-32":  # which has no NX
            return self.tape.pick(("rwx", "rx", "rwxu", "rxu"))
        return self.tape.pick(("rwx", "rx", "rw", "r", "rwxu", "ru", "rwu"))

    def slow(self) -> SlowWalk:
        memory = SlowMemory([(0, 64 * MIB)], words_of(self.memory))
        dims = (self.dim, *self.outer_dims)
        own = Dim(**{**self.dim.__dict__, "root": self.tables.root})
        return SlowWalk(memory, own, *dims[1:])

    def expected(self) -> list[tuple]:
        """The model's mappings as (va, shift, pa, rights in the flags, attributes)."""
        rows = []
        for va, (shift, pa, rights, attrs) in sorted(self.model.leaves.items()):
            flags = sum(
                bit for bit, name in ((1, "r"), (2, "w"), (4, "x"), (8, "u")) if name in rights
            )
            rows.append((va, shift, pa, flags, attrs))
        return rows

    def found(self) -> list[tuple]:
        slow = self.slow()
        mask = self.attribute_bits()
        return [
            (va, leaf.shift, leaf.own, flags_of(slow.dims[0], leaf) & 15, leaf.entry & mask)
            for va, leaf in slow.leaves()
        ]

    def attribute_bits(self) -> int:
        """Bits that `attributes` draws from, where they mean the same in every leaf size."""
        return 0xA00 if not self.dim.is_long else 0xA00 | 0x7 << 52

    def attributes(self) -> int:
        return self.tape.number() & self.attribute_bits() & ~(1 << 10)


def check(data: bytes) -> None:
    """Any sequence of map, unmap and protect leaves the tables that the dictionary describes."""
    tape = Tape(data)
    site = Site(tape)
    for _ in range(6):
        how = tape.below(5)
        if how < 3:
            map_some(site)
        else:
            lo = site.address(12)
            size = (1 + tape.below(8)) << tape.pick((12, 12, *site.shifts))
            size = min(size, site.end_after(lo) - lo)
            if how == 3:
                assert site.tables.unmap(lo, size) == site.model.unmap(lo, lo + size)
            else:
                rights = site.rights()
                changed = site.model.protect(lo, lo + size, rights)
                assert site.tables.protect(lo, size, rights) == changed
        assert site.found() == site.expected()
    check_walks(site)


def first_conflict(model: Model, vas: list[int], shift: int, overwrite: bool) -> int | None:
    """The first page that cannot be mapped: one is there, or (in any case) smaller ones are."""
    for i, va in enumerate(vas):
        there = model.inside(va, va + (1 << shift))
        smaller = [start for start in there if model.leaves[start][0] < shift]
        if smaller or (not overwrite and (there or va in vas[:i])):
            return i
    return None


def map_some(site: Site) -> None:
    """Map a few pages, which may be in each other's way."""
    tape = site.tape
    shift = tape.pick(site.shifts)
    # A 4 MiB page above 4 GiB could not be split into pages of 4-byte entries.
    width = 32 if site.dim.format == "x86-32" else 40
    step = 1 << shift
    vas = [site.address(shift) for _ in range(1 + tape.below(5))]
    pas = [tape.number() & (1 << width) - 1 & ~(step - 1) for _ in vas]
    rights, attrs, overwrite = site.rights(), site.attributes(), tape.chance(40)
    conflict = first_conflict(site.model, vas, shift, overwrite)
    options = {"page_shift": shift, "rights": rights, "attrs": attrs, "overwrite": overwrite}
    arrays = np.array(vas, np.uint64), np.array(pas, np.uint64)
    if conflict is None:
        site.tables.map(*arrays, **options)
        for va, pa in zip(vas, pas, strict=True):
            site.model.map(va, pa, shift, rights, attrs)
        return
    with pytest.raises(MappingError, match=rf"{vas[conflict]:#x}\b"):
        site.tables.map(*arrays, **options)
    # Nothing is mapped then; a larger leaf may have been split, which maps the same.
    if site.found() != site.expected():
        for va in vas[:conflict]:
            site.model.carve(va, va + step)


def check_walks(site: Site) -> None:
    """A walker over the tables finds every mapping, and what it says is what they say."""
    walker = site.tables.walker()
    slow = site.slow()
    rows = site.expected()
    for va, shift, pa, flags, _ in rows[:: len(rows) // 20 + 1]:
        inside = site.tape.number(4) % (1 << shift)
        access, user = "r" if flags & 1 else "x", bool(flags & 8)
        found = walker.translate_one(va + inside, access, user)
        assert values_of(found) == values_of(slow.translate(va + inside, access, user))
        if not site.outer_dims and (site.dim.format != "npt" or user):
            assert (found.pa, found.page_shift, found.flags & 15) == (pa + inside, shift, flags)


def check_exhaustion(data: bytes) -> None:
    """Running out of frames is an error, and what was mapped before stays."""
    tape = Tape(data)
    memory = PhysicalMemory(MIB)
    frames = 1 + tape.below(6)
    tables = PageTables(memory, frames=(0x1000, frames << 12))
    done: dict[int, int] = {}
    for _ in range(8):
        va = tape.number() & 0x7FFF_FFFF_F000
        if va in done:
            continue
        try:
            tables.map([va], [0x5000])
        except FrameExhaustedError:
            pass
        else:
            done[va] = 0x5000
        assert tables.tables_used <= frames
        memory_now = SlowMemory([(0, MIB)], words_of(memory))
        leaves = SlowWalk(memory_now, Dim("x86-64", tables.root)).leaves()
        assert {va: leaf.own for va, leaf in leaves} == done


def test_large_pages_over_emptied_tables():
    """Tables that hold nothing any more are in nobody's way, however many levels of them."""
    tables = PageTables(PhysicalMemory(16 * MIB), frames=(MIB, MIB))
    tables.map([0x1000], [0x5000])
    assert tables.unmap(0x1000, 0x1000) == 0x1000
    tables.map([0], [GIB], page_shift=30)
    assert tables.walker().translate_one(0x1234).pa == GIB + 0x1234


BYTES = st.binary(min_size=1500, max_size=1500)
test_builder, test_builder_slow = quick_and_slow(check, BYTES, 120, 2000)
test_exhaustion, test_exhaustion_slow = quick_and_slow(check_exhaustion, BYTES, 50, 400)
