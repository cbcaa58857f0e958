"""What cannot be: an error that names the event or the argument, and a state that still holds."""

import numpy as np
import pytest

import pyvirt as pv
from pyvirt.errors import InvalidTypeError, InvalidValueError, OutsideMemoryError
from pyvirt.traces import EVENT_DTYPE, Arg, Op
from shadow.engine_machine import DATA, PHYSMAP, PML4, SIZE, Machine, page, pte

OUTSIDE = 0x40000000


@pytest.fixture(params=["shadow", "tdp", "legacy"])
def m(request):
    return Machine(tables=request.param, vcpus=2)


def stream(*bad: int) -> np.ndarray:
    """Some good events, a bad one, and one that must not run."""
    events = np.zeros(4, EVENT_DTYPE)
    events["op"], events["addr"], events["size"] = Op.STORE, page(0), 8
    events["value"], events["arg"] = 1, int(Arg.GIVEN)
    events[2] = bad
    events[3]["addr"] = page(1)
    return events


BAD = {
    "cr3": ((Op.MOV_CR3, 0, 0, 0, 0, OUTSIDE), OutsideMemoryError, "CR3 is not in memory"),
    "cr0": ((Op.MOV_CR0, 0, 0, 0, 0, 0x11), InvalidValueError, "not supported"),
    "cr0 high": ((Op.MOV_CR0, 0, 0, 0, 0, 1 << 40 | 0x80010033), InvalidValueError, "not supp"),
    "cr4 pae": ((Op.MOV_CR4, 0, 0, 0, 0, 0), InvalidValueError, "not supported"),
    "op": ((200, 0, 0, 0, 0, 0), InvalidValueError, "no such operation"),
    "map": ((Op.MAP, 12, 0, 0, page(0), DATA), InvalidValueError, "no such operation"),
    "vcpu": ((Op.LOAD, 8, 2, 0, page(0), 0), InvalidValueError, "no such vCPU"),
    "size": ((Op.STORE, 16, 0, int(Arg.GIVEN), page(0), 0), InvalidValueError, "1 to 8 bytes"),
    "no size": ((Op.STORE, 0, 0, int(Arg.GIVEN), page(0) + 4093, 0), InvalidValueError, "1 to 8"),
    "table": ((Op.STORE_TABLE, 8, 0, 0, OUTSIDE, 0), OutsideMemoryError, "outside memory"),
    "table end": ((Op.STORE_TABLE, 8, 0, 0, SIZE, 0), OutsideMemoryError, "outside memory"),
    "table odd": ((Op.STORE_TABLE, 8, 0, 0, pte(0) + 4, 0), InvalidValueError, "aligned"),
    "table size": ((Op.STORE_TABLE, 2, 0, 0, pte(0), 0), InvalidValueError, "aligned"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_event_is_named_and_changes_nothing(m, name: str):
    event, kind, text = BAD[name]
    m.run(stream(Op.NOP, 0, 0, 0, 0, 0)[:2])
    registers, leaves = m.registers(), m.leaves().tolist()
    with pytest.raises(kind, match=rf"event 2 \(op {event[0]}.*{text}"):
        m.run(stream(*event))
    assert m.registers() == registers
    assert m.leaves().tolist() == leaves
    assert m.check() == []
    assert m.mem.read_u64(DATA + 4096) == 0  # what follows was not done
    assert m.store(page(1), 5) == (0, 0)
    with pytest.raises(kind, match="event 12 "):
        m.run(iter([np.zeros(10, EVENT_DTYPE), stream(*event)]))


def test_a_guest_table_outside_memory(m):
    m.mem.write_u64(0x102000 + 8 * 5, OUTSIDE | 7)
    with pytest.raises(
        OutsideMemoryError, match=r"event 0 .*a table of the guest is not in memory"
    ):
        m.load(0x40000000 + (5 << 21))
    assert m.check() == []
    assert m.store(page(0)) == (0, 0)


def test_a_fault_while_a_fault_is_handled(m):
    m.mem.write_u64(pte(0), 0)
    events = stream(Op.LOAD, 8, 0, int(Arg.HANDLER), page(0), 0)
    events[1]["addr"] = page(0)
    events[0]["addr"] = page(2)
    with pytest.raises(InvalidValueError, match=r"event 2 .*page fault while one"):
        m.run(events)
    assert m.check() == []


def test_too_many_accesses_in_an_instruction(m):
    events = np.zeros(20, EVENT_DTYPE)
    events["op"], events["addr"], events["arg"] = Op.LOAD, page(0), int(Arg.SAME)
    with pytest.raises(InvalidValueError, match=r"event 16 .*more than 16 accesses"):
        m.run(events)


def test_non_canonical_addresses_fault_without_an_exit(m):
    exits = m.since("x_pf", "x_npf", "guest_faults")
    for op in (Op.LOAD, Op.STORE, Op.FETCH):
        assert m.do(op, 1 << 47)[0] == 4
    assert exits() == (0, 0, 3)
    m.do(Op.INVLPG, 1 << 47)
    assert m.check() == []


def test_reserved_bits_are_the_guests_fault(m):
    m.mem.write_u64(pte(0), DATA | 3 | 1 << 50)
    assert m.load(page(0)) == (4, 9)
    m.mem.write_u64(0x102000 + 8, 0x400000 | 0x83 | 1 << 13)
    assert m.load(page(600)) == (4, 9)
    assert m.check() == []


def test_tables_that_point_to_themselves(m):
    m.edit(PML4 + 8 * 511, PML4 | 3)
    top = (1 << 64) - 4096
    assert m.load(top + 8 * 256)[1] & ~0x60 == 0x110000 | 7
    code, _ = m.store(top + 8 * 300, 0)
    assert code in (0, 2)
    m.store(top + 8 * 511, 0)
    m.mov_cr3()
    assert m.load(top) == (4, 0)
    assert m.check() == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tables": "ept"}, "tables must be one of shadow, tdp, legacy, agile, none, got 'ept'"),
        ({"backing": "1G"}, 'backing must be "4K" or "2M", got \'1G\''),
        ({"backing": [True]}, "backing must be 4 bools"),
        ({"page_limit": 4}, r"page_limit must be in \[0x15, "),
        ({"vcpus": 0}, "vcpus must be in"),
        ({"levels": 3}, "levels must be 4 or 5"),
        ({"nested_levels": 6}, "levels must be in"),
        ({"cr3": OUTSIDE}, "cr3 is not in memory: 0x40000000"),
        ({"rules": 3}, "rules must be ShadowRules"),
        ({"rules": pv.ShadowRules(prefetch=6)}, "prefetch must be 0 or a power of two"),
        ({"rules": pv.ShadowRules(previous_roots=9)}, "previous_roots must be in"),
        ({"rules": pv.ShadowRules(batch=2)}, "batch must be in"),
        ({"rules": pv.ShadowRules(least_free=2)}, "least_free must be in"),
        ({"rules": pv.ShadowRules(refill=2)}, "refill must be in"),
        ({"rules": pv.ShadowRules(unsync_limit=64)}, "unsync_limit must be in"),
        ({"pa_width": 60}, "pa_width must be in"),
    ],
)
def test_bad_arguments(options, text):
    with pytest.raises(pv.PyvirtError, match=text):
        Machine(**options)


