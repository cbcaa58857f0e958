"""Random streams with and without a processor in front of the tables."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pyvirt as pv
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.mmu.geometry import Cache, Geometry
from pyvirt.traces import EVENT_DTYPE, Arg, Op
from shadow.engine_machine import PHYSMAP, PML4, Machine, page, pte, random_stream
from shadow.front_machine import PROCESSORS, TINY, name_of

TABLES = ["shadow", "tdp", "legacy"]


def run(machine: pv.Hypervisor, events: np.ndarray):
    codes, values = np.zeros(len(events), np.uint16), np.zeros(len(events), np.uint64)
    machine.run(events, codes=codes, values=values)
    return codes, values


def content(machine: pv.Hypervisor) -> bytes:
    return machine.mem.read(0, machine.mem.end)


def careless_stream(rng: np.random.Generator, count: int, vcpus: int = 2) -> np.ndarray:
    """Edits without a flush between accesses of several vCPUs; flushes at odd times."""
    events = np.zeros(count, EVENT_DTYPE)
    for event in events:
        i, kind = int(rng.integers(24)), int(rng.integers(12))
        user = int(rng.integers(2))
        if kind < 6:
            op, addr, value, arg = (Op.LOAD, Op.STORE)[kind & 1], page(i), 0, user
        elif kind < 8:
            flags = int(rng.choice([0, 1, 3, 0x21, 0x63, 0x67]))
            op, addr, value = Op.STORE, PHYSMAP + pte(i), 0x200000 + 4096 * i | flags
            arg = int(Arg.GIVEN)
        elif kind == 8:
            op, addr, value, arg = Op.STORE, PHYSMAP + 0x102000, 0x103007, int(Arg.GIVEN)
        elif kind == 9:
            op, addr, value, arg = Op.INVLPG, page(i), 0, user
        elif kind == 10:
            op, addr, value, arg = Op.MOV_CR3, 0, (PML4, 0x105000)[user], 0
        else:
            op, addr, arg = Op.MOV_CR4, 0, 0
            value = 0x20 | int(rng.choice([0, 0x80, 1 << 20, 1 << 21]))
        event["op"], event["addr"], event["value"], event["arg"] = op, addr, value, arg
        event["size"] = 8 if op in (Op.LOAD, Op.STORE) else 0
        event["vcpu"] = rng.integers(vcpus)
    return events


def careful_stream(rng: np.random.Generator, count: int) -> np.ndarray:
    """As `random_stream`; a page may be a table, whose first entry a store to it changes."""
    events = random_stream(rng, count)
    stores = (events["op"] == Op.STORE) & (events["addr"] < PHYSMAP)
    flush = np.zeros(1, EVENT_DTYPE)
    flush["op"], flush["addr"] = Op.INVLPG, page(0)
    return np.insert(events, np.flatnonzero(stores) + 1, flush)


@pytest.mark.parametrize("processor", PROCESSORS, ids=name_of)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_shadow_tables_are_all_that_is_seen(processor: object, seed: int):
    """What a guest that never flushes sees in shadow mode does not depend on caches at all."""
    events = careless_stream(np.random.default_rng(seed), 120)
    plain, front = Machine(vcpus=2), Machine(vcpus=2, tlb=processor)
    for part in np.array_split(events, 5):
        for found, wanted in zip(run(front, part), run(plain, part), strict=True):
            assert (found == wanted).all()
        assert front.check() == []
        assert front.counters == plain.counters
        assert content(front) == content(plain)
        for vcpu in range(2):
            assert (front.leaves(vcpu) == plain.leaves(vcpu)).all()


@pytest.mark.parametrize("tables", TABLES)
@pytest.mark.parametrize("processor", PROCESSORS, ids=name_of)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_a_guest_that_flushes_sees_no_caches(processor: object, tables: str, seed: int):
    events = careful_stream(np.random.default_rng(seed), 150)
    plain, front = Machine(tables=tables), Machine(tables=tables, tlb=processor)
    for part in np.array_split(events, 3):
        for found, wanted in zip(run(front, part), run(plain, part), strict=True):
            assert (found == wanted).all()
        assert front.check() == []
        assert content(front) == content(plain)
        counted, wanted = front.counters[0].copy(), plain.counters[0]
        if tables != "shadow":  # A and D bits are the processor's business
            for name in ("guest_a_set", "guest_d_set"):
                counted[name] += front.mmu_counters[name][0]
        assert counted == wanted


def test_stale_entries_where_the_manual_allows_them():
    """Without INVLPG a guest on nested tables goes on with what its TLB has."""
    m = Machine(tables="tdp", tlb="reference")
    m.store(page(0), 1)
    m.edit(pte(0), 0x203003)
    assert m.load(page(0)) == (0, 1)
    m.invlpg(page(0))
    assert m.load(page(0)) == (0, 0)
    m.edit(pte(0), 0)
    assert m.load(page(0))[0] == 0
    m.mov_cr3()
    assert m.load(page(0))[0] == 4


def test_a_page_fault_for_a_stale_table():
    """A walk cache leads to a table that was replaced: a fault, and none the second time."""
    m = Machine(tables="tdp", tlb="reference")
    m.store(page(0), 1)
    m.edit(0x102000, 0x104007)  # the PD's first entry: another table of leaves
    m.edit(pte(1), 0)  # in the old table, which the walk cache still has
    violations = m.count("x_npf")
    assert m.load(page(1)) == (4, 0)
    assert m.count("x_npf") == violations
    assert m.load(page(1))[0] == 0


def test_the_host_takes_frames():
    for tables in TABLES:
        m = Machine(tables=tables, tlb="reference")
        m.store(page(0), 7)
        flushed = m.mmu_counters["invalidations"][0, 8]
        violations = m.count("x_npf") + m.count("x_pf")
        m.drop_frames(0x200)
        assert m.load(page(0)) == (0, 7)
        assert m.count("x_npf") + m.count("x_pf") == violations + 1
        assert m.mmu_counters["invalidations"][0, 8] == flushed + 1


def test_flushes_are_those_of_the_hypervisor():
    m = Machine(tlb="reference")
    m.store(page(0))
    m.reset()
    flushes = m.mmu_counters["invalidations"][0]
    m.mov_cr3()
    m.load(page(0))
    assert (flushes[8], m.count("tlb_flush")) == (1, 1)
    assert m.mmu_counters["walks"].sum() == 1
    m.invlpg(page(0))  # emulated: an INVLPGA
    assert flushes[7] == 1
    assert flushes[0] == 0
    m.load(page(0))
    assert m.mmu_counters["walks"].sum() == 2


@pytest.mark.parametrize("tables", TABLES)
def test_counters_are_live_and_reset(tables: str):
    m = Machine(tables=tables, tlb="reference", vcpus=2)
    counters = m.mmu_counters
    assert counters.shape == (2,)
    m.load(page(0), vcpu=1)
    assert counters["accesses"][:, 1].tolist()[0] == 0
    assert counters["accesses"][1, 1] > 0
    with pytest.raises(ValueError, match="read-only"):
        counters["walks"] = 0
    assert len(m.tlb_entries(1)) > 0
    assert len(m.tlb_entries(0)) == 0
    m.reset()
    assert counters["accesses"].sum() == 0
    assert m.mmu_counters is counters


def test_splits_and_shoot_downs_are_counted():
    m = Machine(tlb="reference", vcpus=3, tables="tdp")
    m.load(page(1) - 4)
    m.invlpg(page(0), arg=1)
    found = m.mmu_counters[0]
    assert found["splits"] == 1 + m.count("x_npf")  # an exit starts the access again
    assert (found["shootdowns"], found["ipis"]) == (1, 2)
    assert m.mmu_counters["invalidations"][:, 0].tolist() == [1, 1, 1]


def test_data_caches_see_the_references():
    m = Machine(tlb=Geometry.none(), data_cache=[Cache(64, 4)])
    for _ in range(2):
        m.load(page(0))
    found = m.mmu_counters[0]
    assert found["data_cache_hits"].sum() == found["guest_refs"].sum()
    assert found["data_cache_hits"][2] > 0


@pytest.mark.parametrize("tables", TABLES)
@pytest.mark.parametrize("processor", ["reference", TINY], ids=name_of)
def test_state_is_a_value(processor: object, tables: str):
    events = random_stream(np.random.default_rng(5), 200)
    first, rest = events[:150], events[150:]
    machine = Machine(tables=tables, tlb=processor, data_cache=[Cache(64, 4)])
    machine.run(first)
    before = content(machine)
    snapshot = machine.snapshot()
    twins = [copy.deepcopy(machine), pickle.loads(pickle.dumps(machine))]
    results = run(machine, rest)
    for twin in twins:
        for found, wanted in zip(run(twin, rest), results, strict=True):
            assert (found == wanted).all()
        assert twin.counters == machine.counters
        assert (twin.mmu_counters == machine.mmu_counters).all()
        assert (twin.tlb_entries() == machine.tlb_entries()).all()
    after = machine.counters.copy(), machine.mmu_counters.copy()
    machine.mem.write(0, before)
    machine.restore(snapshot)
    for found, wanted in zip(run(machine, rest), results, strict=True):
        assert (found == wanted).all()
    assert machine.counters == after[0]
    assert (machine.mmu_counters == after[1]).all()


def test_snapshots_of_other_processors_are_refused():
    plain, front = Machine(), Machine(tlb="reference")
    for one, other in ((plain, front), (front, plain), (front, Machine(tlb=TINY))):
        with pytest.raises(InvalidValueError, match="other arguments"):
            one.restore(other.snapshot())


@pytest.mark.parametrize("tables", TABLES)
def test_a_dirty_log_by_write_protection(tables: str):
    machines = [Machine(tables=tables), Machine(tables=tables, tlb="reference")]
    rng = np.random.default_rng(3)
    for m in machines:
        m.run(careful_stream(np.random.default_rng(1), 100))
        m.log_dirty()
    for _ in range(4):
        events = careful_stream(rng, 60)
        for m in machines:
            m.run(events)
        plain, front = (m.dirty().tolist() for m in machines)
        assert front == plain
        assert front
    with pytest.raises(InvalidValueError, match="without tlb="):
        machines[1].log_dirty(method="pml")


def test_bad_arguments():
    with pytest.raises(InvalidTypeError, match="tlb must be"):
        Machine(tlb=64)
    with pytest.raises(InvalidValueError, match="zen9"):
        Machine(tlb="zen9")
    with pytest.raises(InvalidValueError, match="need tlb="):
        Machine(data_cache=[Cache(64, 4)])
    with pytest.raises(InvalidValueError, match="need tlb="):
        Machine(rng=1)
    with pytest.raises(InvalidValueError, match="three Cache"):
        Machine(tlb="reference", data_cache=[4])
    with pytest.raises(InvalidTypeError, match="vcpus"):
        Machine(tlb="reference", vcpus="two")
    m = Machine()
    assert m.mmu_counters is None
    with pytest.raises(InvalidTypeError, match="without tlb="):
        m.tlb_entries()
