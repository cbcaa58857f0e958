"""A protected-mode system for tests: tables in memory, ring 0 and ring 3, paging if asked."""

import struct

from pyvirt.x86.machine import Machine

GDT, IDT, TSS, DIRECTORY, TABLE = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000
CODE, USER, HANDLER = 0x8000, 0x9000, 0xA000
STACK0, STACK3 = 0x7000, 0xC000
CODE0, DATA0, CODE3, DATA3, TASK, SMALL, DOWN = 0x08, 0x10, 0x1B, 0x23, 0x28, 0x30, 0x38
GATE = 0x40

FLAT = (0, 0xFFFFF)


def descriptor(base: int, limit: int, access: int, flags: int) -> bytes:
    """Eight bytes; `flags` are G, D/B, L, AVL, and the limit is as encoded."""
    return struct.pack(
        "<HHBBBB", limit & 0xFFFF, base & 0xFFFF, base >> 16 & 0xFF, access,
        flags << 4 | limit >> 16, base >> 24,
    )  # fmt: skip


def gate(selector: int, offset: int, access: int, count: int = 0) -> bytes:
    return struct.pack("<HHBBH", offset & 0xFFFF, selector, count, access, offset >> 16)


def system(*, paging: bool = False, user: bool = False) -> Machine:
    """Make a machine in ring 0 at CODE, or in ring 3 at USER; IDT entry n leads to HANDLER + 16 n.

    Each handler is HLT. Paging maps the first 4 MiB to themselves, for users too.
    """
    machine = Machine(1 << 22)
    entries = [
        bytes(8),
        descriptor(*FLAT, 0x9A, 0xC), descriptor(*FLAT, 0x92, 0xC),
        descriptor(*FLAT, 0xFA, 0xC), descriptor(*FLAT, 0xF2, 0xC),
        descriptor(TSS, 0x67, 0x89, 0), descriptor(0x6000, 0xFF, 0x92, 0x4),
        descriptor(0x6000, 0xFF, 0x96, 0x4), gate(CODE0, HANDLER + 0x900, 0xEC, 1),
    ]  # fmt: skip
    machine.load(b"".join(entries), GDT)
    for vector in range(64):
        access = 0xEE if vector in (3, 4, 0x20) else 0x8E
        machine.load(gate(CODE0, HANDLER + 16 * vector, access), IDT + 8 * vector)
        machine.load(b"\xf4", HANDLER + 16 * vector)
    machine.load(struct.pack("<III", 0, STACK0, DATA0), TSS)
    machine.load(struct.pack("<HH", 0, 0x68), TSS + 0x64)
    machine.set(
        cr0=0x11, gdt_base=GDT, gdt_limit=len(entries) * 8 - 1, idt_base=IDT, idt_limit=64 * 8 - 1,
        tr=(TASK, TSS, 0x67, 0x8B), ldtr=(0, 0, 0, 0), eip=CODE, esp=STACK0, eflags=2,
        cs=(CODE0, 0, 0xFFFFFFFF, 0xC09B), ss=(DATA0, 0, 0xFFFFFFFF, 0xC093),
        ds=(DATA0, 0, 0xFFFFFFFF, 0xC093), es=(DATA0, 0, 0xFFFFFFFF, 0xC093),
    )  # fmt: skip
    if paging:
        machine.load(struct.pack("<I", TABLE | 7), DIRECTORY)
        machine.load(struct.pack("<1024I", *(page << 12 | 7 for page in range(1024))), TABLE)
        machine.set(cr0=0x80010011, cr3=DIRECTORY)
    if user:
        machine.set(
            cpl=3, eip=USER, esp=STACK3, cs=(CODE3, 0, 0xFFFFFFFF, 0xC0FB),
            ss=(DATA3, 0, 0xFFFFFFFF, 0xC0F3), ds=(DATA3, 0, 0xFFFFFFFF, 0xC0F3),
            es=(DATA3, 0, 0xFFFFFFFF, 0xC0F3),
        )  # fmt: skip
    return machine


def words(machine: Machine, at: int, count: int) -> list[int]:
    return [machine.memory.read_u32(at + 4 * i) for i in range(count)]


def vector_of(machine: Machine) -> int:
    """Tell which handler the machine halted in."""
    return (machine.registers.eip - 1 - HANDLER) // 16
