"""Binary translation: what units are made of, how they are run, and that the guest cannot tell."""

import dataclasses
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyvirt as pv
from pyvirt.errors import InvalidValueError
from pyvirt.validation.generations import bench
from pyvirt.validation.system_programs import make_program
from pyvirt.x86 import guests
from pyvirt.x86.machine import ExitReason, Machine
from pyvirt.x86.monitor import Monitor
from pyvirt.x86.pc import PC
from pyvirt.x86.translation import TranslationUnit
from x86.interp_bus import Bus
from x86.interp_programs import GROUPS
from x86.interp_system import (
    CODE,
    CODE3,
    DATA3,
    DIRECTORY,
    HANDLER,
    STACK3,
    USER,
    system,
    vector_of,
    words,
)
from x86.kernel_expectations import CONSOLE, disk_after
from x86.monitor_programs import compare

SMALL = {"cache_units": 2}
USERS = {"translate_user": True, "trace_threshold": 1}


def translated(code: str, *, at: int = CODE, budget: int = 100_000, **options) -> Monitor:
    """Run code at CPL 0 or 3, up to HLT, natively too; give the monitor of the equal run."""
    ran = []
    how = {name: options.pop(name) for name in ("paging", "user") if name in options}
    for monitored in (False, True):
        machine = system(**how)
        machine.load(bytes.fromhex(code), at)
        runner = Monitor(machine, "translation", **options) if monitored else machine
        found = runner.run(budget)
        ran.append((found, machine.registers, machine.memory.read(0, 1 << 20),
                    int(machine.counters["retired"])))  # fmt: skip
    assert ran[0] == ran[1]
    assert ran[0][0].reason is ExitReason.HALT
    assert isinstance(runner, Monitor)
    return runner


def unit_at(monitor: Monitor, eip: int) -> TranslationUnit:
    return next(unit for unit in monitor.translation_units if unit.eip == eip)


def made_of(code: str, **options) -> list[tuple[str, str]]:
    monitor = translated(code, **options)
    unit = monitor.translation_units[0]
    return [(one.mnemonic, one.made) for one in unit.instructions]


# --- what units are made of ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "first"),
    [
        ("01d8 f4", ("ADD", "identical")), ("8b0500e00000 f4", ("MOV", "identical")),
        ("c1e003 f4", ("SHL", "identical")), ("f3a4 f4", ("MOVS", "identical")),
        ("0fafc3 f4", ("IMUL", "identical")), ("0f94c0 f4", ("SETE", "identical")),
        ("eb00 f4", ("JMP", "direct")), ("7400 f4", ("JE", "direct")),
        ("e800000000 f4", ("CALL", "direct")), ("e200 f4", ("LOOP", "direct")),
        ("fa f4", ("CLI", "inlined")), ("fb f4", ("STI", "inlined")),
        ("9c f4", ("PUSHF", "inlined")), ("0f31 f4", ("RDTSC", "inlined")),
        ("0f20c0 f4", ("MOV from CR", "inlined")), ("8cc8 f4", ("MOV from segment", "inlined")),
        ("1e f4", ("PUSH segment", "inlined")),
        ("0fa2 f4", ("CPUID", "call-out")), ("e680 f4", ("OUT", "call-out")),
        ("e480 f4", ("IN", "call-out")), ("0f010500e00000 f4", ("SGDT", "call-out")),
        ("0f00c8 f4", ("STR", "call-out")), ("0f01e0 f4", ("SMSW", "call-out")),
        ("0f02c3 f4", ("LAR", "call-out")), ("0f06 f4", ("CLTS", "call-out")),
        ("0f22d0 f4", ("MOV to CR", "call-out")), ("0f21c0 f4", ("MOV from DR", "call-out")),
        ("0f013d00003000 f4", ("INVLPG", "call-out")), ("0f09 f4", ("WBINVD", "call-out")),
        ("8ed8 f4", ("MOV to segment", "call-out")), ("f4", ("HLT", "call-out")),
        ("cd20", ("INT", "call-out")), ("cc", ("INT3", "call-out")), ("0f0b", ("UD", "call-out")),
        ("d9e8", ("ESC", "call-out")),
    ],
)  # fmt: skip
def test_kinds_of_translations(code, first):
    assert made_of(code)[0] == first


