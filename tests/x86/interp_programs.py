"""Random IA-32 programs by groups of instructions, and what unicorn makes of them.

``python -m x86.interp_programs`` (with unicorn installed) writes tests/data/interp-unicorn.npz,
from which test_interp_random.py runs without it.
"""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

CODE = 0x1000
DATA = 0x4000
DATA_BYTES = 0x1000
STACK = 0x6800  # in a page of its own
RAM = 0x8000
WATCHED = slice(0x3000, 0x8000)  # memory that is compared
FIXTURE = Path(__file__).parents[1] / "data" / "interp-unicorn.npz"

CF, PF, AF, ZF, SF, OF = 1, 4, 0x10, 0x40, 0x80, 0x800
ALL = CF | PF | AF | ZF | SF | OF

Emit = Callable[[np.random.Generator], tuple[bytes, int]]


def word(rng: np.random.Generator, size: int = 4) -> bytes:
    """Make an immediate, often near a border."""
    if rng.random() < 0.4:
        value = int(
            rng.choice(
                [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
            )
        )
    else:
        value = int(rng.integers(1 << 32))
    return (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def operand(rng: np.random.Generator, reg: int | None = None, *, memory: float = 0.5) -> bytes:
    """Make ModRM and what follows: a register other than ESP, or memory in the data page."""
    if reg is None:
        reg = int(rng.choice([0, 1, 2, 3, 5, 6, 7]))
    if rng.random() >= memory:
        return bytes([0xC0 | reg << 3 | int(rng.choice([0, 1, 2, 3, 5, 6, 7]))])
    place = DATA + int(rng.integers(16, DATA_BYTES - 64))
    how = rng.integers(3)
    if how == 0:
        return bytes([reg << 3 | 5]) + place.to_bytes(4, "little")
    if how == 1:  # SIB without base or index
        return bytes([reg << 3 | 4, 0x25]) + place.to_bytes(4, "little")
    # base ESP: its value is known to lie in the stack's page
    return bytes([0x44 | reg << 3, 0x24, int(rng.integers(0, 0x70))])


def sized(rng: np.random.Generator, opcode: int) -> tuple[bytes, int]:
    """Choose byte, word (prefix 66) or doubleword; `opcode` is that of the byte form."""
    size = int(rng.choice([1, 2, 4, 4]))
    return (b"\x66" if size == 2 else b"") + bytes([opcode | (size > 1)]), size


def alu(rng: np.random.Generator) -> tuple[bytes, int]:
    op = int(rng.integers(8))
    form = int(rng.integers(4))
    mask = ALL & ~AF if op in (1, 4, 6) else ALL
    if form == 0:
        head, _ = sized(rng, op << 3)
        return head + operand(rng), mask
    if form == 1:
        head, _ = sized(rng, op << 3 | 2)
        return head + operand(rng), mask
    if form == 2:
        head, size = sized(rng, op << 3 | 4)
        return head + word(rng, size), mask
    if rng.random() < 0.5:
        return b"\x83" + operand(rng, op) + word(rng, 1), mask
    head, size = sized(rng, 0x80)
    return head + operand(rng, op) + word(rng, size), mask


def unary(rng: np.random.Generator) -> tuple[bytes, int]:
    which = int(rng.integers(4))
    if which < 2:
        head, _ = sized(rng, 0xFE)
        return head + operand(rng, which), ALL
    head, _ = sized(rng, 0xF6)
    return head + operand(rng, which), ALL


def moves(rng: np.random.Generator) -> tuple[bytes, int]:
    which = int(rng.integers(9))
    if which == 0:
        head, _ = sized(rng, 0x88)
        return head + operand(rng), ALL
    if which == 1:
        head, _ = sized(rng, 0x8A)
        return head + operand(rng), ALL
    if which == 2:
        head, size = sized(rng, 0xC6)
        return head + operand(rng, 0) + word(rng, size), ALL
    if which == 3:
        return bytes([0xB8 + int(rng.choice([0, 1, 2, 3, 5, 6, 7]))]) + word(rng), ALL
    if which == 4:
        prefix = b"\x66" if rng.random() < 0.3 else b""
        return prefix + bytes([0x0F, int(rng.choice([0xB6, 0xB7, 0xBE, 0xBF]))]) + operand(rng), ALL
    if which == 5:
        return bytes([0x8D, int(rng.integers(4)) << 3 | 0x80 | 3]) + word(rng), ALL
    if which == 6:
        return bytes([0x0F, 0x40 + int(rng.integers(16))]) + operand(rng), ALL
    if which == 7:
        return bytes([0x0F, 0x90 + int(rng.integers(16))]) + operand(rng, 0), ALL
    return bytes([int(rng.choice([0x98, 0x99, 0xF5, 0xF8, 0xF9, 0x9E, 0x9F, 0xD6]))]), ALL


def shifts(rng: np.random.Generator) -> tuple[bytes, int]:
    op = int(rng.choice([0, 1, 2, 3, 4, 5, 7]))
    by = int(rng.integers(3))
    head, size = sized(rng, (0xD0, 0xC0, 0xD2)[by])
    count = 1 if by == 0 else int(rng.integers(0, 40))
    code = head + operand(rng, op)
    if by == 1:
        code += bytes([count])
    elif by == 2:
        code = bytes([0xB1, count]) + code
    count &= 31
    mask = ALL
    if op >= 4 and count:
        mask &= ~AF
        if count > 8 * size:
            mask &= ~CF
    if count != 1:
        mask &= ~OF if count else ALL
    return code, mask


def double_shifts(rng: np.random.Generator) -> tuple[bytes, int]:
    right = int(rng.integers(2)) * 8
    prefix, size = (b"\x66", 2) if rng.random() < 0.3 else (b"", 4)
    count = int(rng.integers(0, 17 if size == 2 else 32))
    if rng.random() < 0.5:
        code = prefix + bytes([0x0F, 0xA4 + right]) + operand(rng) + bytes([count])
    else:
        code = bytes([0xB1, count]) + prefix + bytes([0x0F, 0xA5 + right]) + operand(rng)
    return code, ALL if count == 0 else ALL & ~AF & (ALL if count == 1 else ~OF)


def multiply(rng: np.random.Generator) -> tuple[bytes, int]:
    which = int(rng.integers(4))
    if which < 2:
        head, _ = sized(rng, 0xF6)
        return head + operand(rng, 4 + which), CF | OF
    if which == 2:
        return b"\x0f\xaf" + operand(rng), CF | OF
    if rng.random() < 0.5:
        return b"\x6b" + operand(rng) + word(rng, 1), CF | OF
    return b"\x66\x69" + operand(rng) + word(rng, 2), CF | OF


def divide(rng: np.random.Generator) -> tuple[bytes, int]:
    head, _ = sized(rng, 0xF6)
    start = b""
    if rng.random() < 0.7:  # a dividend that often fits
        start = b"\xba" + int(rng.integers(-2, 8)).to_bytes(4, "little", signed=True)
    if rng.random() < 0.3:
        start = b"\x0f\xb6\xc0"
    return start + head + operand(rng, 6 + int(rng.integers(2))), 0


def bits(rng: np.random.Generator) -> tuple[bytes, int]:
    op = int(rng.integers(4))
    which = int(rng.integers(4))
    prefix = b"\x66" if rng.random() < 0.3 else b""
    if which == 0:
        return prefix + b"\x0f\xba" + operand(rng, 4 + op) + word(rng, 1), CF
    if which == 1:  # an offset that stays in the page
        offset = int(rng.integers(-120, 400))
        return (
            b"\xb9"
            + offset.to_bytes(4, "little", signed=True)
            + prefix
            + bytes([0x0F, 0xA3 | op << 3])
            + operand(rng, 1)
        ), CF
    if which == 2:
        return prefix + bytes([0x0F, 0xBC + int(rng.integers(2))]) + operand(rng), ZF
    return bytes([0x0F, 0xC8 + int(rng.choice([0, 1, 2, 3, 5, 6, 7]))]), ALL


def exchange(rng: np.random.Generator) -> tuple[bytes, int]:
    which = int(rng.integers(4))
    if which == 0:
        head, _ = sized(rng, 0x86)
        return head + operand(rng), ALL
    opcode = 0xC0 if which == 1 else 0xB0
    if which == 3:
        # unicorn 2.1.4 loses CF and AF here, if they are not computed yet
        return b"\x0f\xc7\x0d" + (DATA + 64).to_bytes(4, "little"), ZF
    size = int(rng.choice([1, 2, 4]))
    prefix = b"\x66" if size == 2 else b""
    return prefix + bytes([0x0F, opcode | (size > 1)]) + operand(rng), ALL


def stack(rng: np.random.Generator) -> tuple[bytes, int]:
    which = int(rng.integers(10))
    prefix = b"\x66" if rng.random() < 0.2 else b""
    if which < 2:
        return prefix + bytes([0x50 + int(rng.integers(8))]), ALL
    if which == 2:
        return prefix + bytes([0x58 + int(rng.choice([0, 1, 2, 3, 5, 6, 7]))]), ALL
    if which == 3:
        return b"\x68" + word(rng), ALL
    if which == 4:
        return b"\x6a" + word(rng, 1), ALL
    if which == 5:
        return prefix + b"\xff" + operand(rng, 6), ALL
    if which == 6:
        return prefix + b"\x8f" + operand(rng, 0), ALL
    if which == 7:
        return prefix + bytes([0x60]), ALL
    if which == 8:  # ENTER, then LEAVE at once
        level = int(rng.integers(0, 3))
        return b"\x89\xe5\xc8" + int(rng.integers(0, 64)).to_bytes(2, "little") + bytes(
            [level]
        ) + b"\xc9", ALL
    return b"\x9c\x58", ALL


def control(rng: np.random.Generator) -> tuple[bytes, int]:
    which = int(rng.integers(5))
    skip = word(rng, 3)
    if which == 0:
        return bytes([0x70 + int(rng.integers(16)), 3]) + b"\x8d\x5b" + skip[:1], ALL
    if which == 1:
        return bytes([0x0F, 0x80 + int(rng.integers(16)), 3, 0, 0, 0]) + b"\x8d\x5b" + skip[:1], ALL
    if which == 2:  # CALL over, pop the return address
        return b"\xe8\x00\x00\x00\x00\x58", ALL
    if which == 3:
        count = int(rng.integers(1, 6))
        return b"\xb9" + count.to_bytes(4, "little") + b"\x8d\x5b\x07\xe2\xfb", ALL
    return bytes([0xE3, 3]) + b"\x8d\x5b" + skip[:1], ALL


def decimal(rng: np.random.Generator) -> tuple[bytes, int]:
    which = int(rng.integers(6))
    if which < 2:
        return bytes([0x27 + 8 * which]), ALL & ~OF
    if which < 4:
        return bytes([0x27 + 8 * which]), CF | AF
    return bytes([0xD4 + which - 4, int(rng.choice([0, 1, 7, 10, 10, 10, 16, 255]))]), PF | ZF | SF


def strings(rng: np.random.Generator) -> tuple[bytes, int]:
    op = int(rng.choice([0xA4, 0xA6, 0xAA, 0xAC, 0xAE]))
    head, _ = sized(rng, op)
    back = rng.random() < 0.4
    low, high = DATA + 0x400, DATA + 0xC00
    code = b"\xfd" if back else b"\xfc"
    code += b"\xbe" + int(rng.integers(low, high)).to_bytes(4, "little")
    code += b"\xbf" + int(rng.integers(low, high)).to_bytes(4, "little")
    code += b"\xb9" + int(rng.integers(0, 40)).to_bytes(4, "little")
    code += (
        (b"", b"\xf3", b"\xf3", b"\xf2")[int(rng.integers(4))]
        if op in (0xA6, 0xAE)
        else (b"", b"\xf3")[int(rng.integers(2))]
    )
    return code + head, ALL


def short_addresses(rng: np.random.Generator) -> tuple[bytes, int]:
    """Emit an ALU instruction or a move with 16-bit addressing (BX, SI, DI known)."""
    low = DATA + 0x200
    code = b"\xbb" + int(rng.integers(1 << 16)).to_bytes(2, "little") + word(rng, 2)
    bx = int.from_bytes(code[1:3], "little")
    si = (low + int(rng.integers(0x800)) - bx) & 0xFFFF
    code += b"\xbe" + si.to_bytes(2, "little") + word(rng, 2)
    reg = int(rng.choice([0, 1, 2]))
    op = (int(rng.integers(8)) << 3) | int(rng.choice([1, 3]))
    mask = ALL & ~AF if op >> 3 in (1, 4, 6) else ALL
    prefix = b"\x66" if rng.random() < 0.3 else b""
    how = int(rng.integers(4))
    if how == 0:  # [BX+SI+disp8], with wrap-around
        return code + b"\x67" + prefix + bytes([op, 0x40 | reg << 3]) + word(rng, 1), mask
    if how == 1:  # [disp16]
        return code + prefix + b"\x67" + bytes([op, reg << 3 | 6]) + low.to_bytes(2, "little"), mask
    if how == 2:  # [BX+disp16]
        disp = (low + 0x100 - bx) & 0xFFFF
        return code + b"\x67" + bytes([op, 0x80 | reg << 3 | 7]) + disp.to_bytes(2, "little"), mask
    disp = (low + 0x80 - si) & 0xFFFF  # MOVZX of [SI+disp16]
    return code + b"\x67\x0f\xb7" + bytes([0x80 | reg << 3 | 4]) + disp.to_bytes(2, "little"), ALL


GROUPS: dict[str, Emit] = {
    "alu": alu, "unary": unary, "moves": moves, "shifts": shifts, "double_shifts": double_shifts,
    "multiply": multiply, "divide": divide, "bits": bits, "exchange": exchange, "stack": stack,
    "control": control, "decimal": decimal, "strings": strings,
    "short_addresses": short_addresses,
}  # fmt: skip


class Programs:
    """Programs of one instruction or of many, with the state that they begin with.

    ``code`` is (n, 512) with ``length``; ``registers`` (n, 8), ``eflags`` (n,); ``mask`` are the
    arithmetic flags that the manual defines at the end; ``memory`` is what RAM holds.
    """

    def __init__(self, rng: np.random.Generator, names: list[str], length: int = 1):
        n = len(names)
        self.code = np.zeros((n, 512), np.uint8)
        self.length = np.zeros(n, np.int64)
        self.mask = np.zeros(n, np.int64)
        for i, name in enumerate(names):
            text, mask = b"", ALL
            for _ in range(length):
                group = name if name != "mixed" else str(rng.choice(list(GROUPS)))
                part, mask = GROUPS[group](rng)
                if length > 1 and mask != ALL:
                    part, mask = part + b"\x80\xc2" + word(rng, 1), ALL  # ADD DL defines them
                if len(text) + len(part) > 500:
                    break
                text += part
            self.code[i, : len(text)] = np.frombuffer(text, np.uint8)
            self.length[i] = len(text)
            self.mask[i] = mask
        borders = np.array(
            [
                0,
                1,
                0x7F,
                0x80,
                0xFF,
                0x7FFF,
                0x8000,
                0x7FFFFFFF,
                0x80000000,
                0xFFFFFFFF,
                0x9A,
                0x1005,
            ],
            np.int64,
        )
        self.registers = rng.integers(1 << 32, size=(n, 8))
        near = rng.random((n, 8)) < 0.4
        self.registers[near] = rng.choice(borders, int(near.sum()))
        self.registers[:, 4] = STACK
        self.eflags = 2 | (rng.integers(1 << 12, size=n) & ALL)
        self.memory = np.zeros(RAM, np.uint8)
        self.memory[WATCHED] = rng.integers(256, size=WATCHED.stop - WATCHED.start)

    def __len__(self) -> int:
        return len(self.length)

    def text(self, i: int) -> bytes:
        return self.code[i, : self.length[i]].tobytes()


def by_unicorn(programs: Programs) -> np.ndarray:
    """Final state by unicorn: eight registers, EIP, EFLAGS, vector (-1: none), CRC-32 of memory."""
    import unicorn as u
    from unicorn import x86_const as x

    names = [
        x.UC_X86_REG_EAX,
        x.UC_X86_REG_ECX,
        x.UC_X86_REG_EDX,
        x.UC_X86_REG_EBX,
        x.UC_X86_REG_ESP,
        x.UC_X86_REG_EBP,
        x.UC_X86_REG_ESI,
        x.UC_X86_REG_EDI,
    ]
    out = np.zeros((len(programs), 12), np.int64)
    seen = [-1]

    def stop(uc, number, _):
        seen[0] = number
        uc.emu_stop()

    def new():
        machine = u.Uc(u.UC_ARCH_X86, u.UC_MODE_32)
        machine.mem_map(0, RAM)
        machine.hook_add(u.UC_HOOK_INTR, stop)
        return machine

    machine = new()
    memory = programs.memory.tobytes()
    for i in range(len(programs)):
        text = programs.text(i)
        if seen[0] >= 0:  # it remembers exceptions: the next would be a double fault
            machine = new()
        machine.mem_write(0, memory)
        machine.mem_write(CODE, text)
        machine.ctl_remove_cache(0, RAM)
        for number, name in enumerate(names):
            machine.reg_write(name, int(programs.registers[i, number]))
        machine.reg_write(x.UC_X86_REG_EFLAGS, int(programs.eflags[i]))
        seen[0] = -1
        machine.emu_start(CODE, CODE + len(text), count=2000)
        out[i, :8] = [machine.reg_read(name) for name in names]
        out[i, 8] = machine.reg_read(x.UC_X86_REG_EIP)
        out[i, 9] = machine.reg_read(x.UC_X86_REG_EFLAGS)
        out[i, 10] = seen[0]
        after = bytearray(machine.mem_read(0, RAM))
        out[i, 11] = zlib.crc32(after[WATCHED])
    return out


def by_pyvirt(programs: Programs) -> np.ndarray:
    """The same by our interpreter."""
    from pyvirt._core.interp.owner import GENERAL, Cpu
    from pyvirt._core.physmem import PhysMem

    out = np.zeros((len(programs), 12), np.int64)
    flat = dict.fromkeys(("ss", "ds", "es", "fs", "gs"), (16, 0, 4294967295, 49299))
    memory = PhysMem(RAM)
    cpu = Cpu(memory)
    cpu.set_exits(0, 0xFFFFFFFF, False)
    for i in range(len(programs)):
        text = programs.text(i)
        memory.write(0, programs.memory.tobytes())
        memory.write(CODE, text + b"\xf4")
        values = {name: int(programs.registers[i, j]) for j, name in enumerate(GENERAL)}
        cpu.set_registers(
            {
                **flat,
                **values,
                "cs": (8, 0, 0xFFFFFFFF, 0xC09B),
                "cr0": 0x11,
                "eip": CODE,
                "eflags": int(programs.eflags[i]),
                "halted": False,
            }
        )
        cpu.run(4000)
        reason, _, vector, _, _ = cpu.exit_information()
        after = cpu.registers()
        out[i, :8] = [after[name] for name in GENERAL]
        out[i, 8] = after["eip"] - (reason == 1)  # HLT stands where unicorn stops
        out[i, 9] = after["eflags"]
        out[i, 10] = vector if reason == 4 else -1 if reason == 1 else -100 - reason
        out[i, 11] = zlib.crc32(memory.read(WATCHED.start, WATCHED.stop - WATCHED.start))
    return out


def differences(programs: Programs, ours: np.ndarray, theirs: np.ndarray) -> list[str]:
    """Describe the programs whose results differ in anything that the manual defines."""
    out = []
    for i in range(len(programs)):
        a, b = ours[i].copy(), theirs[i].copy()
        mask = int(programs.mask[i])
        if b[10] >= 0:
            mask, a[8] = 0, b[8]  # unicorn's EIP after an exception is not the instruction's
        a[9] &= mask | 0x400
        b[9] &= mask | 0x400
        if (a != b).any():
            out.append(
                f"{programs.text(i).hex()} flags {int(programs.eflags[i]):#x} registers "
                f"{[hex(int(v)) for v in programs.registers[i]]}: "
                f"{[hex(int(v)) for v in a]} against {[hex(int(v)) for v in b]}"
            )
    return out


def stored() -> tuple[Programs, np.ndarray]:
    """Read the fixture."""
    with np.load(FIXTURE) as archive:
        programs = Programs.__new__(Programs)
        for name in ("code", "length", "mask", "registers", "eflags", "memory"):
            setattr(programs, name, archive[name])
        return programs, archive["results"]


def main() -> None:
    """Write the fixture."""
    rng = np.random.default_rng(8)
    programs = Programs(rng, [name for name in GROUPS for _ in range(60)])
    results = by_unicorn(programs)
    longest = int(programs.length.max())
    np.savez_compressed(
        FIXTURE, code=programs.code[:, :longest], length=programs.length, mask=programs.mask,
        registers=programs.registers, eflags=programs.eflags, memory=programs.memory,
        results=results,
    )  # fmt: skip


if __name__ == "__main__":
    main()
