"""X4: what one operation costs under software and hardware monitors, from counted events.

The guest programs are those of K. Adams and O. Agesen, "A comparison of software and hardware
techniques for x86 virtualization", ASPLOS 2006, section 6.3, but for writes of CR8, which 32-bit
code has no instruction for. Each is a loop around one operation. What is counted for one round is
the difference between a long and a short run, so that the way there does not count.

Costs in the order are not the paper's nanobenchmarks, but what their parts are made of: the round
trip of an exit of that generation (Prescott: O. Agesen et al., OSR 2010 and USENIX ATC 2012, table
1), that of a trap within one address space (an interrupt gate: blitz/kernel_entry_benchmark on
GitHub, README), and the work of a monitor itself, 200 to 1000 cycles. The first is recalled, the
last a range. The ratio of page-table writes is checked with the paper's own costs, which is a check
of the counts alone; with the parts it is another one, and is shown.
"""

from __future__ import annotations

import struct
from dataclasses import asdict, dataclass
from typing import Any

from pyvirt._core.devices.owner import Board
from pyvirt.machine.techniques import EventCosts
from pyvirt.mmu.shadow import ShadowRules
from pyvirt.validation.registry import Context, Outcome, experiment
from pyvirt.validation.tally import Tally
from pyvirt.x86.machine import ExitReason, Machine
from pyvirt.x86.monitor import Monitor, MonitorCounts

__all__ = [
    "BENCHMARKS",
    "Round",
    "hardware_cycles",
    "nanobenchmarks",
    "one_round",
    "software_costs",
]

MEMORY = 1 << 21
GDT, IDT, TSS, DIRECTORY, TABLE, STACK = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x8000
KERNEL, USER, HANDLERS, USER_STACK, ABSENT = 0x8000, 0xA000, 0xC000, 0xE000, 0x1FF000
CODE0, DATA0, CODE3, DATA3, TASK = 0x08, 0x10, 0x1B, 0x23, 0x28
SYSTEM_CALL, DONE = 0x80, 0x81
SHORT, LONG = 1000, 3000

#: Cycles of an exit and the entry after it, of a trap through an interrupt gate and back, of an
#: operation that translated code does in line, and the ends of the range for a monitor's own work.
ROUND_TRIP, GATE, INLINE, WORK = 3963.0, 610.0, 30.0, (200.0, 600.0, 1000.0)
RATIO = (25, 40)

