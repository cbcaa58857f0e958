"""Streams that hit the first level, the second and neither by turns, and rarely something else.

The loop over hits takes them in blocks, if nothing else came for a while. A machine with a ring
for records walks in the pipeline and takes none.
"""

from __future__ import annotations

import numpy as np
import pytest

import pyvirt as pv
from mmu_sim.engine import counters_of
from mmu_sim.machines import MIB
from pyvirt.mmu.geometry import Cache, Geometry, TlbArray, WalkCache

PAGES, ODD, FIXED, COUNT = 420, 8, 20, 24_000
GUEST_TABLES, HOST_TABLES, OFFSET = (16 * MIB, MIB), (96 * MIB, 2 * MIB), 32 * MIB
WALK_CACHES = WalkCache("split", {2: Cache(8, 4), 3: Cache(4), 4: Cache(4)})
GEOMETRY = Geometry(
    "small",
    (TlbArray("l1", 1, Cache(16, 4)), TlbArray("l2", 2, Cache(96, 12))),
    guest=WALK_CACHES,
    host=WALK_CACHES,
    nested_tlb=Cache(24),
)
# What is changed in the leaf of an odd page: bits to clear, bits to set. None: no such address.
CHANGES = {
    "absent": (1, 0),
    "no A": (0x60, 0),
    "no D": (0x40, 0),
    "no W": (2, 0),
    "outside memory": (0, 1 << 45),
    "global": (0, 0x100),
    "no address": None,
}


def set_accessed(memory: pv.PhysicalMemory, base: int, size: int, bits: int) -> None:
    pas = np.arange(base, base + size, 8, dtype=np.uint64)
    words = memory.read_batch(pas, np.uint64)
    used = words != 0
    memory.write_batch(pas[used], words[used] | np.uint64(bits))


def leaf_of(walker: pv.Walker, va: int) -> int:
    """Where the vCPU's own leaf of an address is in memory."""
    refs = walker.references(va, "r")
    return int(refs["pa"][(refs["dimension"] == 0) & (refs["level"] == 1)][0])


def made(mode: str, change: tuple[int, int] | None, **options) -> pv.MMU:
    """Pages in eight regions of 1 GiB, the first ones odd."""
    if mode == "tlb-only":
        return pv.MMU(mode, tlb=GEOMETRY, **options)
    memory = pv.PhysicalMemory(128 * MIB)
    outer, offset, roots = None, 0, {}
    if mode == "nested":
        host = pv.PageTables(memory, format="ept", frames=HOST_TABLES)
        host.map_range(0, OFFSET, 24 * MIB)
        set_accessed(memory, *HOST_TABLES, 0x300)
        outer, offset, roots = host.walker(), OFFSET, {"nested_root": host.root}
    tables = pv.PageTables(memory, frames=GUEST_TABLES, outer=outer)
    vas = pages()
    tables.map(vas, np.arange(PAGES, dtype=np.uint64) << np.uint64(12))
    set_accessed(memory, GUEST_TABLES[0] + offset, GUEST_TABLES[1], 0x60)
    if change is not None:
        leaves = np.array([leaf_of(tables.walker(), int(va)) for va in vas[:ODD]], np.uint64)
        words = memory.read_batch(leaves, np.uint64)
        memory.write_batch(leaves, (words & ~np.uint64(change[0])) | np.uint64(change[1]))
    return pv.MMU(mode, memory, cr3=tables.root, tlb=GEOMETRY, **roots, **options)


def pages() -> np.ndarray:
    """The first ones are all of the second level's last set, and the others of the others."""
    number = np.arange(PAGES, dtype=np.uint64)
    page = number % np.uint64(7) + np.uint64(8) * (number // np.uint64(56))
    page[:FIXED] = 7 + 8 * (number[:FIXED] // np.uint64(8))
    return (number % np.uint64(8)) << np.uint64(30) | page << np.uint64(12)


def mixed(rng: np.random.Generator, change: tuple[int, int] | None) -> np.ndarray:
    """Draw from the pages that are of other sets; the odd ones come once each, and so stay."""
    weight = 1 / np.arange(1, PAGES - FIXED + 1)
    vas = rng.choice(pages()[FIXED:], COUNT, p=weight / weight.sum())
    at = 2100 + 2500 * np.arange(ODD) + rng.integers(0, 1000, ODD)
    vas[at] = pages()[:ODD] if change is not None else np.uint64(1 << 60)
    return vas | rng.integers(0, 4096, COUNT).astype(np.uint64)


@pytest.mark.parametrize("mode", ["native", "nested", "tlb-only"])
@pytest.mark.parametrize("prefetch", [False, "auto"])
@pytest.mark.parametrize("name", CHANGES)
def test_as_the_pipeline(mode: str, prefetch: bool | str, name: str):
    options = {"prefetch": prefetch, "cr4": 0x80}
    ours = made(mode, CHANGES[name], **options)
    other = made(mode, CHANGES[name], **options, records=np.zeros(64, pv.mmu.RECORD_DTYPE))
    rng = np.random.default_rng(11)
    for mmu in (ours, other):  # fill the last set, too
        mmu.translate(pages()[ODD:FIXED], "r")
    for kind in "rwxrw":
        vas = mixed(rng, CHANGES[name])
        got, want = ours.translate(vas, kind), other.translate(vas, kind)
        np.testing.assert_array_equal(got.pa, want.pa)
        np.testing.assert_array_equal(got.code, want.code)
        assert counters_of(ours) == counters_of(other)
        np.testing.assert_array_equal(ours.entries(), other.entries())
    first, second = np.asarray(ours.stats()["tlb_hits"])[:2].sum(axis=-1)
    walks = int(np.sum(ours.stats()["walks"]))
    assert min(first, second, walks) > COUNT // 4
