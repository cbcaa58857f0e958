"""Which instructions are sensitive and do not trap: found by executing all of them.

Every opcode of the one-byte and the 0F map is executed, with registers and with memory, on the
processor that a guest's kernel thinks it has, and on the one that a monitor gives it. Without a
trap nobody corrects what differs afterwards. The definitions are those of [1]_:

- An instruction is *privileged* if it traps whenever the guest is deprivileged, and does not at
  CPL 0.
- It is *control-sensitive* if it changes, or should have changed, what the monitor has to keep: the
  privilege level, IF and IOPL, the registers of tables, control and debug registers.
- It is *behaviour-sensitive* if other registers, flags, memory or exceptions differ: by *mode* if
  they do for privilege levels alone, by *location* if only because tables and registers are the
  monitor's.
- It is *innocuous* if it is none of this.

References
----------
.. [1] G. J. Popek, R. P. Goldberg, "Formal requirements for virtualizable third generation
   architectures", CACM 17(7), 1974.
.. [2] J. S. Robin, C. E. Irvine, "Analysis of the Intel Pentium's ability to support a secure
   virtual machine monitor", USENIX Security 2000: the same by reading the manual, which is what
   experiment X2 compares with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from typing import Any

from pyvirt._core.interp.owner import CLASSES_OF_INSTRUCTIONS
from pyvirt.errors import InvalidValueError
from pyvirt.x86.decode import Status, decode
from pyvirt.x86.deprivilege import CODE, PAIRS, SCENES, Scene, native
from pyvirt.x86.machine import ExitReason
from pyvirt.x86.mnemonics import mnemonic, names_a_register
from pyvirt.x86.paired import Processor, compare, example

__all__ = ["ASSISTED_EXITS", "Derivation", "Form", "Kind", "derive"]

#: Classes of instructions for which a monitor with hardware assistance has an exit here. VT-x gives
#: SMSW and MOV from CR0 the guest's value from a shadow register; here they exit.
ASSISTED_EXITS = (
    "cr_read", "cr_write", "clts_lmsw", "smsw", "dr", "in", "out", "cpuid", "hlt", "invlpg",
    "cache", "rdmsr", "wrmsr",
)  # fmt: skip
_PREFIXES = frozenset((0x0F, 0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3))
_SLOT = 16
_UMIP = 1 << 11
_UNDEFINED = (6, 7)


class Kind(IntEnum):
    """What an instruction is to a monitor."""

    UNDEFINED = 0
    """#UD or #NM, whatever the operands."""
    INNOCUOUS = 1
    PRIVILEGED = 2
    SENSITIVE = 3
    """It differs somewhere without a trap."""


@dataclass(slots=True)
class Form:
    """One opcode, by what ModRM says where it has that byte, and what was seen of it.

    Attributes
    ----------
    mnemonic : str
        Of the manual's entry.
    encoding : str
        Opcode, ``/reg`` (``/r``: a general register), and ``m`` or ``r``: the other operand is in
        memory or a register.
    kind : Kind
    control, mode, location : bool
        In which ways it is sensitive.
    pairs : set of str
        The pairs of states in which it differs without a trap.
    differs : set of str
        What differs: names of registers, ``if``, ``iopl``, ``flags``, ``memory``, ``exception``.
    example : str
        The first such case.
    cases, traps, unsupported : int
        Pairs of runs, those that trapped, and those that met what this processor does not model
        (task switches, virtual-8086 mode), which say nothing.
    """

    mnemonic: str
    encoding: str
    kind: Kind = Kind.UNDEFINED
    control: bool = False
    mode: bool = False
    location: bool = False
    pairs: set[str] = field(default_factory=set)
    differs: set[str] = field(default_factory=set)
    example: str = ""
    cases: int = 0
    traps: int = 0
    unsupported: int = 0
    #: Runs that completed at CPL 0, and those of them that trapped otherwise.
    completed: int = 0
    caught: int = 0