#: Code that begins in the kernel, with ECX the rounds; what the user does; whether hardware
#: assistance is the cheaper.
BENCHMARKS: dict[str, tuple[bytes, bytes, bool]] = {
    # INT 80 from CPL 3; its handler is an IRET
    "syscall": (b"", bytes.fromhex("cd80"), True),
    "call/ret": (bytes.fromhex("e802000000 eb01 c3"), b"", True),
    # DIV by zero; the handler skips it
    "divzero": (bytes.fromhex("31db f7f3"), b"", True),
    "in": (bytes.fromhex("e480"), b"", False),
    # MOV EAX, [ABSENT], 5 bytes, which the handler skips
    "pgfault": (b"\xa1" + struct.pack("<I", ABSENT), b"", False),
    # XOR DWORD [entry], a bit that the processor does not look at
    "ptemod": (
        b"\x81\x35" + struct.pack("<II", TABLE + 4 * (USER_STACK >> 12), 0x200),
        b"",
        False,
    ),
}


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of a benchmark is, on average.

    Attributes
    ----------
    events : dict of str to float
        Events of cost tables.
    exits : float
        With hardware assistance.
    """

    events: dict[str, float]
    exits: float


def _descriptor(access: int, flags: int, base: int = 0, limit: int = 0xFFFFF) -> bytes:
    low, high = limit & 0xFFFF, flags << 4 | limit >> 16
    return struct.pack("<HHBBBB", low, base & 0xFFFF, base >> 16 & 0xFF, access, high, base >> 24)


def _gate(offset: int, access: int) -> bytes:
    return struct.pack("<HHBBH", offset & 0xFFFF, CODE0, 0, access, offset >> 16)


def _loop(body: bytes) -> bytes:
    """The body, DEC ECX, JNZ back."""
    return body + b"\x49\x0f\x85" + struct.pack("<i", -(len(body) + 7))


def memory_of(name: str, rounds: int) -> bytes:
    """Give the memory that a benchmark begins with, from 0 on."""
    kernel, user, _ = BENCHMARKS[name]
    leave = b"\xb0\x00\xe6\xf4\xfa\xf4"
    count = b"\xb9" + struct.pack("<I", rounds)
    if user:
        push = b"\x6a\x23\x68" + struct.pack("<I", USER_STACK + 0xF00) + b"\x6a\x02\x6a\x1b"
        begin = count + push + b"\x68" + struct.pack("<I", USER) + b"\xcf"
    else:
        begin = count + _loop(kernel) + leave
    handlers = {
        0: bytes.fromhex("83042402 cf"),  # over DIV
        14: bytes.fromhex("83c404 83042405 cf"),  # without the error code, over MOV
        SYSTEM_CALL: b"\xcf",
        DONE: leave,
    }
    idt = bytearray(8 * 256)
    parts = []
    for i, (vector, code) in enumerate(handlers.items()):
        at = HANDLERS + 32 * i
        parts.append((at, code))
        idt[8 * vector : 8 * vector + 8] = _gate(at, 0xEE if vector >= SYSTEM_CALL else 0x8E)
    gdt = bytes(8) + _descriptor(0x9B, 0xC) + _descriptor(0x93, 0xC) + _descriptor(0xFB, 0xC)
    gdt += _descriptor(0xF3, 0xC) + _descriptor(0x89, 0, TSS, 0x67)
    pages = [
        page << 12 | (7 if page in (USER >> 12, USER_STACK >> 12) else 3) for page in range(512)
    ]
    pages[ABSENT >> 12] = 0
    parts += [
        (GDT, gdt),
        (IDT, bytes(idt)),
        (TSS, struct.pack("<III", 0, STACK, DATA0) + bytes(0x5A) + b"\x68\x00"),
        (DIRECTORY, struct.pack("<I", TABLE | 7)),
        (TABLE, struct.pack("<512I", *pages)),
        (KERNEL, begin),
        (USER, _loop(user) + bytes([0xCD, DONE])),
    ]
    memory = bytearray(0x10000)
    for at, data in parts:
        memory[at : at + len(data)] = data
    return bytes(memory)


def counted(name: str, rounds: int, technique: str) -> MonitorCounts:
    """Run a benchmark under a monitor with shadow tables whose entries are traced."""
    board = Board(memory=MEMORY)
    machine = Machine(MEMORY, board.bus_capsule)
    rules: Any = asdict(ShadowRules.policy("write_protect", flood_limit=0))
    monitor = Monitor(machine, technique, paging="shadow", rules=rules)
    machine.load(memory_of(name, rounds), 0)
    flat = (DATA0, 0, 0xFFFFFFFF, 0xC093)
    machine.set(
        cr0=0x80010011, cr3=DIRECTORY, gdt_base=GDT, gdt_limit=47, idt_base=IDT, idt_limit=2047,
        tr=(TASK, TSS, 0x67, 0x8B), eip=KERNEL, esp=STACK, edx=0, eflags=2,
        cs=(CODE0, 0, 0xFFFFFFFF, 0xC09B), ss=flat, ds=flat, es=flat,
    )  # fmt: skip
    found = monitor.run(100 * (rounds + 100))
    if found.reason is not ExitReason.STOP:
        raise RuntimeError(f"{name} under {technique} ended by {found}")
    return monitor.counts


def one_round(name: str, technique: str) -> Round:
    """Give what a round adds, once the way there is paid."""
    short, long = (counted(name, rounds, technique) for rounds in (SHORT, LONG))
    rounds = LONG - SHORT
    return Round(
        {k: (long.events[k] - short.events[k]) / rounds for k in long.events},
        (sum(long.exits.values()) - sum(short.exits.values())) / rounds,
    )


def hardware_cycles(found: Round, work: float) -> float:
    """Price a round under hardware assistance: exits, and the monitor's work for each."""
    return found.exits * (ROUND_TRIP + work)


