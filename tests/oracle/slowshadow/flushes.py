"""What a processor could still hold: the condition of the paragraph "Flushes" of the programs."""

from __future__ import annotations

from collections.abc import Callable

from oracle.slowshadow.guestwalk import Registers
from oracle.slowshadow.memory import ALL, FRAME, PS, A, Memory, P, index_of, rights_of


class Journal(Memory):
    """Guest memory that remembers the values of each word with the time they were written."""

    def __init__(self, words: memoryview) -> None:
        self.words = words
        self.now = 0
        self.past: dict[int, list[tuple[int, int]]] = {}
        """Word to (time at which it ended, value)."""

    def write(self, gpa: int, value: int) -> None:
        old = self.read(gpa)
        if value != old:
            self.past.setdefault(gpa, []).append((self.now, old))
            super().write(gpa, value)

    def values_since(self, gpa: int, time: int) -> set[int]:
        """All values that a word had at the time or later."""
        ended = self.past.get(gpa, ())
        return {self.read(gpa)} | {value for end, value in ended if end > time}


def held_translations(
    memory: Journal,
    registers: Registers,
    va: int,
    since: int,
    own: Callable[[int], bool],
) -> set[tuple[int, int]] | None:
    """(frame, rights) of all translations that a processor could hold for a page.

    programs: "any translation that a processor could still hold from present entries with A=1
    (since the last CR3 load or INVLPG of that page)": any mix of the values that its entries have
    had since then, since a processor caches entries of each level. None if one of them is a 1G
    page, or lies in a table for which `own` is false.
    """
    tables = {(registers.cr3 & FRAME, ALL)}
    held = set()
    for level in (4, 3, 2, 1):
        below = set()
        for table, rights in tables:
            if not own(table >> 12):
                return None
            for entry in memory.values_since(table + 8 * index_of(va, level), since):
                if entry & P and level > 2 and entry & PS:
                    return None
                if not (entry & P and entry & A):
                    continue
                both = rights & rights_of(entry)
                if level == 1 or (level == 2 and entry & PS):
                    inside = (1 << 9 * (level - 1)) - 1
                    held.add(((entry & FRAME) >> 12 & ~inside | va >> 12 & inside, both))
                else:
                    below.add((entry & FRAME, both))
        tables = below
    return held
