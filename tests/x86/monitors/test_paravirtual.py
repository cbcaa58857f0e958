"""The paravirtual monitor: the ported kernel, and small guests that call it."""

import struct

import numpy as np
import pytest

from pyvirt._core.devices.owner import Board
from pyvirt.x86 import guests
from pyvirt.x86.machine import ExitReason, Machine
from pyvirt.x86.monitor import Monitor, MonitorCounts
from pyvirt.x86.pc import PC
from x86.interp_bus import Bus
from x86.interp_system import descriptor, gate
from x86.kernel_expectations import CONSOLE, EXIT_CODE, disk_after

EVENTS, IDLE, STOP, EXIT, GDT, IDT, TASK, PAGING, CR3, PTE = range(10)
INVLPG, IN, OUT, IN_MANY, OUT_MANY, IRET, MANY, RELEASE, BIND, TEXT, DISK = range(10, 21)
CALLS, SHARED = 0xFF000, 0xFE000
CODE, USER, HANDLER, STACK = 0x8000, 0x9000, 0xA000, 0x7000
GDT_AT, IDT_AT, TSS_AT, DIRECTORY, TABLE, LIST = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000
REFUSED = 0xFFFFFFFF


def le(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *(value & 0xFFFFFFFF for value in values))


def call(number: int, first: int = 0, second: int = 0, third: int = 0) -> bytes:
    """MOV EBX, ECX, EDX; CALL the page."""
    return (b"\xbb" + le(first) + b"\xb9" + le(second) + b"\xba" + le(third)
            + b"\xb8" + le(CALLS + 32 * number) + b"\xff\xd0")  # fmt: skip


def keep(at: int) -> bytes:
    """MOV [at], EAX."""
    return b"\xa3" + le(at)


START = call(GDT, GDT_AT, 48) + call(IDT, IDT_AT, 64 * 8) + call(TASK, 0x28)
RESULTS = 0xE000


def guest(code: bytes, bus: Bus | None = None) -> Machine:
    """A guest at CODE as a loader leaves it; handlers keep what is on the stack, and stop."""
    machine = Machine(1 << 22, bus.capsule if bus else None)
    machine.bus = bus  # type: ignore[attr-defined]
    entries = [
        bytes(8), descriptor(0, 0xFFFFF, 0x9A, 0xC), descriptor(0, 0xFFFFF, 0x92, 0xC),
        descriptor(0, 0xFFFFF, 0xFA, 0xC), descriptor(0, 0xFFFFF, 0xF2, 0xC),
        descriptor(TSS_AT, 0x67, 0x89, 0),
    ]  # fmt: skip
    machine.load(b"".join(entries), GDT_AT)
    for vector in range(64):
        kind = 0xEE if vector == 0x30 else 0x8E
        machine.load(gate(0x08, HANDLER + 64 * vector, kind), IDT_AT + 8 * vector)
        # the frame to RESULTS + 0x100, the vector to RESULTS + 0x200
        stop = b"\x36\xc7\x05" + le(RESULTS + 0x200, vector) + b"\x89\xe6\xbf" + le(RESULTS + 0x100)
        stop += b"\xb9" + le(6) + b"\x16\x1f\x16\x07\xf3\xa5" + call(STOP)
        machine.load(stop, HANDLER + 64 * vector)
    machine.load(le(0, STACK - 0x800, 0x10), TSS_AT)
    machine.load(le(*(page << 12 | 7 for page in range(1024))), TABLE)
    machine.load(le(TABLE | 7), DIRECTORY)
    machine.load(code, CODE)
    machine.set(
        cs=(0x08, 0, 0xFFFFFFFF, 0xC09B), ss=(0x10, 0, 0xFFFFFFFF, 0xC093), eip=CODE, esp=STACK,
        ds=(0x10, 0, 0xFFFFFFFF, 0xC093), es=(0x10, 0, 0xFFFFFFFF, 0xC093), cr0=0x11,
    )  # fmt: skip
    return machine


def run(code: bytes, bus: Bus | None = None, budget: int = 10_000) -> tuple[Machine, Monitor]:
    machine = guest(code, bus)
    monitor = Monitor(machine, "paravirtual")
    monitor.run(budget)
    return machine, monitor


