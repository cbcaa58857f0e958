"""Sensitive instructions found by executing: what was found, and by hand for those no list has."""

import doctest
import struct

import pytest

from pyvirt.errors import InvalidValueError
from pyvirt.validation import Context, sensitive_sets
from pyvirt.x86 import mnemonics, sensitive
from pyvirt.x86.deprivilege import PAIRS, SCENES, compressed, native
from pyvirt.x86.machine import Exit, ExitReason, Machine
from pyvirt.x86.mnemonics import mnemonic, names_a_register
from pyvirt.x86.sensitive import ASSISTED_EXITS, Derivation, Form, Kind, derive
from x86.interp_system import CODE, CODE0, CODE3, DATA0, DATA3, GDT, STACK0, STACK3, USER, system

DATA = 0x10000


@pytest.fixture(scope="module")
def found() -> Derivation:
    return derive()


def test_the_sets_are_disjoint_and_complete(found: Derivation):
    assert (len(found.sensitive), len(found.privileged)) == (24, 19)
    assert not found.virtualizable
    encodings = [form.encoding for form in found.forms]
    assert len(set(encodings)) == len(encodings) > 3000
    for form in found.forms:
        assert (form.kind is Kind.SENSITIVE) == bool(form.pairs)
        assert form.cases % 3 == 0
        assert bool(form.control or form.mode or form.location) == bool(form.pairs)
        if form.kind is Kind.PRIVILEGED:
            assert form.completed == form.caught > 0


def test_kinds(found: Derivation):
    kinds = {
        name: {
            kind
            for form in forms
            for kind in ("control", "mode", "location")
            if getattr(form, kind)
        }
        for name, forms in found.by_mnemonic().items()
    }
    assert kinds["POPF"] == {"control"}  # changes of IF and IOPL are lost
    for name in ("SGDT", "SIDT", "SLDT", "STR", "SMSW", "PUSHF"):
        assert kinds[name] == {"location"}, name  # they show what is the monitor's
    for name in ("CALL", "INT", "IRET"):
        assert kinds[name] >= {"control", "mode"}, name
    for name in ("LAR", "LSL", "VERR", "VERW", "PUSH", "JMP", "RET", "MOV", "POP"):
        assert "mode" in kinds[name], name
    by_encoding = {form.encoding: form for form in found.forms}
    assert by_encoding["0f 20 /0 r"].kind is Kind.PRIVILEGED  # MOV, but from CR0
    assert by_encoding["89 /r m"].kind is Kind.INNOCUOUS
    assert by_encoding["ff /6 m"].kind is Kind.INNOCUOUS  # PUSH, but of memory
    assert by_encoding["0f 0b"].kind is Kind.UNDEFINED
    assert by_encoding["9c"].example.endswith("is 0x0a, natively 0x08")


def test_exits_leave_nothing_and_their_absence_is_seen():
    exits = [name for name in ASSISTED_EXITS if name not in ("smsw", "cr_read", "clts_lmsw")]
    less = derive("assisted", exits=exits)
    assert less.sensitive == ("CLTS", "LMSW", "MOV", "SMSW")
    assert {form.encoding for form in less.of(Kind.SENSITIVE) if form.mnemonic == "MOV"} == {
        f"0f 20 /{which} {mode}" for which in (0, 3, 4) for mode in "mr"
    }
    assert not less.virtualizable


@pytest.mark.parametrize("which", ["dpriv", "", "ring"])
def test_unknown_techniques(which: str):
    with pytest.raises(InvalidValueError, match="deprivileged"):
        derive(which)


def test_examples_in_docstrings():
    for module in (sensitive, mnemonics):
        found = doctest.testmod(module)
        assert (found.failed, found.attempted > 1) == (0, True)


def test_unknown_classes():
    with pytest.raises(InvalidValueError, match="clts_lmsw"):
        derive("assisted", exits=["none"])


def test_states_differ_in_what_they_say():
    same = PAIRS["ring"].registers
    assert set(same) == {"cpl", "cs", "ss"}
    assert not {"cpl", "cs", "gdt_base", "idt_base", "eflags"} & set(PAIRS["assisted"].registers)
    moved = PAIRS["relocated"].registers
    for name in ("gdt_base", "gdt_limit", "idt_base", "ldtr", "tr", "cr0", "eflags"):
        assert moved[name] != native[name], name
    memory = SCENES[0].memory
    changed = [i for i in range(len(memory)) if compressed(memory)[i] != memory[i]]
    assert changed
    for at in changed:
        assert (memory[at] & 0x60, compressed(memory)[at]) == (0, memory[at] | 0x20)
    assert compressed(compressed(memory)) == compressed(memory)


# --- the members that no list has, by hand ------------------------------------------------------


def run(machine: Machine, code: str, stack: list[int], at: int) -> Exit:
    machine.stop_at(exceptions=range(32))
    machine.load(bytes.fromhex(code), at)
    machine.load(struct.pack(f"<{len(stack)}I", *stack), machine.registers.esp)
    return machine.run(1)


def test_iret_loses_the_interrupt_flag_and_iopl():
    kernel = system()
    kernel.set(esp=STACK0 - 64)
    assert run(kernel, "cf", [0x1234, CODE0, 0x3202], CODE).reason is ExitReason.BUDGET
    assert (kernel.registers.eip, kernel.registers.eflags & 0x3200) == (0x1234, 0x3200)
    deprivileged = system(user=True)
    deprivileged.set(esp=STACK3 - 64)
    assert run(deprivileged, "cf", [0x1234, CODE3, 0x3202], USER).reason is ExitReason.BUDGET
    assert (deprivileged.registers.eip, deprivileged.registers.eflags & 0x3200) == (0x1234, 0)


