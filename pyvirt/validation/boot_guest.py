"""A guest program with the mix of a boot, for monitors to execute.

It is a small kernel with isolated page tables, so that each entry from privilege 3 loads CR3 twice,
and one process, whose code is unrolled: system calls, first touches of pages that are mapped by
page faults and taken away again, CPUID, port accesses, MSRs, control registers, HLT. How often each
happens for one port access are the numbers of the workload ``boot`` (`pyvirt.guest.Workload`); of
those that it does not have, the same source's (nicolashanout/linux on GitHub, README, with EPT).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from pyvirt._core.devices.owner import Board
from pyvirt.errors import InvalidValueError
from pyvirt.guest.profiles import numbers
from pyvirt.x86.machine import ExitReason, Machine
from pyvirt.x86.monitor import Monitor, MonitorCounts

__all__ = ["MIX", "boot_counts", "boot_memory"]

MEMORY, LOW_END = 8 << 20, 4 << 20
GDT, IDT, TSS, DIRECTORY, ISOLATED, TABLE, WINDOW_TABLE = (0x1000 * i for i in range(1, 8))
HANDLERS, NEXT, STACK, KERNEL, USER_STACK = 0x8000, 0xA000, 0xC000, 0xD000, 0xF000
USER, FRAMES, WINDOW, PAGES = 0x10000, 0x200000, LOW_END, 64
CODE0, DATA0, DATA3, TASK = 0x08, 0x10, 0x23, 0x28
PAGE_FAULT, TIMER, CALL, PORT, MSR, REGISTER, WAIT, UNMAP, DONE = 14, 0x20, *range(0x80, 0x87)

#: Events for each port access with EPT: HLT, MSR accesses, EPT violations (first touches).
MIX = {"halts": 27229 / 132365, "msrs": (720 + 21545) / 132365, "violations": 35708 / 132365}


def _word(value: int) -> bytes:
    return struct.pack("<I", value)


def _descriptor(access: int, flags: int, base: int = 0, limit: int = 0xFFFFF) -> bytes:
    low, high = limit & 0xFFFF, flags << 4 | limit >> 16
    return struct.pack("<HHBBBB", low, base & 0xFFFF, base >> 16 & 0xFF, access, high, base >> 24)


def _load_cr3(directory: int) -> bytes:
    return b"\xb8" + _word(directory) + b"\x0f\x22\xd8"


def _entry(body: str | bytes) -> bytes:
    """An entry of the isolated kernel: its own directory, the body, the process's, IRET."""
    inner = bytes.fromhex(body) if isinstance(body, str) else body
    return b"\x60" + _load_cr3(DIRECTORY) + inner + _load_cr3(ISOLATED) + b"\x61\xcf"


def _handlers(frames: int) -> dict[int, bytes]:
    """Code by vector."""
    end = FRAMES + frames * 0x1000 | 7
    fault = b"\xa1" + _word(NEXT)  # the next frame, with its rights, to the entry of CR2
    fault += bytes.fromhex("0f20d3 c1eb0c 81e3ff030000 89049d") + _word(WINDOW_TABLE)
    fault += bytes.fromhex("0500100000 3d") + _word(end) + bytes.fromhex("7205 b8")
    fault += _word(FRAMES | 7) + b"\xa3" + _word(NEXT)
    unmap = b"\xbf" + _word(WINDOW_TABLE) + b"\xb9" + _word(PAGES) + bytes.fromhex("31c0 fc f3ab")
    return {
        # the error code goes before IRET
        PAGE_FAULT: _entry(fault)[:-1] + bytes.fromhex("83c404 cf"),
        TIMER: bytes.fromhex("50 b020 e620 58 cf"),
        CALL: _entry(""),
        PORT: _entry("31c0 0fa2 e680"),
        MSR: _entry("b910000000 0f32"),
        REGISTER: _entry("0f20c0 0f22c0"),
        WAIT: _entry("fb f4 fa"),
        UNMAP: _entry(unmap),
        DONE: bytes.fromhex("b000 e6f4 faf4"),
    }


#: The pair of 8259A, with the timer's line alone, and the 8254: mode 2, 100 of its cycles.
_START = bytes.fromhex(
    "b011 e620 e6a0 b020 e621 b028 e6a1 b004 e621 b002 e6a1 b001 e621 e6a1 b0fe e621 b0ff e6a1"
    "b034 e643 b064 e640 b000 e640"
)


