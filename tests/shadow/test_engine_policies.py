"""Policies for writes to tables: what each costs, and that the guest sees the same under all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pyvirt as pv
from pyvirt.errors import InvalidValueError
from pyvirt.traces import EVENT_DTYPE, Arg, Op
from shadow.engine_machine import DATA, PHYSMAP, PT, A, D, Machine, page, pte, random_stream

POLICIES = ["unsync", "write_protect", "trace", "xen"]


def machine(policy: str, **changes) -> Machine:
    m = Machine(rules=pv.ShadowRules.policy(policy, **changes))
    m.load(PHYSMAP + PT)
    for i in range(4):
        m.store(page(i))
    return m


def test_the_default_is_kvm():
    assert pv.ShadowRules.policy("unsync") == pv.ShadowRules()
    with pytest.raises(InvalidValueError, match="unsync, write_protect, trace, xen"):
        pv.ShadowRules.policy("none")  # type: ignore[arg-type]


def test_write_protect_emulates_every_write_and_keeps_the_shadow_in_step():
    m = machine("write_protect", flood_limit=0)
    exits = m.since("x_pf", "pf_emulate", "mmu_unsync")
    for i in range(4):
        m.edit(pte(i), DATA + 4096 * (i + 20) | 3 | A | D)
    assert exits() == (4, 4, 0)
    for i in range(4):
        m.store(page(i), i)
    assert exits() == (4, 4, 0)  # no hidden faults
    assert m.mem.read_u64(DATA + 4096 * 23) == 3
    assert m.check() == []


def test_without_refill_each_write_costs_a_hidden_fault_more():
    m = machine("write_protect", flood_limit=0, refill_at_write=False, prefetch=0)
    exits = m.since("pf_emulate", "pf_fixed")
    for i in range(4):
        m.edit(pte(i), DATA + 4096 * (i + 20) | 3 | A | D)
        m.store(page(i))
    assert exits() == (4, 4)


def test_write_protect_zaps_a_table_that_is_written_much():
    m = machine("write_protect")
    for i in range(3):
        m.edit(pte(i + 8), 0)
    assert m.count("mmu_flooded") == 1
    exits = m.since("x_pf")
    for i in range(100):
        m.edit(pte(i + 8), 0)  # no table any more: one fault makes the frame writable
    assert exits() == 1
    assert m.check() == []


def test_a_trace_is_lifted_and_set_again():
    m = machine("trace", trace_limit=5)
    exits = m.since("pf_emulate", "pf_fixed", "traces_lifted", "mmu_unsync")
    for i in range(40):
        m.edit(pte(i + 8), 0)
    assert exits() == (5, 1, 1, 1)
    m.mov_cr3()
    m.edit(pte(50), 0)
    assert exits() == (6, 1, 1, 0)
    assert m.check() == []


def test_xen_keeps_few_tables_out_of_sync():
    m = Machine(rules=pv.ShadowRules.policy("xen", unsync_limit=2), size=16 << 20)
    tables = [0x200000 + 4096 * k for k in range(4)]
    for k, table in enumerate(tables):
        m.mem.write_u64(0x102000 + 8 * (k + 4), table | 7)
        m.mem.write_u64(table, 0x800000 + 4096 * k | 3)
        m.load(0x40000000 + ((k + 4) << 21))
        m.load(PHYSMAP + table)
    for table in tables:
        m.edit(table + 8, 0)
    assert (m.count("mmu_unsync"), m.count("unsync_evicted")) == (2, 2)
    exits = m.since("x_pf")
    m.edit(tables[3] + 16, 0)
    assert exits() == 0
    m.edit(tables[0] + 16, 0)
    assert exits() == 1
    assert m.check() == []


VARIANTS = [
    *({"rules": pv.ShadowRules.policy(name)} for name in POLICIES),
    {"rules": pv.ShadowRules.policy("trace", trace_limit=2, prefetch=0)},
    {"rules": pv.ShadowRules(keep_pages=False)},
    {"rules": pv.ShadowRules(stay_unsync=False, previous_roots=0)},
    {"rules": pv.ShadowRules(refill_at_invlpg=False, refill_at_injection=False)},
    {"page_limit": 24},
    {"backing": "2M"},
    {"tables": "tdp"},
    {"tables": "legacy"},
    {"tables": "legacy", "backing": "2M"},
]


def outcome(events: np.ndarray, options: dict) -> tuple:
    """What the guest can see: page faults with their codes, and the data read but for A and D."""
    m = Machine(**options)
    codes, values = np.zeros(len(events), np.uint16), np.zeros(len(events), np.uint64)
    for start in range(0, len(events), 50):
        part = slice(start, start + 50)
        m.run(events[part], codes=codes[part], values=values[part])
        assert m.check() == []
    memory = np.frombuffer(m.mem.read(0, m.mem.end), np.uint64) & ~np.uint64(A | D)
    return codes == 4, values & ~np.uint64(A | D), memory


@pytest.mark.parametrize("seed", range(12))
def test_the_guest_sees_the_same_under_all(seed: int):
    events = random_stream(np.random.default_rng(seed), 400)
    faults, values, memory = outcome(events, VARIANTS[0])
    assert 20 < faults.sum() < 300
    for options in VARIANTS[1:]:
        other = outcome(events, options)
        assert np.array_equal(faults, other[0]), options
        assert np.array_equal(values, other[1]), options
        assert np.array_equal(memory, other[2]), options


@pytest.mark.parametrize("seed", range(12))
def test_a_flushed_guest_sees_what_its_tables_say(seed: int):
    """After a flush a translation is that of the guest's tables, walked by `AddressSpace`."""
    rng = np.random.default_rng(1000 + seed)
    m = Machine(rules=pv.ShadowRules.policy(POLICIES[seed % 4]))
    for events in np.array_split(random_stream(rng, 400), 10):
        m.run(events)
        cr3 = m.registers()["cr3"]
        m.mov_cr3(cr3)
        space = pv.AddressSpace(m.mem, cr3, levels=4, cr4=0x20, efer=0xD00)
        for i in range(24):
            for user in (False, True):
                direct = space.translate(page(i), access="r", user=user)
                code, value = m.load(page(i), user=user)
                assert (code == 4) == (not direct.ok)
                if direct.ok:
                    assert value & ~(A | D) == m.mem.read_u64(direct.pa) & ~(A | D)
        assert m.check() == []