def test_indirect_control_flow():
    # CALL to RET; JMP through a register, and through memory
    monitor = translated("e80e000000 b80f800000 ffe0 909090909090 f4 c3")
    assert monitor.translation_counts.made["indirect"] == 2
    jump = f"c70500e00000{struct.pack('<I', CODE + 18).hex()} ff2500e00000 9090 f4"
    assert ("JMP", "indirect") in made_of(jump)


def test_far_control_flow_and_iret_leave_the_cache():
    there = struct.pack("<I", CODE + 7).hex()
    assert made_of(f"ea{there}0800 f4") == [("JMP far", "call-out")]
    there = struct.pack("<I", CODE + 8).hex()
    assert made_of(f"6a0868{there}cb f4")[-1] == ("RET far", "call-out")
    there = struct.pack("<I", CODE + 9).hex()
    assert made_of(f"9c6a0868{there}cf f4")[-1] == ("IRET", "call-out")


def test_units_are_at_most_twelve_instructions_and_one_page():
    monitor = translated("90" * 30 + "f4")
    lengths = [len(unit.instructions) for unit in monitor.translation_units]
    assert lengths == [12, 12, 7]
    assert [unit.ends for unit in monitor.translation_units] == ["length", "length", "call-out"]
    assert monitor.translation_counts.lengths == (0,) * 7 + (1,) + (0,) * 4 + (2,)
    at = CODE + 0x1000 - 5
    monitor = translated("e9" + struct.pack("<i", at - CODE - 5).hex() + "90" * 4096 + "f4")
    assert len(unit_at(monitor, at).instructions) == 5


def test_call_outs_in_the_middle_do_not_end_a_unit():
    monitor = translated("40 0fa2 40 e680 40 f4")
    assert len(monitor.translation_units) == 1
    unit = monitor.translation_units[0]
    assert [one.made for one in unit.instructions] == [
        "identical", "call-out", "identical", "call-out", "identical", "call-out"
    ]  # fmt: skip
    assert unit.exits == ()
    assert monitor.counts.booked["translated"] == 3
    assert monitor.counts.booked["vmm"] == 3
    assert "CPUID" in str(unit)


def test_instructions_that_no_unit_can_hold():
    # MOV EAX, 12345678h across the end of a page
    jump = "e9" + struct.pack("<i", 0x1000 - 5 - 3).hex()
    monitor = translated(jump + "90" * (0x1000 - 5 - 3) + "b878563412 f4")
    assert monitor.machine.registers.eax == 0x12345678
    assert monitor.translation_counts.lone == 1


# --- how they run -------------------------------------------------------------------------------

LOOP = "b9e8030000 01c8 31c2 49 75f9 f4"  # 1,000 turns of ADD XOR DEC JNZ


def test_loops_are_chained():
    monitor = translated(LOOP)
    counts = monitor.translation_counts
    loop = unit_at(monitor, CODE + 5)
    assert loop.runs == 999  # the first turn belongs to the unit before
    assert loop.exits == ((CODE + 5, True), (CODE + 12, True))
    assert counts.transfers == 2 + 1  # into the loop, to itself, out of it
    assert counts.chained == 999 - 2
    assert (counts.evictions, counts.invalidations, counts.unchained) == (0, 0, 0)
    booked = monitor.counts.booked
    assert booked["translated"] == 1 + 4 * 1000
    assert booked["vmm"] == 1  # HLT


def test_the_indirect_branch_cache():
    # 100 calls of a routine, from two places in turn
    monitor = translated("b932000000 e80a000000 90 e804000000 49 75f2 f4 c3")
    counts = monitor.translation_counts
    assert counts.hits + counts.misses == 100
    assert counts.misses == 2
    assert monitor.counts.events["call_return"] == 100


