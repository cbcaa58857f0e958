"""The walk of the guest's own tables: what it reads, when it refuses, which bits it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from oracle.slowshadow.memory import ALL, FRAME, PS, A, D, Memory, P, U, W, X, index_of, rights_of

READ, WRITE, FETCH = "read", "write", "fetch"

CR0_WP = 1 << 16
CR4_PGE, CR4_PCIDE, CR4_SMEP, CR4_SMAP = 1 << 7, 1 << 17, 1 << 20, 1 << 21

EC_PRESENT, EC_WRITE, EC_FETCH = 1, 2, 16


class GuestFault(Exception):
    """The guest's tables refuse an access: the page fault that the guest must see."""

    def __init__(self, code: int, va: int) -> None:
        super().__init__(f"#PF code {code:#x} at {va:#x}")
        self.code = code
        self.va = va


@dataclass
class Registers:
    """programs: "CR0=0x80010033, CR4=0x20, EFER=0xd00, CR3=0x100000, RFLAGS.AC=IF=0"."""

    cr0: int = 0x80010033
    cr3: int = 0x100000
    cr4: int = 0x20

    @property
    def wp(self) -> bool:
        return bool(self.cr0 & CR0_WP)

    @property
    def smep(self) -> bool:
        return bool(self.cr4 & CR4_SMEP)

    @property
    def smap(self) -> bool:
        return bool(self.cr4 & CR4_SMAP)

    def pcid(self, cr3: int) -> int:
        """The process-context identifier in a value of CR3 (SDM vol. 3, 5.10.1)."""
        return cr3 & 0xFFF if self.cr4 & CR4_PCIDE else 0


class Step(NamedTuple):
    """One entry that the walk read."""

    level: int
    table: int
    """Frame of the table."""
    gpa: int
    """Where the entry lies."""
    entry: int
    rights_above: int
    """Rights accumulated in the entries above it."""


@dataclass(slots=True)
class Walk:
    """What the guest's tables say about one access."""

    steps: list[Step]
    rights: int
    """Accumulated over all levels."""
    frame: int
    """The 4K frame that the address leads to, inside a 2M page too; 0 if P=0 somewhere."""
    code: int | None
    """#PF error code, or None if the access is allowed."""

    @property
    def leaf(self) -> Step:
        return self.steps[-1]


def allowed(rights: int, kind: str, *, wp: bool, smep: bool, smap: bool) -> bool:
    """Whether ring 0 with AC=0 may do it (Intel SDM vol. 3, 5.6.1; AMD APM vol. 2, 5.6)."""
    if kind == FETCH:
        return bool(rights & X) and not (smep and rights & U)
    if smap and rights & U:
        return False
    return kind == READ or bool(rights & W) or not wp


def guest_walk(
    memory: Memory,
    registers: Registers,
    va: int,
    kind: str,
    reading: Callable[[int], None] = lambda gpa: None,
) -> Walk:
    """Walk from CR3; ``reading`` is told of each entry's address before it is read.

    programs: "A refused access reads the tables down to the entry with P=0, or to the leaf, where
    the rights of all levels are judged".
    """
    code = {READ: 0, WRITE: EC_WRITE, FETCH: EC_FETCH}[kind]
    table, rights = registers.cr3 & FRAME, ALL
    steps = []
    for level in (4, 3, 2, 1):
        gpa = table + 8 * index_of(va, level)
        reading(gpa)
        entry = memory.read(gpa)
        steps.append(Step(level, table >> 12, gpa, entry, rights))
        if not entry & P:
            return Walk(steps, rights, 0, code)
        rights &= rights_of(entry)
        if level == 1 or (level == 2 and entry & PS):
            break
        table = entry & FRAME
    below = (1 << 9 * (level - 1)) - 1
    frame = (entry & FRAME) >> 12 & ~below | va >> 12 & below
    permitted = allowed(rights, kind, wp=registers.wp, smep=registers.smep, smap=registers.smap)
    return Walk(steps, rights, frame, None if permitted else code | EC_PRESENT)


def mark_used(memory: Memory, walk: Walk, kind: str) -> None:
    """Set A in all entries of an allowed walk, and D in the leaf on a write.

    programs: "A and D of guest entries are set, on all levels, only when the access is allowed".
    """
    for step in walk.steps:
        _set_bits(memory, step, A)
    if kind == WRITE:
        _set_bits(memory, walk.leaf, D)


def mark_above(memory: Memory, walk: Walk) -> None:
    """programs (NPT): "A is set in the entries above that one, not in it"."""
    for step in walk.steps[:-1]:
        _set_bits(memory, step, A)


def _set_bits(memory: Memory, step: Step, bits: int) -> None:
    if not step.entry & bits:
        memory.write(step.gpa, memory.read(step.gpa) | bits)
