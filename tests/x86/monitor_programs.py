"""Random system programs: the same on the bare machine and under a monitor, over a timer.

Each instruction has a slot of 16 bytes; the handler of a fault goes on in the next slot. GDT, IDT
and page tables lie where the programs may write to them.
"""

import struct
from typing import Any

import numpy as np

from pyvirt.x86.machine import Machine
from pyvirt.x86.monitor import Monitor
from x86.interp_bus import Bus
from x86.interp_system import (
    CODE0,
    DATA0,
    DATA3,
    DIRECTORY,
    GDT,
    IDT,
    TABLE,
    TASK,
    TSS,
    descriptor,
    gate,
    system,
)

COUNTS, LDT_AT, OTHER_GDT = 0xD000, 0xD800, 0x1800
POINTERS = 0xDF00
PROGRAM, SLOTS = 0x20000, 256
HANDLERS = 0x10000
ENTRIES, LDT_ENTRIES = 24, 8
LDT = 0x50
KINDS = (0x9A, 0x9B, 0x92, 0x93, 0x90, 0x91, 0x96, 0xFA, 0xFB, 0xF2, 0xF3, 0x9E, 0x9F, 0x98, 0x12,
         0x1A, 0x82, 0x89, 0x8B, 0xEC, 0x8C, 0x80, 0xB2, 0xD3, 0xDB)  # fmt: skip
CODED = {8, 10, 11, 12, 13, 14, 17}