def results(machine: Machine, count: int, at: int = RESULTS) -> list[int]:
    return [machine.memory.read_u32(at + 4 * i) for i in range(count)]


def trapped(machine: Machine) -> tuple[int, list[int]]:
    """The vector whose handler stopped, and its frame."""
    return machine.memory.read_u32(RESULTS + 0x200), results(machine, 6, RESULTS + 0x100)


# --- the ported kernel ------------------------------------------------------------------------

# The port leaves out what CPL 0 reads of itself; the processes' probes are the same.
PORTED = b"".join(
    line
    for line in CONSOLE.splitlines(keepends=True)
    if not line.startswith(b"probe ") or line.startswith(b"probe user-")
)


def ported(devices: str = "", **options: int) -> tuple[PC, MonitorCounts]:
    pc = PC(disk=guests.kernel_disk(), **options)
    pc.boot(guests.kernel_image(paravirtual=True), devices)
    monitor = Monitor(pc.machine, "paravirtual")
    assert monitor.run(10**9).reason is ExitReason.STOP
    return pc, monitor.counts


@pytest.mark.parametrize("devices", ["", "paravirtual"])
@pytest.mark.parametrize(
    ("frequency", "delay"), [(100_000_000, 0), (20_000_000, 30_000), (1_000_000_000, 1_000_000)]
)
def test_the_ported_kernel(frequency, delay, devices):
    pc, counts = ported(devices, frequency=frequency, disk_delay=delay)
    assert PORTED != CONSOLE
    assert pc.board.output == PORTED
    assert pc.board.exit_value == EXIT_CODE
    assert pc.board.disk.tobytes() == disk_after(guests.kernel_disk())
    assert sum(counts.booked.values()) == counts.instructions


def test_what_the_ported_kernel_calls():
    native = PC(disk=guests.kernel_disk())
    native.boot(guests.kernel_image())
    native.run()
    _, counts = ported()
    calls, batched = counts.hypercalls, counts.batched
    assert sum(calls.values()) == counts.events["hypercall"]
    assert counts.booked["vmm"] + counts.booked["device"] + counts.booked["vmkernel"] == sum(
        calls.values()
    )
    # a switch of processes is one call with two operations: the stack and the directory
    assert batched["task"] == batched["cr3"]
    # one for each fork, alone unless there is something to mark for copy on write
    assert counts.events["context_switch"] == batched["cr3"] + calls["cr3"]
    # a page fault that is mended is one call with two operations: the entry and the translation
    assert counts.events["invlpg"] == batched["invlpg"]
    assert counts.events["page_table_update"] == batched["pte"] + calls["pte"]
    # system calls come and go without the monitor; only other ways back are calls
    assert calls["iret"] < 0.35 * counts.events["syscall"]
    # each of the ten processes but the last is collected, and one that forks has a child of its own
    assert calls["release"] == 10
    # what is done in batches takes less than half the calls
    assert sum(batched.values()) > 2 * calls["many"]
    assert counts.events["io"] == calls["in"] + calls["out"] + 256 * (
        calls["in_many"] + calls["out_many"]
    )
    # the same programs run: the processes ask as often, and touch as many pages
    software = int(native.counters["software_interrupts"])
    asked = counts.events["syscall"]
    assert abs(asked - software) <= 0.2 * software
    faults = counts.events["page_fault"]
    assert faults + counts.events["exception"] == pytest.approx(
        int(native.counters["exceptions"]), abs=2
    )


def test_paravirtual_devices_are_a_change_of_counts():
    emulated, paravirtual = ported()[1], ported("paravirtual")[1]
    lines = PORTED.count(b"\n")
    assert paravirtual.hypercalls["console"] == lines
    # sectors read and written, and what the kernel flushes at the end
    assert (
        paravirtual.hypercalls["disk"]
        == emulated.hypercalls["out_many"]
        + (
            emulated.hypercalls["in_many"] - 1  # IDENTIFY stays
        )
        + 1
    )
    assert sum(emulated.hypercalls.values()) > 5 * sum(paravirtual.hypercalls.values())
    assert emulated.events["io"] > 20 * paravirtual.events["io"]
    same = ("syscall", "page_fault", "exception", "page_table_update")
    assert [paravirtual.events[name] for name in same] == [emulated.events[name] for name in same]
    assert paravirtual.booked["device"] == lines