def software_costs(work: float) -> EventCosts:
    """Give what events cost a monitor in the guest's own address space."""
    trap = GATE + work
    costs = dict.fromkeys(("io", "page_table_update", "emulated", "cpuid", "msr", "invlpg"), work)
    costs |= dict.fromkeys(("syscall", "exception", "page_fault", "hidden_fault"), trap)
    costs |= dict.fromkeys(("interrupt_flag", "call_return"), INLINE)
    return EventCosts(f"parts, {work:g}", costs)


def software_cycles(found: Round, costs: EventCosts) -> float:
    """Price a round by events."""
    return sum(costs.by_event(found.events).values())


@experiment("X4", "nanobenchmarks under binary translation and VT-x, from counted events")
def nanobenchmarks(context: Context) -> Outcome:
    """Compare the order of techniques, and the ratio of page-table writes."""
    tally = Tally()
    rounds = {}
    for name, (_, _, assisted) in BENCHMARKS.items():
        context.report(name)
        software, hardware = (one_round(name, t) for t in ("translation", "hardware"))
        rounds[name] = software, hardware
        for work in WORK:
            sw = software_cycles(software, software_costs(work))
            hw = hardware_cycles(hardware, work)
            order = hw < sw if assisted else sw < hw
            tally.check(order, f"{name}, work of {work:g}: software {sw:.0f}, hardware {hw:.0f}")
    software, hardware = rounds["ptemod"]
    ratios = [
        hardware_cycles(hardware, work) / software_cycles(software, software_costs(work))
        for work in WORK
    ]
    bt, hv = (EventCosts(table) for table in ("bt-pentium4", "hv-pentium4"))
    cells = (software_cycles(hardware, hv) + 1) / (software_cycles(software, bt) + 1)
    low, high = RATIO
    tally.check(low <= cells <= high, f"ptemod: {cells:.1f} times by the paper's costs")
    once = {"page_table_update": 1.0}
    for who, found, exits in (("software", software, 0), ("hardware", hardware, 1)):
        events = {event: number for event, number in found.events.items() if number}
        right = events == once and found.exits == exits
        tally.check(right, f"ptemod, {who}: {events} and {found.exits:g} exits a write")
    faults = [rounds[name][1].exits for name in ("in", "pgfault", "syscall", "call/ret", "divzero")]
    orders = tally.failed == 0
    least, most = ROUND_TRIP / (high - 1), ROUND_TRIP / (low - 1)
    return tally.outcome(
        "X4",
        sentences=(
            "hardware cheaper: syscall, call/ret, divzero; software cheaper: in, pgfault, ptemod; "
            f"a page-table write {low}..{high} times as dear under hardware by the paper's costs",
            f"{'all orders as expected' if orders else 'not all as expected'}; exits a round: in "
            f"{faults[0]:g}, pgfault {faults[1]:g}, ptemod {hardware.exits:g}, others "
            f"{sum(faults[2:]):g}; {cells:.1f} times by the paper's costs",
        ),
        note=(
            "orders by costs that are not the paper's, with 200, 600 and 1000 cycles of work in "
            f"the monitor; by these a page-table write is {min(ratios):.1f} to {max(ratios):.1f} "
            f"times as dear, so that {low}..{high} would need a monitor that works for {least:.0f} "
            f"to {most:.0f} cycles; the ratio by the paper's costs is that of its two cells, and "
            "shows only that each write is one exit, or one translated write; no 32-bit code "
            "writes CR8"
        ),
    )