def le(value: int, size: int = 4) -> bytes:
    return (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def counted(vector: int) -> bytes:
    """A handler that counts, and skips what faulted."""
    code = b"\x36\xff\x05" + le(COUNTS + 4 * vector)
    if vector in CODED:
        code += b"\x36\x8f\x05" + le(COUNTS + 0x400 + 4 * vector)
    if vector < 0x20 and vector not in (1, 3, 4):
        code += bytes.fromhex("832424f0 83042410")
    elif vector == 0x20:
        code += bytes.fromhex("e620")
    elif vector == 0x21:  # back to ring 0, on this stack
        code += bytes.fromhex("c744240408000000")
    return code + b"\xcf"


def spare(rng: np.random.Generator) -> bytes:
    """Make a descriptor, seldom a usual one."""
    kind = int(rng.choice(KINDS))
    if kind in (0xEC, 0x8C):
        return gate(CODE0, PROGRAM, kind)
    small = rng.random() < 0.3
    return descriptor(0, 0xFF if small else 0xFFFFF, kind, 0x4 if small else 0xC)


def selector(rng: np.random.Generator) -> int:
    """Make a selector, not of RPL 1: at CPL 1 that does not fault where it does at CPL 0."""
    if rng.random() < 0.4:
        return int(rng.choice([0, DATA0, DATA3, CODE0, 0x1B, 3, TASK]))
    table = rng.random() < 0.3
    entry = int(rng.integers(LDT_ENTRIES if table else ENTRIES + 2))
    return entry << 3 | table << 2 | int(rng.choice([0, 0, 0, 2, 3]))


def plain(rng: np.random.Generator) -> bytes:
    """Make an instruction that a monitor need not know about."""
    reg = int(rng.choice([0, 1, 2, 3, 6, 7]))
    memory = 0xE000 + 4 * int(rng.integers(64))
    kind = int(rng.integers(12))
    if kind == 0:
        return bytes([0xB8 + reg]) + le(int(rng.integers(1 << 32)))
    if kind == 1:
        return bytes([0x05 | 8 * int(rng.integers(8))]) + le(int(rng.integers(1 << 32)))
    if kind == 2:
        return bytes([0x89, reg << 3 | 5]) + le(memory)
    if kind == 3:
        return bytes([0x8B, reg << 3 | 5]) + le(memory)
    if kind == 4:
        return bytes([0x50 + reg, 0x58 + int(rng.choice([0, 1, 2, 3, 6, 7]))])
    if kind == 5:
        return bytes.fromhex(str(rng.choice(["0f0b", "cc", "ce", "f7f1", "d9e8", "9b", "f1"])))
    if kind == 6:  # beyond what is mapped, or RAM
        return bytes([0x8B, reg << 3 | 5]) + le(int(rng.choice([0x480000, 0xFFC00008, 0x3FFFFE])))
    if kind == 7:
        return bytes([0x89, reg << 3 | 5]) + le(0x100000 + 0x1000 * int(rng.integers(16)))
    if kind == 8:
        count = int(rng.integers(1, 30))
        return b"\xbf" + le(0x10FFF0) + b"\xb9" + le(count) + b"\xf3\xab"
    if kind == 9:
        return bytes.fromhex("0f31")
    if kind == 10:
        return bytes.fromhex("39d8 7402 40 90")
    return bytes([0x63, 0xC0 | int(rng.integers(64))])


def flags_image(rng: np.random.Generator) -> int:
    value = int(rng.integers(1 << 12)) & 0x8D5 | 2
    value |= 0x200 if rng.random() < 0.6 else 0
    value |= 0x100 if rng.random() < 0.05 else 0
    value |= 0x400 if rng.random() < 0.1 else 0
    return value | (0x3000 if rng.random() < 0.1 else 0)


def trapping(rng: np.random.Generator, at: int) -> bytes:
    """Make an instruction that traps at CPL 1, if its effect is the monitor's to give."""
    kind = int(rng.integers(30))
    if kind == 0:
        return b"\xfa"
    if kind in (1, 2):
        return b"\xfb"
    if kind == 3:
        return bytes.fromhex("fbf4")
    if kind == 4:
        return bytes.fromhex(
            str(rng.choice(["e460", "e680", "66ed", "ef", "66ba8000", "6e", "6c"]))
        )
    if kind == 5:
        return bytes([0x0F, 0x20, 0xC0 | 8 * int(rng.choice([0, 2, 3, 4, 1]))])
    if kind == 6:
        return b"\xb8" + le(DIRECTORY | int(rng.choice([0, 8, 16]))) + bytes.fromhex("0f22d8")
    if kind == 7:  # WP, TS, MP, EM
        bit = int(rng.choice([0x10000, 8, 2, 4]))
        return bytes.fromhex("0f20c0 35") + le(bit) + bytes.fromhex("0f22c0")
    if kind == 8:
        return bytes.fromhex(str(rng.choice(["0f06", "0f01f0", "0f22d0", "0f09", "0fa2"])))
    if kind == 9:
        return bytes.fromhex("0f013d") + le(0x100000 + 0x1000 * int(rng.integers(16)))
    if kind == 10:
        return bytes([0x0F, int(rng.choice([0x21, 0x23])), 0xC0 | int(rng.integers(64))])
    if kind == 11:
        return b"\xb9" + le(int(rng.choice([0x10, 0x11]))) + bytes(
            [0x0F, int(rng.choice([0x30, 0x32]))]
        )  # fmt: skip
    if kind in (12, 13, 14, 15):
        which = int(rng.choice([0, 3, 4, 5]))
        return b"\xb8" + le(selector(rng)) + bytes([0x8E, 0xC0 | which << 3])
    if kind == 16:
        return b"\xb8" + le(DATA0) + bytes.fromhex("8ed0")
    if kind == 17:
        return b"\x68" + le(selector(rng)) + bytes([int(rng.choice([0x07, 0x1F]))])
    if kind == 18:
        return bytes.fromhex("0f0115") + le(POINTERS + 8 * int(rng.integers(2)))
    if kind == 19:
        return bytes.fromhex("0f011d") + le(POINTERS + 16)
    if kind == 20:
        return b"\xb8" + le(int(rng.choice([LDT, LDT, 0, TASK]))) + bytes.fromhex("0f00d0")
    if kind == 21:
        return b"\xb8" + le(TASK) + bytes.fromhex("0f00d8")
    if kind in (22, 23):  # a descriptor, that may be loaded
        table, entries = (LDT_AT, LDT_ENTRIES) if rng.random() < 0.3 else (GDT, ENTRIES)
        first = 11 if table == GDT else 0
        where = table + 8 * int(rng.integers(first, entries))
        if rng.random() < 0.5:
            return bytes.fromhex("c605") + le(where + 5) + bytes([int(rng.choice(KINDS))])
        return bytes.fromhex("c705") + le(where + 4) + spare(rng)[4:]
    if kind == 24:
        return bytes([0xCD, int(rng.choice([0x20, 0x21, 0x22, 3, 13, 0x90]))])
    if kind == 25:  # an entry of a page table
        page = 0x100 + int(rng.integers(16))
        value = page << 12 | int(rng.choice([0, 1, 3, 5, 7]))
        # with MOV CR3: until then either translation is right
        return (
            bytes.fromhex("c705")
            + le(TABLE + 4 * page)
            + le(value)
            + bytes.fromhex("0f20d8 0f22d8")
        )
    if kind == 26:
        return b"\xea" + le(at + 16) + le(CODE0, 2)
    if kind == 27:
        return b"\x6a\x08\x68" + le(at + 16) + b"\xcb"
    if kind == 28:
        return b"\x68" + le(flags_image(rng)) + b"\x6a\x08\x68" + le(at + 16) + b"\xcf"
    return bytes.fromhex("0f22e0") if rng.random() < 0.1 else b"\xf4"


def showing(rng: np.random.Generator, at: int) -> bytes:
    """Make an instruction that shows the privilege without a trap, or moves to ring 3 and back."""
    kind = int(rng.integers(14))
    reg = int(rng.choice([0, 1, 2, 3, 6, 7]))
    memory = 0xE200 + 8 * int(rng.integers(32))
    if kind == 0:
        return bytes([0x9C, 0x58 + reg])
    if kind == 1:
        return b"\x68" + le(flags_image(rng)) + b"\x9d"
    if kind == 2:
        return bytes([0x8C, 0xC0 | int(rng.choice([0, 1, 2, 3, 4, 5])) << 3 | reg])
    if kind == 3:
        return bytes([int(rng.choice([0x06, 0x0E, 0x16, 0x1E])), 0x58 + reg])
    if kind == 4:
        return b"\x9a" + le(at + 7) + le(CODE0, 2) + b"\x58\x58"
    if kind == 5:
        return bytes([0x0F, 0x01, int(rng.integers(2)) << 3 | 5]) + le(memory)
    if kind == 6:
        return bytes([0x0F, 0x00, 0xC0 | int(rng.integers(2)) << 3 | reg])
    if kind == 7:
        return bytes([0x66, 0x0F, 0x01, 0xE0 | reg])
    if kind == 8:
        return b"\xb8" + le(selector(rng) | int(rng.integers(2))) + bytes(
            [0x0F, 0x00, 0xE0 | int(rng.integers(2)) << 3]
        )  # fmt: skip
    if kind == 9:
        return b"\xb8" + le(selector(rng) | int(rng.integers(2))) + bytes(
            [0x0F, int(rng.choice([0x02, 0x03])), 0xC0 | reg << 3]
        )  # fmt: skip
    if kind == 10:
        return (
            b"\xb8" + le(selector(rng) | 1) + bytes([0x8E, 0xC0 | int(rng.choice([0, 2, 3])) << 3])
        )
    if kind < 13:  # IRET to ring 3
        return (b"\x6a\x23\x54\x68" + le(flags_image(rng) & ~0x100) + b"\x6a\x1b\x68"
                + le(at + 16) + b"\xcf")  # fmt: skip
    return b"\xcd\x21"


def program(rng: np.random.Generator, share: float = 0.5, shows: float = 0) -> bytes:
    """Make slots, and a jump back to the first.

    Shares of them have instructions that trap, and that show the privilege.
    """
    code = b""
    for slot in range(SLOTS):
        at = PROGRAM + 16 * slot
        if shows and rng.random() < shows:
            one = showing(rng, at)
        else:
            one = trapping(rng, at) if rng.random() < share else plain(rng)
        assert len(one) <= 16
        code += one.ljust(16, b"\x90")
    return code + b"\xe9" + le(-16 * SLOTS - 5)


def guest(rng: np.random.Generator, code: bytes, period: int, *, paging: bool) -> Machine:
    """A machine at the program, with the timer's period in cycles."""
    plain_system = system(paging=paging)
    bus = Bus(period=period)
    machine = Machine(plain_system.memory, bus.capsule)
    machine.registers = plain_system.registers
    machine.bus = bus  # type: ignore[attr-defined]  # keeps it alive, and has what was written
    entries = machine.memory.read(GDT, 9 * 8) + bytes(8)
    entries += descriptor(LDT_AT, 8 * LDT_ENTRIES - 1, 0x82, 0)
    entries += b"".join(spare(rng) for _ in range(11, ENTRIES))
    machine.load(entries, GDT)
    machine.load(entries, OTHER_GDT)
    machine.load(b"".join(spare(rng) for _ in range(LDT_ENTRIES)), LDT_AT)
    for vector in range(0x30):
        kind = 0x8F if vector == 13 else 0xEE if vector == 0x21 else 0x8E
        machine.load(gate(CODE0, HANDLERS + 32 * vector, kind), IDT + 8 * vector)
        # after its end HLT: a fault in a handler goes on there
        machine.load(counted(vector).ljust(32, b"\xf4"), HANDLERS + 32 * vector)
    for i, base in enumerate((GDT, OTHER_GDT, IDT)):
        limit = 0x30 * 8 - 1 if base == IDT else 8 * ENTRIES - 1
        machine.load(struct.pack("<HI", limit, base), POINTERS + 8 * i)
    machine.load(code, PROGRAM)
    # what the processor reads on its own it reads from the monitor's tables: no bit is set for that
    entries_of_pages = np.arange(0x67, 0x100067, 0x1000, dtype="<u4")
    entries_of_pages[[*range(8), 0xD]] &= ~np.uint32(4)  # tables are not ring 3's to change
    machine.load(entries_of_pages.tobytes(), TABLE)
    machine.set(
        gdt_limit=8 * ENTRIES - 1, idt_limit=0x30 * 8 - 1, eip=PROGRAM, esp=0x70000,
        tr=(TASK, TSS, 0x67, 0x8B),
    )  # fmt: skip
    return machine


def outcome(machine: Machine, found: Any) -> dict[str, Any]:
    """All that a guest could have changed."""
    bus = machine.bus  # type: ignore[attr-defined]
    return {
        "exit": found,
        "registers": machine.registers,
        "retired": int(machine.counters["retired"]),
        "delivered": [int(machine.counters[name]) for name in
                      ("exceptions", "interrupts", "software_interrupts")],
        "ports": bus.writes,
        "reads": bus.reads,
        "acknowledged": bus.acknowledged,
        "memory": machine.memory.read(0, machine.memory.end),
    }  # fmt: skip


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Name what differs, with both values."""
    out = [f"{name}: {one[name]!r} {other[name]!r}" for name in one
           if name != "memory" and one[name] != other[name]]  # fmt: skip
    a, b = (np.frombuffer(each["memory"], np.uint8) for each in (one, other))
    out += [f"{at:#x}: {a[at]:#x} {b[at]:#x}" for at in np.flatnonzero(a != b)[:8].tolist()]
    return out


def compare(
    seed: int,
    technique: str,
    budget: int,
    share: float = 0.5,
    shows: float = 0,
    **how: Any,
) -> tuple[list[str], Monitor, Machine]:
    """What differs between a run on the bare machine and one under a monitor."""
    runs = []
    for monitored in (False, True):
        rng = np.random.default_rng(seed)
        paging = bool(rng.integers(2))
        period = int(rng.integers(9, 200))
        machine = guest(rng, program(rng, share, shows), period, paging=paging)
        monitor = Monitor(machine, technique, **how) if monitored else None
        found = (monitor or machine).run(budget)
        runs.append((outcome(machine, found), monitor, machine))
    monitor = runs[1][1]
    assert monitor is not None
    return differences(runs[0][0], runs[1][0]), monitor, runs[1][2]
