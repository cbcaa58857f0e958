"""Real mode: random 16-bit code with all ModRM forms and overrides, against unicorn."""

import zlib

import numpy as np
import pytest

from pyvirt.x86.machine import ExitReason, Machine

RAM = 0x110000
WATCHED = slice(0x20000, 0x70000)
NAMES = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
SEGMENTS = {"es": 0x3000, "ds": 0x4000, "ss": 0x5000, "cs": 0x1000}
DEFINED = 0x8C5  # AF is not, after logic


def instruction(rng: np.random.Generator) -> bytes:
    """Emit an ALU instruction, a move, a push, a pop or a string instruction."""
    kind = int(rng.integers(6))
    wide = b"\x66" if rng.random() < 0.3 else b""
    override = bytes([int(rng.choice([0x26, 0x36, 0x3E]))]) if rng.random() < 0.3 else b""
    mod, rm = int(rng.integers(4)), int(rng.integers(8))
    if mod == 3:
        rm &= 3  # not SP
    reg = int(rng.choice([0, 1, 2]))
    size = 2 if mod == 2 or (mod == 0 and rm == 6) else mod & 1 if mod < 3 else 0
    operand = bytes([mod << 6 | reg << 3 | rm]) + rng.bytes(size)
    if kind < 2:
        opcode = int(rng.integers(8)) << 3 | int(rng.integers(4))
        return override + wide + bytes([opcode]) + operand
    if kind == 2:
        return override + wide + bytes([0x88 + int(rng.integers(4))]) + operand
    if kind == 3:
        return wide + bytes([0x50 + int(rng.choice([0, 1, 2, 3, 5, 6, 7]))])
    if kind == 4:
        return wide + bytes([0x58 + int(rng.integers(4))])
    return override + wide + bytes([int(rng.choice([0xA4, 0xA5, 0xAA, 0xAB, 0xAC, 0xAD]))])


def test_sixteen_bit_code():
    u = pytest.importorskip("unicorn")
    x = pytest.importorskip("unicorn.x86_const")
    rng = np.random.default_rng(16)
    content = rng.bytes(RAM)
    compared = 0
    for _ in range(100):
        code = b"".join(instruction(rng) for _ in range(8))
        values = {name: int(rng.integers(1 << 16)) for name in NAMES}
        values["esp"] = int(rng.integers(0x100, 0x8000)) * 2
        machine = Machine(RAM)
        machine.load(content, 0)
        machine.load(code + b"\xf4", 0x10100)
        machine.set(
            eip=0x100, eflags=2, **values,
            **{name: (value, value << 4, 0xFFFF, 0x93) for name, value in SEGMENTS.items()},
        )  # fmt: skip
        machine.stop_at(exceptions=range(32))
        got = machine.run(100).reason
        if got is ExitReason.EXCEPTION:  # of a limit, which unicorn does not check
            continue
        assert got is ExitReason.HALT
        other = u.Uc(u.UC_ARCH_X86, u.UC_MODE_16)
        other.mem_map(0, RAM)
        other.mem_write(0, content)
        other.mem_write(0x10100, code)
        for name, value in {**values, **SEGMENTS, "eflags": 2}.items():
            other.reg_write(getattr(x, f"UC_X86_REG_{name.upper()}"), value)
        other.emu_start(0x10100, 0x10100 + len(code))
        for name in NAMES:
            want = other.reg_read(getattr(x, f"UC_X86_REG_{name.upper()}"))
            assert getattr(machine.registers, name) == want, (code.hex(), name)
        flags = other.reg_read(x.UC_X86_REG_EFLAGS)
        assert machine.registers.eflags & DEFINED == flags & DEFINED, code.hex()
        watched = bytes(other.mem_read(WATCHED.start, WATCHED.stop - WATCHED.start))
        ours = machine.memory.read(WATCHED.start, WATCHED.stop - WATCHED.start)
        assert zlib.crc32(ours) == zlib.crc32(watched), code.hex()
        compared += 1
    assert compared >= 80
