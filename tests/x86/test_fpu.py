"""The x87: every bit of 4,000 operations as a real processor has it; then exceptions and states."""

import copy
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from pyvirt.x86.machine import ExitReason, Machine
from x86.interp_system import CODE, HANDLER, STACK0, TABLE, system, vector_of, words
from x86.x87_cases import ANSWER, OPERATIONS, cases, describe, ours, this_machine, vendor

STORED = Path(__file__).parents[1] / "data" / "x87-answers.npz"
FLAT = (0, 0xFFFFFFFF, 0xC093)
DATA = 0x10000


def check(mine: np.ndarray, theirs: np.ndarray, seed: str) -> None:
    bad = np.flatnonzero(mine != theirs)
    text = [describe(int(i), len(mine), seed, mine[i], theirs[i]) for i in bad[:5]]
    assert not len(bad), "\n".join([f"{len(bad)} of {len(mine)}", *text])


def test_operations_as_stored():
    """Values, condition codes, exceptions, tags; also where exceptions are not masked."""
    with np.load(STORED, allow_pickle=False) as stored:
        theirs = np.zeros(len(stored["status"]), ANSWER)
        for name in ANSWER.names:
            theirs[name] = stored[name]
    check(ours(len(theirs), "stored"), theirs, "stored")
    # all is in it: operations, the six exceptions, stack faults, and what waits
    assert {key[0] for key, _ in cases(len(theirs), "stored")} == set(OPERATIONS)
    for bit in (1, 2, 4, 8, 16, 32, 0x40, 0x80, 0x100, 0x200, 0x400, 0x4000):
        assert (theirs["status"] & bit).any(), hex(bit)


def test_operations_as_on_this_machine():
    """Others' processors may differ in what manuals leave open: compared with the same maker's."""
    with np.load(STORED, allow_pickle=False) as stored:
        if vendor() != str(stored["vendor"]):
            pytest.skip(f"the stored answers are of {stored['vendor']}, this is {vendor() or '?'}")
    check(ours(20_000, "now"), this_machine(20_000, "now"), "now")


def fpu_system(cr0: int = 0x31, **options) -> Machine:
    """`system`, with an x87."""
    plain = system(**options)
    machine = Machine(plain.memory, fpu=True)
    machine.registers = plain.registers
    machine.set(cr0=cr0 | plain.registers.cr0 & 0x80010000)
    return machine


def halted(machine: Machine, code: str) -> int:
    machine.load(bytes.fromhex(code), CODE)
    assert machine.run(1000).reason is ExitReason.HALT
    return vector_of(machine)


def test_without_one_there_is_none():
    machine = system()
    assert machine.fpu is None
    assert halted(machine, "d9e8") == 6
    for fpu in (False, True):
        probe = Machine(1 << 20, fpu=fpu)
        probe.load(bytes.fromhex("b801000000 0fa2 f4"), 0x1000)
        probe.set(cr0=0x11, cs=(8, 0, 0xFFFFFFFF, 0xC09B), eip=0x1000)
        probe.run(10)
        assert probe.registers.edx & 1 == fpu


@pytest.mark.parametrize(
    ("cr0", "code", "vector"),
    [
        (0x31 | 8, "d9e8", 7),  # TS
        (0x31 | 4, "dbe3", 7),  # EM
        (0x31 | 8, "9b cd20", 32),  # WAIT: TS alone
        (0x31 | 10, "9b", 7),  # with MP
        (0x31, "d9d1", 6), (0x31, "d9e2", 6), (0x31, "db0d00000000", 6),
        (0x31, "dbe8 cd20", 32),
    ],
)  # fmt: skip
def test_whether_it_may_run(cr0: int, code: str, vector: int):
    assert halted(fpu_system(cr0), code) == vector


@pytest.mark.parametrize("waits", ["9b", "d9e8", "d9ee", "ddd8", "d92d00000100"])
def test_an_error_is_reported_by_the_next_that_waits(waits: str):
    # FNINIT; unmask division by zero; FLD1; FLDZ; FDIVP: not yet; FNSTSW AX: not by this one
    machine = fpu_system()
    machine.memory.write(DATA, struct.pack("<H", 0x37B))
    assert halted(machine, "dbe3 d92d00000100 d9e8 d9ee def9 dfe0" + waits) == 16
    now = machine.registers
    assert now.eax & 0x80BF == 0x8084
    (eip,) = words(machine, now.esp, 1)
    assert eip == CODE + 16
    assert now.esp == STACK0 - 12  # no error code
    machine.load(b"\xdb\xe2\xcf", HANDLER + 16 * 16)  # FNCLEX; IRET
    machine.set(eip=CODE, esp=STACK0, halted=False)
    assert halted(machine, "dbe3 d92d00000100 d9e8 d9ee def9 dfe0" + waits + "cd20") == 32


