"""Walks in caches that are full, of the usual form, against those of the pipeline.

Full walk caches have steps of their own; an invalidation ends that until they have filled again.
"""

import numpy as np
import pytest

import pyvirt as pv
from mmu_sim.machines import MIB

GIB = 1 << 30
GUEST_TABLES, HOST_TABLES = (32 * MIB, 4 * MIB), (192 * MIB, 4 * MIB)
OFFSET = 64 * MIB
"""From a guest-physical address to the host-physical one."""


def build(mode: str, **options) -> tuple[pv.MMU, np.ndarray]:
    """64 pages in each of 64 regions of 2 MiB, virtual as physical: they fill all caches."""
    memory = pv.PhysicalMemory(9 * GIB)
    regions = [gib * GIB + k * 2 * MIB + 256 * MIB for gib in range(8) for k in range(8)]
    outer, roots = None, {}
    if mode == "nested":
        host = pv.PageTables(memory, format="ept", frames=HOST_TABLES)
        for pa in [GUEST_TABLES[0], GUEST_TABLES[0] + 2 * MIB, *regions]:
            host.map_range(pa, pa + OFFSET, 2 * MIB)
        outer = host.walker()
        roots = {"nested_root": host.root, "nested_format": "ept"}
    tables = pv.PageTables(memory, frames=GUEST_TABLES, outer=outer)
    draw = np.random.default_rng(1).permuted(np.tile(np.arange(512), (64, 1)), axis=1)[:, :64]
    pages = ((draw << 12) + np.array(regions)[:, None]).ravel().astype(np.uint64)
    tables.map(pages, pages, attrs=0x60)
    mmu = pv.MMU(mode, memory, cr3=tables.root, tlb="reference", **roots, **options)
    return mmu, pages


@pytest.mark.parametrize("mode", ["native", "nested"])
@pytest.mark.parametrize("prefetch", [False, True, "auto"])
@pytest.mark.parametrize("vectors", [False, True])
def test_as_the_pipeline(mode: str, prefetch: bool | str, vectors: bool):
    """All results and counters are the same, before and after each invalidation."""
    from pyvirt._core.stream import use_vectors

    ours, pages = build(mode, prefetch=prefetch)
    other, _ = build(mode, records=np.zeros(64, pv.mmu.RECORD_DTYPE))
    rng = np.random.default_rng(7)
    before = use_vectors(vectors)
    try:
        for turn in range(12):
            vas = rng.choice(pages, 3000) + rng.integers(0, 4096, 3000, dtype=np.uint64)
            got, want = ours.translate(vas, "r"), other.translate(vas, "r")
            np.testing.assert_array_equal(got.code, want.code)
            np.testing.assert_array_equal(got.pa, want.pa)
            for mmu in (ours, other):
                if mode == "nested" and turn % 3 == 2:
                    mmu.invept(2)
                elif turn % 3 == 1:
                    mmu.mov_cr3(int(mmu.registers()["cr3"]))
                else:
                    mmu.invlpg(int(vas[0]))
    finally:
        use_vectors(before)
    for field in ours.stats().dtype.names:
        np.testing.assert_array_equal(ours.stats()[field], other.stats()[field], field)
    np.testing.assert_array_equal(ours.entries(), other.entries())
    assert ours.stats()["walks"].sum() > 5000