@pytest.mark.parametrize("capacity", [1, 2, 3, 7])
def test_a_small_cache(capacity):
    code = "b964000000" + "40 eb00 43 eb00 42 eb00 46 eb00" + "49 75f1 f4"
    monitor = translated(code, cache_units=capacity)
    counts = monitor.translation_counts
    assert monitor.machine.registers.ebx == 100
    assert len(monitor.translation_units) == counts.live <= counts.capacity == capacity
    assert counts.evictions == counts.units - counts.live
    if capacity < 5:
        assert counts.evictions > 400  # in turn, each makes room for the next but few
    else:
        assert counts.evictions == 0


def test_the_oldest_unit_goes_first():
    monitor = translated("eb00 eb00 eb00 eb00 eb00 f4", cache_units=3)
    assert [unit.order for unit in monitor.translation_units] == [4, 5, 6]
    assert [unit.eip for unit in monitor.translation_units] == [CODE + 6, CODE + 8, CODE + 10]
    # nothing that leads to a unit that went is left
    assert [unit.exits[0][1] for unit in monitor.translation_units[:2]] == [True, True]


def test_code_that_changes_itself():
    # the immediate of the MOV behind, in the same unit, 100 times: 99 + ... + 0 in EAX
    code = "31c0 b964000000 890d 0e800000 bb00000000 01d8 49 75f0 f4"
    code = code.replace("0e800000", struct.pack("<I", CODE + 14).hex())
    monitor = translated(code)
    assert monitor.machine.registers.eax == 5050
    assert monitor.translation_counts.invalidations >= 100
    assert monitor.translation_counts.unchained > 0


def test_code_that_user_code_changes():
    # CPL 3 writes INC EAX over the first NOP of a handler that has run before
    machine_code = f"cd20 c605{struct.pack('<I', HANDLER + 0x200).hex()}40 31c0 cd20 0f0b"
    results = []
    for monitored in (False, True):
        machine = system(user=True)
        machine.load(b"\x90\xcf", HANDLER + 0x200)
        machine.load(bytes.fromhex(machine_code), USER)
        (Monitor(machine, "translation") if monitored else machine).run(1000)
        assert vector_of(machine) == 6
        results.append(machine.registers)
    assert results[0].eax == 1
    assert results[0] == results[1]


def test_writes_to_memory_from_outside():
    machine = system()
    machine.load(bytes.fromhex("b801000000 ebfe"), CODE)
    monitor = Monitor(machine, "translation")
    monitor.run(10)
    machine.load(bytes.fromhex("b802000000 ebfe"), CODE)
    machine.set(eip=CODE)
    monitor.run(10)
    assert machine.registers.eax == 2
    assert monitor.translation_counts.flushes >= 1


def test_the_same_address_in_two_address_spaces():
    # page 9 of one directory is page 10 of the other; both have code, which adds another number
    directory, table = 0x20000, 0x21000
    ran = []
    for monitored in (False, True):
        machine = system(paging=True)
        entries = [page << 12 | 7 for page in range(1024)]
        entries[9] = 10 << 12 | 7
        machine.load(struct.pack("<1024I", *entries), table)
        machine.load(struct.pack("<I", table | 7), directory)
        machine.load(bytes.fromhex("83c001 c3"), 0x9000)
        machine.load(bytes.fromhex("83c064 c3"), 0xA000)
        turn = "e8f30f0000ba00000200 0f22dae8e60f0000ba00400000 0f22da49 75dd"
        machine.load(bytes.fromhex("31c0 b90a000000 909090 909090" + turn + "f4"), CODE)
        calls = [i for i in range(48) if machine.memory.read_u8(CODE + i) == 0xE8]
        for at in calls:
            machine.load(struct.pack("<i", 0x9000 - (CODE + at + 5)), CODE + at + 1)
        runner = Monitor(machine, "translation") if monitored else machine
        assert runner.run(10_000).reason is ExitReason.HALT
        ran.append(machine.registers)
    assert ran[0] == ran[1]
    assert ran[0].eax == 10 * 101
    assert isinstance(runner, Monitor)
    assert len([unit for unit in runner.translation_units if unit.eip == 0x9000]) == 2
    assert runner.counts.events["context_switch"] == 20


