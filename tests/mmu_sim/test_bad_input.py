"""What the MMU refuses, and that it is unharmed by it."""

from __future__ import annotations

import numpy as np
import pytest

import pyvirt as pv
from mmu_sim.engine import INVPCID, INVVPID, VCPU_SWITCH, counters_of, entries_of, events_of
from mmu_sim.machines import MIB
from pyvirt.errors import InvalidTypeError, InvalidValueError, PageFaultError, PyvirtError
from pyvirt.mmu.geometry import Cache, Geometry, TlbArray, WalkCache


def native(**options) -> pv.MMU:
    memory = pv.PhysicalMemory(16 * MIB)
    tables = pv.PageTables(memory, frames=(MIB, MIB))
    tables.map([0x1000, 0x2000], [0x5000, 0x6000], rights="rw")
    return pv.MMU("native", memory, cr3=tables.root, **options)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cache(0),
        lambda: Cache(-4, 2),
        lambda: Cache(6, 4),
        lambda: Cache(1 << 21, 4),
        lambda: Cache(8, 8192),
        lambda: Cache(12, 3, "tree-plru"),
        lambda: Cache(128, 128, "tree-plru"),
        lambda: Cache(128, 128, "bit-plru"),
        lambda: Cache(4, 4, "mru"),
        lambda: Cache(4, 2, "lru", "xor-2"),
        lambda: Cache(4, 2, "lru", "crc"),
        lambda: TlbArray("a", 0, Cache(4)),
        lambda: TlbArray("a", 8, Cache(4)),
        lambda: TlbArray("a", 1, Cache(4), ("64K",)),
        lambda: TlbArray("a", 1, Cache(4), ()),
        lambda: TlbArray("a", 1, Cache(4), serves=("read",)),
        lambda: WalkCache("split", {1: Cache(4)}),
        lambda: WalkCache("split", {6: Cache(4)}),
        lambda: WalkCache("path", Cache(8, 2)),
        lambda: WalkCache("other", Cache(8)),
        lambda: Geometry("a", (TlbArray("a", 2, Cache(4)),)),
        lambda: Geometry("a", tuple(TlbArray(str(i), 1, Cache(4)) for i in range(17))),
        lambda: Geometry("a", guest_points_to="nowhere"),
    ],
)
def test_impossible_geometries(make):
    with pytest.raises((InvalidValueError, InvalidTypeError)):
        make()


def test_an_unknown_preset_names_its_neighbours():
    with pytest.raises(InvalidValueError, match="skylake-sp"):
        native(tlb="skylake")


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "paged"},
        {"mode": "tlb-only", "vcpus": 0},
        {"mode": "tlb-only", "vcpus": -1},
        {"mode": "tlb-only", "precision": "vague"},
        {"mode": "tlb-only", "prefetch": "maybe"},
        {"mode": "tlb-only", "tlb": 5},
        {"mode": "tlb-only", "rng": "seed"},
        {"mode": "tlb-only", "colour": "red"},
        {"mode": "native"},
        {"mode": "nested"},
    ],
)
def test_arguments_of_the_constructor(options: dict):
    with pytest.raises((InvalidValueError, InvalidTypeError)):
        pv.MMU(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"pml": True},
        {"guest_format": "ept"},
        {"nested_format": "x86-64", "mode": "nested"},
        {"guest_levels": 3},
        {"pa_width": 99},
    ],
)
def test_arguments_about_tables(options: dict):
    memory = pv.PhysicalMemory(MIB)
    with pytest.raises((InvalidValueError, InvalidTypeError)):
        pv.MMU(**{"mode": "native", "memory": memory, **options})


