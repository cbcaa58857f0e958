"""Random system programs that show their privilege: only naive deprivileging changes their end."""

import struct

import pytest

from pyvirt.x86.machine import ExitReason
from pyvirt.x86.monitor import Monitor
from x86.interp_system import CODE, CODE0, DATA0, IDT, gate, system
from x86.monitor_programs import compare

TECHNIQUES = [("hardware", "nested"), ("hardware", "shadow"), ("translation", "shadow")]


@pytest.mark.parametrize(("technique", "paging"), TECHNIQUES)
def test_the_end_is_that_of_the_bare_machine(technique, paging):
    interrupts = rings = 0
    for seed in range(40):
        found, _, machine = compare(seed, technique, 3000, shows=0.3, paging=paging)
        assert found == [], seed
        interrupts += int(machine.counters["interrupts"])
        rings += machine.registers.cpl == 3
    assert interrupts > 500
    assert rings > 3


def test_naive_deprivileging_is_seen():
    differ = [bool(compare(seed, "naive", 3000, shows=0.3)[0]) for seed in range(40)]
    assert sum(differ) > 30


@pytest.mark.slow
@pytest.mark.parametrize(("technique", "paging"), TECHNIQUES)
def test_many_programs(technique, paging):
    for seed in range(1000, 3000):
        assert compare(seed, technique, 3000, shows=0.3, paging=paging)[0] == [], seed


@pytest.mark.parametrize("technique", ["native", "hardware", "naive", "translation"])
def test_handlers_that_cannot_be_fetched_use_up_time(technique):
    # a stack beyond RAM, where frames are lost and which wraps around: nothing else would end it
    machine = system()
    entries = [page << 22 | 0x87 for page in range(1024)]
    entries[3] = 0
    machine.load(struct.pack("<1024I", *entries), 0x40000)
    for vector in range(64):
        machine.load(gate(CODE0, 0xC00000, 0x8E), IDT + 8 * vector)
    machine.load(b"\x0f\x0b", CODE)
    machine.set(cr4=0x10, cr3=0x40000, cr0=0x80000011, ss=(DATA0, 0x80000000, 0xFFFF, 0x93))
    runner = machine if technique == "native" else Monitor(machine, technique)
    assert runner.run(10_000).reason is ExitReason.BUDGET
    assert machine.registers.tsc == 10_000
    assert machine.counters["exceptions"] == 10_000
