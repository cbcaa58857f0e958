"""Operations of the x87 on made-up operands: by our processor, and by the one that runs the tests.

Operands are of all kinds (zeros, denormals, unnormals, infinities, NaNs, halves, exponents near and
far), control words of all precisions and roundings, with all exceptions masked or some of them not.
"""

import ctypes
import hashlib
import mmap
import platform
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pyvirt.x86.machine import Machine

#: Name to instruction with ST(0) = a and ST(1) = b; after "@" ModRM.reg, with an operand in memory.
OPERATIONS = {
    "fadd": "d8c1", "faddp": "dec1", "fsub": "d8e1", "fsubr": "d8e9", "fsubp": "dee9",
    "fsubrp": "dee1", "fmul": "d8c9", "fmulp": "dec9", "fdiv": "d8f1", "fdivr": "d8f9",
    "fdivp": "def9", "fdivrp": "def1", "fsqrt": "d9fa", "frndint": "d9fc", "fchs": "d9e0",
    "fabs": "d9e1", "fxam": "d9e5", "ftst": "d9e4", "fcom": "d8d1", "fcompp": "ded9",
    "fucom": "dde1", "fucompp": "dae9", "fcomi": "dbf1", "fucomi": "dbe9", "fxch": "d9c9",
    "fld st1": "d9c1", "fst st1": "ddd1", "fst m32": "d9@2", "fst m64": "dd@2",
    "fist m16": "df@2", "fist m32": "db@2", "fistp m64": "df@7", "fadd m32": "d8@0",
    "fsub m64": "dc@4", "fmul m32int": "da@1", "fdivr m16int": "de@7", "fcom m64": "dc@2",
    "fld m32": "d9@0", "fld m64": "dd@0", "fild m64": "df@5", "fild m16": "df@0",
    "fldpi": "d9eb", "fldl2t": "d9e9", "fldl2e": "d9ea", "fldlg2": "d9ec", "fldln2": "d9ed",
    "fcmovb": "dac1", "fcmovnu": "dbd9", "ffree": "ddc1", "fincstp": "d9f7",
}  # fmt: skip
#: Operations with as many numbers on the stack, and bytes for the code of each.
PROGRAMS = [(name, depth) for name in OPERATIONS for depth in (0, 1, 2, 8)]
ROOM = 96
#: Where things are in a block of 128 bytes: operands, control word, memory operand, then results.
A, B, CONTROL, MEMORY, STATUS, FLAGS, SAVED = 0, 16, 26, 28, 36, 40, 44
BLOCK = 160
ANSWER = np.dtype([
    ("top", "S10"), ("next", "S10"), ("memory", "S8"), ("status", "<u2"), ("flags", "u1"),
    ("tags", "<u2"),
])  # fmt: skip


class Stream:
    """Numbers that do not depend on the version of a library."""

    def __init__(self, seed: str, size: int) -> None:
        self._bytes = hashlib.shake_256(seed.encode()).digest(size)
        self._at = 0

    def bits(self, n: int) -> int:
        size = (n + 7) // 8
        value = int.from_bytes(self._bytes[self._at : self._at + size], "little")
        self._at += size
        return value & ((1 << n) - 1)


def number(stream: Stream) -> bytes:
    """Ten bytes."""
    kind, sign, m = stream.bits(4), stream.bits(1) << 15, stream.bits(64)
    near = 16383 - 64 + stream.bits(7)
    one = 1 << 63
    special = [(0, 0), (one, 0x7FFF), (one, 0x3FFF), (one | one >> 1 | m >> 3, 0x7FFF),
               (one | m >> 2, 0x7FFF), (m >> 1, near), (m >> 1, 0x7FFF), (m | one, 0)]  # fmt: skip
    if kind < 7:
        m, e = m | one, near
    elif kind < 9:
        m, e = special[stream.bits(3)]
    elif kind == 9:
        m, e = m >> 1 + stream.bits(6) % 63, 0
    elif kind < 12:
        m, e = (m | one) >> stream.bits(6) << stream.bits(6) & (2 * one - 1) | one, near
    elif kind == 12:
        m, e = m | one, 1 + stream.bits(6)
    elif kind == 13:
        m, e = m | one, 0x7FFE - stream.bits(6)
    else:
        m, e = m | one, 1 + stream.bits(14)
    return struct.pack("<QH", m, sign | e)


def cases(count: int, seed: str) -> Iterator[tuple[tuple[str, int], bytes]]:
    """Give operations, and how many numbers are on the stack, with blocks of operands."""
    stream = Stream(f"pyvirt x87 {seed}", 64 * count)
    names = list(OPERATIONS)
    for _ in range(count):
        name = names[stream.bits(16) % len(names)]
        depth = (2, 2, 2, 2, 2, 0, 1, 8)[stream.bits(3)]
        a, b = number(stream), number(stream)
        masked = 0x3F if stream.bits(2) else stream.bits(6)
        control = masked | (0x300, 0x300, 0x200, 0x000)[stream.bits(2)] | stream.bits(2) << 10
        block = bytearray(BLOCK)
        block[A : A + 10], block[B : B + 10] = a, b
        struct.pack_into("<H", block, CONTROL, control | 0x40)
        memory = stream.bits(64)
        if stream.bits(2) == 0:  # a number that has few bits, or is special, in any format
            memory = (0, 1 << 63, 0x7FF0 << 48, 0x7F800000, 0x3FF0 << 48, 0x3F800000, 1, 0xFFFF)[
                stream.bits(3)
            ]
        struct.pack_into("<Q", block, MEMORY, memory)
        yield (name, depth), bytes(block)


