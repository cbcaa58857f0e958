"""A6, agile part: what walks read that begin in shadow tables and end in the guest's own.

A hypervisor without caches in front of its tables runs a guest, and a write to one of the guest's
tables takes it, and what is below, to nested mode. The expected counts are derived from the
definition: an entry of a shadow table is read directly, the first of the guest's tables is found by
the host address that the switching entry holds, and each further one, and the page, by a walk of
the nested tables.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from pyvirt._core.builder import PageTables
from pyvirt.mmu.agile import AgileRules
from pyvirt.mmu.geometry import Geometry
from pyvirt.mmu.memory import PhysicalMemory
from pyvirt.mmu.shadow import Hypervisor
from pyvirt.mmu.spaces import AddressSpace
from pyvirt.traces.events import Op, accesses
from pyvirt.validation.tally import Tally

__all__ = ["QUOTED_AGILE", "agile_walks"]

MIB = 1 << 20
RAM, TABLES, DATA = 16 * MIB, (1 * MIB, 1 * MIB), 8 * MIB
VA = 0x5555_4000_0000
INSIDE = 0x3458
#: References of 4 levels in 4 by how many of the guest's tables are in nested mode; at last the
#: guest's root is not known by host address, either. Quoted by Gandhi, Hill and Swift, ISCA 2016.
QUOTED_AGILE = (4, 8, 12, 16, 20, 24)
PROCESS = -1


@dataclass(frozen=True, slots=True)
class Case:
    """One walk.

    Attributes
    ----------
    levels, nested_levels : int
        Of the guest's and the nested tables.
    large : bool
        Whether the guest's page is one of 2 MiB.
    huge_tables, huge_data : bool
        Whether the host keeps the guest's tables, and its page, in pages of 2 MiB.
    nested : int
        How many of the guest's tables on the path are in nested mode; `PROCESS`: all, and the
        process is nested as a whole.
    """

    levels: int
    nested_levels: int
    large: bool
    huge_tables: bool
    huge_data: bool
    nested: int

    @property
    def tables(self) -> int:
        """How many of the guest's tables are on the path."""
        return self.levels - self.large

    def expected(self) -> tuple[list[int], list[int]]:
        """Give the reads of shadow or guest entries and of nested ones by level."""
        own = [0] * 6
        nested = [0] * 6
        if self.nested == 0:
            # a shadow entry is as large as guest and host allow
            last = 2 if self.large and self.huge_data else 1
            for level in range(last, self.levels + 1):
                own[level] = 1
            return own, nested
        for level in range(self.levels - self.tables + 1, self.levels + 1):
            own[level] = 1
        # a frame with a shadowed table beside it cannot be mapped by 2 MiB
        all_nested = self.nested in (self.tables, PROCESS)
        of_tables = 2 if self.huge_tables and all_nested else 1
        walks = self.tables if self.nested == PROCESS else self.nested - 1
        for level in range(of_tables, self.nested_levels + 1):
            nested[level] += walks
        for level in range(2 if self.huge_data else 1, self.nested_levels + 1):
            nested[level] += 1
        return own, nested


def _cases() -> list[Case]:
    levels, sizes = (4, 5), (False, True)
    return [
        Case(n, m, large, huge_tables, huge_data, nested)
        for n, m in itertools.product(levels, levels)
        for large, huge_tables, huge_data in itertools.product(sizes, sizes, sizes)
        for nested in (*range(n - large + 1), PROCESS)
    ]


def _walk(case: Case) -> tuple[list[int], list[int], str]:
    """Run a case; give the reads by level, and what else is wrong (or "")."""
    memory = PhysicalMemory(RAM)
    tables = PageTables(memory, levels=case.levels, frames=TABLES)
    size = 2 * MIB if case.large else 4096
    tables.map_range(VA, DATA, size, rights="rw", page_shift=size.bit_length() - 1)
    va = VA + (INSIDE & size - 1 & -8)
    memory.write_u64(DATA + va - VA, va)
    backing = np.zeros(RAM // (2 * MIB), bool)
    backing[0], backing[DATA // (2 * MIB)] = case.huge_tables, case.huge_data
    machine = Hypervisor(
        memory,
        tables="agile",
        agile=AgileRules(
            writes=1, interval=0, granularity="process" if case.nested == PROCESS else "table"
        ),
        backing=backing,
        levels=case.levels,
        nested_levels=case.nested_levels,
        cr3=tables.root,
        tlb=Geometry.none(),
    )
    load = accesses([va], Op.LOAD, 8)
    machine.run(load)
    if case.nested:
        path = AddressSpace(memory, tables.root, levels=case.levels).references(va)["pa"]
        written = int(path[0 if case.nested == PROCESS else case.tables - case.nested]) & -4096
        # the last entry of a table is not used; what was there, is there
        machine.run(accesses([written + 4088], Op.STORE_TABLE, 8))
    machine.run(load)
    machine.reset()
    values = np.zeros(1, np.uint64)
    machine.run(load, values=values)
    count = machine.mmu_counters
    assert count is not None
    wrong = "; ".join(machine.check())
    if values[0] != va:
        wrong += f"; read {values[0]:#x}"
    if machine.counters["x_pf"][0] or machine.counters["x_npf"][0]:
        wrong += "; exits"
    return count["guest_refs"][0].tolist(), count["host_refs"][0].tolist(), wrong


def agile_walks(tally: Tally) -> list[set[int]]:
    """Walk with the switch at each level, for all mixes of page sizes.

    Parameters
    ----------
    tally : Tally
        Receives a case for each walk.

    Returns
    -------
    list of set of int
        The counts for the cells of `QUOTED_AGILE`.
    """
    quoted: list[set[int]] = [set() for _ in QUOTED_AGILE]
    for case in _cases():
        own, nested, wrong = _walk(case)
        tally.check((own, nested) == case.expected(), f"{case}: {own} and {nested} by level")
        tally.check(not wrong, f"{case}: {wrong}")
        plain = not (case.large or case.huge_tables or case.huge_data)
        if plain and case.levels == case.nested_levels == 4:
            quoted[case.nested].add(sum(own) + sum(nested))
    return quoted
