"""A6 through the hypervisor: references of walks over the tables that it builds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pyvirt as pv
from pyvirt.mmu.geometry import Geometry
from pyvirt.traces import Op, accesses

TWO_MIB = 2 << 20
VA, PAGES = 0x5555_4000_0000, 0x1000000


def machine(large: bool, **options) -> tuple[pv.Hypervisor, np.ndarray]:
    """A guest with 8 MiB in pages of 4 KiB or 2 MiB, and addresses all over them."""
    memory = pv.PhysicalMemory(64 << 20)
    tables = pv.PageTables(memory, frames=(0x100000, 0x100000), levels=options.get("levels", 4))
    shift = 21 if large else 12
    tables.map_range(VA, PAGES, 4 * TWO_MIB, rights="rw", page_shift=shift)
    run = pv.Hypervisor(memory, cr3=tables.root, tlb=Geometry.none(), **options)
    return run, VA + 0x1000 * np.arange(0, 2048, 61)


def references(run: pv.Hypervisor, vas: np.ndarray) -> tuple[set[int], np.ndarray]:
    """References of each access once nothing faults any more, and by level in both dimensions."""
    run.run(accesses(vas, Op.STORE, 8))
    found = set()
    run.reset()
    for va in vas:
        before = run.mmu_counters.copy()
        run.run(accesses([va], Op.STORE, 8))
        total = 0
        for name in ("guest_refs", "host_refs"):
            total += int((run.mmu_counters[name] - before[name]).sum())
        found.add(total)
    assert run.counters["x_pf"][0] == run.counters["x_npf"][0] == 0
    return found, run.mmu_counters


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize(("large", "huge"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_shadow_walks_read_one_entry_a_level(levels: int, large: bool, huge: bool):
    run, vas = machine(large, levels=levels, backing="2M" if huge else "4K")
    found, counted = references(run, vas)
    assert found == {levels - 1 if large and huge else levels}
    assert counted["host_refs"].sum() == 0


@pytest.mark.parametrize("tables", ["tdp", "legacy"])
@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("nested_levels", [4, 5])
@pytest.mark.parametrize(("large", "huge"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_nested_walks(tables: str, levels: int, nested_levels: int, large: bool, huge: bool):
    run, vas = machine(
        large,
        levels=levels,
        nested_levels=nested_levels,
        tables=tables,
        backing="2M" if huge else "4K",
    )
    n, m = levels - large, nested_levels - huge
    found, counted = references(run, vas)
    assert found == {(n + 1) * (m + 1) - 1}
    assert counted["guest_refs"].sum() == n * len(vas)
    assert counted["host_refs"].sum() == m * (n + 1) * len(vas)


@settings(max_examples=20, deadline=None)
@given(
    flags=st.lists(st.booleans(), min_size=32, max_size=32),
    tables=st.sampled_from(["shadow", "tdp", "legacy"]),
)
def test_mixed_backing(flags: list[bool], tables: str):
    """Each nested walk follows from how the host keeps the tables and the page."""
    run, vas = machine(False, tables=tables, backing=np.array(flags))
    run.run(accesses(vas, Op.STORE, 8))
    for va in vas:
        frame = PAGES + int(va) - VA
        before = run.mmu_counters.copy()
        run.run(accesses([va], Op.STORE, 8))
        found = [
            int((run.mmu_counters[name] - before[name]).sum())
            for name in ("guest_refs", "host_refs")
        ]
        of_tables, of_page = 4 - flags[0x100000 // TWO_MIB], 4 - flags[frame // TWO_MIB]
        assert found == ([4, 0] if tables == "shadow" else [4, 4 * of_tables + of_page])
