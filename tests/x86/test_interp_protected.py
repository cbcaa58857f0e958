"""Protected mode: privilege, gates, stacks, page faults, self-modifying code, triple faults."""

import copy
import pickle

import numpy as np
import pytest

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.x86.machine import ExitReason, Machine
from x86.interp_system import (
    CODE,
    CODE0,
    CODE3,
    DATA0,
    DATA3,
    DIRECTORY,
    DOWN,
    GATE,
    HANDLER,
    SMALL,
    STACK0,
    STACK3,
    TABLE,
    USER,
    system,
    vector_of,
    words,
)


def halted(machine: Machine, code: str, at: int) -> int:
    """Run code up to HLT in a handler; returns the handler's vector."""
    machine.load(bytes.fromhex(code), at)
    assert machine.run(1000).reason is ExitReason.HALT
    return vector_of(machine)


def test_interrupt_from_ring_3_and_back():
    machine = system(user=True)
    machine.load(b"\x40\xcf", HANDLER + 16 * 0x20)  # inc eax; iret
    assert halted(machine, "cd20 43 f4", USER) == 13  # HLT is ring 0's
    now = machine.registers
    assert (now.eax, now.ebx, now.cpl) == (1, 1, 0)
    assert (now.ss.selector, now.cs.selector) == (DATA0, CODE0)
    error, eip, cs, eflags, esp, ss = words(machine, now.esp, 6)
    assert now.esp == STACK0 - 24
    assert (error, eip, cs, esp, ss) == (0, USER + 3, CODE3, STACK3, DATA3)
    assert eflags & 0x10000  # RF: a fault


def test_software_interrupt_needs_the_gates_privilege():
    machine = system(user=True)
    assert halted(machine, "cd21", USER) == 13
    assert words(machine, machine.registers.esp, 2) == [0x21 * 8 + 2, USER]


@pytest.mark.parametrize(
    ("code", "vector"),
    [("f7f0", 0), ("0f0b", 6), ("d9e8", 6), ("f1", 1), ("cc", 3), ("b82b0000008ed8", 13),
     ("f090", 6), ("8ec8", 6),
     ("0f20c8", 6), ("fa", 13), ("0f22c0", 13), ("0f09", 13), ("e460", 13),
     ("0f32", 13), ("0f00d8", 13)],
)  # fmt: skip
def test_exceptions_of_ring_3(code, vector):
    machine = system(user=True)
    assert halted(machine, code, USER) == vector


UMIP = 1 << 11
DISCLOSING = [
    "0f010500000100",
    "0f010d00000100",
    "0f000500000100",
    "0f00c0",
    "0f000d00000100",
    "0f00c8",
    "0f012500000100",
    "0f01e0",
]  # fmt: skip  (SGDT SIDT SLDT STR SMSW, to memory and to EAX)


@pytest.mark.parametrize("code", DISCLOSING)
def test_umip_hides_tables_from_programs(code):
    for cpl in (0, 3):
        for cr4 in (0, UMIP):
            machine = system(user=bool(cpl))
            machine.set(cr4=cr4)
            machine.load(bytes.fromhex(code), USER if cpl else CODE)
            machine.memory.write(0x10000, b"\xaa" * 6)
            machine.stop_at(exceptions=range(32))
            machine.set(eax=0xAAAAAAAA)
            left = machine.memory.read(0x10000, 6), 0xAAAAAAAA
            found = machine.run(1)
            now = machine.memory.read(0x10000, 6), machine.registers.eax
            if cpl and cr4:
                assert (found.reason, found.vector, found.error) == (ExitReason.EXCEPTION, 13, 0)
                assert now == left
            else:
                assert found.reason is ExitReason.BUDGET
                assert now != left


def test_umip_is_a_bit_of_cr4_and_intercepts_come_first():
    machine = system()
    machine.load(bytes.fromhex("b800080000 0f22e0 31c0 0f20e0 f4"), CODE)
    assert machine.run(10).reason is ExitReason.HALT
    assert machine.registers.eax == UMIP
    machine = system(user=True)  # an intercept comes before the privilege, as for the others
    machine.set(cr4=UMIP)
    machine.stop_at("smsw")
    machine.load(bytes.fromhex("0f01e0"), USER)
    assert machine.run(1).instruction_class == "smsw"