def test_bad_memory_and_events(m):
    with pytest.raises(InvalidTypeError, match="memory must be a PhysicalMemory"):
        pv.Hypervisor(bytes(4096))  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="1 TiB"):
        pv.Hypervisor(pv.PhysicalMemory(1 << 41))
    with pytest.raises(InvalidTypeError, match="events must be"):
        m.run(np.zeros(3))
    with pytest.raises(InvalidTypeError, match="events must be"):
        m.run(3)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="codes must"):
        m.run(np.zeros(3, EVENT_DTYPE), codes=np.zeros(2, np.uint16))
    with pytest.raises(InvalidTypeError, match="one array"):
        m.run([], codes=np.zeros(2, np.uint16))
    with pytest.raises(InvalidValueError, match="on_fault"):
        m.run(np.zeros(3, EVENT_DTYPE), on_fault="raise")  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="first must be in"):
        m.drop_frames(SIZE >> 12)
    with pytest.raises(InvalidValueError, match="count must be in"):
        m.drop_frames(4, SIZE)
    with pytest.raises(InvalidValueError, match="multiples of 512"):
        m.set_backing(3, 512, True)
    with pytest.raises(InvalidValueError, match="vcpu must be in"):
        m.registers(2)
    assert m.run(np.zeros(0, EVENT_DTYPE)) == 0
    assert m.store(PHYSMAP + DATA) == (0, 0)


def test_one_that_was_not_initialised():
    raw = pv.Hypervisor.__new__(pv.Hypervisor)
    for call in (raw.check, raw.pages, raw.leaves, raw.reset, raw.registers):
        with pytest.raises(InvalidTypeError, match="not initialised"):
            call()
    with pytest.raises(InvalidTypeError, match="not initialised"):
        raw.run_into(np.zeros(1, EVENT_DTYPE))
    m = Machine()
    with pytest.raises(InvalidTypeError, match="initialised already"):
        m.__init__()  # type: ignore[misc]


def test_a_run_can_stop_at_a_fault(m):
    m.mem.write_u64(pte(0), 0)
    events = stream(Op.NOP, 0, 0, 0, 0, 0)
    assert m.run(events, on_fault="stop") == 1
    assert m.run(events) == 4