def _memory(opcode: str, reg: int, place: int) -> str:
    """An instruction with [EDI + place], which 64-bit code takes for [RDI + place]."""
    return f"{opcode}{0x47 | reg << 3:02x}{place:02x}"


def program(name: str, depth: int) -> bytes:
    """Load control word and operands, execute, and save what came of it; without its end."""
    operation = OPERATIONS[name]
    if "@" in operation:
        opcode, reg = operation.split("@")
        operation = _memory(opcode, int(reg), MEMORY)
    # exceptions are masked until the operands are loaded; then CF and PF are set, and ZF is clear
    loads = [_memory("db", 5, B)] * (depth - 1) + [_memory("db", 5, A)] * (depth > 0)
    before = ["dbe3", *loads, _memory("d9", 5, CONTROL), "b003 3c04"]
    after = [_memory("dd", 7, STATUS), "9c 58", f"8947{FLAGS:02x}", _memory("dd", 6, SAVED)]
    return bytes.fromhex("".join([*before, operation, *after]))


def answer(block: bytes) -> tuple[bytes, bytes, bytes, int, int, int]:
    """What is left: ST(0) and ST(1), memory, status word, ZF PF CF, tag word."""
    (status,) = struct.unpack_from("<H", block, STATUS)
    top = SAVED + 28
    return (
        block[top : top + 10], block[top + 10 : top + 20], block[MEMORY : MEMORY + 8], status,
        block[FLAGS] & 0x45, struct.unpack_from("<H", block, SAVED + 8)[0],
    )  # fmt: skip


def ours(count: int, seed: str) -> np.ndarray:
    """Execute all of them."""
    machine = Machine(1 << 16, fpu=True)
    flat = dict.fromkeys(("ds", "es", "ss"), (16, 0, 0xFFFFFFFF, 0xC093))
    machine.set(cr0=0x31, cs=(8, 0, 0xFFFFFFFF, 0xC09B), **flat)
    at = {}
    for i, key in enumerate(PROGRAMS):
        at[key] = 0x1000 + ROOM * i
        machine.load(program(*key) + b"\xf4", at[key])
    found = np.zeros(count, ANSWER)
    for i, (key, block) in enumerate(cases(count, seed)):
        machine.load(block, 0xC000)
        machine.set(eip=at[key], edi=0xC000, esp=0xF000, eflags=2, halted=False)
        machine.run(30)
        assert machine.registers.eip == at[key] + len(program(*key)) + 1, key
        found[i] = answer(machine.memory.read(0xC000, BLOCK))
    return found


def vendor() -> str:
    """Whose processor runs this, or nothing where it has no x87 that a process can use."""
    if platform.machine() != "x86_64" or not sys.platform.startswith("linux"):
        return ""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split()[-1] for line in lines if line.startswith("vendor_id")), "")


def this_machine(count: int, seed: str) -> np.ndarray:
    """Execute all of them on the processor that runs this."""
    code = mmap.mmap(-1, 64 * 1024, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    base = ctypes.addressof(ctypes.c_char.from_buffer(code))
    call = {}
    for i, key in enumerate(PROGRAMS):
        # 64-bit FNSAVE has the same form; the processor's own state is put back by FNINIT
        body = program(*key) + bytes.fromhex("dbe3 c3")
        code[ROOM * i : ROOM * i + len(body)] = body
        call[key] = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(base + ROOM * i)
    found = np.zeros(count, ANSWER)
    for i, (key, block) in enumerate(cases(count, seed)):
        buffer = ctypes.create_string_buffer(block, BLOCK)
        call[key](ctypes.addressof(buffer))
        found[i] = answer(buffer.raw)
    return found


def describe(i: int, count: int, seed: str, mine: np.void, theirs: np.void) -> str:
    """One case in words."""
    name, block = list(cases(count, seed))[i]
    control, memory = struct.unpack_from("<HQ", block, CONTROL)
    return (
        f"{i} {name}: a {block[A : A + 10][::-1].hex()}, b {block[B : B + 10][::-1].hex()}, "
        f"memory {memory:#x}, control {control:#x}: {shown(mine)}, not {shown(theirs)}"
    )


def shown(one: np.void) -> str:
    top, next_ = (bytes(one[k]).ljust(10, b"\0")[::-1].hex() for k in ("top", "next"))
    memory = bytes(one["memory"]).ljust(8, b"\0")[::-1].hex()
    return f"{top} {next_} {memory} {one['status']:#x} {one['flags']:#x} {one['tags']:#x}"