def test_page_fault_says_where_and_why():
    machine = system(paging=True, user=True)
    machine.memory.write_u32(TABLE + 4 * 0x100, 0x100000 | 3)  # the supervisor's
    machine.memory.write_u32(TABLE + 4 * 0x101, 0x101000 | 5)  # read only
    machine.memory.write_u32(TABLE + 4 * 0x102, 0)
    for code, error, where in [
        ("a100001000", 5, 0x100000), ("a304101000", 7, 0x101004), ("a108201000", 4, 0x102008),
        ("ff05fc2f1000", 6, 0x102FFC),
        ("a3fe1f1000", 7, 0x101FFE), ("e9fb8f0f00", 4, 0x102000),
    ]:  # fmt: skip
        probe = pickle.loads(pickle.dumps(machine))
        before = probe.registers
        assert halted(probe, code, USER) == 14
        assert probe.registers.cr2 == where
        found, eip = words(probe, probe.registers.esp, 2)
        assert found == error
        assert eip == (0x102000 if code.startswith("e9") else USER)
        assert probe.registers.eax == before.eax


def test_supervisor_writes_to_read_only_pages_by_wp():
    for cr0, vector in ((0x80010011, 14), (0x80000011, 32)):
        machine = system(paging=True)
        machine.memory.write_u32(TABLE + 4 * 0x101, 0x101000 | 1)
        machine.set(cr0=cr0)
        assert halted(machine, "a300101000 cd20", CODE) == vector


def test_accessed_and_dirty_bits():
    machine = system(paging=True)
    assert machine.memory.read_u32(TABLE + 4 * 0x200) == 0x200007
    halted(machine, "a100002000 cd20", CODE)
    assert machine.memory.read_u32(TABLE + 4 * 0x200) == 0x200027
    assert machine.memory.read_u32(DIRECTORY) & 0x20
    machine.set(eip=CODE, halted=False)
    halted(machine, "a300002000 cd20", CODE)
    assert machine.memory.read_u32(TABLE + 4 * 0x200) == 0x200067


def test_invlpg_and_cr3_show_new_tables():
    machine = system(paging=True)
    machine.memory.write_u32(0x300000, 111)
    machine.memory.write_u32(0x301000, 222)
    # read, change the entry, read (either is right), INVLPG, read, change back, CR3, read
    code = "8b0d00003000 c705005c000007103000 0f013d00003000 8b1500003000"
    code += "c705005c000007003000 0f20d8 0f22d8 8b1d00003000 cd20"
    halted(machine, code, CODE)
    now = machine.registers
    assert (now.ecx, now.edx, now.ebx) == (111, 222, 111)


def test_four_mebibyte_pages():
    machine = system(paging=True)
    machine.memory.write_u32(DIRECTORY + 4, 0x83)  # 4 MiB to 8 MiB: the first 4 MiB
    machine.memory.write_u32(0x345678, 0xABCDEF01)
    machine.set(cr4=0x10)
    halted(machine, "a178567400 cd20", CODE)
    assert machine.registers.eax == 0xABCDEF01


def test_physical_address_extension():
    machine = system()
    for entry in range(4):
        machine.memory.write_u64(DIRECTORY + 8 * entry, 0)
    machine.memory.write_u64(DIRECTORY, 0x6001)
    machine.memory.write_u64(DIRECTORY + 24, 0x6001)  # 3 GiB: the same 4 MiB again
    machine.memory.write_u64(0x6000, TABLE | 3)  # pages of 4 KiB
    machine.memory.write_u64(0x6008, 0x200083)  # one of 2 MiB
    for page in range(512):
        machine.memory.write_u64(TABLE + 8 * page, page << 12 | 3)
    machine.memory.write_u64(TABLE + 8 * 0x123, 1 << 45 | 0x123003)  # beyond 36 bits: reserved
    machine.memory.write_u32(0x234568, 77)
    machine.set(cr0=0x80000011, cr4=0x20, cr3=DIRECTORY)
    probe = copy.deepcopy(machine)
    assert halted(probe, "a1684523c0 cd20", CODE) == 32
    assert probe.registers.eax == 77
    assert halted(machine, "a300301200 cd20", CODE) == 14
    error, _ = words(machine, machine.registers.esp, 2)
    assert (error, machine.registers.cr2) == (0xB, 0x123000)


