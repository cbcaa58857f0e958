"""Random guest programs that do what kernels do, for monitors to execute.

A program is a small kernel with descriptor tables, page tables, handlers and a timer. Its body is a
list of random operations: computation, flags, segments, far transfers, system registers, ports,
page-table writes, faults, code that changes itself, and pieces that run at CPL 3. Each operation
says first where to go on if it faults; the handler of every exception writes what it was given to
a log in memory and goes there. So a program comes to its end whatever its operations do, and what
they did can be read off its memory, its registers and the log of its devices.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyvirt._core.devices.owner import Board
from pyvirt.x86.machine import Machine

__all__ = ["MEMORY", "Program", "initial_memory", "make_program", "prepare", "starting_point"]

MEMORY = 1 << 21
GDT, IDT, TSS, DIRECTORY, TABLE = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000
KERNEL_STACK, KERNEL, USER, HANDLERS, USER_STACK = 0x8000, 0x8000, 0xC000, 0x10000, 0x13000
RESUME, SAVED_ESP, BACK, LOG_AT, TICKS, POINTER = (
    0x13000,
    0x13004,
    0x13008,
    0x1300C,
    0x13010,
    0x13020,
)
DATA, OTHER, LOG, LOG_END = 0x14000, 0x18000, 0x1C000, 0x20000
WINDOW, WINDOW_PAGES = 0x200000, 8
CODE0, DATA0, CODE3, DATA3, TASK, SMALL, CONFORMING, GATE, ABSENT = (
    0x08, 0x10, 0x1B, 0x23, 0x28, 0x30, 0x38, 0x40, 0x48,
)  # fmt: skip
SELECTORS = (0, CODE0, DATA0, CODE3, DATA3, TASK, SMALL, CONFORMING, GATE, ABSENT, 0x50, 0x0C, 0x13)
INTERRUPTS = 0x28
RETURN_TO_KERNEL = 0x30
CODED = (8, 10, 11, 12, 13, 14, 17)
EXIT_PORT = 0xF4

Emit = Callable[[np.random.Generator, int], bytes]


@dataclass(frozen=True, slots=True)
class Program:
    """One program.

    Attributes
    ----------
    kernel, user : bytes
        Code at `KERNEL` and `USER`.
    operations : tuple of str
        What it is made of, in order; those at CPL 3 begin with ``user-``.
    """

    kernel: bytes
    user: bytes
    operations: tuple[str, ...]


def u32(value: int) -> bytes:
    """Give four bytes, the least first."""
    return struct.pack("<I", value & 0xFFFFFFFF)


def _descriptor(base: int, limit: int, access: int, flags: int) -> bytes:
    return struct.pack(
        "<HHBBBB", limit & 0xFFFF, base & 0xFFFF, base >> 16 & 0xFF, access,
        flags << 4 | limit >> 16, base >> 24,
    )  # fmt: skip


def _gate(selector: int, offset: int, access: int) -> bytes:
    return struct.pack("<HHBBH", offset & 0xFFFF, selector, 0, access, offset >> 16)


# --- what does not change from program to program ------------------------------------------------


def _handlers() -> bytes:
    """Entries of 16 bytes for 64 vectors, and what they jump to."""
    code = bytearray(0x1000)
    common, timer, back = HANDLERS + 0x800, HANDLERS + 0x900, HANDLERS + 0xA00

    def put(at: int, data: bytes) -> None:
        code[at - HANDLERS : at - HANDLERS + len(data)] = data

    for vector in range(64):
        at = HANDLERS + 16 * vector
        target = common
        entry = b"" if vector in CODED else b"\x6a\x00"  # a zero for the error code
        if INTERRUPTS <= vector < INTERRUPTS + 8:
            target = timer
        elif vector == RETURN_TO_KERNEL:
            target = back
        entry += bytes([0x6A, vector])
        put(at, entry + b"\xe9" + u32(target - at - len(entry) - 5))
    flat = bytes.fromhex("60 1e 06 b810000000 8ed8 8ec0 fc")  # pusha, ds, es; both flat; cld
    # log: vector, error, EIP, CS, EFLAGS, and CR2 after a page fault
    log = bytes.fromhex("8b3d") + u32(LOG_AT) + bytes.fromhex("8d742428 b905000000 f3a5")
    cr2 = bytes.fromhex("837c24280e 7504 0f20d0 ab")
    wrap = bytes.fromhex("81e7ff3f0000 81cf") + u32(LOG) + bytes.fromhex("893d") + u32(LOG_AT)
    resume = bytes.fromhex("a1") + u32(RESUME) + bytes.fromhex("89442430")
    leave = bytes.fromhex("07 1f 61 83c408 cf")
    put(common, flat + log + cr2 + wrap + resume + leave)
    # the timer: one tick, where it came, end of interrupt, and back
    tick = bytes.fromhex("ff05") + u32(TICKS) + bytes.fromhex("8b442430 a3") + u32(TICKS + 4)
    eoi = bytes.fromhex("b020 e620")
    put(timer, flat + tick + eoi + leave)
    put(
        back,
        bytes.fromhex("60 1e 06 b810000000 8ed8 8ec0 fc")
        + log
        + wrap
        + bytes.fromhex("8b25")
        + u32(SAVED_ESP)
        + bytes.fromhex("ff25")
        + u32(BACK),
    )
    return bytes(code)


def _tables() -> list[tuple[int, bytes]]:
    """Descriptor tables, task state, page tables."""
    gdt = [
        bytes(8),
        _descriptor(0, 0xFFFFF, 0x9B, 0xC), _descriptor(0, 0xFFFFF, 0x93, 0xC),
        _descriptor(0, 0xFFFFF, 0xFB, 0xC), _descriptor(0, 0xFFFFF, 0xF3, 0xC),
        _descriptor(TSS, 0x67, 0x89, 0), _descriptor(DATA, 0xFFF, 0x92, 0x4),
        _descriptor(0, 0xFFFFF, 0x9E, 0xC), _gate(CODE0, HANDLERS + 0xB00, 0xEC),
        _descriptor(0, 0xFFFFF, 0x12, 0xC),
    ]  # fmt: skip
    idt = []
    for vector in range(64):
        kind = 0x8F if vector == 0x21 else 0x8E
        if vector in (3, 4, 0x20, 0x21, RETURN_TO_KERNEL):
            kind |= 0x60
        idt.append(_gate(CODE0, HANDLERS + 16 * vector, kind))
    pages = [page << 12 | 7 for page in range(512)] + [0] * 512
    for page in (*range(1, 0xC), 0x10, *range(LOG >> 12, LOG_END >> 12)):
        pages[page] &= ~4
    for i in range(WINDOW_PAGES):
        pages[(WINDOW >> 12) + i] = (DATA + (i & 3) * 0x1000) | (0, 7, 3, 5)[i & 3]
    return [
        (GDT, b"".join(gdt)),
        (IDT, b"".join(idt)),
        (
            TSS,
            struct.pack("<III", 0, KERNEL_STACK, DATA0) + bytes(0x58) + struct.pack("<HH", 0, 0x68),
        ),
        (DIRECTORY, u32(TABLE | 7) + bytes(4092)),
        (TABLE, struct.pack("<1024I", *pages)),
        (HANDLERS, _handlers()),
        # what the call gate leads to: read CS, and return
        (HANDLERS + 0xB00, bytes.fromhex("8cc8 36a3") + u32(TICKS + 8) + b"\xcb"),
    ]


FIXED = _tables()
_TIMER = bytes.fromhex(
    "b011 e620 e6a0 b028 e621 b030 e6a1 b004 e621 b002 e6a1 b001 e621 e6a1"  # the pair of 8259A
    "b0fe e621 b0ff e6a1"  # only the timer's line
    "b034 e643 b013 e640 b000 e640"  # the 8254: mode 2, 19 of its cycles
)


def initial_memory(program: Program) -> bytes:
    """Give the memory that a program begins with, from 0 on."""
    memory = bytearray(LOG_END)
    pattern = np.arange((LOG - DATA) // 4, dtype=np.uint32) * np.uint32(0x9E3779B1)
    parts = [*FIXED, (LOG_AT, u32(LOG)), (KERNEL, program.kernel), (USER, program.user)]
    for at, data in (*parts, (DATA, pattern.tobytes())):
        memory[at : at + len(data)] = data
    return bytes(memory)


def starting_point() -> dict[str, Any]:
    """Give the registers that a program begins with."""
    flat = (DATA0, 0, 0xFFFFFFFF, 0xC093)
    return {
        "cr0": 0x80010011, "cr3": DIRECTORY, "gdt_base": GDT, "gdt_limit": 79, "idt_base": IDT,
        "idt_limit": 511, "tr": (TASK, TSS, 0x67, 0x8B), "ldtr": (0, 0, 0, 0x82), "eip": KERNEL,
        "esp": KERNEL_STACK, "edx": 0, "eflags": 2, "cs": (CODE0, 0, 0xFFFFFFFF, 0xC09B),
        "ss": flat, "ds": flat, "es": flat, "fs": (0, 0, 0, 0), "gs": (0, 0, 0, 0),
    }  # fmt: skip


def prepare(machine: Machine, board: Board, program: Program) -> None:
    """Put a program into a machine of `MEMORY` bytes, in place of what was there."""
    board.reset()
    machine.reset()
    machine.load(initial_memory(program), 0)
    machine.set(**starting_point())


# --- operations ----------------------------------------------------------------------------------

_REGISTERS = (0, 1, 2, 3, 6, 7)  # not ESP, EBP


def _register(rng: np.random.Generator) -> int:
    return int(rng.choice(_REGISTERS))


def place(rng: np.random.Generator) -> bytes:
    """Give the address of a word of data."""
    return u32(DATA + int(rng.integers(0, 0xFFC)) * 4)


def _compute(rng: np.random.Generator, at: int) -> bytes:
    """One to six instructions on registers and data."""
    code = b""
    for _ in range(int(rng.integers(1, 7))):
        reg, other, op = _register(rng), _register(rng), int(rng.integers(8))
        which = int(rng.integers(7))
        if which == 0:
            code += bytes([op << 3 | 1, 0xC0 | reg << 3 | other])
        elif which == 1:
            code += bytes([op << 3 | 3, reg << 3 | 5]) + place(rng)
        elif which == 2:
            code += bytes([op << 3 | 1, reg << 3 | 5]) + place(rng)
        elif which == 3:
            code += bytes([0xB8 | reg]) + u32(int(rng.integers(1 << 32)))
        elif which == 4:
            code += bytes([0xC1, 0xC0 | int(rng.choice([0, 1, 4, 5, 7])) << 3 | reg, 1 + op])
        elif which == 5:
            code += bytes([0x0F, 0xAF, 0xC0 | reg << 3 | other])
        else:
            # flags of an addition and the like are defined, those of shifts and products not all
            code += bytes([op << 3 | 1, 0xC0 | reg << 3 | other, 0x0F, 0x90 | op, 5]) + place(rng)
    return code


def _loop(rng: np.random.Generator, at: int) -> bytes:
    """MOV ECX, n; a body; LOOP: long enough for the timer to come."""
    body = bytes([0x05]) + u32(int(rng.integers(1 << 32))) + b"\x31" + bytes([0xC2])
    body += bytes([0x01, 0x05]) + place(rng)
    return b"\xb9" + u32(int(rng.integers(2, 200))) + body + b"\xe2" + bytes([256 - len(body) - 2])


def _call(rng: np.random.Generator, at: int) -> bytes:
    """CALL over a jump to a piece that returns, directly or through a register."""
    body = _compute(rng, at)
    if rng.random() < 0.5:
        start = b"\xe8" + u32(2)
        return start + bytes([0xEB, len(body) + 1]) + body + b"\xc3"
    piece = at + 5 + 2 + 2
    return b"\xbe" + u32(piece) + b"\xff\xd6" + bytes([0xEB, len(body) + 1]) + body + b"\xc3"


def _string(rng: np.random.Generator, at: int) -> bytes:
    count, start, end = int(rng.integers(0, 60)), place(rng), place(rng)
    head = b"\xbe" + start + b"\xbf" + end + b"\xb9" + u32(count)
    return head + bytes([0xF3, int(rng.choice([0xA4, 0xA5, 0xAA, 0xAB, 0xA6, 0xAE]))])


def _window(rng: np.random.Generator, at: int) -> bytes:
    """Read or write a page that may not be there, or not so; at times across two."""
    page = WINDOW + int(rng.integers(WINDOW_PAGES)) * 0x1000
    at_page = page + (0xFFE if rng.random() < 0.2 else int(rng.integers(0, 0x3FF)) * 4)
    code = int(rng.integers(4))
    return (b"\xa1", b"\xa3", b"\x01\x1d", b"\xff\x05")[code] + u32(at_page)


def _entry(rng: np.random.Generator, at: int) -> bytes:
    """Write an entry of the page table, and forget the translation."""
    i = int(rng.integers(WINDOW_PAGES))
    frame = int(rng.choice([DATA, OTHER])) + int(rng.integers(4)) * 0x1000
    value = frame | int(rng.choice([0, 1, 3, 5, 7, 7, 0x67]))
    code = b"\xc7\x05" + u32(TABLE + 4 * ((WINDOW >> 12) + i)) + u32(value)
    if rng.random() < 0.85:
        return code + b"\x0f\x01\x3d" + u32(WINDOW + i * 0x1000)
    return code + b"\x0f\x20\xd8\x0f\x22\xd8"


def _cr3(rng: np.random.Generator, at: int) -> bytes:
    return b"\x0f\x20\xd8\x0f\x22\xd8"


def _cr0(rng: np.random.Generator, at: int) -> bytes:
    """Turn WP, TS or AM, or only read."""
    bit = int(rng.choice([0, 1 << 16, 8, 1 << 18]))
    return b"\x0f\x20\xc0\x35" + u32(bit) + b"\x0f\x22\xc0\xa3" + place(rng)


def _task_switched(rng: np.random.Generator, at: int) -> bytes:
    return (b"\x0f\x06", b"\xb8\x09\x00\x00\x00\x0f\x01\xf0")[int(rng.integers(2))]


def _flags_in(rng: np.random.Generator, at: int) -> bytes:
    return b"\x9c\x8f\x05" + place(rng)


def _flags_out(rng: np.random.Generator, at: int) -> bytes:
    """POPF of anything but TF and NT."""
    return b"\x68" + u32(int(rng.integers(1 << 32)) & 0x3ED7 | 2) + b"\x9d"


def _interrupts(rng: np.random.Generator, at: int) -> bytes:
    return (b"\xfa", b"\xfb", b"\xfb\x90", b"\xfa\x90\xfb")[int(rng.integers(4))]


def _store_table(rng: np.random.Generator, at: int) -> bytes:
    which = int(rng.integers(6))
    if which < 2:
        return bytes([0x0F, 0x01, which << 3 | 5]) + place(rng)
    if which < 4:
        return bytes([0x0F, 0x00, (which - 2) << 3 | 5]) + place(rng)
    if which == 4:
        return b"\x0f\x01\x25" + place(rng)
    return b"\x0f\x01\xe0"


def _load_table(rng: np.random.Generator, at: int) -> bytes:
    """LGDT and LIDT of the same tables, through memory."""
    gdt = rng.random() < 0.5
    limit, base = (79, GDT) if gdt else (511, IDT)
    code = b"\x66\xc7\x05" + u32(POINTER) + struct.pack("<H", limit)
    code += b"\xc7\x05" + u32(POINTER + 2) + u32(base)
    return code + bytes([0x0F, 0x01, 0x15 if gdt else 0x1D]) + u32(POINTER)


def _system_segment(rng: np.random.Generator, at: int) -> bytes:
    selector = int(rng.choice([0, TASK, GATE, DATA0, 0x4C]))
    return b"\xb8" + u32(selector) + bytes([0x0F, 0x00, 0xD0 | int(rng.integers(2)) << 3])


def _segment_in(rng: np.random.Generator, at: int) -> bytes:
    which = int(rng.integers(4))
    segment = int(rng.integers(6))
    if which < 2:
        return bytes([0x8C, 0xC0 | segment << 3 | _register(rng)])
    if which == 2:
        return bytes([0x8C, segment << 3 | 5]) + place(rng)
    push = (b"\x06", b"\x0e", b"\x16", b"\x1e", b"\x0f\xa0", b"\x0f\xa8")[segment]
    return push + b"\x8f\x05" + place(rng)


def _segment_out(rng: np.random.Generator, at: int) -> bytes:
    """MOV or POP to DS, ES, FS, GS of any selector; DS and ES are flat again afterwards."""
    selector = int(rng.choice(SELECTORS))
    which = int(rng.integers(3))
    if which == 0:
        segment = int(rng.choice([0, 3, 4, 5]))
        code = b"\xb8" + u32(selector) + bytes([0x8E, 0xC0 | segment << 3])
    elif which == 1:
        pop = (b"\x07", b"\x1f", b"\x0f\xa1", b"\x0f\xa9")[int(rng.integers(4))]
        code = b"\x68" + u32(selector) + pop
    else:
        code = b"\xc7\x05" + u32(POINTER) + u32(int(rng.integers(1 << 32)))
        code += b"\xc7\x05" + u32(POINTER + 4) + u32(selector)
        load = (b"\xc4\x05", b"\xc5\x05", b"\x0f\xb4\x05", b"\x0f\xb5\x05")[int(rng.integers(4))]
        code += load + u32(POINTER)
    return code + _compute(rng, at)


def _flat(rng: np.random.Generator, at: int) -> bytes:
    return b"\x66\xb8\x23\x00\x8e\xd8\x8e\xc0" if rng.random() < 0.5 else b"\x16\x1f\x16\x07"


def _stack_segment(rng: np.random.Generator, at: int) -> bytes:
    """MOV SS of its own selector, and of one that faults."""
    if rng.random() < 0.6:
        return b"\x8c\xd0\x8e\xd0\x90"
    return b"\xb8" + u32(int(rng.choice([0, CODE0, ABSENT, DATA3 ^ 1]))) + b"\x8e\xd0"


def _visible(rng: np.random.Generator, at: int) -> bytes:
    """LAR LSL VERR VERW ARPL, with what they say."""
    selector = b"\xb8" + u32(int(rng.choice(SELECTORS)) | int(rng.integers(4)))
    which = int(rng.integers(5))
    code = (b"\x0f\x02\xd0", b"\x0f\x03\xd0", b"\x0f\x00\xe0", b"\x0f\x00\xe8", b"\x63\xc3")[which]
    return selector + code + b"\x0f\x94\x05" + place(rng)


def _far(rng: np.random.Generator, at: int) -> bytes:
    """JMP, CALL and RET far within the kernel, at times to a selector that faults."""
    which = int(rng.integers(4))
    selector = CODE0 if rng.random() < 0.8 else int(rng.choice([CONFORMING, DATA0, CODE3, 0]))
    chosen = struct.pack("<H", selector)
    if which == 0:
        return b"\xea" + u32(at + 7) + chosen
    if which == 1:  # over a jump to RETF
        return b"\x9a" + u32(at + 9) + chosen + b"\xeb\x01" + b"\xcb"
    if which == 2:
        return b"\x6a" + bytes([selector]) + b"\x68" + u32(at + 8) + b"\xcb"
    return b"\x9c\x6a" + bytes([selector]) + b"\x68" + u32(at + 9) + b"\xcf"


def _software(rng: np.random.Generator, at: int) -> bytes:
    return (b"\xcd\x20", b"\xcd\x21", b"\xcc", b"\xb0\x7f\x04\x01\xce", b"\xcd\x3f", b"\xf1")[
        int(rng.integers(6))
    ]


def _fault(rng: np.random.Generator, at: int) -> bytes:
    return (b"\x31\xc9\xf7\xf1", b"\x0f\x0b", b"\xd4\x00", b"\xf0\x90", b"\x8e\xc8")[
        int(rng.integers(5))
    ]


def _port(rng: np.random.Generator, at: int) -> bytes:
    """A character to the serial port, its scratch register, the CMOS, the mask of the 8259A."""
    which = int(rng.integers(6))
    if which == 0:
        return b"\x66\xba\xf8\x03\xb0" + bytes([int(rng.integers(32, 127))]) + b"\xee"
    if which == 1:
        return b"\x66\xba\xff\x03\x88\xd8\xee\xec\xa2" + place(rng)
    if which == 2:
        return b"\xb0" + bytes([int(rng.integers(10, 48))]) + b"\xe6\x70\xe4\x71\xa2" + place(rng)
    if which == 3:
        return b"\xe4\x21\xa2" + place(rng)
    if which == 4:
        return b"\xbe" + place(rng) + b"\xb9\x03\0\0\0\x66\xba\xf8\x03\xf3\x6e"
    return b"\xe5" + bytes([int(rng.choice([0x80, 0x10]))]) + b"\xa3" + place(rng)


def _identify(rng: np.random.Generator, at: int) -> bytes:
    return b"\xb8" + u32(int(rng.integers(2))) + b"\x0f\xa2\x89\x1d" + place(rng)


def _time(rng: np.random.Generator, at: int) -> bytes:
    """RDTSC, RDMSR and WRMSR of the counter, and of a register that is not there."""
    return (
        b"\x0f\x31\xa3" + place(rng),
        b"\xb9\x10\0\0\0\x0f\x32\xa3" + place(rng),
        b"\xb9\x11\0\0\0\x0f\x32",
        b"\xb9\x10\0\0\0\x0f\x30\x0f\x31\xa3" + place(rng),
    )[int(rng.integers(4))]


def _caches(rng: np.random.Generator, at: int) -> bytes:
    return (b"\x0f\x08", b"\x0f\x09")[int(rng.integers(2))]


def _debug(rng: np.random.Generator, at: int) -> bytes:
    register = int(rng.integers(4)) << 3
    return bytes([0x0F, 0x23, 0xC0 | register, 0x0F, 0x21, 0xC1 | register])


def _wait(rng: np.random.Generator, at: int) -> bytes:
    """Open interrupts and wait for the timer."""
    return b"\xfb\xf4"


def _change_code(rng: np.random.Generator, at: int) -> bytes:
    """Write the operand of the instruction that follows."""
    return (
        b"\xc6\x05" + u32(at + 8) + bytes([int(rng.integers(256))]) + b"\xb0\x00\xa2" + place(rng)
    )


def _gate_call(rng: np.random.Generator, at: int) -> bytes:
    return b"\x9a" + u32(0) + struct.pack("<H", GATE | int(rng.integers(4)))


KERNEL_OPERATIONS: dict[str, Emit] = {
    "compute": _compute, "loop": _loop, "call": _call, "string": _string, "window": _window,
    "entry": _entry, "cr3": _cr3, "cr0": _cr0, "task-switched": _task_switched,
    "flags-in": _flags_in, "flags-out": _flags_out, "interrupts": _interrupts,
    "store-table": _store_table, "load-table": _load_table, "system-segment": _system_segment,
    "segment-in": _segment_in, "segment-out": _segment_out, "flat": _flat,
    "stack-segment": _stack_segment, "visible": _visible, "far": _far, "software": _software,
    "fault": _fault, "port": _port, "identify": _identify, "time": _time, "debug": _debug,
    "caches": _caches,
    "wait": _wait, "change-code": _change_code, "gate-call": _gate_call,
}  # fmt: skip
USER_OPERATIONS: dict[str, Emit] = {
    name: KERNEL_OPERATIONS[name]
    for name in (
        *("compute", "loop", "call", "string", "window", "flags-in", "flags-out", "interrupts"),
        *("store-table", "segment-in", "segment-out", "flat", "visible", "software", "fault"),
        *("port", "identify", "time", "gate-call", "cr0", "load-table"),
    )
}


def resume_at(target: int) -> bytes:
    """MOV SS:[RESUME], target: whatever DS is."""
    return b"\x36\xc7\x05" + u32(RESUME) + u32(target)


_RESUME_BYTES = 11


def operation(emit: Emit, rng: np.random.Generator, at: int) -> bytes:
    """Give the code of one operation at a place, with where to go on if it faults."""
    code = emit(rng, at + _RESUME_BYTES)
    return resume_at(at + _RESUME_BYTES + len(code)) + code


def to_user(at: int, target: int, flags: int) -> bytes:
    """Go to CPL 3; `RETURN_TO_KERNEL` comes back to what follows."""
    code = b"\x36\x89\x25" + u32(SAVED_ESP) + b"\x36\xc7\x05" + u32(BACK)
    push = b"\x6a\x23\x68" + u32(USER_STACK) + b"\x68" + u32(flags) + b"\x6a\x1b\x68" + u32(target)
    return code + u32(at + len(code) + 4 + len(push) + 1) + push + b"\xcf"


def make_program(
    rng: np.random.Generator, length: int = 12, operations: tuple[str, ...] | None = None
) -> Program:
    """Make a random program.

    Parameters
    ----------
    rng : numpy.random.Generator
    length : int, default 12
        Operations in the kernel; one in eight is a piece at CPL 3 of up to six operations.
    operations : tuple of str, optional
        Kinds to choose from; None: all, and pieces at CPL 3.
    """
    kernel, user = bytearray(_TIMER), bytearray()
    names: list[str] = []
    kinds = list(KERNEL_OPERATIONS) if operations is None else list(operations)
    for _ in range(length):
        if operations is None and rng.random() < 0.125 and len(user) < 0x3000:
            flags = 2 | (0x200 if rng.random() < 0.8 else 0)
            if rng.random() < 0.1:
                flags |= 0x3000
            kernel += to_user(KERNEL + len(kernel), USER + len(user), flags)
            for _ in range(int(rng.integers(1, 7))):
                name = str(rng.choice(list(USER_OPERATIONS)))
                names.append(f"user-{name}")
                user += operation(USER_OPERATIONS[name], rng, USER + len(user))
            user += bytes([0xCD, RETURN_TO_KERNEL])
            kernel += b"\x16\x1f\x16\x07"  # DS and ES are flat again
            continue
        name = str(rng.choice(kinds))
        names.append(name)
        kernel += operation(KERNEL_OPERATIONS[name], rng, KERNEL + len(kernel))
    kernel += b"\xfa\xb0\x10\xe6" + bytes([EXIT_PORT]) + b"\xfa\xf4"
    return Program(bytes(kernel), bytes(user), tuple(names))