def _process(rounds: int, calls: float, faults: float, registers: float) -> bytes:
    """The process's code: so many port accesses, and what comes with them."""
    code = bytearray()
    touched = 0

    def due(rate: float, done: int) -> int:
        return int((done + 1) * rate) - int(done * rate)

    for done in range(rounds):
        code += bytes([0xCD, CALL]) * due(calls, done)
        for _ in range(due(faults, done)):
            if touched and touched % PAGES == 0:
                code += bytes([0xCD, UNMAP])
            code += b"\xa3" + _word(WINDOW + touched % PAGES * 0x1000)  # MOV [page], EAX
            touched += 1
        for rate, vector in ((registers, REGISTER), (MIX["msrs"], MSR), (MIX["halts"], WAIT)):
            code += bytes([0xCD, vector]) * due(rate, done)
        code += bytes([0xCD, PORT])
    return bytes(code) + bytes([0xCD, DONE])


def boot_memory(rounds: int, parameters: Mapping[str, float] | None = None) -> bytes:
    """Give the memory that the guest begins with, from 0 on.

    Parameters
    ----------
    rounds : int
        Port accesses.
    parameters : mapping of str to float, optional
        ``calls_per_port`` and ``faults_per_port`` in place of the workload's.
    """
    usual = numbers("workloads", "boot") | dict(parameters or {})
    frames = max(1, round(MIX["violations"] * rounds))
    process = _process(
        rounds,
        usual["calls_per_port"],
        usual["faults_per_port"],
        usual["cr_writes"] / usual["ports"],
    )
    if USER + len(process) > FRAMES or FRAMES + frames * 0x1000 > LOW_END:
        raise InvalidValueError(f"rounds must be fewer, got {rounds}")
    idt, parts, at = bytearray(8 * 256), [], HANDLERS
    for vector, code in _handlers(frames).items():
        kind = 0xEE if vector >= CALL else 0x8E
        idt[8 * vector : 8 * vector + 8] = struct.pack("<HHBBH", at, CODE0, 0, kind, 0)
        parts.append((at, code))
        at += 128
    gdt = bytes(8) + b"".join(_descriptor(kind, 0xC) for kind in (0x9B, 0x93, 0xFB, 0xF3))
    pages = [page << 12 | 3 for page in range(1024)]
    for page in (USER_STACK >> 12, *range(USER >> 12, FRAMES >> 12)):
        pages[page] |= 4
    directory = _word(TABLE | 7) + _word(WINDOW_TABLE | 7)
    into = b"\x6a\x23\x68" + _word(USER_STACK + 0xF00) + b"\x68" + _word(2) + b"\x6a\x1b\x68"
    parts += [
        (GDT, gdt + _descriptor(0x89, 0, TSS, 0x67)),
        (IDT, bytes(idt)),
        (TSS, struct.pack("<III", 0, STACK, DATA0) + bytes(0x5A) + b"\x68\x00"),
        (DIRECTORY, directory),
        (ISOLATED, directory),
        (TABLE, struct.pack("<1024I", *pages)),
        (NEXT, _word(FRAMES | 7)),
        (KERNEL, _START + into + _word(USER) + b"\xcf"),
        (USER, process),
    ]
    memory = bytearray(USER + len(process))
    for where, data in parts:
        memory[where : where + len(data)] = data
    return bytes(memory)


def boot_counts(
    technique: str,
    paging: str,
    rounds: int = 1000,
    parameters: Mapping[str, float] | None = None,
) -> MonitorCounts:
    """Execute the guest under a monitor.

    Parameters
    ----------
    technique, paging : str
        Of `pyvirt.x86.monitor.Monitor`.
    rounds, parameters
        See `boot_memory`.
    """
    board = Board(memory=MEMORY)
    machine = Machine(MEMORY, board.bus_capsule)
    monitor = Monitor(machine, technique, paging=paging)
    machine.load(boot_memory(rounds, parameters), 0)
    flat = (DATA3, 0, 0xFFFFFFFF, 0xC0F3)
    machine.set(
        cr0=0x80010011, cr3=DIRECTORY, gdt_base=GDT, gdt_limit=47, idt_base=IDT, idt_limit=2047,
        tr=(TASK, TSS, 0x67, 0x8B), eip=KERNEL, esp=STACK, edx=0, eflags=2,
        cs=(CODE0, 0, 0xFFFFFFFF, 0xC09B), ss=(DATA0, 0, 0xFFFFFFFF, 0xC093), ds=flat, es=flat,
    )  # fmt: skip
    found = monitor.run(100_000 * rounds)
    if found.reason is not ExitReason.STOP or board.exit_value:
        raise RuntimeError(f"the guest ended by {found}")
    return monitor.counts
