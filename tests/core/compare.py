"""Building what a case describes with pyvirt, and comparing it with the slow walker."""

from __future__ import annotations

import dataclasses

import numpy as np

from core.strategies import Case
from oracle.slowwalk import Dim, Reference, SlowMemory, SlowWalk
from pyvirt._core.physmem import PhysMem
from pyvirt._core.walker import Walker
from pyvirt.mmu import AddressSpace, Translations

FIELDS = (
    "code",
    "pa",
    "page_shift",
    "flags",
    "entry",
    "gpa",
    "nested_entry",
    "nested_shift",
    "error",
)


def fast_memory(memory: SlowMemory) -> PhysMem:
    """The same memory as a `PhysMem`."""
    fast = PhysMem(regions=memory.regions)
    for pa, word in memory.words.items():
        fast.write_u64(pa, word)
    return fast


def words_of(fast: PhysMem) -> dict[int, int]:
    """All words of a `PhysMem` that are not zero."""
    words = {}
    for frame in fast.frames():
        data = np.frombuffer(fast.read(int(frame), 4096), "<u8")
        (places,) = data.nonzero()
        words |= {int(frame) + 8 * int(i): int(data[i]) for i in places}
    return words


def keywords(dim: Dim) -> dict:
    """A dimension's settings as the keywords of `Walker`."""
    values = dataclasses.asdict(dim)
    del values["root"]
    return values


def fast_space(memory: PhysMem, dims: tuple[Dim, ...], memo: bool = True) -> AddressSpace:
    """The same dimensions as pyvirt's walkers; the innermost is returned."""
    outer: Walker | None = None
    for dim in reversed(dims[1:]):
        outer = Walker(memory, dim.root, outer=outer, memo=memo, **keywords(dim))
    return AddressSpace(memory, dims[0].root, outer=outer, memo=memo, **keywords(dims[0]))


def pair(case: Case, memo: bool = True) -> tuple[SlowWalk, AddressSpace, PhysMem]:
    """Slow and fast walkers over equal memories."""
    memory = fast_memory(case.memory)
    return case.walker(), fast_space(memory, case.dims, memo), memory


def values_of(result) -> dict:
    """The fields that both kinds of result have."""
    return {name: int(getattr(result, name)) for name in FIELDS}


def references_of(walker: Walker, va: int, access: str, user: bool) -> list[Reference]:
    """The engine's references in the oracle's form."""
    rows = walker.references(va, access, user)
    return [Reference(*(int(row[name]) for name in Reference._fields)) for row in rows]


def rows_of(batch: Translations) -> list[dict]:
    """Each element of a batch as `values_of` gives it (without detail: the first fields)."""
    plain = {name: getattr(batch, name).tolist() for name in FIELDS[:4]}
    if batch.detail is not None:
        plain |= {name: batch.detail[name].tolist() for name in FIELDS[4:]}
    return [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)]


def part_of(batch: Translations, lo: int, hi: int) -> Translations:
    """Elements lo to hi of a batch's arrays, as a place for results."""
    arrays = (batch.pa, batch.code, batch.page_shift, batch.flags, batch.detail)
    return Translations(*(None if array is None else array[lo:hi] for array in arrays))


def dirty(n: int, detail: bool) -> Translations:
    """Arrays full of ones, to see that each element is written."""
    batch = Translations.empty(n, detail=detail)
    for array in (batch.pa, batch.code, batch.page_shift, batch.flags, batch.detail):
        if array is not None:
            array.view(np.uint8)[:] = 0xFF
    return batch
