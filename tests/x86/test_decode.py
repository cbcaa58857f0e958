"""The decoder: fields by hand from the manuals, boundaries and kinds against other decoders."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from pyvirt._core.decode.sweep import decode_one, sweep_arrays
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.validation.code_sweeps import made_up
from pyvirt.x86.decode import Class, Flow, Status, decode, sweep
from pyvirt.x86.scan import code_of

SAMPLES = Path(__file__).parents[1] / "data" / "x86"
NOTHING = 144


@pytest.mark.parametrize(
    ("code", "mode", "fields"),
    [
        ("90", 64, {"length": 1, "operand_size": 4, "address_size": 8, "segment": 255}),
        ("fa", 16, {"klass": Class.PRIVILEGED, "operand_size": 2, "address_size": 2}),
        # MOV RAX, imm64: REX.W
        ("48b88877665544332211", 64, {"imm": 0x1122334455667788, "imm_size": 8, "rex": 0x48}),
        # MOV EAX, moffs: by address size
        ("a1f0ffffff", 32, {"disp": 0xFFFFFFF0, "disp_size": 4}),
        ("a1f0ffffffffffffff", 64, {"disp": -16, "disp_size": 8}),
        ("67a1f0ffffff", 64, {"disp": 0xFFFFFFF0, "disp_size": 4, "address_size": 4}),
        # [RBP - 16], [RIP + 4], [disp32] by SIB
        ("8b45f0", 64, {"disp": -16, "disp_size": 1, "relative": False}),
        ("8b0504000000", 64, {"disp": 4, "relative": True, "length": 6}),
        ("8b0504000000", 32, {"disp": 4, "relative": False}),
        ("8b042504000000", 64, {"disp": 4, "sib": 0x25, "relative": False}),
        # 16-bit addresses: [BP], [disp16]
        ("8b4600", 16, {"disp_size": 1, "length": 3}),
        ("8b063412", 16, {"disp_size": 2, "disp": 0x1234}),
        ("678b063412", 32, {"disp_size": 2, "address_size": 2}),
        ("c8100001", 32, {"imm": 16, "selector": 1}),
        ("ea785634121000", 32, {"imm": 0x12345678, "selector": 0x10, "flow": Flow.JUMP_FAR}),
        ("66ea34121000", 32, {"imm": 0x1234, "selector": 0x10, "length": 6}),
        ("660f78c00102", 64, {"imm": 1, "selector": 2, "length": 6}),  # EXTRQ
        ("f20f78c10102", 64, {"imm": 1, "selector": 2}),  # INSERTQ
        ("64678b00", 64, {"segment": 4, "address_size": 4}),
        ("2e8b00", 64, {"segment": 255}),
        ("2e8b00", 32, {"segment": 1}),
        ("f2f390", 32, {"prefixes": 4}),
        # near branches of 64-bit code are 8 wide, whatever 66 says (Intel)
        ("66e800000000", 64, {"length": 6, "operand_size": 8, "flow": Flow.CALL}),
        ("66e80000", 32, {"length": 4, "operand_size": 2}),
        ("50", 64, {"operand_size": 8}),
        ("6650", 64, {"operand_size": 2}),
        ("ff30", 64, {"operand_size": 8}),
        ("ff10", 64, {"operand_size": 8, "flow": Flow.CALL_INDIRECT}),
        ("ff18", 64, {"operand_size": 4, "flow": Flow.CALL_FAR, "klass": Class.SENSITIVE}),
        # REX counts right before the opcode only
        ("486689c0", 64, {"rex": 0, "operand_size": 2}),
        # mod of MOV CRn is ignored: no displacement follows
        ("0f2045", 32, {"length": 3, "klass": Class.PRIVILEGED}),
        # VEX.256 VADDPS; EVEX VADDPD with disp8; LES of 32-bit code
        ("c5ec58d9", 64, {"map": 1, "opcode": 0x58, "prefixes": 32, "length": 4}),
        ("62f1ed48585b01", 64, {"map": 1, "prefixes": 64, "disp": 1, "length": 7}),
        ("c400", 32, {"map": 0, "prefixes": 0}),
        ("8fe878c0c101", 64, {"map": 8, "prefixes": 128, "imm": 1}),  # VPROTB
        ("8f00", 64, {"prefixes": 0, "operand_size": 8}),  # POP
        ("c7f810000000", 64, {"relative": True, "flow": Flow.TRANSACTION}),
        ("f7c078563412", 32, {"imm": 0x12345678}),
        ("f7d0", 32, {"imm_size": 0}),
        ("8ed8", 32, {"klass": Class.SENSITIVE}),
        ("cd80", 32, {"klass": Class.SENSITIVE, "flow": Flow.INTERRUPT}),
    ],
)
def test_fields(code: str, mode: int, fields: dict):
    found = decode(bytes.fromhex(code), mode)
    assert found.status is Status.DECODED
    assert found.length == fields.pop("length", len(code) // 2)
    assert {name: getattr(found, name) for name in fields} == fields


@pytest.mark.parametrize(
    ("code", "mode"),
    [
        ("06", 64),
        ("ea00000000", 64),
        ("d4", 64),
        ("0f04", 32),
        ("8ec8", 32),  # MOV CS
        ("8dc0", 32),  # LEA of a register
        ("f0890b", 32),  # LOCK MOV
        ("f001c0", 32),  # LOCK ADD register
        ("ff38", 32),
        ("ffd8", 32),  # far call of a register
        ("0f22c8", 64),  # MOV CR1
        ("66c5ec58d9", 64),
        ("48c5ec58d9", 64),
        ("0f0f0000", 32),  # 3DNow! without such a suffix
        ("0f01f8", 32),  # SWAPGS
        ("c4e07858c0", 64),  # VEX map 0
        ("d9d1", 32),
    ],
)
def test_undefined(code: str, mode: int):
    assert decode(bytes.fromhex(code), mode).status is Status.UNDEFINED


def test_lengths_beyond_15_bytes():
    fourteen = b"\x66" * 14
    assert decode(fourteen + b"\x90").length == 15
    assert decode(fourteen + b"\x66\x90").status is Status.TOO_LONG
    assert decode(fourteen + b"\x01\xc0").status is Status.TOO_LONG
    assert decode(b"\x66" * 13 + b"\x01\xc0").length == 15
    assert decode(fourteen).status is Status.TRUNCATED
    assert decode(b"\xf0" * 15).status is Status.TOO_LONG


@pytest.mark.parametrize("mode", [16, 32, 64])
def test_every_cut_is_truncated_and_no_byte_beyond_is_read(mode: int):
    for code in made_up(mode, 3000):
        found = decode(code, mode)
        if found.status is not Status.DECODED:
            continue
        assert decode(code[: found.length] + b"\xff", mode) == found
        for cut in range(found.length):
            assert decode(code[:cut], mode).status is Status.TRUNCATED, (code.hex(), cut)


@pytest.mark.parametrize("mode", [16, 32, 64])
def test_the_quick_way_agrees_with_the_decoder(mode: int):
    """A sweep takes it where 16 bytes are left; `decode` never does."""
    for code in made_up(mode):
        status, fields = decode_one(code, mode)
        lengths, kinds, end = sweep_arrays(code, mode, 0, 1)
        if status == 0:
            expected = (fields[19] * 18 + fields[20]) * 2 + fields[18]
            assert (lengths[0], kinds[0], end) == (fields[0], expected, fields[0]), code.hex()
        else:
            assert (lengths[0], kinds[0], end) == (1, NOTHING, 1), code.hex()


@pytest.mark.parametrize("mode", [16, 32, 64])
def test_a_split_sweep_gives_the_same(mode: int):
    code = hashlib.shake_256(b"split").digest(5000)
    whole = sweep(code, mode)
    assert whole.offsets[-1] + whole.lengths[-1] == whole.end == len(code)
    assert (np.diff(whole.offsets) == whole.lengths[:-1]).all()
    at, parts = 0, []
    while at < len(code):
        parts.append(sweep(code, mode, at, min(at + 7, len(code))))
        at = parts[-1].end
    for name in ("offsets", "lengths", "classes", "flows", "relative"):
        assert (np.concatenate([getattr(p, name) for p in parts]) == getattr(whole, name)).all()
    assert (whole.classes == Class.NOTHING).any()
    assert (whole.lengths[whole.classes == Class.NOTHING] == 1).all()


def test_iced_agrees_with_what_is_stored():
    """The fixture is what the other decoder says today."""
    pytest.importorskip("iced_x86")
    from pyvirt.validation.iced import sweep_by_iced

    with np.load(SAMPLES / "expected.npz") as stored:
        for path in sorted(SAMPLES.glob("*.elf")):
            for part, mode, code in code_of(path):
                lengths, kinds = sweep_by_iced(bytes(code), mode)
                assert (stored[f"{path.stem}{part}.lengths"] == lengths).all()
                assert (stored[f"{path.stem}{part}.kinds"] == kinds).all()


@pytest.mark.parametrize("mode", [16, 32, 64])
def test_fresh_instructions_against_iced(mode: int):
    """Others than those of X6: what iced-x86 decodes has our length and kind."""
    iced = pytest.importorskip("iced_x86")
    from pyvirt.validation.iced import kinds_of_code

    compared = 0
    for code in made_up(mode, 45_000)[30_000:]:
        found = iced.Decoder(mode, code).decode()
        if found.code:
            lengths, kinds, _ = sweep_arrays(code, mode, 0, 1)
            assert (lengths[0], kinds[0]) == (found.len, kinds_of_code(found)), (code.hex(), found)
            compared += 1
    assert compared > 5000


@pytest.mark.parametrize("mode", [32, 64])
def test_the_samples_against_capstone(mode: int):
    """A second opinion on boundaries, of what it knows."""
    if "asan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("capstone is loaded in a way that sanitizers refuse")
    capstone = pytest.importorskip("capstone")
    engine = capstone.Cs(capstone.CS_ARCH_X86, getattr(capstone, f"CS_MODE_{mode}"))
    ((_, _, code),) = code_of(SAMPLES / f"sample{mode}.elf")
    found = sweep(code, mode)
    agreed = 0
    for offset, length, sort in zip(found.offsets, found.lengths, found.classes, strict=True):
        other = next(engine.disasm_lite(bytes(code[offset : offset + 15]), 0, 1), None)
        if other is not None and sort != Class.NOTHING:
            assert other[1] == length, bytes(code[offset : offset + 15]).hex()
            agreed += 1
    assert agreed > 80


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((b"\x90", 63), InvalidValueError, "mode must be 16, 32 or 64"),
        ((b"\x90", 128), InvalidValueError, "mode"),
        ((b"\x90", "64"), InvalidTypeError, "mode"),
        ((b"\x90", 64, 2), InvalidValueError, "offset"),
        ((b"\x90", 64, -1), InvalidValueError, "offset"),
        (("90", 64), InvalidTypeError, "code must be bytes"),
        ((np.zeros(4, np.uint32), 64), InvalidTypeError, "items of 4 bytes"),
        ((np.zeros(8, np.uint8)[::2], 64), InvalidTypeError, "contiguous"),
    ],
)
def test_bad_arguments(arguments: tuple, error: type, words: str):
    with pytest.raises(error, match=words):
        decode(*arguments)


def test_bad_bounds_of_a_sweep():
    with pytest.raises(InvalidValueError, match="stop"):
        sweep(b"\x90", 64, 0, 2)
    with pytest.raises(InvalidValueError, match="start"):
        sweep(b"\x90", 64, 2)
    assert len(sweep(b"", 64)) == 0
    assert decode(b"").status is Status.TRUNCATED