@given(
    seed=st.integers(0, 1 << 32),
    cuts=st.lists(st.integers(0, 250), max_size=6),
    options=st.sampled_from(VARIANTS[:10]),
    vcpus=st.integers(1, 3),
)
@settings(max_examples=40)
def test_several_vcpus_leave_consistent_tables(seed, cuts, options, vcpus):
    """Whatever vCPU an event runs on and wherever batches end; flushed, all see the same."""
    rng = np.random.default_rng(seed)
    events = random_stream(rng, 150)
    events["vcpu"] = rng.integers(0, vcpus, len(events))
    shoot_down = events["op"] == Op.INVLPG
    events["arg"][shoot_down] = 1
    m = Machine(vcpus=vcpus, **({**options, "page_limit": 64}))
    for part in np.split(events, sorted(c for c in cuts if c <= len(events))):
        m.run(part)
        assert m.check() == []
    for vcpu in range(vcpus):
        m.mov_cr3(vcpu=vcpu)
    space = pv.AddressSpace(m.mem, 0x100000, levels=4, cr4=0x20, efer=0xD00)
    for i in range(24):
        direct = space.translate(page(i), access="r")
        for vcpu in range(vcpus):
            code, value = m.load(page(i), vcpu=vcpu)
            assert (code == 4) == (not direct.ok)
            if direct.ok:
                assert value & ~(A | D) == m.mem.read_u64(direct.pa) & ~(A | D)
    assert m.check() == []


@pytest.mark.parametrize("tables", ["shadow", "tdp", "legacy"])
def test_five_levels(tables: str):
    memory = pv.PhysicalMemory(16 << 20)
    guest = pv.PageTables(memory, levels=5, frames=(0x100000, 0x200000))
    va = 0xFF12345678000000 & ~0xFFF
    guest.map_range(va, 0x800000, 16 << 12, rights="rw")
    m = pv.Hypervisor(memory, cr3=guest.root, levels=5, nested_levels=5, tables=tables)
    events = np.zeros(16, EVENT_DTYPE)
    events["op"], events["size"], events["arg"] = Op.STORE, 8, int(Arg.GIVEN)
    events["addr"] = np.uint64(va) + np.arange(16, dtype=np.uint64) * np.uint64(4096)
    events["value"] = np.arange(16)
    codes = np.zeros(16, np.uint16)
    m.run(events, codes=codes)
    assert not codes.any()
    assert [memory.read_u64(0x800000 + 4096 * i) for i in range(16)] == list(range(16))
    assert int(m.counters["x_pf" if tables == "shadow" else "guest_faults"][0]) in (16, 0)
    assert m.check() == []
    if tables == "shadow":
        assert int(m.leaves()["address"].min()) == va
        assert int(m.pages()["level"].max()) == 5
