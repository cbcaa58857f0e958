"""What one event costs a monitor here whose guest's kernel runs at CPL 1: traps, and hypercalls."""

from __future__ import annotations

import struct
import time

from pyvirt.x86.machine import ExitReason, Machine
from pyvirt.x86.monitor import Monitor

from .monitor_events import BODIES, TURNS, MonitorEvents, machine_with
from .timing import target, unit

CALLS = 0xFF000
LIST = 0x6000
CODE, GDT, DIRECTORY, TABLE = 0x8000, 0x1000, 0x4000, 0x5000
#: Traps of one turn, by the names of `monitor_events.BODIES`.
TRAPS = {"out": 1, "cr0": 2, "cr3": 2, "invlpg": 1, "page_table_update": 2, "page_fault": 2}
#: Hypercalls by name: number and operands.
CALLED = {
    "pte": (9, TABLE + 4 * 0x300, 0x300007, 0),
    "cr3": (8, DIRECTORY, 0, 0),
    "invlpg": (10, 0x300000, 0, 0),
    "port": (12, 0x80, 1, 0),
    "batch of 8 pte": (16, LIST, 8, 0),
}


class NaiveEvents(MonitorEvents):
    """One trap to the monitor, with shadow tables: what runs natively in the loop is taken off."""

    params = tuple(TRAPS)

    @target("<=", 200)
    @unit("ns")
    def track_monitor(self, what: str) -> float:
        more = self.seconds(what, "naive", "shadow") - self.seconds(what)
        return max(0.0, more) / TURNS / TRAPS[what] * 1e9


def code(*words: int) -> bytes:
    """MOV to EBX, ECX, EDX, and CALL."""
    return b"".join(
        bytes([0xB8 + register]) + struct.pack("<I", value)
        for register, value in ((3, words[1]), (1, words[2]), (2, words[3]))
    ) + b"\xb8" + struct.pack("<I", CALLS + 32 * words[0]) + b"\xff\xd0"  # fmt: skip


def native(event: str) -> float:
    """Give the seconds that the event itself takes in its loop, without a monitor."""
    best = {False: float("inf"), True: float("inf")}
    for empty in (False, True) * 3:
        machine = machine_with(event)
        if empty:
            machine.load(b"\x90" * len(bytes.fromhex(BODIES[event])), CODE + 6)
        begin = time.process_time()
        machine.run(1 << 40)
        best[empty] = min(best[empty], time.process_time() - begin)
    return best[False] - best[True]


class Hypercalls:
    """One hypercall of a paravirtual guest; the same loop without a call is taken off.

    So is what MOV CR3 and INVLPG take on the machine itself: translations that are filled again.
    """

    params = tuple(CALLED)
    param_names = ("call",)
    timeout = 60

    def seconds(self, call: tuple[int, int, int, int] | None) -> float:
        best = float("inf")
        for _ in range(3):
            machine = Machine(1 << 22)
            entries = [0, 0x00CF9A000000FFFF, 0x00CF92000000FFFF]
            machine.load(struct.pack("<3Q", *entries), GDT)
            machine.load(struct.pack("<I", TABLE | 7), DIRECTORY)
            pages = (page << 12 | 7 for page in range(1024))
            machine.load(struct.pack("<1024I", *pages), TABLE)
            machine.load(struct.pack("<4I", *CALLED["pte"]) * 8, LIST)
            body = code(*call) if call else code(0, 0, 0, 0).replace(b"\xff\xd0", b"\x90\x90")
            start = code(4, GDT, 24, 0) + code(7, DIRECTORY, 0, 0) + b"\xbe"
            start += struct.pack("<I", TURNS)
            stop = b"\x4e\x0f\x85" + struct.pack("<i", -len(body) - 9) + code(2, 0, 0, 0)
            # the page of calls may change ESI: keep the count on the stack
            machine.load(start + b"\x56" + body + b"\x5e" + stop, CODE)
            flat = (16, 0, 0xFFFFFFFF, 0xC093)
            machine.set(
                cs=(8, 0, 0xFFFFFFFF, 0xC09B), ds=flat, es=flat, ss=flat, esp=0x7000, eip=CODE,
                cr0=0x11,
            )  # fmt: skip
            monitor = Monitor(machine, "paravirtual")
            begin = time.process_time()
            found = monitor.run(1 << 40)
            best = min(best, time.process_time() - begin)
            calls = monitor.counts.events["hypercall"]
            if found.reason is not ExitReason.HALT or calls != 2 + (TURNS if call else 0):
                raise AssertionError(f"the loop did not come to its end: {found}, {calls} calls")
        return best

    # after INVLPG three blocks of code are found anew, one more than in the native loop
    @target("<=", dict.fromkeys(CALLED, 200) | {"invlpg": 250, "batch of 8 pte": 1000})
    @unit("ns")
    def track_monitor(self, call: str) -> float:
        more = self.seconds(CALLED[call]) - self.seconds(None)
        if call in BODIES:
            more -= native(call)
        return max(0.0, more) / TURNS * 1e9
