"""The rules beside an emulator, where it is installed, and beside this machine's processor."""

import pytest

from pyvirt.validation import Context, experiments
from pyvirt.validation.protection_cases import cases, differs_by_manual, stored
from pyvirt.x86.protection import Descriptor, Instruction, check, check_instruction

RING_3 = {
    "hlt": "f4",
    "cli": "fa",
    "sti": "fb",
    "clts": "0f06",
    "rdmsr": "0f32",
    "wrmsr": "0f30",
    "lmsw": "0f01f0",
    "lldt": "0f00d0",
    "ltr": "0f00d8",
    "invd": "0f08",
    "wbinvd": "0f09",
    "mov_cr": "0f20c0",
    "mov_dr": "0f21f8",
}


def test_stored_answers_have_the_known_divergences_and_no_others():
    known = 0
    for key, row in cases().items():
        assert len(stored()[key]) == len(row)
        for case, answer in zip(row, stored()[key], strict=True):
            if differs_by_manual(case):
                known += 1
                # it lowers the CPL to the DPL of conforming code
                assert answer == str(Descriptor.unpack(case.target).dpl) != str(case.cpl)
    assert known == 35


@pytest.fixture(scope="module")
def emulator():
    pytest.importorskip("unicorn")
    from pyvirt.validation.protection_unicorn import Emulator

    return Emulator()


def test_the_emulator_answers_as_stored(emulator):
    from pyvirt.validation.protection_unicorn import answers

    assert answers() == stored()


@pytest.mark.parametrize("name", RING_3)
@pytest.mark.parametrize("cpl", [0, 1, 2, 3])
def test_privileged_instructions(emulator, name: str, cpl: int):
    if cpl == 0 and name in ("lldt", "ltr", "wrmsr", "rdmsr", "lmsw"):
        pytest.skip("its other operands decide")
    vector, _, _ = emulator.run(cpl, bytes.fromhex(RING_3[name]), eax=0x1, ecx=0)
    assert vector == check_instruction(name, cpl).vector


@pytest.mark.parametrize("cpl", [1, 2, 3])
def test_where_the_emulator_is_known_to_err(emulator, cpl: int):
    """It lets every ring use ports, and does not know UMIP."""
    vector, _, _ = emulator.run(cpl, b"\xe4\x80")
    assert vector == -1  # the bitmap of its TSS is outside the limit: #GP(0)
    emulator.engine.context_restore(emulator._rings[cpl])
    vector, _, _ = emulator.run(cpl, b"\x0f\x01\xe0", cr4=1 << 11)
    assert vector == -1
    assert check_instruction("smsw", cpl, cr4=1 << 11).vector == 13


def test_it_takes_a_stack_selector_whose_rpl_is_not_the_cpl(emulator):
    """64-bit MOV SS, 3 at privilege 0: #GP by the manual; unicorn loads it."""
    unicorn, x86 = emulator.unicorn, emulator.x86
    engine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    engine.mem_map(0, 0x2000)
    engine.mem_write(0x1000, b"\x8e\xd0\x90")
    engine.reg_write(x86.UC_X86_REG_RAX, 3)
    engine.emu_start(0x1000, 0x1002, count=1)
    assert engine.reg_read(x86.UC_X86_REG_SS) == 3
    assert check("load_ss", 0, 3, 0, mode="long") == (13, 0, 0, 0)


def test_this_processor():
    outcome = experiments()["X1"].run_live(Context())
    if outcome.verdict == "skip":
        pytest.skip(outcome.reason)
    assert outcome.verdict == "pass", outcome.reason
    assert outcome.cases == 28 + 64 * 5


def test_instructions_are_named_as_the_probe_names_them():
    from pyvirt.validation.protection_processor import TRIED

    assert {name.split()[0].upper() for name in TRIED} <= set(Instruction.__members__)