@pytest.mark.parametrize("size", [4, 2])
def test_state_goes_out_and_comes_back(size: int):
    prefix = "" if size == 4 else "66"
    save, restore = f"{prefix}dd3500000100", f"{prefix}dd2500000100"
    machine = fpu_system()
    code = "dbe3 d9eb d9e8 d9ea dec1 d8d1 d9f7"
    halted(machine, f"{code} cd20")
    before = machine.fpu
    assert before is not None
    machine.set(eip=CODE, esp=STACK0, halted=False)
    halted(machine, f"{code} {save} cd20")
    image = machine.memory.read(DATA, 7 * size + 80)
    assert machine.fpu.status == 0
    assert (machine.fpu.control, machine.fpu.tags) == (0x37F, 0xFFFF)
    control, status, tags = (int.from_bytes(image[size * i :][:2], "little") for i in range(3))
    assert (control, status, tags) == (before.control, before.status, before.tags)
    assert image[7 * size :] == b"".join(before.stack)
    if size == 4:
        assert image[2:4] == image[6:8] == image[10:12] == b"\xff\xff"
        where, what = struct.unpack_from("<2I", image, 12)
        assert (where, what) == (CODE + 12, 8 | 0x1F7 << 16)  # FINCSTP
    machine.set(eip=CODE, esp=STACK0, halted=False)
    halted(machine, f"dbe3 {restore} cd20")
    assert machine.fpu == before
    machine.set(eip=CODE, esp=STACK0, halted=False)
    environment = f"{prefix}d935000101 00 {prefix}d92500010100"
    halted(machine, f"{environment.replace(' ', '')} cd20")
    assert machine.fpu == before._replace(control=before.control)


def test_reset_and_copies():
    machine = fpu_system()
    assert (machine.fpu.control, machine.fpu.tags) == (0x40, 0x5555)
    halted(machine, "dbe3 d9eb cd20")
    seen = machine.fpu
    for other in (copy.deepcopy(machine), pickle.loads(pickle.dumps(machine))):
        assert other.fpu == seen
    snapshot = machine.snapshot()
    machine.reset()
    assert machine.fpu != seen
    machine.restore(snapshot)
    assert machine.fpu == seen


@pytest.mark.parametrize(
    "code", ["d9fe", "d9ff", "d9f0", "d9f2", "d9f8", "d9fd", "df2500000100", "df3500000100"]
)
def test_what_is_not_there_is_said(code: str):
    machine = fpu_system()
    if code.startswith("df25"):
        code = "df2000"  # FBLD [EAX]
    machine.load(bytes.fromhex("dbe3 d9e8" + code), CODE)
    found = machine.run(10)
    assert (found.reason, found.unsupported) == (ExitReason.UNSUPPORTED, "x87 instruction")
    assert machine.registers.eip == CODE + 4


@pytest.mark.parametrize(
    ("code", "size"),
    [("db3df8ff1000", 10), ("dd1dfcff1000", 8), ("dd35a0ff1000", 108), ("d935f0ff1000", 28)],
)
def test_a_fault_in_the_middle_stores_nothing(code: str, size: int):
    """The second page is not there: neither memory nor the stack change."""
    machine = fpu_system(paging=True)
    machine.memory.write_u32(TABLE + 4 * 0x110, 0)
    start = 0x110000 - (0x110000 - int.from_bytes(bytes.fromhex(code)[2:6], "little"))
    machine.memory.write(0x10FF00, b"\xaa" * 256)
    before = machine.memory.read(0x10FF00, 256)
    assert halted(machine, "dbe3 d9eb" + code) == 14
    assert machine.registers.cr2 == 0x110000
    assert start < 0x110000 < start + size
    assert machine.memory.read(0x10FF00, 256) == before
    assert machine.fpu.tags != 0xFFFF


def test_segments_limit_it():
    machine = fpu_system()
    machine.set(ds=(0x10, 0, 0xFFFF, 0x4093))
    assert halted(machine, "dbe3 d9eb dd1dfcff0000") == 13
    machine = fpu_system()
    machine.set(ds=(0x10, 0, 0xFFFF, 0x4093))
    assert halted(machine, "dbe3 db2df8ff0000") == 13


def test_any_bytes_end_in_something():
    """States of all kinds, instructions of all kinds: no crash, and states that are states."""
    rng = np.random.default_rng(87)
    machine = fpu_system()
    for _ in range(3000):
        code = bytes(
            [0xD8 + int(rng.integers(0, 8)), *rng.integers(0, 256, 8, dtype=np.uint8).tolist()]
        )
        machine.load(code, CODE)
        machine.set(eip=CODE, esp=STACK0, halted=False, eax=DATA)
        machine.run(1)
        assert len(machine.fpu.stack) == 8
        assert machine.fpu.control & 0xE0C0 == 0x40
