"""Hardware assistance: what exits and why, what does not, and that the guest cannot tell."""

import dataclasses
import struct

import numpy as np
import pytest

import pyvirt as pv
from pyvirt._core.devices.owner import Board
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.validation.generations import bench, benches
from pyvirt.validation.system_programs import make_program
from pyvirt.x86 import guests, monitor
from pyvirt.x86.machine import ExitReason, Machine
from pyvirt.x86.monitor import Monitor
from pyvirt.x86.pc import PC
from x86.interp_system import CODE, DIRECTORY, HANDLER, TABLE, USER, system, vector_of

PAGINGS = ("nested", "shadow")


def exits_of(code: str, *, paging: str = "nested", user: bool = False, **options):
    """Run code up to HLT in the handler of its last INT 20h; give the exits by name."""
    machine = system(paging=True, user=user)
    machine.load(bytes.fromhex(code) + b"\xcd\x20", USER if user else CODE)
    watched = Monitor(machine, "hardware", paging=paging, **options)
    assert watched.run(10_000).reason is ExitReason.HALT
    names = watched.counts.exit_names
    assert names.pop("HLT") == 1
    return vector_of(machine), {
        name: count for name, count in names.items() if name not in ("EPT violation", "exception")
    }


@pytest.mark.parametrize(
    ("code", "reason"),
    [("0fa2", "CPUID"), ("e680", "I/O"), ("e480", "I/O"), ("0f20c00f22c0", "CR access"),
     ("0f20e00f22e0", "CR access"), ("0f09", "WBINVD"), ("0f08", "INVD"),
     ("b9100000000f32", "RDMSR"), ("b910000000" "31c031d20f30", "WRMSR"),
     ("b8090000000f01f0", "CR access")],
)  # fmt: skip
def test_exits_by_reason(code, reason):
    for paging in PAGINGS:
        assert exits_of(code, paging=paging) == (0x20, {reason: 1})


@pytest.mark.parametrize(
    "code",
    ["fb90fa", "9c9d", "0f010500020100", "0f06", "0f20d0", "0f31", "8cc8", "0f20c0", "16 07",
     "6a0868" "14800000" "cb"],
)  # fmt: skip
def test_the_guests_own_business_does_not_exit(code):
    code = code.replace(" ", "")
    if code.startswith("6a08"):  # RETF to what follows
        code = "6a0868" + struct.pack("<I", CODE + 8).hex() + "cb"
    assert exits_of(code) == (0x20, {})


def test_shadow_paging_watches_cr3_and_invlpg():
    for code, reason in (("0f20d8", 1), ("0f20d80f22d8", 2), ("0f013d00003000", 1)):
        assert exits_of(code) == (0x20, {})
        _, exits = exits_of(code, paging="shadow")
        assert sum(exits.values()) == reason


def test_a_faulting_instruction_does_not_exit():
    for code in ("0f22c0", "0f09", "e680", "0f32", "f4"):
        vector, exits = exits_of(code, user=True)
        assert (vector, exits) == (13, {})
    # CPUID exits at any privilege
    assert exits_of("0fa2", user=True) == (0x20, {"CPUID": 1})


def test_further_exits_are_asked_for():
    assert exits_of("0f31", exits=["rdtsc"]) == (0x20, {"RDTSC": 1})
    assert exits_of("0f21c0", exits=["dr"]) == (0x20, {"DR access": 1})
    store = {"GDTR or IDTR access": 1}
    assert exits_of("0f010500020100", exits=["table_store"]) == (0x20, store)


def test_ports_of_the_guests_own():
    assert exits_of("e680", pass_through=[0x80]) == (0x20, {})
    assert exits_of("e780", pass_through=[0x80, 0x81, 0x82]) == (0x20, {"I/O": 1})
    assert exits_of("e780", pass_through=range(0x80, 0x84)) == (0x20, {})
    # an access that wraps around exits
    assert exits_of("66baffff66ed", pass_through=range(1 << 16)) == (0x20, {"I/O": 1})


def test_exceptions_by_the_bitmap_are_injected():
    machine = system(user=True)
    machine.load(bytes.fromhex("0f0b"), USER)
    watched = Monitor(machine, "hardware", exceptions=[6])
    assert watched.run(1000).reason is ExitReason.HALT
    assert vector_of(machine) == 6
    assert watched.counts.exits[0] == 1
    assert watched.counts.events["exception"] == 1


def test_neighbours_share_an_exit():
    code = "e680 90 e680 9090 0fa2"
    _, alone = exits_of(code.replace(" ", ""))
    assert alone == {"I/O": 2, "CPUID": 1}
    machine = system(paging=True)
    machine.load(bytes.fromhex(code) + b"\xcd\x20", CODE)
    watched = Monitor(machine, "hardware", cluster=8)
    watched.run(1000)
    counts = watched.counts
    # the last instruction of the block, INT, is far from the next that exits
    assert counts.exit_names["I/O"] == 1
    assert "CPUID" not in counts.exit_names
    assert counts.clustered == 2
    assert counts.booked["vmm"] == 3 + 3 + 1  # with the NOPs between, and HLT