# --- small guests -----------------------------------------------------------------------------


def test_a_guest_begins_at_level_1():
    machine, monitor = run(b"\x8c\xc8" + keep(RESULTS) + b"\x8c\xd0" + keep(RESULTS + 4)
                           + b"\x9c\x58" + keep(RESULTS + 8) + call(STOP))  # fmt: skip
    assert results(machine, 2) == [0x09, 0x11]
    assert machine.memory.read_u32(RESULTS + 8) & 0x3200 == 0x200
    assert monitor.counts.events["hypercall"] == 0
    assert monitor.run(100).reason is ExitReason.HALT  # nothing more happens
    assert machine.registers.cpl == 1


def test_real_mode_is_not_for_it():
    machine = Machine(1 << 21)
    machine.set(cs=(0, 0, 0xFFFF, 0x93), eip=0x7C00)
    got = Monitor(machine, "paravirtual").run(100)
    assert (got.reason, got.unsupported) == (ExitReason.UNSUPPORTED, "virtual-8086 mode")


def test_descriptor_tables_and_what_is_refused():
    bad = [(GDT_AT, 16), (GDT_AT, 44), (GDT_AT, 0x10008), (GDT_AT + 8, 40), (0xFFFFF000, 48)]
    code = b"".join(call(GDT, *pair) + keep(RESULTS + 4 * i) for i, pair in enumerate(bad))
    code += call(GDT, GDT_AT, 48) + keep(RESULTS + 20)
    code += call(TASK, 0x20) + keep(RESULTS + 24) + call(TASK, 0x28) + keep(RESULTS + 28)
    code += call(TASK, 0x30) + keep(RESULTS + 32) + call(IDT, IDT_AT, 0x808) + keep(RESULTS + 36)
    code += call(77) + keep(RESULTS + 40)
    code = code.replace(b"\xb8" + le(CALLS + 32 * 77) + b"\xff\xd0", b"\xb8" + le(77) + b"\xcd\x82")
    machine, _ = run(code + call(STOP))
    assert results(machine, 11) == [REFUSED] * 5 + [0, REFUSED, 0, REFUSED, REFUSED, REFUSED]
    now = machine.registers
    assert (now.cs.selector, now.ss.selector, now.ds.selector, now.fs.selector) == (
        9,
        0x11,
        0x10,
        0,
    )
    assert now.cs.attributes == 0xC0BB
    assert machine.memory.read_u8(GDT_AT + 8 + 5) == 0x9A  # the guest's table stays as it is


def test_exceptions_come_through_the_guests_gates():
    # a privileged instruction of the kernel; the flag was set, and is clear in the handler
    code = START + b"\xc7\x05" + le(SHARED, 1) + b"\xfa"
    machine, monitor = run(code)
    vector, frame = trapped(machine)
    assert (vector, frame[0]) == (13, 0)
    assert (frame[1], frame[2], frame[3] & 0x200) == (CODE + len(code) - 1, 9, 0x200)
    assert results(machine, 1, SHARED) == [0]
    assert monitor.counts.events["exception"] == 1
    machine, _ = run(START + b"\x0f\x0b")
    vector, frame = trapped(machine)
    assert (vector, frame[1], frame[2] & 0x200) == (6, 9, 0)


def to_user(code: bytes, flags: int = 0x202) -> bytes:
    """A frame for HYPER_IRET to ring 3, at USER."""
    frame = b"".join(b"\x68" + le(value) for value in (0x23, 0x80000, flags, 0x1B, USER))
    return frame + b"\xb8" + le(0x1234) + b"\xe9" + le(
        CALLS + 32 * IRET - (CODE + len(code) + len(frame) + 10)
    )  # fmt: skip