def test_instructions_that_cross_pages():
    machine = system(paging=True)
    machine.load(bytes.fromhex("b878563412 b911000000 cd20"), 0x100FFE)
    machine.set(eip=0x100FFE)
    machine.run(100)
    assert (machine.registers.eax, machine.registers.ecx) == (0x12345678, 0x11)
    machine.load(bytes([0x99]), 0x101000)  # in the middle of its immediate
    machine.set(eip=0x100FFE, halted=False)
    machine.run(100)
    assert machine.registers.eax == 0x12349978
    machine.memory.write_u32(TABLE + 4 * 0x101, 0)
    machine.set(eip=0x100FFE, halted=False)
    machine.run(100)
    assert (vector_of(machine), machine.registers.cr2) == (14, 0x101000)


def test_limits_of_segments():
    machine = system()
    load = f"b8{SMALL:02x}000000 8ed8 "
    probe = copy.deepcopy(machine)
    assert halted(probe, load + "a1fc000000 cd20", CODE) == 32
    probe = copy.deepcopy(machine)
    assert halted(probe, load + "a1fd000000 cd20", CODE) == 13
    load = f"b8{DOWN:02x}000000 8ed8 "
    probe = copy.deepcopy(machine)
    assert halted(probe, load + "a100010000 cd20", CODE) == 32
    probe = copy.deepcopy(machine)
    assert halted(probe, load + "a1ff000000 cd20", CODE) == 13
    probe = copy.deepcopy(machine)  # a stack that cannot take the exception either
    probe.load(bytes.fromhex(f"b8{SMALL:02x}000000 8ed0 bc00020000 50"), CODE)
    assert probe.run(100).reason is ExitReason.TRIPLE_FAULT
    probe = copy.deepcopy(machine)
    assert halted(probe, f"b8{SMALL:02x}000000 8ed0 bcf0000000 36a100010000", CODE) == 12
    probe = copy.deepcopy(machine)
    assert halted(probe, "b800000000 8ed8 a100000000", CODE) == 13
    probe = copy.deepcopy(machine)  # code segments cannot be written
    assert halted(probe, "2ea300000000", CODE) == 13


def test_call_gate_copies_parameters_and_returns():
    machine = system(user=True)
    machine.load(bytes.fromhex("8b442408 ca0400"), HANDLER + 0x900)  # mov eax, [esp+8]; retf 4
    machine.load(
        bytes.fromhex("6878563412") + b"\x9a\0\0\0\0" + bytes([GATE | 3, 0]) + b"\xcd\x20", USER
    )
    machine.run(1000)
    now = machine.registers
    assert vector_of(machine) == 32
    assert now.eax == 0x12345678
    eip, cs, _, esp, ss = words(machine, now.esp, 5)
    assert (eip, cs, esp, ss) == (USER + 14, CODE3, STACK3, DATA3)


def test_return_to_ring_3_clears_inner_segments():
    machine = system()
    code = f"6a{DATA3:02x} 68{STACK3.to_bytes(4, 'little').hex()} 6a{CODE3:02x} "
    code += f"68{USER.to_bytes(4, 'little').hex()} cb"
    machine.load(bytes.fromhex("cd20"), USER)
    machine.load(bytes.fromhex(code), CODE)
    machine.run(1000)
    now = machine.registers
    assert vector_of(machine) == 32
    assert (now.ds.selector, now.es.selector) == (0, 0)


