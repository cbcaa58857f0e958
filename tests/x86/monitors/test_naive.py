"""Naive trap and emulate at CPL 1: what traps is right, what does not is wrong as documented."""

import struct

import numpy as np
import pytest

from pyvirt.x86 import guests
from pyvirt.x86.machine import ExitReason, Machine
from pyvirt.x86.monitor import Monitor
from pyvirt.x86.pc import PC
from x86.interp_bus import Bus
from x86.interp_system import (
    CODE,
    CODE0,
    CODE3,
    DATA0,
    DATA3,
    GDT,
    HANDLER,
    IDT,
    STACK0,
    STACK3,
    TASK,
    TSS,
    USER,
    descriptor,
    gate,
    system,
    vector_of,
    words,
)
from x86.kernel_expectations import CONSOLE
from x86.monitor_programs import compare


def loaded(machine: Machine) -> None:
    """Mark the first descriptors as loaded before: else a load traps, for the accessed bit."""
    for entry in range(1, 5):
        at = GDT + 8 * entry + 5
        machine.load(bytes([machine.memory.read_u8(at) | 1]), at)


def both(code: str, at: int = CODE, budget: int = 1000, **how: bool) -> list[Machine]:
    """The machine natively and under the monitor, after a run up to HLT in a handler or so."""
    out = []
    for monitored in (False, True):
        machine = system(**how)
        machine.load(bytes.fromhex(code), at)
        (Monitor(machine, "naive") if monitored else machine).run(budget)
        out.append(machine)
    return out


@pytest.mark.parametrize("paging", ["shadow", "nested"])
def test_what_traps_is_as_on_the_bare_machine(paging):
    # 60 programs over tables that change under them, with a timer; all of memory is compared
    emulated = exceptions = interrupts = 0
    for seed in range(60):
        found, monitor, machine = compare(seed, "naive", 3000, paging=paging)
        assert found == [], seed
        emulated += monitor.counts.booked["vmm"]
        exceptions += int(machine.counters["exceptions"])
        interrupts += int(machine.counters["interrupts"])
    assert min(emulated, exceptions, interrupts) > 500


@pytest.mark.slow
def test_many_programs():
    for seed in range(10_000, 14_000):
        assert compare(seed, "naive", 3000)[0] == [], seed


# What it is, code that leaves it in EAX, natively, under the monitor.
ANSWERS = [
    ("PUSHF shows IF", "9c58 c1e809 83e001", 0, 1),
    ("POPF does not set it", "6802020000 9d fa 6802020000 9d 9c58 c1e809 83e001", 1, 1),
    ("POPF does not change IOPL", "6802300000 9d 9c58 c1e80c 83e003", 3, 0),
    ("MOV from CS", "8cc8", 0x08, 0x09),
    ("MOV from SS", "8cd0", 0x10, 0x11),
    ("PUSH CS", "0e58", 0x08, 0x09),
    ("PUSH SS", "1658", 0x10, 0x11),
    ("far CALL pushes CS", "9a0780000008005858", 0x08, 0x09),
    ("SGDT", "0f010500e00000 0fb70500e00000", 71, 0xFFFF),
    ("SIDT", "0f010d00e00000 0fb70500e00000", 511, 0x7FF),
    ("STR", "0f00c8", TASK, 0xFFF8),
    ("SMSW", "0f01e0 83e03f", 0x11, 0x33),
    ("LAR shows DPL", "b910000000 0f02c1 c1e80d 83e003", 0, 1),
    ("LAR of a code segment", "b908000000 0f02c1 c1e80d 83e003", 0, 1),
    ("LAR of a TSS", "b928000000 0f02c1 c1e80d 83e003", 0, 1),
    ("VERR with RPL 1", "b911000000 31c0 0f00e1 0f94c0", 0, 1),
    ("VERW with RPL 1", "b911000000 31c0 0f00e9 0f94c0", 0, 1),
    ("LSL with RPL 1", "b911000000 31c0 0f03c1 0f94c0 0fb6c0", 0, 1),
    ("MOV DS with RPL 1", "b811000000 8ed8 8cd8", 13, 0x11),
]


@pytest.mark.parametrize(("code", "native", "naive"), [row[1:] for row in ANSWERS],
                         ids=[row[0] for row in ANSWERS])  # fmt: skip
def test_answers_that_do_not_trap(code, native, naive):
    found = []
    for monitored in (False, True):
        machine = system()
        loaded(machine)
        machine.load(bytes.fromhex(code + "cd22"), CODE)
        (Monitor(machine, "naive") if monitored else machine).run(1000)
        vector = vector_of(machine)
        found.append(machine.registers.eax if vector == 0x22 else vector)
    assert found == [native, naive]