def test_system_calls_do_not_enter_the_monitor():
    code = START + to_user(START)
    machine = guest(code)
    # a handler that returns, by the monitor, as often as it is called
    machine.load(b"\xe9" + le(CALLS + 32 * IRET - (HANDLER + 64 * 0x30 + 5)), HANDLER + 64 * 0x30)
    machine.load(b"\x36\xa3" + le(RESULTS) + b"\xcd\x30\xcd\x30\xcd\x82", USER)
    monitor = Monitor(machine, "paravirtual")
    assert monitor.run(1000).reason is ExitReason.HALT
    counts = monitor.counts
    assert counts.events["syscall"] == 2
    assert counts.hypercalls == {"gdt": 1, "idt": 1, "task": 1, "iret": 3}
    assert counts.events["exception"] == 1
    # what HYPER_IRET keeps; and ring 3 has no hypercalls: #GP, with the vector
    assert machine.memory.read_u32(RESULTS) == 0x1234
    vector, frame = trapped(machine)
    assert (vector, frame) == (13, [0x412, USER + 10, 0x1B, frame[3], 0x80000, 0x23])
    assert frame[3] & 0x200
    assert machine.registers.cpl == 1


@pytest.mark.parametrize("bad", [(0x23, 0x80000, 2, 0x08, USER), (0x23, 0x80000, 2, 0x33, USER),
                                 (0x13, 0x80000, 2, 0x1B, USER)])  # fmt: skip
def test_a_frame_that_iret_refuses(bad):
    code = START + b"".join(b"\x68" + le(value) for value in bad)
    jump = CODE + len(code) + 5
    machine, _ = run(code + b"\xe9" + le(CALLS + 32 * IRET - jump))
    vector, frame = trapped(machine)
    assert vector == 13
    assert frame[1] == CALLS + 32 * IRET + 6  # the INT in the page
    assert machine.registers.cpl == 1


PAGED = START + call(PAGING, DIRECTORY) + keep(RESULTS)


def test_tables_in_use_are_written_by_calls_only():
    # an entry by PTE, its translation, then a store of the kernel's own
    code = PAGED + call(PTE, TABLE + 4 * 0x300, 0x301007) + keep(RESULTS + 4)
    code += call(INVLPG, 0x300000) + b"\xc7\x05" + le(0x300004, 0xABCD)
    code += b"\xc7\x05" + le(TABLE + 4, 0x1007)
    machine, monitor = run(code)
    assert results(machine, 2) == [0, 0]
    assert machine.memory.read_u32(0x301004) == 0xABCD
    vector, frame = trapped(machine)
    assert (vector, frame[0], frame[1]) == (14, 3, CODE + len(code) - 10)
    assert machine.memory.read_u32(SHARED + 8) == TABLE + 4
    assert machine.memory.read_u32(TABLE + 4) & ~0x60 == 0x1007
    assert monitor.counts.events["page_table_update"] == 1
    assert monitor.counts.events["page_fault"] == 1


def test_the_page_of_calls_is_read_only():
    machine, _ = run(START + b"\xc7\x05" + le(CALLS, 0))
    assert trapped(machine)[0] == 14
    assert machine.memory.read_u8(CALLS) == 0xB8


@pytest.mark.parametrize(
    ("entry", "value"),
    [(TABLE + 2, 7), (TABLE, 0x400007), (DIRECTORY + 4, DIRECTORY | 7), (DIRECTORY + 4, 0x400007),
     (DIRECTORY + 4, CALLS | 7), (DIRECTORY + 4, SHARED | 7), (DIRECTORY + 4, 0x20007), (CALLS, 7),
     (SHARED, 7), (0x700000, 7)],
)  # fmt: skip
def test_entries_that_are_refused(entry, value):
    # 0x20000 holds something that is no table: an entry leads out of memory
    code = PAGED + call(PTE, entry, value) + keep(RESULTS + 4) + call(STOP)
    machine = guest(code)
    machine.load(le(0x400007), 0x20000)
    monitor = Monitor(machine, "paravirtual")
    assert monitor.run(1000).reason is ExitReason.HALT
    assert results(machine, 2) == [0, REFUSED]
    assert monitor.counts.events["page_table_update"] == 0