def test_a_guest_with_pae():
    # 20 times another page at 1 MiB, through CR3 or INVLPG, with its content added up
    root, directory, table = 0x40000, 0x41000, 0x42000
    ends = []
    for options in (None, {}, {"paging": "nested"}, USERS):
        machine = system()
        machine.load(struct.pack("<4Q", directory | 1, 0, 0, 0), root)
        machine.load(struct.pack("<2Q", table | 7, (2 << 20) | 0x87), directory)
        machine.load(struct.pack("<512Q", *(page << 12 | 7 for page in range(512))), table)
        for page in range(32):
            machine.load(struct.pack("<I", page * page), 0x200000 + 4096 * page)
        code = "b914000000 31db 89c8 c1e00c 0507002000 a300280400 0f013d00001000 031d00001000"
        code += "0f20d8 0f22d8 c1e30031d2 49 75df f4"
        text = bytes.fromhex(code)
        text = text[:-2] + bytes([256 - (len(text) - 1 - 7)]) + text[-1:]
        machine.load(text, CODE)
        machine.set(cr4=0x20, cr3=root, cr0=0x80000011)
        runner = machine if options is None else Monitor(machine, "translation", **options)
        found = runner.run(10_000)
        assert found.reason is ExitReason.HALT
        ends.append((found, machine.registers, machine.memory.read(0, 1 << 20)))
    assert ends[0] == ends[1] == ends[2] == ends[3]
    assert ends[0][1].ebx == sum(page * page for page in range(1, 21))


def test_sixteen_bit_code_and_a_start_in_real_mode():
    # LGDT, CR0.PE, far jump to 32-bit code, data segments
    gdt = struct.pack("<3Q", 0, 0x00CF9A000000FFFF, 0x00CF92000000FFFF)
    ran = []
    for monitored in (False, True):
        machine = Machine(1 << 20)
        machine.load(gdt, 0x800)
        machine.load(struct.pack("<HI", 23, 0x800), 0x900)
        start = "fa 0f01160009 0f20c0 0c01 0f22c0 bb0500 01db ea207c0800"
        machine.load(bytes.fromhex(start), 0x7C00)
        machine.load(bytes.fromhex("66b81000 8ed8 8ed0 b92c010000 01cb 49 75fb f4"), 0x7C20)
        machine.set(cs=(0, 0, 0xFFFF, 0x93), eip=0x7C00)
        runner = Monitor(machine, "translation") if monitored else machine
        assert runner.run(10_000).reason is ExitReason.HALT
        ran.append(machine.registers)
    assert ran[0] == ran[1]
    assert ran[0].ebx == 10 + sum(range(301))
    assert isinstance(runner, Monitor)
    assert runner.counts.booked["translated"] > 800


# --- flags, interrupts, exceptions --------------------------------------------------------------


@given(
    flags=st.integers(0, (1 << 22) - 1), before=st.integers(0, (1 << 22) - 1), wide=st.booleans()
)
def test_flags_that_are_inlined(flags, before, wide):
    prefix = "" if wide else "66"
    code = f"68{struct.pack('<I', before & ~0x24100).hex()} 9d"
    code += f"68{struct.pack('<I', flags & ~0x24100).hex()} {prefix}9d"
    code += f"{prefix}9c 9c fa 9c fb 90 9c fa f4"
    monitor = translated(code)
    assert monitor.counts.events["interrupt_flag"] == 9


def with_timer(code: str, period: int, monitored: bool, **options):
    """Run code with a timer whose handler counts; give all that can be seen."""
    bus = Bus(period=period)
    plain = system()
    machine = Machine(plain.memory, bus.capsule)
    machine.registers = plain.registers
    machine.load(bytes.fromhex("ff0500e00000 cf"), HANDLER + 0x200)
    machine.load(bytes.fromhex(code), CODE)
    runner = Monitor(machine, "translation", **options) if monitored else machine
    found = runner.run(3000)
    return (found, machine.registers, bus.acknowledged, bus.writes, words(machine, 0xE000, 1),
            machine.memory.read(0x6000, 0x1000))  # fmt: skip