def test_sldt_shows_the_monitors_table():
    found = []
    for monitored in (False, True):
        machine = system()
        machine.load(descriptor(0xE000, 0xFF, 0x82, 0), GDT + 0x30)
        machine.load(bytes.fromhex("b830000000 0f00d0 31c0 0f00c0 cd22"), CODE)
        (Monitor(machine, "naive") if monitored else machine).run(100)
        found.append(machine.registers.eax)
        assert machine.registers.ldtr == (0x30, 0xE000, 0xFF, 0x82)
    assert found == [0x30, 0xFFF0]


def test_interrupts_are_lost_after_an_outward_return():
    # IRET to ring 3 with IF set: natively the timer interrupts there, at CPL 1 IRET leaves IF alone
    counts = []
    for monitored in (False, True):
        bus = Bus(period=100)
        plain = system()
        machine = Machine(plain.memory, bus.capsule)
        machine.registers = plain.registers
        machine.load(bytes.fromhex("43 cf"), HANDLER + 16 * 0x20)
        frame = b"".join(
            b"\x68" + struct.pack("<I", value) for value in (DATA3, STACK3, 0x202, CODE3, USER)
        )
        machine.load(frame + b"\xcf", CODE)
        machine.load(bytes.fromhex("40 ebfd"), USER)
        loaded(machine)
        (Monitor(machine, "naive") if monitored else machine).run(5000)
        now = machine.registers
        counts.append(now.ebx)
        assert (now.cpl, now.cs.selector) == (3, CODE3)
        assert now.eflags >> 9 & 1 == (not monitored)
    assert counts == [49, 0]


def test_the_guest_kernel_fails_as_documented():
    # docs/guide/monitors.md
    pc = PC(disk=guests.kernel_disk())
    pc.boot(guests.kernel_image())
    monitor = Monitor(pc.machine, "naive")
    assert monitor.run(10**8).reason is ExitReason.STOP
    assert pc.board.exit_value == 0x7F
    lines = pc.board.output.decode().splitlines()
    expected = CONSOLE.decode().splitlines()
    assert lines[-1] == "panic: exception in the kernel e"
    # SGDT gave the address of the monitor's table, where the guest has nothing mapped
    assert lines[-2].split()[2:] == ["address", "ffc0001c", "error", "0"]
    wrong = {
        one.split()[1]: (one.split()[2], other.split()[2])
        for one, other in zip(expected, lines[:-2], strict=False)
        if one != other
    }
    assert wrong == {
        "pushf-if": ("0", "1"),
        "popf-if-clear": ("0", "1"),
        "popf-iopl": ("3", "0"),
        "gate-if": ("0", "1"),
        "cs-rpl": ("0", "1"),
        "ss-rpl": ("0", "1"),
        "push-cs-rpl": ("0", "1"),
        "call-cs-rpl": ("0", "1"),
        "lar-code": ("c09a00", "c0ba00"),
        "lar-data": ("c09200", "c0b200"),
        "lar-task": ("8a00", "aa00"),
        "sgdt-limit": ("2f", "ffff"),
    }
    counts = monitor.counts
    assert counts.booked["direct"] + sum(
        counts.booked[name] for name in ("vmm", "vmkernel", "device", "translated")
    ) == counts.instructions == int(pc.counters["retired"])  # fmt: skip
    assert counts.events["io"] == counts.booked["device"] + 15  # those of controllers and timer
    assert counts.events["page_fault"] == 1


def without_probes() -> bytes:
    """The guest kernel, whose call of `probe` is made of NOPs."""
    image = guests.kernel_image()
    segments = struct.unpack_from("<3I", image, 52 + 4)  # of the first segment: offset, addresses
    text = image.index(b"kernel: pages of 4 KiB\n\0") - segments[0] + segments[1]
    push = image.index(b"\x68" + struct.pack("<I", text))
    assert image[push + 5] == image[push + 10] == 0xE8  # put_text, probe
    return image[: push + 10] + b"\x90" * 5 + image[push + 15 :]


def test_the_guest_kernel_loses_its_interrupts():
    # without the probes it comes further: processes run, and are never preempted
    endings, consoles = [], []
    for technique in ("native", "naive"):
        pc = PC(disk=guests.kernel_disk(), technique=technique)
        pc.boot(without_probes())
        endings.append(pc.run(30_000_000))
        consoles.append(pc.console)
    assert (endings[0].why, endings[0].exit_value, endings[1].why) == ("exit", 0x10, "budget")
    assert consoles[0].startswith(consoles[1])
    assert consoles[1].endswith("init: starts\n")
    assert int(pc.counters["interrupts"]) == 1
    assert pc.machine.registers.eflags & 0x200 == 0
    assert pc.board.line  # the timer asks, and is not heard


def test_the_machine_shows_the_guests_state():
    native, naive = both("fa b823000000 8ec0 40 40 ebfc", budget=50)
    assert native.registers == naive.registers
    assert naive.registers.es == (0x23, 0, 0xFFFFFFFF, 0xC0F3)
    assert naive.memory.read_u8(GDT + 0x20 + 5) == 0xF3  # the accessed bit is in the guest's table
    assert naive.registers.cs.selector == CODE0