def test_a_directory_is_looked_through_and_given_back():
    second, table = 0x30000, 0x31000
    store = b"\xc7\x05" + le(table + 4, 0x1007)
    code = PAGED + store + call(CR3, second) + keep(RESULTS + 4)
    code += call(RELEASE, second) + keep(RESULTS + 8)  # it is loaded
    code += call(CR3, DIRECTORY) + call(RELEASE, second) + keep(RESULTS + 12)
    code += store + call(RELEASE, TABLE) + keep(RESULTS + 16)
    code += call(CR3, second + 4) + keep(RESULTS + 20) + call(CR3, 0x400000) + keep(RESULTS + 24)
    code += call(CR3, second) + store
    machine = guest(code)
    machine.load(le(TABLE | 7, table | 7), second)
    monitor = Monitor(machine, "paravirtual")
    assert monitor.run(10_000).reason is ExitReason.HALT
    assert results(machine, 7) == [0, 0, REFUSED, 0, REFUSED, REFUSED, REFUSED]
    vector, frame = trapped(machine)
    assert (vector, frame[1]) == (14, CODE + len(code) - 10)  # only the last store


def test_batches_stop_at_what_is_refused():
    operations = [(PTE, TABLE + 4 * 0x300, 0x301007, 0), (INVLPG, 0x300000, 0, 0),
                  (CR3, DIRECTORY, 0, 0), (TASK, 0x28, 0, 0), (IDLE, 0, 0, 0),
                  (PTE, TABLE + 4 * 0x301, 0, 0)]  # fmt: skip
    code = PAGED + call(MANY, LIST, 6) + keep(RESULTS + 4)
    code += (
        call(MANY, LIST, 5000) + keep(RESULTS + 8) + call(MANY, 0x3FFFF0, 2) + keep(RESULTS + 12)
    )
    machine = guest(code + call(STOP))
    machine.load(b"".join(le(*one) for one in operations), LIST)
    machine.load(le(PTE, TABLE + 4 * 0x302, 0x303007, 0), 0x3FFFF0)
    monitor = Monitor(machine, "paravirtual")
    assert monitor.run(10_000).reason is ExitReason.HALT
    assert results(machine, 4) == [0, 4, REFUSED, 1]
    assert monitor.counts.batched == {"pte": 2, "invlpg": 1, "cr3": 1, "task": 1}
    assert monitor.counts.hypercalls["many"] == 3
    assert machine.memory.read_u32(TABLE + 4 * 0x301) == 0x301007


def test_ports():
    bus = Bus()
    code = START + call(IN, 0x60, 1) + keep(RESULTS) + call(OUT, 0x80, 2, 0x12345)
    code += call(OUT, 0x20, 1, 0x20) + keep(RESULTS + 4) + call(IN, 0x1E, 4) + keep(RESULTS + 8)
    code += call(IN, 0x60, 3) + keep(RESULTS + 12) + call(OUT_MANY, 0x1F0, LIST, 3)
    code += call(IN_MANY, 0x1F0, RESULTS + 0x40, 2) + keep(RESULTS + 16)
    code += call(IN_MANY, 0x1F0, 0xFFFFF000, 2) + keep(RESULTS + 20)
    code += call(OUT_MANY, 0x1F0, LIST, 40000) + keep(RESULTS + 24) + call(EXIT, 0x10)
    machine = guest(code + call(STOP), bus)
    machine.load(struct.pack("<3H", 1, 2, 3), LIST)
    monitor = Monitor(machine, "paravirtual")
    assert monitor.run(10_000).reason is ExitReason.HALT
    # writes to where no memory is are lost, so the fifth is none that faults
    assert results(machine, 7) == [1, REFUSED, REFUSED, REFUSED, 0, 0, REFUSED]
    assert [one[1:] for one in bus.writes] == [
        (0x80, 2, 0x2345), (0x1F0, 2, 1), (0x1F0, 2, 2), (0x1F0, 2, 3), (0xF4, 1, 0x10),
    ]  # fmt: skip
    assert results(machine, 1, RESULTS + 0x40) == [0xFFFFFFFF]
    assert monitor.counts.booked["vmkernel"] == 4
    assert monitor.counts.booked["device"] == 2
    assert monitor.counts.events["io"] == 1 + 1 + 3 + 2 + 2


