"""State as a value: copies, pickles and snapshots go on identically, batches split anywhere."""

import copy
import pickle

import numpy as np
import pytest

import pyvirt as pv
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.traces import Op, accesses
from shadow.engine_machine import OTHER_PML4, PML4, Machine, page, random_stream

KINDS = [
    {},
    {"rules": pv.ShadowRules.policy("xen")},
    {"page_limit": 26, "vcpus": 2},
    {"tables": "tdp"},
    {"tables": "legacy", "backing": "2M"},
]


def left(m: Machine) -> tuple:
    return m.counters.tobytes(), m.leaves().tobytes(), m.pages().tobytes(), m.mem.read(0, m.mem.end)


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("how", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_twin_goes_on_identically(options, how):
    events = random_stream(np.random.default_rng(5), 300)
    m = Machine(**options)
    m.run(events[:200])
    twin = how(m)
    assert left(twin) == left(m)
    m.run(events[200:])
    assert left(twin) != left(m)
    twin.run(events[200:])
    assert left(twin) == left(m)
    assert type(twin) is Machine
    assert twin.rules == m.rules
    assert twin.check() == []


@pytest.mark.parametrize("options", KINDS)
def test_a_batch_may_be_split_anywhere(options):
    events = random_stream(np.random.default_rng(6), 300)
    whole, parts = Machine(**options), Machine(**options)
    whole.run(events)
    cuts = np.sort(np.random.default_rng(7).integers(0, len(events), 60))
    assert parts.run(np.split(events, cuts)) == len(events)
    assert left(parts) == left(whole)


def test_snapshots():
    m = Machine()
    m.store(page(0))
    snapshot = m.snapshot()
    before = left(m)
    m.do(Op.MOV_CR3, value=OTHER_PML4)
    m.load(page(3))
    assert left(m)[:3] != before[:3]
    m.restore(snapshot)
    assert left(m)[:3] == before[:3]
    assert m.registers()["cr3"] == PML4
    assert m.check() == []
    with pytest.raises(InvalidValueError, match="other arguments"):
        Machine(page_limit=100).restore(snapshot)
    with pytest.raises(InvalidTypeError, match="Snapshot"):
        m.restore(3)  # type: ignore[arg-type]


def test_memory_does_not_grow_with_events():
    m = Machine(page_limit=24)
    size = m.nbytes
    events = random_stream(np.random.default_rng(8), 300)
    for _ in range(40):
        m.run(events)
    assert m.nbytes == size
    assert m.pages_used <= 24


def test_counters_are_live_and_cannot_be_written():
    m = Machine()
    counters = m.counters
    m.store(page(0))
    assert counters["pf_fixed"][0] == 1
    with pytest.raises(ValueError, match="read-only"):
        counters["pf_fixed"] = 3
    m.reset()
    assert counters["pf_fixed"][0] == 0


def test_a_large_machine_costs_what_it_uses():
    """Tables of a guest of 512 GiB: the pool is not touched before it is needed."""
    memory = pv.PhysicalMemory(512 << 30)
    tables = pv.PageTables(memory, frames=(0x1000, 0x100000))
    tables.map_range(0x40000000, 500 << 30, 16 << 12, rights="rw")
    m = pv.Hypervisor(memory, cr3=tables.root)
    m.run(accesses(0x40000000 + 4096 * np.arange(16), Op.STORE, 8))
    assert m.counters["pf_fixed"][0] == 16
    assert m.pages_used == 4