def test_a_descriptor_that_changes_is_followed():
    # DS is loaded at CPL 1 by the processor itself, from a shadow that follows writes to the GDT
    code = "b810000000 8ed8 c60517100000ff b810000000 8ed8 a100000000 cd22"
    native, naive = both(code)
    assert native.registers == naive.registers
    assert naive.registers.ds.base == 0xFF000000
    assert vector_of(naive) == 0x22


def test_counts_of_a_small_program():
    machine = system()
    machine.load(bytes.fromhex("fa fb e460 e680 0fa2 0f20c0 90 90 f4"), CODE)
    monitor = Monitor(machine, "naive")
    assert monitor.run(100).reason is ExitReason.HALT
    counts = monitor.counts
    assert counts.instructions == 9
    # CPUID is not privileged; port 0x60 is the Service Console's
    assert counts.booked == {"direct": 3, "translated": 0, "vmm": 5, "vmkernel": 0, "device": 1}
    assert {name: n for name, n in counts.events.items() if n} == {
        "interrupt_flag": 2, "io": 2, "halt": 1, "emulated": 1,
    }  # fmt: skip


def test_ring_3_and_its_ports():
    # system calls, a port that the TSS's map allows and one that it does not
    results = []
    for monitored in (False, True):
        bus = Bus()
        plain = system(user=True, paging=True)
        machine = Machine(plain.memory, bus.capsule)
        machine.registers = plain.registers
        machine.load(bytes(32) + b"\xff" * 8, TSS + 0x68)
        machine.load(struct.pack("<H", 0x68), TSS + 0x66)
        machine.set(tr=(TASK, TSS, 0x90, 0x8B))
        machine.load(b"\x43\xcf", HANDLER + 16 * 0x20)
        machine.load(bytes.fromhex("cd20 cd20 e460 e680 0f31 66ba4001 ec"), USER)
        monitor = Monitor(machine, "naive") if monitored else machine
        assert monitor.run(1000).reason is ExitReason.HALT
        results.append((machine.registers, words(machine, machine.registers.esp, 6), bus.writes))
        assert vector_of(machine) == 13
    assert results[0] == results[1]
    assert results[0][0].ebx == 2


def test_from_real_mode():
    states = []
    for monitored in (False, True):
        machine = Machine(1 << 20)
        machine.load(bytes(8) + bytes.fromhex("ffff0000009acf00 ffff00000092cf00"), 0x800)
        machine.load(bytes.fromhex("1700 00080000"), 0x7D00)
        machine.load(bytes.fromhex("fa 0f0116007d 0f20c0 0c01 0f22c0 ea207c0800"), 0x7C00)
        machine.load(bytes.fromhex("b810000000 8ed8 c7050090000078563412 fa f4"), 0x7C20)
        machine.set(cs=(0, 0, 0xFFFF, 0x93), eip=0x7C00)
        monitor = Monitor(machine, "naive") if monitored else machine
        assert monitor.run(100).reason is ExitReason.HALT
        states.append((machine.registers, machine.memory.read(0, 1 << 20)))
        if isinstance(monitor, Monitor):
            # all of real mode is the monitor's; the first loads of CS and DS, CLI and HLT
            assert monitor.counts.booked["vmm"] == 5 + 4
    assert states[0] == states[1]


def test_garbage_never_crashes():
    rng = np.random.default_rng(5)
    for _ in range(200):
        machine = system(paging=bool(rng.integers(2)), user=bool(rng.integers(2)))
        for at in (CODE, USER):
            machine.load(rng.integers(256, size=0x1000).astype(np.uint8).tobytes(), at)
        if rng.integers(2):
            machine.load(rng.integers(256, size=0x400).astype(np.uint8).tobytes(), GDT + 8 * 5)
        if rng.integers(4) == 0:
            machine.set(gdt_base=int(rng.integers(1 << 32)), gdt_limit=0xFFFF)
        monitor = Monitor(machine, "naive")
        monitor.run(2000)
        assert machine.registers.tsc <= 2000
        machine.load(rng.integers(256, size=0x1000).astype(np.uint8).tobytes(), CODE)
        monitor.run(2000)


def test_a_handler_behind_a_gate_of_the_guests():
    # the guest's IDT decides: INT 13 at CPL 3 through a gate of DPL 0 is #GP(13 * 8 + 2)
    machine = system(user=True)
    machine.load(gate(CODE0, HANDLER + 16 * 13, 0x8E), IDT + 8 * 13)
    machine.load(bytes.fromhex("cd0d"), USER)
    Monitor(machine, "naive").run(100)
    assert vector_of(machine) == 13
    assert words(machine, machine.registers.esp, 3) == [13 * 8 + 2, USER, CODE3]
    assert machine.registers.esp == STACK0 - 24
    assert machine.registers.ss.selector == DATA0