def test_who_executed_what():
    machine = PC(disk=bytes(512), technique="hardware").machine
    assert isinstance(machine, Machine)
    board = Board(bytes(512))
    machine = Machine(1 << 20, board.bus_capsule)
    # the 8259A's mask, the disk's status, the serial port, and a computation
    machine.load(bytes.fromhex("e421 66baf701ec 66bafd03ec 40 f4".replace("66ba", "ba")), 0x7C00)
    machine.set(cs=(0, 0, 0xFFFF, 0x93), eip=0x7C00)
    watched = Monitor(machine, "hardware")
    assert watched.run(100).reason is ExitReason.HALT
    assert watched.counts.booked == {
        "direct": 3, "translated": 0, "vmm": 2, "vmkernel": 1, "device": 1,
    }  # fmt: skip


def test_violations_are_one_for_each_page_that_is_touched():
    machine = system(paging=True)
    # 16 pages, read and then written
    loop = "b910000000 be00001000 8b06 8906 81c600100000 49 75f3 cd20"
    machine.load(bytes.fromhex(loop), CODE)
    watched = Monitor(machine, "hardware")
    watched.run(1000)
    first = watched.counts.exit_names["EPT violation"]
    # code, handler, descriptors, stack, directory and table, beside the sixteen
    assert 16 + 5 <= first <= 16 + 8
    watched.forget()
    machine.set(eip=CODE, halted=False)
    watched.run(1000)
    assert "EPT violation" not in watched.counts.exit_names


def test_shadow_tables_follow_what_others_write():
    """Memory that is written from outside while the guest does not run is seen."""
    machine = system(paging=True)
    machine.load(bytes.fromhex("a100003000 cd20"), CODE)
    machine.memory.write_u32(0x300000, 111)
    machine.memory.write_u32(0x301000, 222)
    watched = Monitor(machine, "hardware", paging="shadow")
    watched.run(1000)
    assert machine.registers.eax == 111
    machine.memory.write_u32(TABLE + 4 * 0x300, 0x301007)
    machine.set(eip=CODE, halted=False)
    watched.run(1000)
    assert machine.registers.eax == 222


def test_registers_set_from_outside_are_the_guests():
    machine = system(paging=True)
    machine.load(bytes.fromhex("a100003000 cd20"), CODE)
    machine.memory.write_u32(0x301000, 222)
    machine.memory.write(0x3F0000, machine.memory.read(DIRECTORY, 4096))
    machine.memory.write(0x3F1000, machine.memory.read(TABLE, 4096))
    machine.memory.write_u32(0x3F0000, 0x3F1007)
    machine.memory.write_u32(0x3F1000 + 4 * 0x300, 0x301007)
    watched = Monitor(machine, "hardware", paging="shadow")
    watched.run(1000)
    assert machine.registers.eax == 0
    machine.set(cr3=0x3F0000, eip=CODE, halted=False)
    watched.run(1000)
    assert machine.registers.eax == 222


@pytest.mark.parametrize("paging", PAGINGS)
def test_tables_outside_memory_fault_as_natively(paging):
    found = []
    for monitored in (False, True):
        machine = system(paging=True)
        machine.memory.write_u32(DIRECTORY + 4, 0x7FFFF007)
        machine.load(bytes.fromhex("a100004000"), CODE)
        runner = Monitor(machine, "hardware", paging=paging) if monitored else machine
        assert runner.run(1000).reason is ExitReason.HALT
        found.append((machine.registers, machine.memory.read(HANDLER - 0x4000, 0x4000)))
        machine = system(paging=True)
        machine.load(bytes.fromhex("b800f0ff7f 0f22d8"), CODE)
        runner = Monitor(machine, "hardware", paging=paging) if monitored else machine
        assert runner.run(1000).reason is ExitReason.TRIPLE_FAULT
        found.append(machine.registers)
    assert found[0][0] == found[2][0]
    assert bytes(found[0][1]) == bytes(found[2][1])
    assert found[1] == found[3]


