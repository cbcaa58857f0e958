"""What a binary translator made: its units, to be looked at, and its counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

__all__ = ["TranslatedInstruction", "TranslationCounts", "TranslationUnit"]


class TranslatedInstruction(NamedTuple):
    """One instruction of the guest, and what became of it.

    Attributes
    ----------
    eip : int
        Where it stands in the guest's code segment.
    length : int
        Bytes.
    mnemonic : str
        Its operation, without operands.
    made : str
        ``identical`` (the same operation), ``direct`` (a jump or call to a known place, which is
        chained to its unit), ``indirect`` (control flow through the indirect-branch cache),
        ``inlined`` (an operation on the monitor's own memory), ``call-out`` (the monitor executes
        it), ``traced`` (retranslated: a write to page tables or descriptors that tells the monitor
        by itself).
    traces : int
        Its writes that faulted on traced pages, until it was retranslated; 255: or more.
    """

    eip: int
    length: int
    mnemonic: str
    made: str
    traces: int


@dataclass(frozen=True, slots=True)
class TranslationUnit:
    """A run of translated instructions in the code cache.

    Attributes
    ----------
    order : int
        The number of its translation, from 1.
    eip : int
        Where it begins in the guest's code segment.
    physical_address : int
        Of its first byte.
    ring : int
        The guest's own privilege level, 0 to 3, that it is made for.
    runs : int
        Times that it was entered.
    ends : str
        ``length`` (at the longest unit, or the end of a page), ``direct``, ``indirect`` or
        ``call-out``: how control leaves its last instruction.
    exits : tuple of (int, bool)
        The places that are known to follow, and whether each is chained to a unit.
    instructions : tuple of TranslatedInstruction
        1 to 12.
    """

    order: int
    eip: int
    physical_address: int
    ring: int
    runs: int
    ends: str
    exits: tuple[tuple[int, bool], ...]
    instructions: tuple[TranslatedInstruction, ...]

    def __str__(self) -> str:
        lines = [f"{self.eip:08x} ring {self.ring}, {self.runs} runs, ends: {self.ends}"]
        lines += [f"  {one.eip:08x}  {one.mnemonic:<18}{one.made}" for one in self.instructions]
        lines += [f"  to {to:08x}{', chained' if chained else ''}" for to, chained in self.exits]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class TranslationCounts:
    """What a binary translator counted.

    Attributes
    ----------
    units, instructions : int
        Units translated, and the guest's instructions in them: micro-operations emitted, one each.
    made : dict of str to int
        Instructions by how they were translated, see `TranslatedInstruction`; ``traced`` are those
        retranslated, which were counted as ``identical`` before.
    lengths : tuple of int
        Units by their number of instructions, 0 to 12.
    runs : int
        Times that a unit was entered.
    chained : int
        Transfers from unit to unit by a chain.
    hits, misses : int
        Of the indirect-branch cache; the monitor looks up what misses.
    transfers : int
        Direct transfers that the monitor looked up, to chain them.
    evictions : int
        Units that made room for others.
    invalidations : int
        Units that went because the guest wrote to their page's code.
    unchained : int
        Chains that were taken back as the unit behind them went.
    flushes : int
        Times that the whole cache was emptied.
    retranslations : int
        Instructions that were retranslated, as their writes kept faulting on traced pages.
    traces : int
        Writes to pages with page tables or descriptors that faulted on a trace.
    callouts : int
        Instructions of units that the monitor executed.
    inlined : int
        Instructions executed that were inlined.
    lone : int
        Instructions that the monitor executed as no unit can hold them: they cross a page's or a
        segment's end, or lie outside RAM.
    live, capacity : int
        Units in the cache now, and those that it has room for.
    """

    units: int
    instructions: int
    made: dict[str, int]
    lengths: tuple[int, ...]
    runs: int
    chained: int
    hits: int
    misses: int
    transfers: int
    evictions: int
    invalidations: int
    unchained: int
    flushes: int
    retranslations: int
    traces: int
    callouts: int
    inlined: int
    lone: int
    live: int
    capacity: int


def counts_of(found: dict[str, Any]) -> TranslationCounts:
    """Counts from those of the core."""
    return TranslationCounts(**{**found, "lengths": tuple(found["lengths"])})


def units_of(found: list[tuple[Any, ...]]) -> list[TranslationUnit]:
    """Units from those of the core."""
    units = []
    for one in found:
        order, eip, physical, ring, runs, ends, exits, instructions = one
        listed = tuple(
            TranslatedInstruction(at, length, mnemonic, made, traces)
            for at, length, made, mnemonic, traces in instructions
        )
        units.append(TranslationUnit(order, eip, physical, ring, runs, ends, exits, listed))
    return units