def test_code_that_changes_itself():
    # the immediate of a later instruction of the same block
    machine = system()
    assert halted(machine, "c6050b800000 07 909090 b800000000 cd20", CODE) == 32
    assert machine.registers.eax == 7


def test_a_loop_that_rewrites_its_body():
    machine = system()
    # mov ecx, 50; l: add eax, 1 (the byte at 0x8007 grows each time); inc byte [0x8007]; loop l
    machine.load(bytes.fromhex("b932000000 83c001 fe0507800000 e2f5 cd20"), CODE)
    machine.run(10_000)
    assert machine.registers.eax == sum(range(1, 51))
    assert int(machine.counters["code_writes"]) >= 49


def test_writes_of_the_host_are_seen():
    machine = system()
    machine.load(bytes.fromhex("b801000000 ebf9"), CODE)
    machine.run(10)
    assert machine.registers.eax == 1
    machine.load(b"\x02", CODE + 1)
    machine.run(10)
    assert machine.registers.eax == 2


def test_double_and_triple_faults():
    machine = system()
    machine.load(bytes(8), 0x2000 + 8 * 13)  # no gate for #GP
    assert halted(machine, "b8ff000000 8ed8", CODE) == 8
    machine = system()
    machine.set(idt_limit=0)
    machine.load(bytes.fromhex("0f0b"), CODE)
    assert machine.run(1000).reason is ExitReason.TRIPLE_FAULT
    assert machine.registers.eip == CODE


def test_budgets_and_steps():
    machine = system()
    machine.load(bytes.fromhex("40 ebfd"), CODE)
    for budget in (0, 1, 2, 3, 7, 1000):
        before = machine.registers.tsc
        assert machine.run(budget).reason is ExitReason.BUDGET
        assert machine.registers.tsc - before == budget
    machine.set(eip=CODE, eax=0)
    assert machine.step().reason is ExitReason.BUDGET
    assert (machine.registers.eax, machine.registers.eip) == (1, CODE + 1)


def test_single_step_trap():
    machine = system()
    machine.set(eflags=0x102)
    assert halted(machine, "40 4343", CODE) == 1
    assert (machine.registers.eax, machine.registers.ebx) == (1, 0)
    assert machine.registers.dr6 & 0x4000


def test_intercepts_come_before_execution():
    machine = system(user=True)
    machine.stop_at("cli_sti", "cpuid", exceptions=[13])
    machine.load(bytes.fromhex("0fa2 fa f4"), USER)
    got = machine.run(10)
    assert (got.reason, got.instruction_class, got.length) == (ExitReason.INTERCEPT, "cpuid", 2)
    assert machine.registers.eip == USER
    machine.set(eip=USER + 2)
    assert machine.run(10).instruction_class == "cli_sti"
    machine.set(eip=USER + 3)
    got = machine.run(10)
    assert (got.reason, got.vector, got.error) == (ExitReason.EXCEPTION, 13, 0)
    assert machine.registers.eip == USER + 3


def test_what_is_not_modelled_is_said():
    machine = system()
    # an EFLAGS image with VM
    machine.load(bytes.fromhex("6802000200 6a08 6800000000 cf"), CODE)
    got = machine.run(100)
    assert (got.reason, got.unsupported) == (ExitReason.UNSUPPORTED, "virtual-8086 mode")
    machine = system()
    machine.load(bytes.fromhex("ea00000000") + b"\x28\x00", CODE)
    assert machine.run(100).unsupported == "task switch"


def test_cmpxchg8b_leaves_the_other_flags():
    # xadd al, dl sets CF and AF; unicorn 2.1.4 loses them here
    machine = system()
    machine.set(eax=0xFF, edx=0x01)
    machine.load(bytes.fromhex("0fc0d0 0fc70d00b00000 f4"), CODE)
    machine.run(10)
    assert machine.registers.eflags & 0x8D5 == 0x15


