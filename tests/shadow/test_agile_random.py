"""Agile paging on random streams: what a guest sees, against its tables and the other modes."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pyvirt as pv
from pyvirt.mmu.geometry import Geometry
from pyvirt.traces import EVENT_DTYPE, Arg, Op
from shadow.engine_machine import PHYSMAP, PML4, PT, Machine, page
from shadow.front_machine import BY_ADDRESS, PATHS, TINY, WALKS, name_of
from shadow.test_front_random import careful_stream, careless_stream, content, run

PROCESSORS = ["reference", "zen2", TINY, PATHS, BY_ADDRESS, WALKS, Geometry.none()]
EVERY = pv.ShadowRules.policy("write_protect", flood_limit=0)
#: Rules under which tables move all the time.
RULES = {
    "few writes": (pv.AgileRules(writes=1, interval=40), EVERY),
    "unsync": (pv.AgileRules(writes=1, interval=60), pv.ShadowRules()),
    "all back": (pv.AgileRules(writes=2, interval=30, back="all"), EVERY),
    "no end": (pv.AgileRules(writes=1, interval=0), EVERY),
    "process": (pv.AgileRules(writes=3, interval=50, granularity="process"), EVERY),
    "aids": (pv.AgileRules(writes=2, interval=40, hardware_ad=True, root_cache=3), EVERY),
    "aids, unsync": (
        pv.AgileRules(writes=1, interval=40, hardware_ad=True, root_cache=2),
        pv.ShadowRules(),
    ),
}


def agile(case: str, processor: object, **options) -> Machine:
    rules, shadow = RULES[case]
    return Machine(tables="agile", agile=rules, rules=shadow, tlb=processor, **options)


def with_upper_edits(rng: np.random.Generator, events: np.ndarray) -> np.ndarray:
    """Also write tables of all levels, which leaves their entries as they are."""
    places = np.sort(rng.integers(0, len(events), len(events) // 4))
    places = places[~np.isin(events["op"][places], [Op.INVLPG, Op.MOV_CR3])]
    writes = np.zeros(len(places), EVENT_DTYPE)
    writes["op"], writes["size"] = Op.STORE, 8
    tables = rng.choice([PT, 0x102000, 0x101000, PML4, 0x112000], len(places)).astype(np.uint64)
    writes["addr"] = np.uint64(PHYSMAP) + tables + np.uint64(8 * 400)
    writes["arg"] = int(Arg.GIVEN)
    writes["value"] = rng.integers(2, size=len(places)) * 0x1000 << 3
    return np.insert(events, places, writes)


def seen(codes: np.ndarray) -> np.ndarray:
    """Whether the hypervisor made an access for the guest is not the guest's business."""
    return np.where(codes == 2, 0, codes)


def prefixes(events: np.ndarray, count: int) -> list[np.ndarray]:
    """Cut a careful stream where no flush is owed for what was edited before."""
    flushes = np.isin(events["op"], [Op.INVLPG, Op.MOV_CR3])
    cuts = [len(part) for part in np.array_split(events, count)]
    places = []
    for place in np.cumsum(cuts)[:-1].tolist():
        while place < len(events) and flushes[place]:
            place += 1
        places.append(place)
    return np.split(events, places)


def compare_with_tables(machine: Machine) -> None:
    """Each page translates as the guest's tables say, each at its own number in the host."""
    space = pv.AddressSpace(copy.deepcopy(machine.mem), cr3=machine.registers()["cr3"])
    twin = copy.deepcopy(machine)
    for i in range(24):
        for user in (False, True):
            wanted = space.translate(page(i), "r", user)
            code, value = twin.load(page(i), user=user)
            assert (code == 4) == (not wanted.ok), (i, user)
            if wanted.ok:
                assert value == twin.mem.read_u64(wanted.pa), (i, user)
    assert twin.check() == []


@pytest.mark.parametrize("case", RULES)
@pytest.mark.parametrize("processor", PROCESSORS, ids=name_of)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_a_guest_that_flushes_sees_its_tables(case: str, processor: object, seed: int):
    rng = np.random.default_rng(seed)
    events = with_upper_edits(rng, careful_stream(rng, 120))
    machine, shadow, nested = agile(case, processor), Machine(), Machine(tables="tdp")
    for part in prefixes(events, 4):
        codes, values = run(machine, part)
        for other in (shadow, nested):
            theirs, read = run(other, part)
            assert (seen(codes) == seen(theirs)).all()
            assert (values == read).all()
        assert machine.check() == []
        compare_with_tables(machine)


@pytest.mark.parametrize("case", RULES)
@pytest.mark.parametrize("processor", PROCESSORS, ids=name_of)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_a_guest_that_does_not_flush_leaves_a_consistent_state(
    case: str, processor: object, seed: int
):
    """And once each vCPU has flushed, it sees its tables."""
    rng = np.random.default_rng(seed)
    events = with_upper_edits(rng, careless_stream(rng, 150))
    machine = agile(case, processor, vcpus=2)
    for part in np.array_split(events, 5):
        machine.run(part)
        assert machine.check() == []
    for vcpu in range(2):
        machine.mov_cr3(PML4, vcpu=vcpu)
        machine.do(Op.MOV_CR4, value=0x20, vcpu=vcpu)
    compare_with_tables(machine)


