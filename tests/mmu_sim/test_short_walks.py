"""Walks in the loop over hits against those of the pipeline, which a ring for records asks for.

Tables of both dimensions are damaged at random: entries that are absent, have no A or D, lack
rights, have reserved bits, or lead outside memory. So walks stop being short at every place, and
must go on from there as if nothing had been done.
"""

import numpy as np
import pytest

import pyvirt as pv
from mmu_sim.machines import MIB
from pyvirt.mmu.geometry import Cache, Geometry, TlbArray, WalkCache

GUEST_TABLES, HOST_TABLES = (32 * MIB, MIB), (192 * MIB, 2 * MIB)
OFFSET = 64 * MIB
"""From a guest-physical address to the host-physical one."""
PAGES, ACCESSES = 320, 6000


def split(*ways: int) -> WalkCache:
    """PDE, PDPTE and PML4E caches of 8 sets, 1 and 1."""
    sets = 8, 1, 1
    caches = {2 + i: Cache(n * w, w) for i, (n, w) in enumerate(zip(sets, ways, strict=True))}
    return WalkCache("split", caches)


GEOMETRIES = {
    "fours": Geometry(
        "fours",
        (TlbArray("l1", 1, Cache(16, 4)), TlbArray("l2", 2, Cache(48, 12))),
        guest=split(4, 4, 4),
        host=split(4, 4, 4),
        nested_tlb=Cache(24),
    ),
    "others": Geometry(
        "others",
        (TlbArray("l1", 1, Cache(20)), TlbArray("l2", 2, Cache(40, 5))),
        guest=split(2, 3, 1),
        host=split(1, 2, 20),
        nested_tlb=Cache(16, 4),
    ),
    "no nested TLB": Geometry(
        "no nested TLB",
        (TlbArray("l1", 1, Cache(8, 4)), TlbArray("l2", 2, Cache(24, 12))),
        guest=split(4, 4, 4),
        host=split(4, 4, 4),
    ),
}


def entries_of(memory: pv.PhysicalMemory, base: int, size: int) -> np.ndarray:
    """Host addresses of the non-zero words of some tables."""
    pas = np.arange(base, base + size, 8, dtype=np.uint64)
    return pas[memory.read_batch(pas, np.uint64) != 0]


def damage(memory: pv.PhysicalMemory, pas: np.ndarray, ept: bool, rng: np.random.Generator) -> None:
    """Set A and D in all entries at `pas`, then take or add something in some."""
    words = memory.read_batch(pas, np.uint64)
    accessed, dirty = (1 << 8, 1 << 9) if ept else (1 << 5, 1 << 6)
    words |= np.uint64(accessed | dirty)
    changes = [
        (accessed | dirty, 0),
        (dirty, 0),
        (2, 0),  # W
        (4, 0),  # U, or X of EPT
        (1, 0),  # P, or R of EPT
        (0, 1 << 51 | 1 << 50),  # reserved, or far outside memory
        (0, 1 << 40),
        (0, 0x100 if not ept else 0x10),  # G; of EPT another memory type
    ]
    kinds = rng.choice(9, len(pas), p=[0.14, 0.1, 0.02, 0.02, 0.03, 0.01, 0.01, 0.02, 0.65])
    kinds[:4] = rng.choice([0, 1, 8], 4)  # whatever is under the first tables goes with them
    for kind, (clear, set_) in enumerate(changes):
        chosen = kinds == kind
        words[chosen] = (words[chosen] & ~np.uint64(clear)) | np.uint64(set_)
    memory.write_batch(pas, words)


def build(mode: str, ept: bool, large: bool, damaged: bool, seed: int, **options) -> pv.MMU:
    """A machine with PAGES pages in twelve regions of 2 MiB, in two of 512 GiB."""
    rng = np.random.default_rng(seed)
    memory = pv.PhysicalMemory(256 * MIB)
    outer, offset, roots = None, 0, {}
    if mode == "nested":
        host = pv.PageTables(memory, format="ept" if ept else "npt", frames=HOST_TABLES)
        shift = 21 if large else 12
        for pa in range(0, 48 * MIB, 2 * MIB):
            host.map_range(pa, pa + OFFSET, 2 * MIB, page_shift=shift if pa % (6 * MIB) else 12)
        outer, offset = host.walker(), OFFSET
        roots = {"nested_root": host.root, "nested_format": host.format}
    tables = pv.PageTables(memory, frames=GUEST_TABLES, outer=outer)
    region = rng.integers(0, 12, PAGES)
    vas = (region % 2 << 39) + (region // 2 % 2 << 30) + (region << 21)
    vas = np.unique(vas + (rng.integers(0, 64, PAGES) << 12)).astype(np.uint64)
    tables.map(vas, rng.integers(0, 8 << 8, len(vas)).astype(np.uint64) << np.uint64(12))
    if damaged:
        damage(memory, entries_of(memory, GUEST_TABLES[0] + offset, GUEST_TABLES[1]), False, rng)
        if outer is not None:
            damage(memory, entries_of(memory, *HOST_TABLES), ept, rng)
    mmu = pv.MMU(mode, memory, cr3=tables.root, **roots, **options)
    mmu.pages = vas
    return mmu


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("form", ["native", "ept", "ept with A and D", "npt", "large"])
@pytest.mark.parametrize("seed", range(8))
def test_as_the_pipeline(name: str, form: str, seed: int):
    """Addresses, outcomes, counters, cached entries and memory are the same at every step."""
    ept, large = form != "npt", form == "large"
    mode = "native" if form == "native" else "nested"
    options = {
        "tlb": GEOMETRIES[name],
        "ept_ad": form == "ept with A and D",
        "cr4": 0x80 if seed % 2 else 0,
        "prefetch": [False, True, "auto"][seed % 3],
    }
    machine = mode, ept, large, seed > 0, seed
    ours = build(*machine, **options)
    other = build(*machine, **options, records=np.zeros(64, pv.mmu.RECORD_DTYPE))
    rng = np.random.default_rng(seed + 100)
    weight = 1 / np.arange(1, len(ours.pages) + 1)
    done = 0
    while done < ACCESSES:
        n = int(rng.integers(1, 900))
        vas = rng.choice(ours.pages, n, p=weight / weight.sum())
        vas = vas + rng.integers(0, 4096, n, dtype=np.uint64)
        kind, user = "rrwx"[rng.integers(4)], bool(rng.integers(2))
        got = ours.translate(vas, kind, user=user)
        want = other.translate(vas, kind, user=user)
        np.testing.assert_array_equal(got.code, want.code)
        np.testing.assert_array_equal(got.pa, want.pa)
        done += n
    for field in ours.stats().dtype.names:
        np.testing.assert_array_equal(ours.stats()[field], other.stats()[field], field)
    np.testing.assert_array_equal(ours.entries(), other.entries())
    np.testing.assert_array_equal(ours.mem.frames(), other.mem.frames())
    for pa in ours.mem.frames():
        assert ours.mem.read(int(pa), 4096) == other.mem.read(int(pa), 4096)
    if seed == 0:  # with damage to an upper table there may be none
        assert ours.stats()["tlb_hits"][0].sum() > 100