@dataclass(frozen=True, slots=True)
class Derivation:
    """What all opcodes did.

    Attributes
    ----------
    technique : str
        ``deprivileged`` or ``assisted``.
    umip : bool
        Whether CR4.UMIP was set.
    forms : tuple of Form
        In the order of their opcodes.
    """

    technique: str
    umip: bool
    forms: tuple[Form, ...]

    def of(self, kind: Kind) -> tuple[Form, ...]:
        """Give the forms of a kind."""
        return tuple(form for form in self.forms if form.kind == kind)

    def by_mnemonic(self) -> dict[str, tuple[Form, ...]]:
        """Give the sensitive forms by mnemonic, sorted."""
        found = self.of(Kind.SENSITIVE)
        return {
            name: tuple(form for form in found if form.mnemonic == name) for name in self.sensitive
        }

    @property
    def sensitive(self) -> tuple[str, ...]:
        """Mnemonics of which some form is sensitive and does not always trap, sorted."""
        return tuple(sorted({form.mnemonic for form in self.of(Kind.SENSITIVE)}))

    @property
    def privileged(self) -> tuple[str, ...]:
        """Mnemonics of which some form is privileged, sorted."""
        return tuple(sorted({form.mnemonic for form in self.of(Kind.PRIVILEGED)}))

    @property
    def virtualizable(self) -> bool:
        """Whether trap-and-emulate is enough: all that is sensitive traps (theorem 1 of [1])."""
        return not self.sensitive

    @property
    def cases(self) -> int:
        """Pairs of runs."""
        return sum(form.cases for form in self.forms)

    def as_dict(self) -> dict[str, Any]:
        """Give the document of ``pyvirt x86 sensitive --json``."""
        return {
            "technique": self.technique,
            "umip": self.umip,
            "cases": self.cases,
            "virtualizable": self.virtualizable,
            "sensitive": list(self.sensitive),
            "privileged": list(self.privileged),
            "forms": [
                {
                    "mnemonic": form.mnemonic,
                    "encoding": form.encoding,
                    "kind": form.kind.name.lower(),
                    "control": form.control,
                    "mode": form.mode,
                    "location": form.location,
                    "pairs": sorted(form.pairs),
                    "differs": sorted(form.differs),
                    "example": form.example,
                    "cases": form.cases,
                    "traps": form.traps,
                    "unsupported": form.unsupported,
                }
                for form in self.forms
            ],
        }


@cache
def _opcodes() -> tuple[tuple[int, int | None], ...]:
    """Give each opcode, and the ModRM bytes to try, with memory and with EAX.

    All eight values of reg, but for opcodes that are known to take a general register there; 0F 01
    has other instructions for each register of r/m.
    """
    found: list[tuple[int, int | None]] = []
    for opcode in (*range(0x100), *range(0x0F00, 0x1000)):
        if opcode in _PREFIXES:
            continue
        head = opcode.to_bytes(2 if opcode > 0xFF else 1, "big")
        one = decode(head + bytes(14), 32)
        if one.status is Status.DECODED and not one.has_modrm:
            found.append((opcode, None))
            continue
        regs = (3,) if names_a_register(opcode) else range(8)
        modrms = [mode | reg << 3 for reg in regs for mode in (0x05, 0xC0)]
        if opcode == 0x0F01:
            registers = (modrm for modrm in range(0xC0, 0x100) if modrm & 7)
            modrms += [modrm for modrm in registers if mnemonic(opcode, modrm) == "0f01"]
        found += [(opcode, modrm) for modrm in modrms]
    return tuple(found)


def _encoding(opcode: int, modrm: int | None) -> str:
    text = opcode.to_bytes(2 if opcode > 0xFF else 1, "big").hex(" ")
    if modrm is None:
        return text
    if opcode == 0x0F01 and modrm >= 0xC0 and modrm & 7:
        return f"{text} {modrm:02x}"
    reg = "r" if names_a_register(opcode) else str(modrm >> 3 & 7)
    return f"{text} /{reg} {'r' if modrm >= 0xC0 else 'm'}"


def _judge(form: Form, scene: Scene, guest: Processor, pairs: dict[str, Processor]) -> None:
    """Enter one instruction, with one choice of operands, into what is known of its form."""
    caught = 0
    elsewhere = False
    for name, real in pairs.items():
        pair = PAIRS[name]
        form.cases += 1
        if ExitReason.UNSUPPORTED in (guest.reason, real.reason):
            form.unsupported += 1
            continue
        if real.trapped or (pair.monitored and real.after["cpl"] == 0):
            form.traps += 1
            caught += 1
            continue
        control, behaviour = compare(pair, guest, real)
        if not control and not behaviour:
            continue
        form.control |= bool(control)
        if name in ("ring", "compressed"):
            form.mode |= bool(behaviour)
            elsewhere |= bool(behaviour)
        else:
            form.location |= bool(behaviour) and not elsewhere
        form.pairs.add(name)
        form.differs |= control | behaviour
        if not form.example:
            form.example = example(scene, name, guest, real, control | behaviour)
    if not guest.trapped:
        form.completed += 1
        form.caught += caught == len(pairs)