CLOSED = "fb fa 43 ebfb"  # STI keeps the interrupt off until CLI does


@pytest.mark.parametrize(
    "code",
    [
        "fb 01c8 31c2 43 46 47 ebf5", "fb 90 fa 90 ebfa", CLOSED, "fb 43 9c fa 43 9d ebf8",
        "6802020000 9d 43 ebf7", "fb fb 43 9090 fa ebf7", "fb f4 43 fa ebfa", "fb e680 43 fa ebf9",
        "fb 16 17 43 9d 9c ebf8", "fb 8ed0 43 ebfa", "9c 58 0d00020000 50 9d 43 fa ebf3",
    ],
)  # fmt: skip
def test_interrupts_come_at_the_same_instruction(code):
    code = code.replace("8ed0", "66b81000 8ed0")
    for period in (7, 10, 13, 29, 100):
        native = with_timer(code, period, False)
        assert bool(native[2]) == (code != CLOSED)
        for options in ({}, SMALL):
            assert with_timer(code, period, True, **options) == native


def test_interrupts_do_not_fill_the_cache():
    bus = Bus(period=7)
    plain = system()
    machine = Machine(plain.memory, bus.capsule)
    machine.registers = plain.registers
    machine.load(b"\xcf", HANDLER + 0x200)
    machine.load(bytes.fromhex("fb 4043464740 4043464740 ebf4"), CODE)
    monitor = Monitor(machine, "translation")
    monitor.run(20_000)
    assert monitor.counts.events["interrupt"] > 1000
    # where a unit was interrupted it is entered again
    assert monitor.translation_counts.units < 6


@pytest.mark.parametrize(
    ("fault", "vector"),
    [("f7f1", 0), ("0f0b", 6), ("8b0500004000", 14), ("c70500004000 00000000", 14), ("9b", 7),
     ("622d00e00000", 5), ("268b0500ffffff", 13), ("cf", 13), ("0f32", 13), ("8ed9", 13)],
)  # fmt: skip
def test_exceptions_in_the_middle_of_a_unit(fault, vector):
    start = "b9ffff0000 268bd1 31c9 40 43"
    if vector == 7:
        start = "0f20c0 83c80a 0f22c0 31c9 40"
    elif vector == 5:
        start = "bdffffff7f 40 43"
    elif fault == "268b0500ffffff":
        # ES with a limit
        start = "b830000000 8ec0 40 43"
    elif fault == "0f32" or fault == "8ed9":
        start = "b905000000 43"
    monitor = translated(start + fault + "4b 48 f4", paging=True)
    assert vector_of(monitor.machine) == vector
    pushed = words(monitor.machine, monitor.machine.registers.esp, 4)
    coded = vector in (13, 14)
    at = CODE + len(bytes.fromhex(start))
    assert pushed[coded] == at or fault == "cf"


def test_single_steps():
    # the handler of #DB counts, and its IRET goes on stepping
    ran = []
    for monitored in (False, True):
        machine = system()
        machine.load(bytes.fromhex("ff0500e00000 cf"), HANDLER + 16)
        code = "9c 812c24 00000000 810c2400010000 9d 40 43 eb00 9c 58 812424fffeffff 9090 f4"
        machine.load(bytes.fromhex(code), CODE)
        runner = Monitor(machine, "translation") if monitored else machine
        runner.run(200)
        ran.append((machine.registers, words(machine, 0xE000, 1)))
    assert ran[0] == ran[1]
    assert ran[0][1][0] > 5


def test_triple_faults_and_wild_jumps():
    for code in ("0f011d00e00000 0f0b", "b8000080ff ffe0", "bc00000050 50", "68ffffffff c3"):
        ends = []
        for monitored in (False, True):
            machine = system(paging=False)
            machine.load(bytes.fromhex(code), CODE)
            runner = Monitor(machine, "translation") if monitored else machine
            ends.append((runner.run(1000), machine.registers))
        assert ends[0] == ends[1]