@pytest.mark.parametrize("paging", PAGINGS)
def test_pae_and_back(paging):
    """A guest changes the format of its tables: the monitor changes tables with it."""
    found = []
    for monitored in (False, True):
        machine = system(paging=True)
        machine.memory.write(0x200000, struct.pack("<Q", 0x201001))
        machine.memory.write(0x201000, struct.pack("<2Q", 0x83, 0x83))  # the same 2 MiB twice
        code = "0f20c025ffffff7f0f22c0 0f20e083c8200f22e0 b8000020000f22d8"
        code += "0f20c00d000000800f22c0 eb00 a100002f00 a304002f00 cd20"
        machine.memory.write_u32(0xF0000, 77)
        machine.load(bytes.fromhex(code), CODE)
        runner = Monitor(machine, "hardware", paging=paging) if monitored else machine
        assert runner.run(1000).reason is ExitReason.HALT
        assert vector_of(machine) == 0x20
        assert machine.memory.read_u32(0xF0004) == 77
        found.append(machine.registers)
    assert found[0] == found[1]


@pytest.mark.parametrize("seed", range(4))
def test_programs_of_all_kinds(seed):
    native = bench()
    others = benches()
    for i in range(60):
        program = make_program(np.random.default_rng([seed, i, 2006]))
        wanted = native.ending(program)
        for other in others:
            assert other.ending(program) == wanted, (i, other.name, program.operations)


def test_the_comparison_sees_a_difference():
    native, other = bench(), bench("hardware")
    program = make_program(np.random.default_rng(5))
    changed = dataclasses.replace(
        program, kernel=program.kernel.replace(b"\xb0\x10\xe6\xf4", b"\xb0\x11\xe6\xf4")
    )
    assert changed != program
    assert native.ending(program) != other.ending(changed)


@pytest.mark.parametrize(
    "options", [{}, {"paging": "shadow"}, {"cluster": 16}, {"large_pages": True}]
)
def test_the_guest_kernel_cannot_tell(options):
    found = []
    for technique, monitor_options in (("native", None), ("hardware", options)):
        pc = PC(disk=guests.kernel_disk(), technique=technique, monitor=monitor_options)
        pc.boot(guests.kernel_image())
        ending = pc.run()
        assert ending.exit_value == 16
        found.append((ending, pc.console, bytes(pc.board.disk), pc.machine.registers))
    assert found[0] == found[1]


def test_shadow_paging_exits_where_nested_paging_does_not():
    names = {}
    for paging in PAGINGS:
        pc = PC(disk=guests.kernel_disk(), technique="hardware", monitor={"paging": paging})
        pc.boot(guests.kernel_image())
        pc.run()
        assert pc.monitor is not None
        names[paging] = pc.monitor.counts.exit_names
        assert pc.monitor.paging_counts[0]["x_pf" if paging == "shadow" else "x_npf"][0] > 100
    nested, shadow = names["nested"], names["shadow"]
    for same in ("I/O", "HLT", "external interrupt", "interrupt window"):
        assert nested[same] == shadow[same]
    assert "EPT violation" not in shadow
    assert nested.keys() & {"exception", "INVLPG"} == set()
    assert shadow["CR access"] > 10 * nested["CR access"]


def test_rules_are_those_of_the_mmu():
    assert dataclasses.asdict(pv.ShadowRules()) == monitor._KVM
    machine = system(paging=True)
    machine.load(bytes.fromhex("c705005c000007103000 0f013d00003000 a100003000 cd20"), CODE)
    rules = dataclasses.asdict(pv.ShadowRules.policy("trace"))
    watched = Monitor(machine, "hardware", paging="shadow", rules=rules, page_limit=64)
    watched.run(1000)
    assert watched.counts.events["page_table_update"] == 1


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [(("magic",), {}, "technique must be one of"), (("hardware",), {"paging": "direct"}, "paging"),
     (("hardware",), {"exits": ["hlt"]}, "exits must be of"),
     (("hardware",), {"exceptions": [32]}, "exceptions"),
     (("hardware",), {"pass_through": [1 << 16]}, "pass_through"),
     (("hardware",), {"cluster": 65}, "cluster"),
     (("hardware",), {"paging": "shadow", "rules": {"x": 1}}, "rules"),
     (("hardware",), {"paging": "shadow", "page_limit": 3}, "page_limit")],
)  # fmt: skip
def test_arguments_that_do_not_fit(arguments, options, text):
    machine = system()
    with pytest.raises(InvalidValueError, match=text):
        Monitor(machine, *arguments, **options)
    Monitor(machine, "hardware")  # it can still be had


def test_one_monitor_a_machine():
    machine = system()
    first = Monitor(machine, "hardware")
    with pytest.raises(InvalidValueError, match="a monitor already"):
        Monitor(machine, "hardware")
    machine.restore(machine.snapshot())
    with pytest.raises(InvalidValueError, match="restored"):
        first.run(1)
    with pytest.raises(InvalidTypeError):
        Monitor(None, "hardware")  # type: ignore[arg-type]
    del first
    Monitor(machine, "hardware")


def test_a_native_machine_takes_no_arguments_of_a_monitor():
    with pytest.raises(InvalidValueError, match="native"):
        PC(monitor={"paging": "shadow"})
