"""Instructions, I/O ports, flags and RPLs against the manual's tables, spelled out here."""

import itertools

import numpy as np
import pytest

from pyvirt.errors import InvalidValueError
from pyvirt.x86.protection import (
    Effect,
    Instruction,
    Mode,
    arpl,
    check_instruction,
    flags_mask,
    ports_permitted,
)

GP, UD, OK = 13, 6, -1
# SDM vol. 3, 5.9: privileged instructions
PRIVILEGED = "LGDT LIDT LLDT LTR MOV_CR MOV_DR LMSW CLTS INVD WBINVD INVLPG INVPCID HLT RDMSR WRMSR"
PRIVILEGED += " SYSEXIT"
UMIP = "SGDT SIDT SLDT STR SMSW"
VME, PVI, TSD, PCE, UMIP_BIT, VMXE, OSXSAVE = (1 << bit for bit in (0, 1, 2, 8, 11, 13, 18))


def expected(name: str, cpl: int, iopl: int, cr4: int, mode: int, vm: bool, vip: bool) -> tuple:
    """Give (vector, effects) by the manual's entry of each instruction."""
    if vm and name in ("LLDT", "LTR", "SLDT", "STR"):
        return UD, 0
    exists = {
        "SWAPGS": mode == Mode.LONG,
        "SYSRET": mode == Mode.LONG,
        "XSETBV": cr4 & OSXSAVE,
        "VMXON": cr4 & VMXE and not vm and mode != Mode.COMPATIBILITY,
    }
    if name in PRIVILEGED.split() or name in exists:
        if not exists.get(name, True):
            return UD, 0
        return (OK if cpl == 0 else GP), 0
    if name in ("CLAC", "STAC", "MONITOR", "MWAIT"):
        return (OK if cpl == 0 else UD), 0
    closed = {
        "RDTSC": cr4 & TSD,
        "RDTSCP": cr4 & TSD,
        "RDPMC": not cr4 & PCE,
        **dict.fromkeys(UMIP.split(), cr4 & UMIP_BIT),
    }
    if name in closed:
        return (GP if cpl > 0 and closed[name] else OK), 0
    if name in ("IN", "OUT", "INS", "OUTS"):
        return OK, (Effect.BY_BITMAP if vm or cpl > iopl else 0)
    if name in ("PUSHF", "POPF", "INT", "IRET"):
        return (GP if vm and iopl < 3 and not cr4 & VME else OK), 0
    assert name in ("CLI", "STI")
    if cpl <= iopl:
        return OK, 0
    extended = cr4 & VME if vm else cr4 & PVI and cpl == 3
    if extended and not (name == "STI" and vip):
        return OK, Effect.VIRTUAL_IF
    return GP, 0


def test_every_instruction_in_every_state():
    bits = [0, VME, PVI, TSD, PCE, UMIP_BIT, VMXE, OSXSAVE, 0x7FFFFF]
    rows = [
        row
        for row in itertools.product(
            Instruction, range(4), range(4), bits, Mode, (False, True), (False, True)
        )
        if not row[5] or (row[1] == 3 and row[4] == Mode.PROTECTED)
    ]
    which, cpl, iopl, cr4, mode, vm, vip = (np.array(c) for c in zip(*rows, strict=True))
    found = check_instruction(which, cpl, iopl=iopl, cr4=cr4, mode=mode, vm=vm, vip=vip)
    for i, (row, one) in enumerate(zip(rows, found, strict=True)):
        vector, effects = expected(row[0].name, *row[1:])
        assert (one["vector"], one["effects"], one["cpl"], one["error"]) == (
            vector,
            effects,
            row[1],
            0,
        ), row
        if i % 17 == 0:
            options = dict(zip(("iopl", "cr4", "mode", "vm", "vip"), row[2:], strict=True))
            single = check_instruction(row[0], row[1], **options)
            assert (single.vector, single.effects) == (vector, effects)


def test_virtual_8086_mode_has_one_privilege():
    with pytest.raises(InvalidValueError, match="virtual-8086"):
        check_instruction("cli", 0, vm=True)
    with pytest.raises(InvalidValueError, match=r"case 1 .*virtual-8086"):
        check_instruction("cli", 3, vm=[False, True], mode="long")


def by_bits(tss: bytes, port: int, size: int) -> bool:
    """Ask for each port's bit on its own, and whether the two bytes read are inside."""
    base = int.from_bytes(tss[0x66:0x68], "little")
    if len(tss) < 0x68 or base + port // 8 + 2 > len(tss):
        return False
    bitmap = int.from_bytes(tss[base:], "little")
    return all(not bitmap >> port + i & 1 for i in range(size))


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("length", [0, 50, 0x67, 0x68, 0x69, 0x6A, 0x88, 0x400])
@pytest.mark.parametrize("base", [0x68, 0x40, 0xFFFF, 0x3FF])
def test_the_bitmap(size: int, length: int, base: int):
    rng = np.random.default_rng(length + size)
    # mostly zeros: runs of four permitted ports must occur
    content = rng.integers(0, 256, length, np.uint8) & rng.integers(0, 256, length, np.uint8)
    tss = bytearray((content & rng.integers(0, 256, length, np.uint8)).tobytes())
    tss[0x66:0x68] = base.to_bytes(2, "little") if length >= 0x68 else tss[0x66:0x68]
    ports = np.array([*range(1100), *range(8000, 8300), *range(65500, 65536)], np.uint16)
    found = ports_permitted(ports, size, bytes(tss), cpl=3)
    assert found.tolist() == [by_bits(tss, int(port), size) for port in ports]
    assert ports_permitted(5, size, bytes(tss), cpl=3) == by_bits(tss, 5, size)


def test_iopl_goes_before_the_bitmap():
    assert ports_permitted(0x80, 1, b"", cpl=1, iopl=1)
    assert not ports_permitted(0x80, 1, b"", cpl=2, iopl=1)
    assert not ports_permitted(0x80, 1, b"", cpl=3, iopl=3, vm=True)
    with pytest.raises(InvalidValueError, match="size"):
        ports_permitted(0x80, 3, b"", cpl=0)


def test_flags():
    """SDM vol. 2, POPF and IRET: what each may change."""
    free = {0, 2, 4, 6, 7, 8, 10, 11, 14}  # CF PF AF ZF SF TF DF OF NT
    for name, cpl, iopl, size in itertools.product(("popf", "iret"), range(4), range(4), (2, 4, 8)):
        bits = set(free)
        if size > 2:
            bits |= {18, 21} | ({16} if name == "iret" else set())
        if cpl <= iopl:
            bits.add(9)
        if cpl == 0:
            bits |= {12, 13}
            if name == "iret" and size > 2:
                bits |= {19, 20}
        assert flags_mask(name, cpl, iopl, size) == sum(1 << bit for bit in bits)
    for wrong in (("pushf", 0, 0, 4), ("popf", 0, 0, 3), ("popf", 4, 0, 4)):
        with pytest.raises(InvalidValueError):
            flags_mask(*wrong)


def test_arpl():
    for mine, asker in itertools.product(range(4), repeat=2):
        assert arpl(0x48 | mine, 0x10 | asker) == (0x48 | max(mine, asker), mine < asker)