# --- user code ----------------------------------------------------------------------------------


def user_program(monitored: bool, **options) -> tuple:
    """CPL 0 enters CPL 3, which computes and comes back by INT, ten times."""
    machine = system(paging=True)
    # the handler of vector 20h drops its frame, and enters again until EBP is 0
    back = struct.pack("<i", CODE + 5 - (HANDLER + 0x200 + 11)).hex()
    machine.load(bytes.fromhex(f"83c414 4d 7405 e9{back} f4"), HANDLER + 0x200)
    enter = f"6a{DATA3:02x} 68{struct.pack('<I', STACK3).hex()} 6802020000 6a{CODE3:02x}"
    enter += f" 68{struct.pack('<I', USER).hex()} cf"
    machine.load(bytes.fromhex("bd0a000000" + enter), CODE)
    machine.load(bytes.fromhex("b964000000 01c8 31c2 49 75f9 9c 58 cd20"), USER)
    runner = Monitor(machine, "translation", **options) if monitored else machine
    found = runner.run(100_000)
    return found, machine.registers, machine.memory.read(0, 1 << 20), runner


def test_user_code_runs_as_it_stands_or_out_of_the_cache():
    native = user_program(False)
    direct = user_program(True)
    cached = user_program(True, translate_user=True)
    assert native[:3] == direct[:3] == cached[:3]
    assert native[0].reason is ExitReason.HALT
    booked = [one[3].counts.booked for one in (direct, cached)]
    turns = 10 * (1 + 400 + 2)
    assert booked[0]["direct"] == turns
    assert booked[1]["direct"] == 0
    assert booked[1]["translated"] > 4000
    for one in (direct, cached):
        counts = one[3].counts
        assert sum(counts.booked.values()) == counts.instructions
        assert counts.events["syscall"] == 10
    assert {unit.ring for unit in direct[3].translation_units} == {0}
    assert {unit.ring for unit in cached[3].translation_units} == {0, 3}


# --- adaptive retranslation ---------------------------------------------------------------------

# 100 times: another entry of the page table, INVLPG, and a read through it
UPDATES = "b964000000 89c8 c1e00c 0d03000000 a300540000 0f013d00001000 8b1d00001000 49 75e1 f4"


def updates(**options) -> Monitor:
    rules = dataclasses.asdict(pv.ShadowRules(unsync=False, flood_limit=0))
    return translated(UPDATES, paging=True, rules=rules, **options)


def test_writers_of_page_tables_are_retranslated():
    for threshold in (1, 4, 60):
        monitor = updates(trace_threshold=threshold)
        counts, events = monitor.translation_counts, monitor.counts.events
        # the first turn belongs to the unit before the loop's
        assert counts.traces == threshold + 1
        assert counts.retranslations == (2 if threshold == 1 else 1)
        assert counts.made["traced"] == counts.retranslations
        assert counts.traces + events["page_table_update"] == 100
        traced = [one for unit in monitor.translation_units for one in unit.instructions
                  if one.made == "traced"]  # fmt: skip
        assert {one.mnemonic for one in traced} == {"MOV"}


def test_without_adaptation_each_write_faults():
    monitor = updates(trace_threshold=0)
    counts = monitor.translation_counts
    assert (counts.traces, counts.retranslations) == (100, 0)
    assert monitor.counts.events["page_table_update"] == 0
    assert monitor.counts.events["hidden_fault"] >= 100


def test_a_retranslated_write_faults_as_before():
    # the loop's store goes to the page table 20 times, then to a page that is not there
    code = "bd00540000 b914000000 c7450000000000 83f901 7505 bd00004000 49 79ec f4"
    monitor = translated(code, paging=True, trace_threshold=2)
    assert vector_of(monitor.machine) == 14
    assert monitor.machine.registers.cr2 == 0x400000


# --- random programs ----------------------------------------------------------------------------


