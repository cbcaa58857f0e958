"""The table builder on tables of its own, in one to three dimensions, against a dictionary.

What a program of edits leaves mapped is kept in a plain dictionary of 4 KiB pages; the tables
must say the same, through translations and enumerations. Only a `PyvirtError` may be raised.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Hashable

import numpy as np

from core.strategies import OUTER, SHAPES, Tape
from pyvirt import AddressSpace, PageTables, PhysicalMemory, PyvirtError

TRACE = False
MIB = 1 << 20
PAGE = 4096
_BASES = (0, 0x40_0000, 0x4000_0000, 0x7FC0_0000, 0x8000_0000, 0xFFC0_0000)
_WIDE = (0x7FFF_FFC0_0000, 0xFFFF_8000_0000_0000, 0xFFFF_FFFF_FFC0_0000, 1 << 46)


def one_input(data: bytes) -> set[Hashable]:
    """Edit tables as the bytes say, and compare with what a dictionary says."""
    tape = Tape(data)
    memory = PhysicalMemory(64 * MIB)
    outer = None
    dimensions = 1 + tape.pick((0, 0, 1, 2))
    for i in range(dimensions - 1):  # identity, at least as far as what is used
        kind, levels = tape.pick(OUTER)
        frames = (MIB * (1 + i), MIB)
        tables = PageTables(memory, format=kind, levels=levels, frames=frames, outer=outer)
        tables.map_range(0, 0, 64 * MIB, page_shift=tape.pick((21, 12)))
        outer = tables.walker()
    kind, levels = tape.pick(SHAPES)
    frames = (8 * MIB, tape.pick((64, 16, 4, 1, 256)) * PAGE)
    cr4 = 1 << 4 if tape.chance(70) else 0
    tables = PageTables(memory, format=kind, levels=levels, frames=frames, outer=outer, cr4=cr4)
    labels: set[Hashable] = {kind, dimensions}
    pages: dict[int, int] = {}
    bases = list(_BASES)
    if kind not in ("pae", "x86-32"):
        bases += [base for base in _WIDE if kind == "x86-64" or base >> 12 + 9 * levels == 0]
    for _ in range(1 + tape.below(24)):
        _edit(tape, tables, pages, bases, labels)
        if tape.chance(10):
            tables = pickle.loads(pickle.dumps(tables))
        elif tape.chance(10):
            tables = copy.deepcopy(tables)
        assert tables.tables_used * PAGE <= frames[1]
    _check(tape, tables, pages, bases)
    labels.add(("tables", min(tables.tables_used, 12)))
    return labels


def _edit(
    tape: Tape, tables: PageTables, pages: dict[int, int], bases: list[int], labels: set[Hashable]
) -> None:
    shift = tape.pick((12, 12, 22 if tables.format == "x86-32" else 21, 12))
    base = tape.pick(bases)
    va = base + (tape.below(1024) << 12 if shift == 12 else tape.below(2) << shift)
    size = (1 + tape.below(4)) << shift
    how = tape.below(4)
    after = dict(pages)
    if how == 0:
        touched = {page for page in range(va, va + size, PAGE) if page in pages}
        call = lambda: tables.unmap(va, size)  # noqa: E731
        for page in touched:
            del after[page]
    elif how == 1:
        touched = {page for page in range(va, va + size, PAGE) if page in pages}
        call = lambda: tables.protect(va, size, tape.pick(("r", "rw", "rwx")))  # noqa: E731
    else:
        pa = tape.below(4) << shift
        touched = set()
        overwrite = tape.chance(50)
        call = lambda: tables.map_range(  # noqa: E731
            va, pa, size, page_shift=shift, overwrite=overwrite
        )
        after |= {va + offset: pa + offset for offset in range(0, size, PAGE)}
    try:
        changed = call()
    except PyvirtError as error:
        labels.add((how, shift, type(error).__name__, str(error).split()[-1]))
        return
    labels.add((how, shift))
    if how < 2:
        assert changed == len(touched) * PAGE
    pages.clear()
    pages |= after


def _check(tape: Tape, tables: PageTables, pages: dict[int, int], bases: list[int]) -> None:
    walker = tables.walker()
    space = AddressSpace(
        tables.mem,
        tables.root,
        format=tables.format,
        levels=tables.levels,
        outer=tables.outer,
        cr4=1 << 4,
    )
    if tables.outer is None:
        listed = {
            int(leaf["va"]) + offset: int(leaf["pa"]) + offset
            for leaf in space.leaves(limit=1 << 16)
            for offset in range(0, int(leaf["size"]), PAGE)
        }
        assert listed == pages
    vas = sorted(pages)[:: max(1, len(pages) // 64)]
    vas += [tape.pick(bases) + (tape.below(1024) << 12) for _ in range(8)]
    expected = [pages.get(va) for va in vas]
    found = space.translate(np.array(vas, np.uint64), user=False)
    for i, (va, pa) in enumerate(zip(vas, expected, strict=True)):
        one = walker.translate_one(va)
        if tables.format == "npt":  # where supervisor pages fault, whatever they map to
            assert one.code == found.code[i]
        elif pa is None:
            assert one.fault.name in ("NOT_PRESENT", "NON_CANONICAL")
            assert found.code[i] == one.code
        else:
            assert (one.code, one.pa, int(found.pa[i])) == (0, pa, pa), hex(va)
