"""Streams like those of real programs, most accesses being to the page of their set used last.

The loop over hits has a way of its own for them; one access at a time takes none of it.
"""

from __future__ import annotations

import numpy as np
import pytest

import pyvirt as pv
from mmu_sim.engine import counters_of, entries_of

COUNT = 20_000


def local(rng: np.random.Generator, stray: float, far: float, high: bool) -> np.ndarray:
    """Draw from few pages, the last one again most of the time, sometimes from many."""
    pages = np.empty(COUNT, np.uint64)
    near = rng.integers(0, 40, 24)
    page = int(near[0])
    for i in range(COUNT):
        draw = rng.random()
        if draw < far + stray:
            page = int(rng.choice(near))
        # a far one is left at once, for a page that may be of the same set
        pages[i] = rng.integers(0, 4000) if draw < far else page
    offsets = rng.integers(0, 4096, COUNT).astype(np.uint64)
    top = np.uint64(0xFFFF_8000_0000_0000 if high else 0)
    return (pages << np.uint64(12) | offsets) + top


def made(mode: str, high: bool) -> pv.MMU:
    if mode == "tlb-only":
        return pv.MMU(mode, tlb="reference")
    memory = pv.PhysicalMemory(1 << 27)
    tables = pv.PageTables(memory, frames=(0x10_0000, 0x40_0000))
    first = 0xFFFF_8000_0000_0000 if high else 0
    # Every seventh page is read-only: a write to it faults each time.
    for page in range(4000):
        rights = "r" if page % 7 == 0 else "rw"
        tables.map_range(first + 4096 * page, 0x100_0000 + 4096 * page, 4096, rights=rights)
    return pv.MMU(mode, memory, cr3=tables.root, tables=tables, tlb="reference")


@pytest.mark.parametrize("mode", ["native", "tlb-only"])
@pytest.mark.parametrize("high", [False, True])
@pytest.mark.parametrize(("stray", "far"), [(0.02, 0.002), (0.05, 0.02), (0.3, 0.01)])
@pytest.mark.parametrize("kind", ["r", "w"])
def test_as_one_at_a_time(mode: str, high: bool, stray: float, far: float, kind: str):
    vas = local(np.random.default_rng(5), stray, far, high)
    vas[7777] = 1 << 60  # no address of this processor
    whole, single = made(mode, high), made(mode, high)
    got = whole.translate(vas, kind)
    results = [single.translate_one(va, kind) for va in vas.tolist()]
    assert got.pa.tolist() == [r.pa for r in results]
    assert got.code.tolist() == [r.code for r in results]
    assert counters_of(whole) == counters_of(single)
    assert entries_of(whole) == entries_of(single)
    assert got.code[7777] & 15
