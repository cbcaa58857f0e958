"""A6: how many table entries a walk reads, and in which order, without any cache.

The tables are built by `pyvirt._core.builder` in empty memory, one set for each pair (or
triple) of table formats, and the walker says what it read. The expected list is derived
from the definition alone: before a walker can read an entry at a guest-physical address,
that address goes through the next dimension, and so does the address that it ends with.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from pyvirt._core.builder import PageTables
from pyvirt.mmu.memory import PhysicalMemory
from pyvirt.mmu.spaces import AddressSpace, NestedAddressSpace
from pyvirt.validation.agile_walks import QUOTED_AGILE, agile_walks
from pyvirt.validation.registry import Context, Outcome, experiment
from pyvirt.validation.tally import Tally

__all__ = ["references"]

MIB, GIB = 1 << 20, 1 << 30
#: Every dimension keeps its tables here in its own physical memory; the innermost one maps
#: its page to DATA. Each physical memory lies in the next one out shifted as a whole, by a
#: multiple of 1 GiB, so that pages of any size can back it.
TABLES, DATA = (1 * MIB, 1 * MIB), 3 * GIB
SHIFT = (0, 8 * GIB, 32 * GIB)
RAM = 64 * GIB
VA = 0x00AB_5555_4000_0000  # needs five levels; narrower tables use its low bits
INSIDE = 0x0012_3458

#: The cells that published work quotes: levels read by the guest's walk, by the host's, and
#: the references of both together.
QUOTED = {(4, 4): 24, (5, 5): 35, (4, 3): 19, (3, 3): 15, (2, 2): 8, (4, 5): 29}


@dataclass(frozen=True, slots=True)
class Tables:
    """A format of tables and a page size: what decides how many entries a walk reads.

    Attributes
    ----------
    format : str
        As the table builder names it.
    levels : int
        Levels of tables.
    shift : int
        Log2 of the page size.
    last : int
        The level whose entries are the leaves.
    """

    format: str
    levels: int
    shift: int
    last: int

    @property
    def reads(self) -> list[int]:
        """The levels of the entries that a walk reads, in order."""
        return list(range(self.levels, self.last - 1, -1))

    @property
    def rights(self) -> str:
        """Every right; NPT walks count as user accesses."""
        return "rwx" if self.format == "ept" else "rwxu"


def _variants(format: str) -> list[Tables]:
    """Give all tables of one format with 2 to 5 reads a walk."""
    if format == "pae":
        return [Tables(format, 3, 12, 1), Tables(format, 3, 21, 2)]
    if format == "x86-32":
        return [Tables(format, 2, 12, 1)]
    return [
        Tables(format, levels, 12 + 9 * (last - 1), last) for levels in (4, 5) for last in (1, 2, 3)
    ]


def _order(dimensions: list[list[list[int]]]) -> list[tuple[int, int]]:
    """List (dimension, level) of each read of a walk, from the definition.

    `dimensions` holds for each dimension the levels read when it serves a table of the
    dimension before, and when it serves the final address.
    """

    def walk(k: int, final: bool) -> list[tuple[int, int]]:
        if k == len(dimensions):
            return []
        reads = []
        for level in dimensions[k][final]:
            reads += walk(k + 1, False) + [(k, level)]
        return reads + walk(k + 1, final)

    return walk(0, True)


class Machine:
    """Fresh memory with tables for one, two or three dimensions.

    Parameters
    ----------
    dimensions : list of (Tables, Tables)
        For each dimension, innermost first: its tables where they map the tables of another,
        and where they map the data. Both have the same format and number of levels.

    Attributes
    ----------
    va : int
        The address that is mapped through all of them.
    pa : int
        Where it ends in host memory.
    """

    def __init__(self, dimensions: list[tuple[Tables, Tables]]) -> None:
        own = dimensions[0][1]
        bits = {5: 56, 4: 47, 3: 32, 2: 32}[own.levels]
        inside = INSIDE & (1 << own.shift) - 1
        self.va = VA & (1 << bits) - 1 | inside
        self.pa = DATA + inside + sum(SHIFT[: len(dimensions)])
        self.memory: PhysicalMemory = PhysicalMemory(RAM)
        self.dimensions = dimensions
        self.roots: list[int] = [0] * len(dimensions)
        self.walkers: list[Any] = [None] * len(dimensions)

        # What has to be mapped, in the physical memory of each dimension.
        regions = [[(DATA + inside & -4096, 4096, True), (*TABLES, False)]]
        for k in range(1, len(dimensions)):
            inner = [(start + SHIFT[k], size, data) for start, size, data in regions[-1]]
            regions.append([*inner, (*TABLES, False)])
        # The outermost tables first: the others are written through them.
        outer = None
        for k in reversed(range(len(dimensions))):
            for_tables, for_data = dimensions[k]
            built = PageTables(
                self.memory,
                format=for_data.format,
                levels=for_data.levels,
                frames=TABLES,
                outer=outer,
            )
            if k == 0:
                size = 1 << own.shift
                built.map_range(
                    self.va & -size, DATA, size, page_shift=own.shift, rights=own.rights
                )
            else:
                for start, size, data in regions[k - 1]:
                    page = for_data if data else for_tables
                    first = start & -(1 << page.shift)
                    end = start + size + (1 << page.shift) - 1 & -(1 << page.shift)
                    built.map_range(
                        first,
                        first + SHIFT[k],
                        end - first,
                        page_shift=page.shift,
                        rights=page.rights,
                    )
            self.roots[k] = built.root
            outer = self.walkers[k] = built.walker()

    def space(self) -> Any:
        """Give the address space over all dimensions."""
        own = self.dimensions[0][1]
        if len(self.dimensions) == 1:
            return AddressSpace(self.memory, self.roots[0], format=own.format, levels=own.levels)
        nested = self.dimensions[1][1]
        return NestedAddressSpace(
            self.memory,
            guest_cr3=self.roots[0],
            guest_format=own.format,
            guest_levels=own.levels,
            nested_root=self.roots[1],
            nested_format=nested.format,
            nested_levels=nested.levels,
            outer=self.walkers[2] if len(self.dimensions) == 3 else None,
        )

    def wrong(self) -> tuple[int, str]:
        """Walk, and give the number of references and what is wrong with them (or "")."""
        space = self.space()
        refs = space.references(self.va, "r", True)
        order = _order([[t.reads for t in pair] for pair in self.dimensions])
        got = list(zip(refs["dimension"].tolist(), refs["level"].tolist(), strict=True))
        host = refs["pa"].tolist()
        t = space.translate(self.va, "r", True)
        if not t.ok or t.pa != self.pa:
            return len(got), f"{self.va:#x} translates to {t.pa:#x}, not {self.pa:#x}"
        if got != order:
            return len(got), f"reads {got}, not {order}"
        if refs["entry"].tolist() != [self._entry(pa) for pa in host]:
            return len(got), "entries differ from what lies at their addresses"
        # A table of dimension k lies in host memory where all the shifts further out put it.
        for k, (address, pa) in zip(
            refs["dimension"].tolist(),
            zip(refs["address"].tolist(), host, strict=True),
            strict=True,
        ):
            if pa != address + sum(SHIFT[k + 1 : len(self.dimensions)]):
                return len(got), f"the entry at {address:#x} was read at {pa:#x}"
        return len(got), ""

    def _entry(self, pa: int) -> int:
        """Read the entry again; those of legacy 32-bit tables have four bytes."""
        legacy = self.dimensions[0][1].format == "x86-32"
        return self.memory.read_u32(pa) if legacy else self.memory.read_u64(pa)


@experiment("A6", "page-walk references without caches")
def references(context: Context) -> Outcome:
    """Count and order the reads of native, nested, three-dimensional and agile walks."""
    tally = Tally()
    native: dict[int, set[int]] = {}
    quoted: dict[tuple[int, int], set[int]] = {}

    def walk(dimensions: list[tuple[Tables, Tables]], count: int) -> int:
        machine = Machine(dimensions)
        got, wrong = machine.wrong()
        name = " over ".join(
            f"{data.format} {data.levels} levels, {1 << data.shift >> 10}K pages"
            for _, data in dimensions
        )
        tally.check(got == count, f"{name}: {got} references, not {count}")
        tally.check(not wrong, f"{name}: {wrong}")
        return got

    guests = _variants("x86-64")
    context.report("native walks")
    for tables in [*guests, *_variants("pae"), *_variants("x86-32")]:
        n = len(tables.reads)
        native.setdefault(n, set()).add(walk([(tables, tables)], n))

    context.report("nested walks")
    for guest, format, levels in itertools.product(guests, ("npt", "ept"), (4, 5)):
        hosts = [t for t in _variants(format) if t.levels == levels]
        # The guest's tables and its data can lie in pages of different sizes.
        for for_tables, for_data in itertools.product(hosts, hosts):
            n, m, final = len(guest.reads), len(for_tables.reads), len(for_data.reads)
            got = walk([(guest, guest), (for_tables, for_data)], n * (m + 1) + final)
            if for_tables is for_data and (n, m) in QUOTED:
                quoted.setdefault((n, m), set()).add(got)

    context.report("three dimensions")
    three: set[int] = set()
    by_reads = {len(t.reads): t for t in (*guests[3:], *guests[:3])}  # four levels preferred
    nested = {len(t.reads): t for t in (*_variants("npt")[3:], *_variants("npt")[:3])}
    for n, m, k in itertools.product(range(2, 6), repeat=3):
        triple = [by_reads[n], nested[m], nested[k]]
        got = walk([(t, t) for t in triple], (n + 1) * (m + 1) * (k + 1) - 1)
        if (n, m, k) == (4, 4, 4):
            three.add(got)

    context.report("agile walks")
    agile = agile_walks(tally)
    return tally.outcome(
        "A6",
        sentences=(
            _sentence(
                {n: {n} for n in range(2, 6)},
                {k: {v} for k, v in QUOTED.items()},
                {124},
                [{count} for count in QUOTED_AGILE],
            ),
            _sentence(native, quoted, three, agile),
        ),
    )


def _sentence(
    native: dict[int, set[int]],
    quoted: dict[tuple[int, int], set[int]],
    three: set[int],
    agile: list[set[int]],
) -> str:
    """Show the counts; more than one for a cell, were there any, with a slash."""

    def show(counts: set[int]) -> str:
        return "/".join(map(str, sorted(counts)))

    return (
        f"native {', '.join(show(native[n]) for n in sorted(native))}; "
        f"nested {', '.join(show(quoted[cell]) for cell in QUOTED)}; "
        f"three dimensions {show(three)}; agile {', '.join(map(show, agile))}"
    )