@pytest.mark.parametrize(
    ("register", "code"),
    [("ds", "c50d"), ("es", "c40d"), ("fs", "0fb40d"), ("gs", "0fb50d"), ("ss", "0fb20d")],
)
def test_far_pointers_load_what_natively_faults(register: str, code: str):
    """A kernel in ring 3, its data segments with DPL 3: an RPL of 3 is no obstacle any more."""
    code += struct.pack("<I", DATA).hex()
    pointer = struct.pack("<IH", 0x5555, DATA0 | 3)
    kernel = system()
    kernel.load(pointer, DATA)
    found = run(kernel, code, [], CODE)
    assert (found.reason, found.vector, found.error) == (ExitReason.EXCEPTION, 13, DATA0)
    deprivileged = system(user=True)
    deprivileged.load(pointer, DATA)
    deprivileged.memory.write(GDT + DATA0 + 5, b"\xf2")  # what was 0x92
    assert run(deprivileged, code, [], USER).reason is ExitReason.BUDGET
    now = deprivileged.registers
    assert (getattr(now, register).selector, now.ecx) == (DATA0 | 3, 0x5555)


@pytest.mark.parametrize(
    ("register", "code"),
    [("ds", "c50d"), ("es", "c40d"), ("fs", "0fb40d"), ("gs", "0fb50d"), ("ss", "0fb20d")],
)
def test_far_pointers_load_from_the_monitors_table(register: str, code: str):
    """The accessed bit appears in the monitor's table, and not where the guest would see it."""
    code += struct.pack("<I", DATA).hex()
    shadow = 0x20000
    for base in (GDT, shadow):
        machine = system(user=True)
        machine.load(machine.memory.read(GDT, 0x48), shadow)
        machine.load(struct.pack("<IH", 0, DATA3), DATA)
        machine.set(gdt_base=base)
        assert run(machine, code, [], USER).reason is ExitReason.BUDGET
        assert getattr(machine.registers, register).selector == DATA3
        accessed = machine.memory.read(GDT + (DATA3 & 0xF8) + 5, 1)[0] & 1
        assert accessed == (base == GDT)


# --- names --------------------------------------------------------------------------------------


def normal(name: str) -> str:
    """Give the name of the manual's entry for one of iced-x86."""
    for prefix, whole in (
        ("CMOV", "CMOVcc"), ("SET", "SETcc"), ("LOOP", "LOOP"), ("INT", "INT"), ("UD", "UD"),
        ("PUSHF", "PUSHF"), ("POPF", "POPF"), ("PUSHA", "PUSHA"), ("POPA", "POPA"),
        ("IRET", "IRET"), ("RETF", "RET"), ("MOVS", "MOVS"), ("PREFETCH", "PREFETCHW"),
    ):  # fmt: skip
        if name.startswith(prefix) and name not in ("MOVSX", "CMOV"):
            return whole
    if name[0] == "J" and name != "JMP":
        return "Jcc"
    for stem in ("CMPS", "STOS", "LODS", "SCAS", "INS", "OUTS", "XLAT"):
        if name in (stem + "B", stem + "W", stem + "D"):
            return stem
    return {"CWDE": "CBW", "CDQ": "CWD", "RESERVEDNOP": "NOP", "SYSRETD": "SYSRET"}.get(name, name)


def test_names_are_those_of_iced():
    iced = pytest.importorskip("iced_x86")
    spelled = {value: key for key, value in vars(iced.Mnemonic).items() if isinstance(value, int)}
    compared = 0
    for opcode in (*range(0x100), *range(0x0F00, 0x1000)):
        for modrm in range(256):
            name = mnemonic(opcode, modrm)
            if name in ("FPU", f"{opcode:02x}", f"{opcode:04x}"):
                continue
            head = opcode.to_bytes(2 if opcode > 0xFF else 1, "big")
            decoded = iced.Decoder(32, head + bytes((modrm, *range(12)))).decode()
            if decoded.is_invalid:
                continue
            theirs = normal(spelled[decoded.mnemonic].upper())
            if opcode == 0x90 or 0x0F18 <= opcode <= 0x0F1F or opcode == 0x0F0D:
                continue  # hints: later processors have names for some of them
            assert name == theirs, (hex(opcode), hex(modrm))
            compared += 1
    assert compared > 40_000
    assert names_a_register(0x89)
    assert not any(map(names_a_register, (0x8C, 0x8E, 0x80, 0xFF, 0x0F00, 0x0F20, 0x0F58)))


# --- the experiment -----------------------------------------------------------------------------


def test_the_experiment_notices_one_too_many_and_one_too_few(monkeypatch: pytest.MonkeyPatch):
    real = sensitive_sets.PUBLISHED | sensitive_sets.OMITTED

    def of(sensitive: frozenset[str], privileged: frozenset[str]) -> Derivation:
        forms = [Form(name, name, Kind.SENSITIVE, pairs={"ring"}) for name in sorted(sensitive)]
        forms += [Form(name, name, Kind.PRIVILEGED) for name in sorted(privileged)]
        return Derivation("", False, tuple(forms))

    def experiment(change: frozenset[str]):
        def made(technique: str = "deprivileged", *, umip: bool = False) -> Derivation:
            if technique == "assisted":
                return of(frozenset(), frozenset())
            less = sensitive_sets.UMIP if umip else frozenset()
            return of((real - less) ^ change, sensitive_sets.PRIVILEGED | less)

        monkeypatch.setattr(sensitive_sets, "derive", made)
        return sensitive_sets.sensitive_sets(Context())

    assert experiment(frozenset()).verdict == "pass"
    for change in ("LSS", "ADD"):
        outcome = experiment(frozenset((change,)))
        assert (outcome.verdict, change in outcome.reason) == ("fail", True)
