"""What one event of a guest costs a monitor here: the same loop under it, less without it."""

from __future__ import annotations

import struct
import time

from pyvirt.x86.machine import ExitReason, Machine
from pyvirt.x86.monitor import Monitor

from .timing import target, unit

GDT, DIRECTORY, TABLE, CODE, HANDLER, IDT = 0x1000, 0x4000, 0x5000, 0x8000, 0x9000, 0x2000
PAGE = 0x300000
TURNS = 100_000

#: A loop's body by event; in each turn it happens once.
BODIES = {
    "cpuid": "0fa2",
    "out": "e680",
    "cr0": "0f20c0 0f22c0",
    "cr3": "0f20d8 0f22d8",
    "invlpg": "0f013d00003000",
    # an entry of a page table changes, and its translation is forgotten
    "page_table_update": "c705005c000007103000 0f013d00003000",
    # a read of a page that is not there; the handler goes on after it
    "page_fault": "a100004000",
}


def machine_with(event: str) -> Machine:
    """Make a guest with paging that loops over the event."""
    machine = Machine(1 << 22)
    entries = [0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF]
    machine.load(struct.pack("<3Q", *entries), GDT)
    gate = HANDLER | 8 << 16 | 0x8E << 40
    machine.load(struct.pack("<64Q", *[gate] * 64), IDT)
    machine.load(bytes.fromhex("83c404 83042405 cf"), HANDLER)  # drop the code, EIP += 5, IRET
    machine.load(struct.pack("<I", TABLE | 7), DIRECTORY)
    machine.load(struct.pack("<1024I", *(page << 12 | 7 for page in range(1024))), TABLE)
    body = bytes.fromhex(BODIES[event])
    loop = b"\xb9" + struct.pack("<I", TURNS) + b"\x51" + body + b"\x59\x49"
    machine.load(loop + b"\x75" + bytes([256 - len(body) - 5]) + b"\xf4", CODE)
    flat = (16, 0, 0xFFFFFFFF, 0xC093)
    machine.set(
        cr0=0x80010011, cr3=DIRECTORY, gdt_base=GDT, gdt_limit=23, idt_base=IDT, idt_limit=511,
        cs=(8, 0, 0xFFFFFFFF, 0xC09B), ds=flat, es=flat, ss=flat, esp=0x7000, eip=CODE,
    )  # fmt: skip
    return machine


class MonitorEvents:
    """One event under a technique with its paging.

    A page-table update is two events with shadow tables: the trap of the write, and INVLPG.
    """

    params = tuple(
        f"{how} {event}"
        for how in ("hardware nested", "hardware shadow", "translation shadow")
        for event in BODIES
    )
    param_names = ("what",)
    timeout = 60

    def seconds(self, event: str, technique: str = "", paging: str = "") -> float:
        """Run the loop, natively without a technique; give the least of three times."""
        best = float("inf")
        for _ in range(3):
            machine = machine_with(event)
            runner: Machine | Monitor = machine
            if technique:
                runner = Monitor(machine, technique, paging=paging)
            start = time.process_time()
            found = runner.run(1 << 40)
            best = min(best, time.process_time() - start)
            if found.reason is not ExitReason.HALT or machine.registers.ecx:
                raise AssertionError(f"the loop did not come to its end: {found}")
        return best

    @target("<=", 200)
    @unit("ns")
    def track_monitor(self, what: str) -> float:
        technique, paging, event = what.split()
        events = 2 if event == "page_table_update" and paging == "shadow" else 1
        more = self.seconds(event, technique, paging) - self.seconds(event)
        return max(0.0, more) / TURNS / events * 1e9