@pytest.mark.parametrize("case", RULES)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 1 << 32), wp=st.lists(st.booleans(), min_size=4, max_size=4))
def test_cr0_wp(case: str, seed: int, wp: list[bool]):
    """With WP clear a supervisor writes read-only pages, in whatever mode their tables are."""
    rng = np.random.default_rng(seed)
    events = with_upper_edits(rng, careful_stream(rng, 80))
    machine, nested = agile(case, TINY), Machine(tables="tdp")
    for part, on in zip(np.array_split(events, 4), wp, strict=True):
        for m in (machine, nested):
            m.do(Op.MOV_CR0, value=0x80010033 if on else 0x80000033)
        (codes, values), (theirs, read) = run(machine, part), run(nested, part)
        assert (seen(codes) == seen(theirs)).all()
        assert (values == read).all()
        assert machine.check() == []


@pytest.mark.parametrize("case", RULES)
def test_the_host_takes_frames(case: str):
    rng = np.random.default_rng(4)
    machine, shadow = agile(case, "reference", backing="2M"), Machine()
    for _ in range(6):
        events = with_upper_edits(rng, careful_stream(rng, 40))
        (codes, values), (theirs, read) = run(machine, events), run(shadow, events)
        assert (seen(codes) == seen(theirs)).all()
        assert (values == read).all()
        first = int(rng.choice([0x100, 0x102, 0x103, 0x200, 0x210]))
        machine.drop_frames(first, int(rng.integers(1, 8)))
        machine.set_backing(512, 512, bool(rng.integers(2)))
        assert machine.check() == []
        compare_with_tables(machine)


@pytest.mark.parametrize("case", RULES)
def test_state_is_a_value(case: str):
    rng = np.random.default_rng(5)
    events = with_upper_edits(rng, careful_stream(rng, 300))
    first, rest = events[:250], events[250:]
    machine = agile(case, TINY)
    machine.run(first)
    before, snapshot = content(machine), machine.snapshot()
    twins = [copy.deepcopy(machine), pickle.loads(pickle.dumps(machine))]
    results = run(machine, rest)
    for twin in twins:
        assert all((a == b).all() for a, b in zip(run(twin, rest), results, strict=True))
        assert twin.counters == machine.counters
        assert (twin.mmu_counters == machine.mmu_counters).all()
        assert (twin.nested_tables() == machine.nested_tables()).all()
    after = machine.counters.copy()
    machine.mem.write(0, before)
    machine.restore(snapshot)
    assert all((a == b).all() for a, b in zip(run(machine, rest), results, strict=True))
    assert machine.counters == after


@pytest.mark.parametrize("case", RULES)
def test_streams_split_anywhere(case: str):
    rng = np.random.default_rng(6)
    events = with_upper_edits(rng, careful_stream(rng, 200))
    whole, parts = agile(case, TINY), agile(case, TINY)
    whole.run(events)
    for i in range(0, len(events), 7):
        parts.run(events[i : i + 7])
    assert whole.counters == parts.counters
    assert (whole.mmu_counters == parts.mmu_counters).all()
    assert whole.counters["agile_moved"][0] > 0


def with_pcids(rng: np.random.Generator, events: np.ndarray) -> np.ndarray:
    """Flush by INVPCID, in one of three ways, and load CR3 with PCIDs, to keep or to flush."""
    rows = []
    for event in events:
        flush = np.zeros(3, EVENT_DTYPE)
        flush["op"], flush["addr"], flush["value"] = Op.INVPCID, event["addr"], (0, 1, 2)
        kind = int(rng.integers(3))
        if event["op"] == Op.INVLPG and kind < 2:
            flush["arg"] = kind  # one address, or one context, of each PCID
            rows += list(flush)
        elif event["op"] in (Op.INVLPG, Op.MOV_CR3):
            flush["arg"], flush["addr"], flush["value"] = 2 + kind % 2, 0, 0
            rows.append(flush[0])
        if event["op"] == Op.MOV_CR3:
            event = event.copy()
            event["value"] |= np.uint64(int(rng.integers(3)) | int(rng.integers(2)) << 63)
        if event["op"] != Op.INVLPG:
            rows.append(event)
    return np.array(rows, EVENT_DTYPE)


@pytest.mark.parametrize("case", RULES)
@pytest.mark.parametrize("processor", ["reference", TINY, PATHS], ids=name_of)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_pcids(case: str, processor: object, seed: int):
    rng = np.random.default_rng(seed)
    events = with_pcids(rng, with_upper_edits(rng, careful_stream(rng, 120)))
    machine = agile(case, processor, cr4=0x20 | 1 << 17)
    nested = Machine(tables="tdp", cr4=0x20 | 1 << 17)
    for part in np.array_split(events, 4):
        (codes, values), (theirs, read) = run(machine, part), run(nested, part)
        assert (seen(codes) == seen(theirs)).all()
        assert (values == read).all()
        assert machine.check() == []