@given(
    seed=st.integers(0, 1 << 32), length=st.integers(1, 60), capacity=st.integers(1, 20),
    paging=st.booleans(),
)  # fmt: skip
def test_random_computation(seed, length, capacity, paging):
    rng = np.random.default_rng(seed)
    names = list(GROUPS)
    text = b"".join(GROUPS[str(rng.choice(names))](rng)[0] for _ in range(length))
    registers = rng.integers(1 << 32, size=7)
    memory = rng.integers(256, size=0x4000, dtype=np.uint8).tobytes()
    ends = []
    for options in (None, {}, {"cache_units": capacity}, {"paging": "nested"}):
        machine = system(paging=paging)
        # the programs' data lie at 4000h, where the directory would be: it goes elsewhere
        machine.load(machine.memory.read(DIRECTORY, 0x2000), 0x40000)
        machine.load(struct.pack("<I", 0x41007), 0x40000)
        machine.load(memory, 0x3800)
        machine.load(text + b"\xf4", 0x20000)
        names_of = ("eax", "ecx", "edx", "ebx", "ebp", "esi", "edi")
        machine.set(eip=0x20000, esp=0x6800, cr3=0x40000)
        machine.set(**{name: int(v) for name, v in zip(names_of, registers, strict=True)})
        runner = machine if options is None else Monitor(machine, "translation", **options)
        found = runner.run(5000)
        ends.append((found, machine.registers, machine.memory.read(0, 1 << 20)))
    assert ends[0] == ends[1] == ends[2] == ends[3]


@given(seed=st.integers(0, 1 << 32))
def test_random_system_programs(seed):
    program = make_program(np.random.default_rng(seed))
    wanted = bench().ending(program)
    for options in ({}, SMALL, USERS):
        assert bench("translation", **options).ending(program) == wanted


@pytest.mark.parametrize(
    "options", [{}, {"cache_units": 2, "paging": "nested"}, {"cache_units": 30, **USERS}]
)
def test_tables_that_change_under_a_timer(options):
    for seed in range(25):
        found, monitor, _ = compare(seed, "translation", 3000, **options)
        assert found == [], seed
        counts = monitor.counts
        assert sum(counts.booked.values()) == counts.instructions
        assert counts.booked["direct"] >= 0


SENSITIVE = [
    b"\xfa", b"\xfb", b"\x9c", b"\x9d", b"\x0f\x22", b"\x0f\x20", b"\x8e", b"\xcf", b"\xcb",
    b"\x0f\x01", b"\x0f\x00", b"\xcd", b"\xf3\xab", b"\xea", b"\xc3", b"\xff", b"\x66", b"\x67",
]  # fmt: skip


def wild(rng: np.random.Generator) -> bytes:
    """Bytes at random, with beginnings of sensitive instructions among them."""
    code = bytearray(rng.bytes(2048))
    for at in range(0, 2000, int(rng.integers(8, 60))):
        one = SENSITIVE[int(rng.integers(len(SENSITIVE)))]
        code[at : at + len(one)] = one
    return bytes(code)


def entries_of(machine: Machine) -> np.ndarray:
    """The page tables, but for accessed and dirty bits."""
    raw = machine.memory.read(DIRECTORY, 0x2000)
    return np.frombuffer(raw, "<u4") & np.uint32(0xFFFFFF9F)


def test_bytes_at_random():
    places = [0, 1, 0x8000, 0x4000, 0x5004, 0x1008, 0x2010, 0x80010011, 0x11]
    compared = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        how = {"paging": bool(rng.integers(2)), "user": bool(rng.integers(2))}
        code = wild(rng)
        registers = {
            name: int(rng.choice([*places, int(rng.integers(1 << 32))]))
            for name in ("eax", "ecx", "edx", "ebx", "ebp", "esi", "edi")
        }
        ends, tables = [], []
        for options in (None, {}, {"cache_units": 2, "translate_user": True}):
            machine = system(**how)
            tables.append(entries_of(machine))
            machine.load(code, USER if how["user"] else CODE)
            machine.set(**registers)
            runner = machine if options is None else Monitor(machine, "translation", **options)
            found = runner.run(3000)
            tables.append(entries_of(machine))
            ends.append((found, machine.registers, machine.memory.read(0, 1 << 22)))
        if how["paging"] and any((one != tables[0]).any() for one in tables):
            continue  # until INVLPG an entry that changed may count, or what it was before
        compared += 1
        assert ends[0] == ends[1] == ends[2], seed
    assert compared > 120


