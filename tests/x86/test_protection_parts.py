"""Tables, limits, the TSS's stacks, tasks and virtual-8086 mode: rules beside `check`."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt._core.protection import parts
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.x86.protection import (
    Descriptor,
    Effect,
    Gate,
    SystemType,
    find_descriptor,
    nulled_on_return,
    stack_slot,
)


@given(st.integers(0, 0xFFFF), st.binary(max_size=70), st.binary(max_size=70))
def test_find(selector: int, gdt: bytes, ldt: bytes):
    for where in (selector, selector & 0x3F):
        table = ldt if where & 4 else gdt
        eight = table[where // 8 * 8 :][:8]
        expected = int.from_bytes(eight, "little") if len(eight) == 8 else None
        assert find_descriptor(where, gdt, ldt) == expected


def test_find_in_the_largest_table():
    gdt = bytes(65528) + b"\1" + bytes(7)
    assert find_descriptor(0xFFF8, gdt) == 1
    assert find_descriptor(0xFFFB, gdt[:-1]) is None
    with pytest.raises(InvalidValueError, match="65536"):
        find_descriptor(0, gdt + b"\0")
    with pytest.raises(InvalidTypeError, match="gdt"):
        find_descriptor(0, [1, 2])


def test_what_a_return_clears():
    for cpl, dpl, kind in itertools.product(range(4), range(4), range(16)):
        conforming = kind in (12, 13, 14, 15)
        assert nulled_on_return(cpl, Descriptor(kind, dpl)) == (dpl < cpl and not conforming)


def test_stacks_in_a_tss():
    """Offsets of ESP0 to ESP2 and SS0 to SS2 in the figures of SDM vol. 3, 7.2.1, 7.6 and 7.7."""
    for busy in (0, 2):
        for cpl, (esp, ss) in enumerate([(4, 8), (12, 16), (20, 24)]):
            assert stack_slot(cpl, 9 + busy, ss + 1) == esp
            assert stack_slot(cpl, 9 + busy, ss) is None
        for cpl, (sp, ss) in enumerate([(2, 4), (6, 8), (10, 12)]):
            assert stack_slot(cpl, 1 + busy, ss + 1) == sp
            assert stack_slot(cpl, 1 + busy, ss) is None
        for cpl, rsp in enumerate([4, 12, 20]):
            assert stack_slot(cpl, 9 + busy, rsp + 7, "long") == rsp
            assert stack_slot(cpl, 9 + busy, rsp + 6, "long") is None
    for wrong in ((3, 9, 103), (0, 2, 103), (0, 1, 103, "long")):
        with pytest.raises(InvalidValueError):
            stack_slot(*wrong)


def test_entries_of_the_idt():
    for number, limit, mode in itertools.product((0, 1, 128, 255), range(4100), (0, 1, 2)):
        size = 16 if mode else 8
        assert parts.entry_inside(number, limit, mode) == (number * size + size <= limit + 1)


@given(
    st.integers(0, 7),
    st.booleans(),
    st.integers(0, 40),
    st.integers(0, 70000),
    st.sampled_from([1, 2, 4, 8]),
)
def test_offsets(kind: int, big: bool, limit: int, offset: int, size: int):
    """Byte by byte."""
    segment = Descriptor(kind, limit=limit, g=False, db=big)
    top = 0xFFFFFFFF if big else 0xFFFF
    valid = (lambda at: limit < at <= top) if kind & 4 else (lambda at: at <= limit)
    for at in (offset, offset % 48, 0xFFFF - offset % 12, 0xFFFFFFFF - offset % 12):
        assert parts.inside(segment.pack(), at, size) == all(valid(at + i) for i in range(size))
    assert not parts.inside(segment.pack(), 2**64 - 1, size if size > 1 else 2)


def test_return_to_a_task():
    busy = Descriptor(SystemType.TSS32_BUSY, s=False)
    assert parts.return_to_task(0, 0x28, busy.pack(), 0) == (-1, 0, Effect.TASK_SWITCHED)
    assert parts.return_to_task(0, 0x28, busy.pack(), 2) == (13, 0, 0)
    assert parts.return_to_task(0, 0x2C, busy.pack(), 0) == (10, 0x2C, 0)
    away = Descriptor(SystemType.TSS16_BUSY, s=False, p=False)
    assert parts.return_to_task(3, 0x2B, away.pack(), 0) == (11, 0x28, 0)
    for kind in set(range(16)) - {3, 11}:
        tss = Descriptor(kind, s=False)
        assert parts.return_to_task(0, 0x28, tss.pack(), 0) == (10, 0x28, 0)


def test_events_leave_virtual_8086_mode_to_privilege_0_alone():
    """SDM vol. 2, INT n: a nonconforming code segment with DPL 0, or #GP with its selector."""
    for dpl, conforming, source in itertools.product(range(4), (False, True), (0, 1)):
        target = Descriptor.code(dpl, conforming=conforming)
        gate = Gate(SystemType.INT32, 0x33, 3)
        found = parts.leave_virtual_8086(0x21, source, gate.pack(), target.pack())
        if dpl == 0 and not conforming:
            assert found == (-1, 0, 0, Effect.STACK_SWITCHED)
        else:
            assert found == (13, 0x30 + source, 3, 0)
    closed = Gate(SystemType.INT32, 8, 2).pack()
    code = Descriptor.code().pack()
    assert parts.leave_virtual_8086(0x21, 0, closed, code)[:2] == (13, 0x21 * 8 + 2)
    assert parts.leave_virtual_8086(0x21, 1, closed, code)[0] == -1
