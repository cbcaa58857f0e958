"""Tables of counters: what is in them adds up to what was counted."""

from typing import Any

import numpy as np
import pytest

import pyvirt as pv
from pyvirt._core.dtypes import COUNTER_DTYPE
from pyvirt.errors import InvalidTypeError
from pyvirt.mmu.demand import DemandMapper
from pyvirt.report import cycle_table, event_table, reference_table, summarise, tlb_table
from pyvirt.report.mmu import OPERATIONS, SINGLE
from pyvirt.traces import accesses


@pytest.fixture(scope="module")
def nested() -> pv.MMU:
    """A guest with two vCPUs, misses in all levels, a fault, an invalidation."""
    system = DemandMapper("2M", nested=True)
    mmu = system.mmu(tlb="zen4", vcpus=2)
    rng = np.random.default_rng(2)
    events = accesses(
        rng.integers(0, 1 << 33, 20_000) & ~0xFFF,
        rng.integers(1, 4, 20_000),
        8,
        vcpu=rng.integers(0, 2, 20_000),
    )
    events["addr"][::7] |= 0xFFC
    mmu.run(system.prepare(events))
    mmu.translate([1 << 46, 1 << 47])
    mmu.invlpg(int(events["addr"][0]), shoot_down=True)
    return mmu


def total(counters: Any, name: str) -> int:
    return int(counters[name].sum())


def test_summary(nested: pv.MMU):
    c = nested.counters
    found = summarise(c)
    assert found == summarise(nested.stats())
    assert found.accesses == total(c, "accesses") == 20_002 + total(c, "splits")
    assert found.misses == found.walks + found.faults
    assert found.faults == 2
    assert found.miss_ratio == found.misses / found.accesses
    assert found.references_per_walk * found.walks == pytest.approx(
        total(c, "guest_refs") + total(c, "host_refs")
    )


def test_no_access_is_no_division_by_zero():
    found = summarise(np.zeros((), COUNTER_DTYPE)[()])
    assert (found.miss_ratio, found.references_per_walk) == (0, 0)
    rows = tlb_table(np.zeros(3, COUNTER_DTYPE)).rows
    assert [row[0] for row in rows] == ["L1 TLB", "walk"]
    assert len(reference_table(np.zeros(1, COUNTER_DTYPE))) == 0
    assert len(event_table(np.zeros(1, COUNTER_DTYPE))) == 0


def test_tlb_table(nested: pv.MMU):
    table = tlb_table(nested.counters)
    rows = {row["served by"]: row for row in table}
    assert list(rows) == ["L1 TLB", "L2 TLB", "walk", "fault"]
    stats = nested.stats()
    for level in (1, 2):
        row = rows[f"L{level} TLB"]
        hits = [row[page] for page in ("4K", "2M", "1G")]
        assert hits == stats["tlb_hits"][level - 1].tolist()
        assert row["total"] == sum(hits)
    every = summarise(stats).accesses
    assert sum(row["total"] for row in rows.values()) == every
    first = rows["L1 TLB"]["total"]
    assert rows["L1 TLB"]["miss ratio"] == pytest.approx(1 - first / every)
    assert rows["L2 TLB"]["miss ratio"] == pytest.approx(
        1 - rows["L2 TLB"]["total"] / (every - first)
    )


def test_reference_table(nested: pv.MMU):
    stats = nested.stats()
    table = reference_table(stats)
    for side in ("guest", "host"):
        read = {row["level"]: row["references"] for row in table if row["tables"] == side}
        assert sum(read.values()) == total(stats, f"{side}_refs")
        assert all(stats[f"{side}_refs"][level] == n for level, n in read.items())
        saved = sum(row["cache hits"] for row in table if row["tables"] == side)
        assert saved == total(stats, f"{side}_cache_hits")
    (last,) = (row for row in table if row["tables"] == "nested TLB")
    assert last["cache hits"] == total(stats, "nested_tlb_hits") > 0
    per_walk = sum(row["per walk"] for row in table if row["per walk"] != "")
    assert per_walk == pytest.approx(summarise(stats).references_per_walk)


def test_event_table(nested: pv.MMU):
    counts = {row["event"]: row["count"] for row in event_table(nested.counters)}
    assert counts["page faults"] == 1
    assert counts["faults: not present"] == counts["faults: non canonical"] == 1
    assert counts["invalidations: INVLPG"] == counts["shoot-downs"] == 1
    assert counts["interrupts of shoot-downs"] == 1
    assert counts["accesses that cross a page"] > 1000
    assert all(counts.values())


def test_every_counter_is_in_a_table():
    """Each one, set alone, shows."""
    for name in COUNTER_DTYPE.names or ():
        shape = COUNTER_DTYPE[name].shape
        for index in np.ndindex(shape):
            counters = np.zeros(1, COUNTER_DTYPE)
            counters[name][(0, *index)] = 7
            shown = [
                cell
                for table in (tlb_table, reference_table, event_table)
                for row in table(counters).rows
                for cell in row
            ]
            unused = (
                (name == "invalidations" and index[0] >= len(OPERATIONS))
                or (name.endswith(("_refs", "_cache_hits")) and index == (0,))
                or name in ("accesses", "nested_walks")
                or (name == "faults" and index[0] == 0)
            )
            assert unused or 7 in shown, (name, index)
    assert set(SINGLE) <= set(COUNTER_DTYPE.names or ())


def test_cycle_table():
    cycles = pv.CostModel("mine", {"walk": 10, "page_fault": 500}).cycles(
        {"walks": [3, 0, 0], "page_faults": 2, "tlb_hits": np.ones((7, 3), int)}
    )
    assert cycle_table(cycles).rows == (
        ("page_fault", 2, 1000, 1000 / 1030),
        ("walk", 3, 30, 30 / 1030),
        ("total", "", 1030, 1.0),
    )
    assert cycle_table(pv.CostModel("none", {}).cycles({})).rows == (("total", "", 0, 0.0),)


def test_a_table_is_rows_of_data(nested: pv.MMU):
    table = event_table(nested.counters)
    assert len(table) == len(table.rows) == len(list(table))
    assert [tuple(row.values()) for row in table] == list(table.rows)


@pytest.mark.parametrize("bad", [None, {}, np.zeros(3), 5])
def test_other_things_are_refused(bad: Any):
    for function in (summarise, tlb_table, reference_table, event_table):
        with pytest.raises(InvalidTypeError, match="counters"):
            function(bad)


def test_operations_are_those_of_the_engine():
    mmu = pv.MMU("tlb-only")
    mmu.mov_cr3(0x1000)
    mmu.invpcid(2)
    counts = {row["event"]: row["count"] for row in event_table(mmu.counters)}
    assert counts == {"invalidations: MOV CR3": 1, "invalidations: INVPCID": 1}