def test_the_comparison_sees_a_difference():
    program = make_program(np.random.default_rng(3))
    changed = dataclasses.replace(program, kernel=b"\x43" + program.kernel[:-1])
    assert bench().ending(program) != bench("translation").ending(changed)


@pytest.mark.slow
def test_many_random_programs():
    for seed in range(1000, 2500):
        for options in ({}, {"cache_units": 3}, USERS):
            assert compare(seed, "translation", 3000, **options)[0] == [], seed


# --- the guest kernel ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def native_kernel() -> PC:
    pc = PC(disk=guests.kernel_disk())
    pc.boot(guests.kernel_image())
    pc.run()
    return pc


@pytest.mark.parametrize(
    "options",
    [{}, {"paging": "nested"}, {"cache_units": 16}, USERS,
     {"rules": dataclasses.asdict(pv.ShadowRules())}],
)  # fmt: skip
def test_the_guest_kernel(native_kernel, options):
    pc = PC(disk=guests.kernel_disk(), technique="translation", monitor=options)
    pc.boot(guests.kernel_image())
    ending = pc.run()
    assert (ending.why, ending.exit_value) == ("exit", 16)
    assert pc.board.output == CONSOLE
    assert pc.board.disk.tobytes() == disk_after(guests.kernel_disk())
    assert pc.machine.registers == native_kernel.machine.registers
    memory = (one.machine.memory.read(0, one.machine.memory.end) for one in (pc, native_kernel))
    assert next(memory) == next(memory)
    assert isinstance(pc.monitor, Monitor)
    counts = pc.monitor.counts
    assert sum(counts.booked.values()) == counts.instructions == ending.instructions
    assert counts.events["syscall"] > 500
    assert counts.events["translation_unit"] >= pc.monitor.translation_counts.units


def test_a_run_in_parts(native_kernel):
    pc = PC(disk=guests.kernel_disk(), technique="translation")
    pc.boot(guests.kernel_image())
    rng = np.random.default_rng(5)
    while pc.run(int(rng.integers(1, 10**5))).why == "budget":
        pass
    assert pc.machine.registers == native_kernel.machine.registers
    assert pc.board.output == CONSOLE


# --- arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [({"cache_units": 0}, "units"), ({"cache_units": (1 << 20) + 1}, "units"),
     ({"trace_threshold": 256}, "threshold"), ({"trace_threshold": -1}, "threshold"),
     ({"paging": "direct"}, "paging")],
)  # fmt: skip
def test_arguments_that_do_not_fit(options, text):
    machine = system()
    with pytest.raises(InvalidValueError, match=text):
        Monitor(machine, "translation", **options)
    Monitor(machine, "translation")  # it can still be had


def test_only_translation_has_a_cache():
    monitor = Monitor(system(), "hardware")
    with pytest.raises(InvalidValueError, match="code cache"):
        _ = monitor.translation_units


def test_counts_begin_anew():
    machine = system()
    machine.load(bytes.fromhex("40 ebfd"), CODE)
    monitor = Monitor(machine, "translation")
    monitor.run(100)
    assert monitor.translation_counts.runs == 50
    monitor.forget()
    assert monitor.translation_counts.runs == monitor.translation_counts.units == 0
    monitor.run(100)
    assert (monitor.translation_counts.runs, monitor.translation_counts.live) == (50, 1)


def test_a_unit_can_be_read():
    assert str(unit_at(translated(LOOP), CODE + 5)).splitlines() == [
        "00008005 ring 0, 999 runs, ends: direct",
        "  00008005  ADD               identical",
        "  00008007  XOR               identical",
        "  00008009  DEC               identical",
        "  0000800a  JNE               direct",
        "  to 00008005, chained",
        "  to 0000800c, chained",
    ]
