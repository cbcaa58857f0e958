"""Small machines for the tests: tables built in fresh memory, and streams over their pages.

Everything is a function of a `Tape` (or of plain arguments) and can be built as often as
wanted: the model and the engine each get a machine of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyvirt as pv
from core.strategies import Tape
from pyvirt.mmu.geometry import Cache, Geometry, TlbArray, WalkCache

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
RAM = 4 * GIB
#: Where the tables of the guest's two address spaces and of the two nested ones are.
GUEST_TABLES = ((1 * MIB, MIB // 2), (1 * MIB + MIB // 2, MIB // 2))
HOST_TABLES = ((256 * MIB, 2 * MIB), (258 * MIB, 2 * MIB))
#: How far guest-physical memory is moved in host memory, by nested root.
OFFSETS = (512 * MIB, 768 * MIB)
GUEST_RAM = 64 * MIB
DATA = 4 * MIB

PCIDE, PGE, SMEP, SMAP, PKE = 1 << 17, 1 << 7, 1 << 20, 1 << 21, 1 << 22


@dataclass(frozen=True)
class Page:
    """One page of an address space."""

    va: int
    pa: int
    shift: int
    rights: str
    attrs: int


@dataclass
class Machine:
    """What to build, with two address spaces and, where nested, two nested roots."""

    mode: str
    guest_format: str = "x86-64"
    guest_levels: int = 4
    nested_format: str = "ept"
    nested_levels: int = 4
    spaces: list[list[Page]] = field(default_factory=lambda: [[], []])
    backings: list[list[Page]] = field(default_factory=lambda: [[], []])
    roots: list[int] = field(default_factory=list)
    """CR3 of the two spaces, after `build`."""
    nested_roots: list[int] = field(default_factory=list)
    slots: list[tuple[int, int]] = field(default_factory=list)
    """(own-physical address, entry) of table entries that a walk of the pages reads."""
    options: dict[str, Any] = field(default_factory=dict)
    guest_tables: list[Any] = field(default_factory=list)

    def build(self) -> tuple[Any, dict[str, Any]]:
        """Fresh memory with all tables, and the keywords of an MMU over them."""
        memory = pv.PhysicalMemory(RAM)
        self.roots, self.nested_roots, self.slots, self.guest_tables = [], [], [], []
        outer = None
        if self.mode == "nested":
            for i in (0, 1):
                tables = pv.PageTables(
                    memory,
                    format=self.nested_format,
                    levels=self.nested_levels,
                    frames=HOST_TABLES[i],
                )
                for page in self.backings[i]:
                    _map(tables, page)
                self.nested_roots.append(tables.root)
                outer = outer or tables.walker()
        for i in (0, 1):
            tables = pv.PageTables(
                memory,
                format=self.guest_format,
                levels=self.guest_levels,
                frames=GUEST_TABLES[i],
                outer=outer,
            )
            for page in self.spaces[i]:
                _map(tables, page)
            self.roots.append(tables.root)
            self.guest_tables.append(tables)
            walker = tables.walker()
            for page in self.spaces[i]:
                self.slots += [
                    (int(ref["address"]), int(ref["entry"]))
                    for ref in walker.references(page.va, "r")
                    if ref["dimension"] == 0
                ]
        keywords: dict[str, Any] = {
            "mode": self.mode,
            "cr3": self.roots[0],
            "guest_format": self.guest_format,
            "guest_levels": self.guest_levels,
            "tables": self.guest_tables[0],
        }
        if self.mode == "nested":
            keywords |= {
                "nested_root": self.nested_roots[0],
                "nested_format": self.nested_format,
                "nested_levels": self.nested_levels,
            }
        return memory, keywords | self.options


def _map(tables: Any, page: Page) -> None:
    size = 1 << page.shift
    tables.map_range(
        page.va,
        page.pa,
        size,
        page_shift=page.shift,
        rights=page.rights,
        attrs=page.attrs,
        overwrite=True,
    )


# ---------------------------------------------------------------------------- by the tape


def backing(tape: Tape, format: str, which: int) -> list[Page]:
    """Pages of a nested space: guest tables in 4 KiB or 2 MiB pages, data in all kinds."""
    everything = "rwx" if format == "ept" else "rwxu"
    offset = OFFSETS[0]  # tables lie in one place, whichever root is loaded
    pages = []
    if tape.chance(30):
        pages.append(Page(0, offset, 21, everything, 0))
    else:
        for gpa in range(MIB, 2 * MIB, 4096):
            pages.append(Page(gpa, offset + gpa, 12, everything, 0))
    offset = OFFSETS[which]
    for gpa in range(DATA, DATA + 12 * MIB, 2 * MIB):
        rights = tape.pick((everything, everything, everything, everything.replace("w", "")))
        if tape.chance(60):
            pages.append(Page(gpa, offset + gpa, 21, rights, 0))
        elif not tape.chance(10):
            for small in range(gpa, gpa + 2 * MIB, 64 * KIB):
                pages.append(Page(small, offset + small, 12, everything, 0))
                pages.append(Page(small + 4096, offset + small + 4096, 12, rights, 0))
    return pages


def machine(tape: Tape, mode: str) -> Machine:
    """A machine with pages of random sizes and rights in a few places."""
    shape = tape.pick((("x86-64", 4), ("x86-64", 5), ("pae", 3), ("x86-32", 2), ("x86-64", 4)))
    nested = tape.pick((("ept", 4), ("npt", 4), ("ept", 5)))
    m = Machine(mode, *shape, *nested)
    narrow = shape[0] in ("pae", "x86-32")
    places = [0x40_0000, 0x8000_0000]
    if not narrow:
        places += [0x5555_4000_0000, (1 << 64) - 0x4000_0000_0000, 1 << 39]
    large = [21] if shape[0] != "x86-32" else [22]
    if shape[0] == "x86-64":
        large.append(30)
    for i in (0, 1):
        taken: list[tuple[int, int]] = []
        for _ in range(4 + tape.below(8)):
            shift = 12 if tape.chance(60) else tape.pick(large)
            place = tape.pick(places) + (tape.below(4) << 21) + (tape.below(6) << 12)
            if shift > 12:
                place = tape.pick(places) + (tape.below(3) << shift)
            va = place & -(1 << shift) & (1 << 64) - 1
            if any(va < e and s < va + (1 << shift) for s, e in taken):
                continue
            taken.append((va, va + (1 << shift)))
            if shift == 30:
                pa = 0
            elif shift > 12:
                pa = DATA + tape.below(3) * (4 * MIB)
            else:
                pa = DATA + (tape.below(3) << 21) + (tape.below(40) << 12)
            if shift == 22:
                pa &= -(1 << 22)
            rights = tape.pick(("rwxu", "rwx", "rxu", "ru", "r", "rwu", "rwxu"))
            if shape[0] == "x86-32":
                rights += "" if "x" in rights else "x"
            m.spaces[i].append(Page(va, pa, shift, rights, 0x100 if tape.chance(25) else 0))
    if mode == "nested":
        m.backings = [backing(tape, nested[0], which) for which in (0, 1)]
    cr4 = 0xB0
    for bit in (PCIDE if shape[0] == "x86-64" else 0, SMEP, SMAP):
        cr4 |= bit if tape.chance(50) else 0
    cr4 ^= PGE if tape.chance(20) else 0
    m.options = {"cr4": cr4}
    if mode == "nested":
        m.options |= {"ept_ad": tape.chance(50), "vpids": not tape.chance(30)}
        m.options["pml"] = nested[0] == "ept" and m.options["ept_ad"] and tape.chance(50)
        if nested[0] != "ept":
            m.options["ept_ad"] = False
    m.options["set_ad"] = not tape.chance(30)
    if not m.options["set_ad"]:
        m.options["pml"] = False
    return m


def cache(tape: Tape, fully: bool = False) -> Cache:
    """A tiny array, so that it overflows soon."""
    policy = tape.pick(("lru", "fifo", "tree-plru", "bit-plru", "random"))
    ways = tape.pick((4, 2, 1, 8)) if policy == "tree-plru" else tape.pick((4, 2, 3, 1, 5))
    if fully:
        return Cache(ways, ways, policy)
    sets = tape.pick((1, 2, 3, 4))
    hashed = sets in (2, 4) and tape.chance(40)
    return Cache(sets * ways, ways, policy, f"xor-{sets.bit_length() - 1}" if hashed else "linear")


def walk_cache(tape: Tape) -> WalkCache | None:
    kind = tape.pick(("split", "page-table", "path", None))
    if kind is None:
        return None
    if kind == "split":
        levels = [level for level in (2, 3, 4, 5) if not tape.chance(25)] or [2]
        return WalkCache("split", {level: cache(tape) for level in levels})
    return WalkCache(kind, cache(tape, fully=kind == "path"))


def geometry(tape: Tape, levels: int = 0) -> Geometry:
    """TLBs of up to three levels with several arrays each, and walk caches of any kind.

    With `levels` that many, of at most two arrays.
    """
    arrays = []
    for level in range(1, 1 + (levels or tape.below(4))):
        if tape.chance(40):
            serves = (
                [("fetch",), ("load",), ("store",)]
                if tape.chance(40) and not levels
                else [("fetch",), ("load", "store")]
            )
        else:
            serves = [("fetch", "load", "store")]
        for kinds in serves:
            for _ in range(1 if levels else 1 + tape.below(2)):
                pages = tape.pick(
                    (("4K",), ("4K", "2M"), ("4K", "2M", "1G"), ("2M", "1G"), ("1G",), ("4K", "1G"))
                )
                arrays.append(
                    TlbArray(f"tlb{len(arrays)}", level, cache(tape), pages, kinds, tape.chance(40))
                )
    return Geometry(
        "random",
        tuple(arrays),
        walk_cache(tape),
        tape.pick(("host", "guest")),
        walk_cache(tape),
        None if tape.chance(30) else cache(tape),
        tape.chance(30),
    )


def addresses(tape: Tape, m: Machine) -> Callable[[], int]:
    """A source of addresses: mostly mapped, some beside, few that no table can map."""
    pages = m.spaces[0] + m.spaces[1]
    chosen = []
    for page in pages:
        span = 1 << page.shift
        chosen += [page.va, page.va + span - 1, page.va + span // 2]
        chosen.append(page.va + (tape.number(4) & span - 1))
    strange = [page.va + (1 << page.shift) for page in pages[:2]] + [1 << 62, 0]
    width = (1 << 64) - 1

    def draw() -> int:
        return (tape.pick(strange) if tape.chance(8) else tape.pick(chosen)) & width

    return draw