def derive(
    technique: str = "deprivileged",
    *,
    umip: bool = False,
    exits: Iterable[str] = ASSISTED_EXITS,
    progress: Callable[[int, int], None] | None = None,
) -> Derivation:
    """Execute all opcodes on both sides of each pair of states, and compare.

    Parameters
    ----------
    technique : {"deprivileged", "assisted"}
        The guest's kernel in ring 1: with its tables as they are, with ring 0 of its tables made
        ring 1, and over the monitor's tables, IF and CR0. Or in ring 0, with exits and the
        monitor's control registers.
    umip : bool
        Set CR4.UMIP.
    exits : iterable of str
        For "assisted": classes of instructions, as `Machine.stop_at` takes them. Exceptions exit,
        too.
    progress : callable, optional
        Called with the choices of operands that are done, and their number.

    Returns
    -------
    Derivation
        Always the same; it takes some seconds.

    Raises
    ------
    InvalidValueError
        For another technique or class.

    Notes
    -----
    The processor is that of `pyvirt.x86.machine.Machine`: 32-bit code in protected mode without
    paging, FPU, VMX and SYSENTER. CPUID and RDTSC answer a guest as they answer its monitor; that a
    monitor may want to lie about processor and time is not looked at. Operands hold 18 selectors,
    on stacks, in pointers, memory and EAX, for 32 and 16 bits; prefixes other than 66 are not
    tried. #UD and #NM depend on the opcode alone, and are not tried with more operands.

    Examples
    --------
    >>> from pyvirt.x86.sensitive import derive
    >>> derive("assisted").sensitive
    ()
    """
    names = {"deprivileged": ("ring", "compressed", "relocated"), "assisted": ("assisted",)}
    if technique not in names:
        raise InvalidValueError(f"technique must be one of {tuple(names)}, got {technique!r:.40}")
    classes = 0
    for name in exits:
        if name not in CLASSES_OF_INSTRUCTIONS[1:]:
            accepted = ", ".join(CLASSES_OF_INSTRUCTIONS[1:])
            raise InvalidValueError(f"no class {name!r:.40}; accepted are {accepted}")
        classes |= technique == "assisted" and 1 << CLASSES_OF_INSTRUCTIONS.index(name)
    guest = Processor(native, 0)
    pairs = {}
    for name in names[technique]:
        registers = native | PAIRS[name].registers
        registers["cr4"] |= _UMIP * umip
        pairs[name] = Processor(registers, classes)
    forms = [Form(mnemonic(o, m or 0), _encoding(o, m)) for o, m in _opcodes()]
    settled: set[tuple[int, bool]] = set()
    for number, scene in enumerate(SCENES):
        if progress is not None:
            progress(number, len(SCENES))
        code = b"".join(scene.code(o, m).ljust(_SLOT, b"\0") for o, m in _opcodes())
        guest.stage(scene.selector, scene.memory, code)
        for name, real in pairs.items():
            real.stage(scene.selector, PAIRS[name].memory(scene.memory), code)
        for i, form in enumerate(forms):
            if (i, scene.wide) in settled:
                continue
            guest.run(CODE + _SLOT * i)
            for real in pairs.values():
                real.run(CODE + _SLOT * i)
            _judge(form, scene, guest, pairs)
            if all(one.trapped and one.vector in _UNDEFINED for one in (guest, *pairs.values())):
                settled.add((i, scene.wide))
    if progress is not None:
        progress(len(SCENES), len(SCENES))
    for i, form in enumerate(forms):
        if form.pairs:
            form.kind = Kind.SENSITIVE
        elif form.completed and form.caught == form.completed:
            form.kind = Kind.PRIVILEGED
        elif (i, True) not in settled or (i, False) not in settled:
            form.kind = Kind.INNOCUOUS
    return Derivation(technique, umip, tuple(forms))
