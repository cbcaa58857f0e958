"""One instruction on two processors: what a guest should have found, and what it found."""

from __future__ import annotations

from typing import Any

from pyvirt._core.interp.owner import Cpu
from pyvirt._core.physmem import PhysMem
from pyvirt.x86.deprivilege import CODE, GUEST_MEMORY, MEMORY, PAIRS, Pair, Scene
from pyvirt.x86.machine import ExitReason

__all__ = ["Processor", "compare", "example"]

_IF_IOPL = 0x3200
#: #DB, #BP and #OF come of INT1, INT3 and INTO alone here: they are what these do, and no trap.
_EXCEPTIONS = 0xFFFFFFFF & ~(1 << 1 | 1 << 3 | 1 << 4)
_TRAPS = (ExitReason.EXCEPTION, ExitReason.INTERCEPT, ExitReason.TRIPLE_FAULT)
_CONTROL = (
    "cpl", "cr0", "cr3", "cr4", "gdt_base", "gdt_limit", "idt_base", "idt_limit", "ldtr", "tr",
    "dr0", "dr1", "dr2", "dr3", "dr6", "dr7",
)  # fmt: skip
_PLAIN = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "eip", "cr2", "halted")
_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")
#: Which difference an example shows, the first of these.
_TOLD = (*_PLAIN[:4], "flags", "if", "iopl", *_CONTROL, *_SEGMENTS, *_PLAIN[4:])


class Processor:
    """A processor that is put back to where it was before each instruction."""

    def __init__(self, registers: dict[str, Any], exits: int) -> None:
        self.memory = PhysMem(MEMORY)
        self.cpu = Cpu(self.memory)
        self.image = self.left = b""
        self.cpu.set_registers(registers)
        self.cpu.set_exits(exits, _EXCEPTIONS, False)
        self.begun = self.cpu.get_state()
        self.bits = self.reason = self.vector = 0

    def stage(self, eax: int, image: bytes, code: bytes) -> None:
        """Choose EAX, memory and code for the runs that follow."""
        self.memory.write(0, image)
        self.memory.write(CODE, code)
        self.cpu.set_state(self.begun)
        self.cpu.set_registers({"eax": eax})
        self.before = self.cpu.registers()
        self.begun = self.cpu.get_state()
        self.bits = int.from_bytes(self.begun, "little")
        self.image = image

    def run(self, at: int) -> None:
        """Run the instruction at an address; what it left can be asked for until the next one."""
        self.cpu.set_state(self.begun)
        self.cpu.set_registers({"eip": at})
        self.reason = self.cpu.run(1)
        self.vector = self.cpu.exit_information()[2]
        self.left = self.memory.read(0, len(self.image))
        if self.left == self.image:
            self.left = self.image
        else:
            self.memory.write(0, self.image)

    @property
    def trapped(self) -> bool:
        """Whether the monitor has control: an exception, or an exit."""
        return self.reason in _TRAPS

    @property
    def changed(self) -> int:
        """The bits of the processor's state that are not as they were."""
        return int.from_bytes(self.cpu.get_state(), "little") ^ self.bits

    @property
    def after(self) -> dict[str, Any]:
        """The registers now."""
        return self.cpu.registers()


def _attributes(value: int) -> int:
    """Take ring 0 of a code or data segment for ring 1."""
    return value | 0x20 if value & 0x90 == 0x90 and not value & 0x60 else value


def _control(n0: Any, n1: Any, d0: Any, d1: Any) -> set[str]:
    """Compare what the monitor keeps, before (0) and after (1): natively and under it.

    Where it keeps another value than the guest's, neither may have changed.
    """
    found = set()
    for name in _CONTROL:
        if name == "cpl" and d0[name] != n0[name]:
            same = d1[name] == max(n1[name], d0[name])
        elif n0[name] == d0[name]:
            same = n1[name] == d1[name]
        else:
            same = n1[name] == n0[name] and d1[name] == d0[name]
        if not same:
            found.add(name)
    for name, bits in (("if", 0x200), ("iopl", 0x3000)):
        a0, a1, b0, b1 = (one["eflags"] & bits for one in (n0, n1, d0, d1))
        if a1 != b1 if a0 == b0 else (a1, b1) != (a0, b0):
            found.add(name)
    return found


def _behaviour(n1: Any, d1: Any, ring: int) -> set[str]:
    """Compare the rest; CS and SS of ring 0 are expected in the guest's new ring."""
    found = {name for name in _PLAIN if n1[name] != d1[name]}
    if (n1["eflags"] ^ d1["eflags"]) & ~_IF_IOPL:
        found.add("flags")
    for name in _SEGMENTS:
        (selector, *place, rights), (real, *real_place, real_rights) = n1[name], d1[name]
        if ring:
            rights, real_rights = _attributes(rights), _attributes(real_rights)
            if name in ("cs", "ss") and selector & 3 == 0:
                selector |= ring
        if (selector, place, rights) != (real, real_place, real_rights):
            found.add(name)
    return found


def compare(pair: Pair, guest: Processor, real: Processor) -> tuple[set[str], set[str]]:
    """Say what differs after a run that did not trap: control state, and the rest."""
    if guest.trapped:
        return set(), {"exception"}
    changed = guest.changed
    if (
        guest.left is guest.image
        and real.left is real.image
        and changed == real.changed
        and not changed & (guest.bits ^ real.bits)
    ):
        return (
            set(),
            set(),
        )  # most instructions: what differed has not changed, the rest is the same
    n1, d1 = guest.after, real.after
    behaviour = _behaviour(n1, d1, real.before["cpl"])
    if pair.memory(guest.left)[GUEST_MEMORY] != real.left[GUEST_MEMORY]:
        behaviour.add("memory")
    return _control(guest.before, n1, real.before, d1), behaviour


def example(scene: Scene, pair: str, guest: Processor, real: Processor, names: set[str]) -> str:
    """Describe one difference: what the guest should have found, and what it found."""
    what = f"selector {scene.selector:#x}, {32 if scene.wide else 16} bit, {pair}: "
    if "exception" in names:
        return what + f"no exception, natively {guest.vector}"
    if "memory" in names:
        wanted = PAIRS[pair].memory(guest.left)
        at = next(i for i in range(len(wanted)) if wanted[i] != real.left[i])
        return what + f"byte at {at:#x} is {real.left[at]:#04x}, natively {wanted[at]:#04x}"
    name = next(one for one in _TOLD if one in names)
    field = "eflags" if name in ("flags", "if", "iopl") else name
    found, wanted = real.after[field], guest.after[field]
    if isinstance(found, tuple):
        found, wanted = found[0], wanted[0]
    if found == wanted:
        return what + f"{name} is {found:#x}, as natively, but not what that is in the guest's ring"
    return what + f"{field} is {found:#x}, natively {wanted:#x}"