def ticking(code: bytes, period: int = 100) -> tuple[Machine, Monitor, Bus]:
    """A guest whose upcall takes its event, counts it in RESULTS and goes back."""
    bus = Bus(period=period)
    machine = guest(START + call(BIND, 0) + code, bus)
    handler = b"\xff\x05" + le(RESULTS) + b"\xc7\x05" + le(SHARED + 12, 0)
    handler += b"\xe9" + le(CALLS + 32 * IRET - (HANDLER + 64 * 0x20 + len(handler) + 5))
    machine.load(handler, HANDLER + 64 * 0x20)
    return machine, Monitor(machine, "paravirtual"), bus


ENABLE = b"\xc7\x05" + le(SHARED, 1)


def test_events_wait_for_the_flag():
    machine, monitor, bus = ticking(b"\x40\xeb\xfd")
    monitor.run(1000)
    # the machine's interrupt was the monitor's to take; the event is pending
    assert results(machine, 4, SHARED) == [0, 1, 0, 1]
    assert results(machine, 1) == [0]
    assert len(bus.acknowledged) == monitor.counts.events["interrupt"] == 9
    code = b"\x90" * 300 + ENABLE + call(EVENTS) + b"\x40\xeb\xfd"
    machine, monitor, bus = ticking(code)
    monitor.run(1000)
    taken = results(machine, 1)[0]
    assert 1 < taken < len(bus.acknowledged)
    assert results(machine, 2, SHARED) == [1, 0]
    assert monitor.counts.hypercalls["iret"] == taken == int(machine.counters["interrupts"])


def test_idle_waits_and_leaves_the_flag_clear():
    machine, monitor, _ = ticking((call(IDLE) + keep(RESULTS + 4)) * 3 + call(STOP), 100_000)
    assert monitor.run(1_000_000).reason is ExitReason.HALT
    assert results(machine, 1) == [3]
    assert results(machine, 2, SHARED) == [0, 0]
    assert monitor.counts.events["halt"] == 3
    assert 300_000 < machine.registers.tsc < 301_000
    assert int(machine.counters["retired"]) < 200


def test_channels_that_do_not_exist():
    bus = Bus()
    code = START + call(BIND, 2) + keep(RESULTS) + call(BIND, 16) + keep(RESULTS + 4)
    machine, _ = run(code + call(BIND, 14) + keep(RESULTS + 8) + call(STOP), bus)
    assert results(machine, 3) == [REFUSED, REFUSED, 0]
    # the monitor sets up both controllers, and lets only that line and the cascade through
    assert [(port, value) for _, port, _, value in bus.writes[-2:]] == [(0x21, 0xFB), (0xA1, 0xBF)]
    assert len(bus.writes) == 10


def test_console_and_disk_by_calls():
    data = np.random.default_rng(3).integers(256, size=512 * 4).astype(np.uint8).tobytes()
    board = Board(data, memory=1 << 22, disk_delay=500)
    text = RESULTS + 0x80
    wait = call(IDLE)
    code = PAGED + call(TEXT, text, 6) + keep(RESULTS + 4)
    code += call(DISK, 1, 0x10000, 0) + keep(RESULTS + 8)  # no channel yet
    code += call(BIND, 14) + call(DISK, 2, 0x10000, 0) + keep(RESULTS + 12)
    code += call(DISK, 1, 0x10200, 0) + keep(RESULTS + 16) + wait  # one at a time
    code += call(DISK, 3, 0x10000, 1) + wait + call(DISK, 0, 0, 2) + wait
    code += call(DISK, 4, 0x10000, 0) + wait + b"\xa1" + le(SHARED + 16) + keep(RESULTS + 20)
    for i, bad in enumerate([(0, 0x10001, 0), (0, TABLE, 0), (0, CALLS, 0), (0, 0x400000, 0),
                             (0, 0x10000, 3), (1 << 28, 0x10000, 0)]):  # fmt: skip
        code += call(DISK, *bad) + keep(RESULTS + 24 + 4 * i)
    code += call(TEXT, 0x400000, 5000) + keep(RESULTS + 48)
    machine = guest(code + call(STOP))
    other = Machine(machine.memory, board.bus_capsule)
    other.registers = machine.registers
    other.load(b"hello\n", text)
    handler = b"\xff\x05" + le(RESULTS + 0x40) + b"\xc7\x05" + le(SHARED + 12, 0)
    handler += b"\xe9" + le(CALLS + 32 * IRET - (HANDLER + 64 * 0x20 + len(handler) + 5))
    other.load(handler, HANDLER + 64 * 0x20)
    monitor = Monitor(other, "paravirtual")
    assert monitor.run(10_000).reason is ExitReason.HALT
    assert results(other, 13) == [0, 0, REFUSED, 0, REFUSED, 1] + [REFUSED] * 7
    assert results(other, 1, RESULTS + 0x40) == [4]
    assert board.output == b"hello\n"
    assert other.memory.read(0x10000, 512) == data[1024:1536]
    assert board.disk.tobytes() == data[:1536] + data[1024:1536]
    assert monitor.counts.booked["vmkernel"] == monitor.counts.hypercalls["disk"] == 12
    assert monitor.counts.events["io"] == 5