def test_real_mode_interrupts():
    machine = Machine(1 << 20)
    machine.load(bytes.fromhex("0001 2000"), 4 * 0x21)  # 0020:0100
    machine.load(bytes.fromhex("43 cf"), 0x300)
    machine.load(bytes.fromhex("31c0 8ed0 bc007c fb cd21 f4"), 0x7C00)
    machine.set(cs=(0, 0, 0xFFFF, 0x93), eip=0x7C00)
    assert machine.run(100).reason is ExitReason.HALT
    now = machine.registers
    assert (now.ebx, now.esp, now.eip) == (1, 0x7C00, 0x7C0B)
    assert now.eflags & 0x200


def test_boot_from_real_to_protected_mode():
    machine = Machine(1 << 20)
    machine.load(bytes(8) + bytes.fromhex("ffff0000009acf00 ffff00000092cf00"), 0x800)
    machine.load(bytes.fromhex("1700 00080000"), 0x7D00)
    # lgdt [0x7D00]; mov eax, cr0; or al, 1; mov cr0, eax; jmp 8:0x7C20
    machine.load(bytes.fromhex("fa 0f0116007d 0f20c0 0c01 0f22c0 ea207c0800"), 0x7C00)
    # mov eax, 0x10; mov ds, ax; mov dword [0x9000], 0x12345678; hlt
    machine.load(bytes.fromhex("b810000000 8ed8 c7050090000078563412 f4"), 0x7C20)
    machine.set(cs=(0, 0, 0xFFFF, 0x93), eip=0x7C00)
    assert machine.run(100).reason is ExitReason.HALT
    assert machine.memory.read_u32(0x9000) == 0x12345678
    assert machine.memory.read_u8(0x808 + 5) == 0x9B  # A is set


def test_a_fault_in_a_repeated_string_leaves_it_between_elements():
    machine = system(paging=True)
    machine.memory.write_u32(TABLE + 4 * 0x101, 0)
    code = "bff80f1000 b904000000 b855000000 f3ab"
    assert halted(machine, code, CODE) == 14
    now = machine.registers
    assert (now.edi, now.ecx, now.cr2) == (0x101000, 2, 0x101000)
    assert words(machine, 0x100FF8, 2) == [0x55, 0x55]


def test_long_string_within_small_budgets():
    machine = system()
    machine.load(bytes.fromhex("bf00001000 b920a10700 b0aa f3aa f4"), CODE)
    assert machine.run(10).reason is ExitReason.BUDGET
    assert machine.run(1000).reason is ExitReason.HALT
    assert machine.memory.read(0x100000, 500000) == b"\xaa" * 500000


def test_snapshots_pickles_and_repetition():
    machine = system(paging=True)
    machine.load(bytes.fromhex("40 a300901000 ebf8"), CODE)
    machine.run(1000)
    saved = machine.snapshot()
    machine.run(777)
    want = machine.registers
    other = pickle.loads(pickle.dumps(machine))
    assert other.registers == want
    machine.restore(saved)
    machine.run(777)
    assert machine.registers == want
    machine.run(5)
    other.run(5)
    assert other.registers == machine.registers


def test_bad_arguments():
    with pytest.raises(InvalidTypeError):
        Machine("1 MiB")
    machine = Machine(1 << 16)
    for values in ({"rax": 1}, {"eax": 1 << 32}, {"cs": (1, 2)}, {"cpl": 4}):
        with pytest.raises(InvalidValueError):
            machine.set(**values)
    with pytest.raises(InvalidValueError):
        machine.run(-1)
    with pytest.raises(InvalidValueError):
        machine.stop_at("nothing")
    with pytest.raises(InvalidTypeError):
        Machine(1 << 16, bus=3)


def test_garbage_never_crashes():
    rng = np.random.default_rng(3)
    for _ in range(300):
        machine = system(paging=bool(rng.integers(2)), user=bool(rng.integers(2)))
        machine.load(rng.integers(256, size=0x1000).astype(np.uint8).tobytes(), CODE)
        machine.load(rng.integers(256, size=0x1000).astype(np.uint8).tobytes(), USER)
        machine.run(2000)
        assert machine.registers.tsc <= 2000