CALLS = {
    "access": lambda m: m.translate([0x1000], "q"),
    "on_fault": lambda m: m.translate([0x1000], on_fault="ignore"),
    "vcpu": lambda m: m.translate([0x1000], vcpu=1),
    "negative vcpu": lambda m: m.translate_one(0x1000, "r", False, -1),
    "addresses": lambda m: m.translate([1.5]),
    "wide address": lambda m: m.translate_one(1 << 64),
    "negative address": lambda m: m.translate_one(-1),
    "INVPCID 4": lambda m: m.invpcid(4, 0, 0),
    "PCID": lambda m: m.invpcid(0, 4096, 0),
    "INVVPID 4": lambda m: m.invvpid(4, 1, 0),
    "INVEPT 0": lambda m: m.invept(0, 0),
    "INVEPT 3": lambda m: m.invept(3, 0),
    "core": lambda m: m.entries(1),
    "events": lambda m: m.run(np.zeros(3)),
    "event vcpu": lambda m: m.run(events_of([(1, 0, 7, 0, 0x1000, 0)])),
    "event": lambda m: m.run(events_of([(99, 0, 0, 0, 0x1000, 0)])),
    "event INVPCID": lambda m: m.run(events_of([(INVPCID, 0, 0, 9, 0, 0)])),
    "event INVVPID": lambda m: m.run(events_of([(INVVPID, 0, 0, 9, 0, 0)])),
    "event core": lambda m: m.run(events_of([(VCPU_SWITCH, 0, 0, 5, 0, 0)])),
    "event size": lambda m: m.run(events_of([(32, 3, 0, 0, MIB, 0)])),
    "no tables": lambda m: m.run(events_of([(33, 12, 0, 1, 0x9000, 0x9000)])),
}


@pytest.mark.parametrize("name", CALLS)
def test_arguments_of_calls(name: str):
    mmu = native()
    mmu.translate([0x1000, 0x2000])
    before = counters_of(mmu), entries_of(mmu)
    with pytest.raises(PyvirtError):
        CALLS[name](mmu)
    assert (counters_of(mmu), entries_of(mmu)) == before
    assert mmu.load(0x1000) == 0x5000


def test_events_before_a_bad_one_are_done():
    mmu = native()
    with pytest.raises(PyvirtError):
        mmu.run(events_of([(1, 0, 0, 0, 0x1000, 0), (99, 0, 0, 0, 0, 0), (1, 0, 0, 0, 0x2000, 0)]))
    assert int(mmu.stats()["accesses"].sum()) == 1


def test_non_canonical_addresses_are_codes():
    mmu = native()
    before = entries_of(mmu)
    vas = np.array([1 << 47, (1 << 64) - (1 << 47) - 1, 1 << 63, 0x1000], np.uint64)
    result = mmu.translate(vas)
    assert (result.code & 15).tolist()[:3] == [pv.Fault.NON_CANONICAL] * 3
    assert result.pa.tolist() == [0, 0, 0, 0x5000]
    assert entries_of(mmu) != before
    assert int(mmu.stats()["faults"][pv.Fault.NON_CANONICAL]) == 3


def test_stop_and_raise():
    mmu = native()
    vas = [0x1000, 0x9000, 0x2000]
    result = mmu.translate(vas, on_fault="stop")
    assert (result.code & 15).tolist() == [0, pv.Fault.NOT_PRESENT, pv.Fault.SKIPPED]
    assert int(mmu.stats()["accesses"].sum()) == 2
    with pytest.raises(PageFaultError) as caught:
        mmu.translate(vas, on_fault="raise")
    assert (caught.value.va, caught.value.fault) == (0x9000, pv.Fault.NOT_PRESENT)
    for call in (mmu.load, mmu.store, mmu.fetch):
        with pytest.raises(PageFaultError):
            call(0x9000)
    with pytest.raises(PageFaultError):
        mmu.fetch(0x1000)


@pytest.mark.parametrize("vas", [[], np.empty(0, np.uint64)])
def test_nothing_to_do(vas):
    mmu = native()
    assert len(mmu.translate(vas).pa) == 0
    assert mmu.run(events_of([])) == 0