def test_a_guest_without_gates_ends():
    machine, monitor = run(call(GDT, GDT_AT, 48) + b"\x0f\x0b")
    assert monitor.run(10).reason is ExitReason.TRIPLE_FAULT
    assert machine.registers.cpl == 1


def test_another_guest_may_follow():
    machine, monitor = run(PAGED + call(STOP))
    fresh = guest(PAGED + call(STOP))
    machine.load(fresh.memory.read(0, fresh.memory.end), 0)
    machine.reset()
    machine.registers = fresh.registers
    assert monitor.run(1000).reason is ExitReason.HALT
    assert results(machine, 1) == [0]
    assert monitor.counts.hypercalls["paging"] == 2


def hostile(rng: np.random.Generator) -> bytes:
    """Calls with arguments that are often nearly right."""
    code = b""
    for _ in range(60):
        number = int(
            rng.choice([4, 5, 6, 7, 8, 9, 9, 9, 10, 11, 12, 13, 14, 16, 17, 18, 19, 20, 0, 40])
        )
        words = []
        for _ in range(3):
            value = int(
                rng.choice(
                    [
                        DIRECTORY,
                        TABLE,
                        0x30000,
                        0x31000,
                        GDT_AT,
                        IDT_AT,
                        LIST,
                        CALLS,
                        SHARED,
                        0x3FFFFC,
                        0x400000,
                        0xFFFFFFFC,
                        0x28,
                        48,
                        1,
                        2,
                        4,
                    ]
                )
            )
            value += int(rng.choice([0, 0, 0, 4, 7, 1])) + 4096 * int(rng.choice([0, 0, 1, -1]))
            words.append(value)
        code += b"\xbb" + le(words[0]) + b"\xb9" + le(words[1]) + b"\xba" + le(words[2])
        code += b"\xb8" + le(number) + b"\xcd\x82"
    return code


def test_hostile_guests_never_crash_the_monitor():
    rng = np.random.default_rng(8)
    calls = 0
    for round_ in range(150):
        code = (START if rng.integers(2) else b"") + (PAGED if rng.integers(2) else b"")
        code += (
            hostile(rng) if round_ % 2 else rng.integers(256, size=0xF00).astype(np.uint8).tobytes()
        )
        machine = guest(code, Bus(period=50))
        for at in (0x30000, 0x31000, LIST):
            values = rng.integers(1 << 10, size=1024) << 12 | rng.integers(8, size=1024)
            machine.load(values.astype("<u4").tobytes(), at)
        machine.load(le(*rng.integers(19, size=64).tolist()), LIST)
        monitor = Monitor(machine, "paravirtual")
        monitor.run(3000)
        assert machine.registers.cpl > 0
        calls += monitor.counts.events["hypercall"]
        # the host writes to tables that are in use
        machine.load(rng.integers(256, size=0x3000).astype(np.uint8).tobytes(), DIRECTORY)
        monitor.run(3000)
    assert calls > 2000
