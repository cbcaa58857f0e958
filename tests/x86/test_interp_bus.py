"""Ports, the interrupt line and time, over a bus."""

import pytest

from pyvirt.errors import InvalidTypeError
from pyvirt.x86.machine import ExitReason, Machine
from x86.interp_bus import Bus
from x86.interp_system import CODE, HANDLER, IDT, USER, gate, system, vector_of


def over(bus: Bus, **how: bool) -> Machine:
    """The system of `system`, with a bus."""
    plain = system(**how)
    machine = Machine(plain.memory, bus.capsule)
    machine.registers = plain.registers
    return machine


def test_ports():
    bus = Bus()
    machine = over(bus)
    machine.load(bytes.fromhex("e460 66ba0004 66ed ef e680 f4"), CODE)
    assert machine.run(100).reason is ExitReason.HALT
    # the time is that of the instruction: the number of those before it
    assert bus.writes == [(3, 0x400, 4, 0xFFFF), (4, 0x80, 1, 0xFF)]
    assert bus.reads == 1


def test_timer_interrupts_come_on_time():
    bus = Bus(period=100)
    machine = over(bus)
    machine.load(bytes.fromhex("43 cf"), HANDLER + 16 * 0x20)  # inc ebx; iret
    machine.load(bytes.fromhex("fb 40 ebfd"), CODE)
    assert machine.run(10_000).reason is ExitReason.BUDGET
    assert machine.registers.ebx == 99  # the hundredth is due when the budget ends
    assert int(machine.counters["interrupts"]) == 99
    assert machine.registers.eax == (10_000 - 1 - 2 * 99 + 1) // 2


def test_hlt_waits_for_the_timer_in_no_time():
    bus = Bus(period=1_000_000)
    machine = over(bus)
    machine.load(bytes.fromhex("43 cf"), HANDLER + 16 * 0x20)
    machine.load(bytes.fromhex("fb f4 ebfd"), CODE)
    assert machine.run(10_500_000).reason is ExitReason.BUDGET
    now = machine.registers
    assert (now.ebx, now.tsc, now.halted) == (10, 10_500_000, True)
    assert int(machine.counters["retired"]) < 100


def test_sti_and_mov_ss_shadow_one_instruction():
    bus = Bus()
    bus.struct.line = 1
    machine = over(bus)
    machine.load(bytes.fromhex("fb 43 43 f4"), CODE)
    machine.run(100)
    assert (machine.registers.ebx, vector_of(machine)) == (1, 0x20)
    bus = Bus()
    bus.struct.line = 1
    machine = over(bus)
    machine.set(eflags=0x202, eip=CODE)
    machine.load(bytes.fromhex("43 43"), CODE)
    machine.run(100)
    assert machine.registers.ebx == 0
    bus = Bus(period=2)  # due just when MOV SS has been executed
    machine = over(bus)
    machine.set(eflags=0x202, eax=0x10)
    machine.load(bytes.fromhex("90 8ed0 43 43 f4"), CODE)
    machine.run(100)
    assert machine.registers.ebx == 1


def test_interrupt_to_ring_3_code_switches_stacks():
    bus = Bus(period=50)
    machine = over(bus, user=True, paging=True)
    machine.load(bytes.fromhex("43 cf"), HANDLER + 16 * 0x20)
    machine.load(bytes.fromhex("40 ebfd"), USER)
    machine.set(eflags=0x202)
    machine.run(1000)
    now = machine.registers
    assert (now.ebx, now.cpl) == (19, 3)


def test_interrupt_exits_leave_the_line_up():
    bus = Bus(period=10)
    machine = over(bus)
    machine.load(bytes.fromhex("fb 40 ebfd"), CODE)
    machine.stop_at(interrupts=True)
    assert machine.run(100).reason is ExitReason.INTERRUPT
    assert bus.acknowledged == []
    assert machine.registers.tsc == 10


def test_io_needs_privilege_or_the_bitmap():
    for bitmap, vector in ((0xFF, 13), (0x00, 0x20)):
        bus = Bus()
        machine = over(bus, user=True)
        machine.load(bytes([bitmap] * 16) + b"\xff", 0x3068)
        machine.set(tr=(0x28, 0x3000, 0x68 + 16, 0x8B))
        machine.load(bytes.fromhex("e460 cd20"), USER)
        machine.run(100)
        assert vector_of(machine) == vector
        assert bus.reads == (vector != 13)


def test_string_ports():
    bus = Bus()
    machine = over(bus)
    machine.load(bytes.fromhex("66ba6000 bf00000100 b905000000 f36c"), CODE)
    machine.load(bytes.fromhex("be00000100 b903000000 f36e f4"), CODE + 16)
    assert machine.run(100).reason is ExitReason.HALT
    assert machine.memory.read(0x10000, 6) == bytes([1, 2, 3, 4, 5, 0])
    assert [value for _, _, _, value in bus.writes] == [1, 2, 3]


def test_an_interrupt_whose_gate_is_absent():
    bus = Bus(period=10)
    machine = over(bus)
    machine.load(gate(8, 0, 0x0E), IDT + 8 * 0x20)
    machine.load(bytes.fromhex("fb 40 ebfd"), CODE)
    machine.run(100)
    assert vector_of(machine) == 11
    assert machine.memory.read_u32(machine.registers.esp) == 0x20 * 8 + 3


def test_machines_with_a_bus_are_not_pickled():
    import pickle

    with pytest.raises(InvalidTypeError):
        pickle.dumps(over(Bus()))
