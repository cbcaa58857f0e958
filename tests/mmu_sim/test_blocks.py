"""Walks of two dimensions that are taken a block at a time, against those of the pipeline.

Nearly all accesses of the streams here miss both TLBs and walk through full caches. Now and then
one of them is out of the ordinary, which ends a block and takes back what it did; or the caches say
something else than the tables, which no block may overlook.
"""

import numpy as np
import pytest

import pyvirt as pv
from mmu_sim.machines import MIB
from mmu_sim.test_settled import GIB, GUEST_TABLES, HOST_TABLES, OFFSET, build

PART = 2048
"""Accesses in a call: blocks are tried anew with each."""


def machines(**options) -> tuple[pv.MMU, pv.MMU, np.ndarray]:
    """One that takes blocks, one that leaves all to the pipeline; both with full caches."""
    ours, pages = build("nested", prefetch=True, **options)
    other, _ = build("nested", records=np.zeros(64, pv.mmu.RECORD_DTYPE), **options)
    rng = np.random.default_rng(3)
    for _turn in range(4):
        same(ours, other, rng.choice(pages, PART), "r")
    return ours, other, pages


def same(ours: pv.MMU, other: pv.MMU, vas: np.ndarray, kind: str) -> np.ndarray:
    """Make the same accesses with both; the outcomes."""
    got, want = ours.translate(vas, kind), other.translate(vas, kind)
    np.testing.assert_array_equal(got.code, want.code)
    np.testing.assert_array_equal(got.pa, want.pa)
    for field in ours.stats().dtype.names:
        np.testing.assert_array_equal(ours.stats()[field], other.stats()[field], field)
    np.testing.assert_array_equal(ours.entries(), other.entries())
    return got.code


def words_of(mmu: pv.MMU, base: int, size: int) -> np.ndarray:
    """Host addresses of the non-zero words of some tables."""
    pas = np.arange(base, base + size, 8, dtype=np.uint64)
    return pas[mmu.mem.read_batch(pas, np.uint64) != 0]


GUEST = GUEST_TABLES[0] + OFFSET, GUEST_TABLES[1]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("odd", ["unmapped", "non-canonical", "far"])
def test_an_odd_access(odd: str, seed: int):
    """Faults anywhere in a block, and what their retries find."""
    ours, other, pages = machines()
    rng = np.random.default_rng(seed)
    bad = {"unmapped": 300 * MIB, "non-canonical": 1 << 60, "far": 77 * GIB}[odd]
    faults = 0
    for _turn in range(8):
        vas = rng.choice(pages, PART) + rng.integers(0, 4096, PART, dtype=np.uint64)
        vas[rng.integers(0, PART, rng.integers(1, 4))] = bad
        faults += np.count_nonzero(same(ours, other, vas, "r") & 15)
    assert faults >= 8


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("dimension", ["guest", "host"])
@pytest.mark.parametrize("bits", [0x2, 0x20, 0x40, 0x100, 0x200])
def test_an_odd_entry(dimension: str, bits: int, seed: int):
    """W, A, D or G of a guest's entries, or W, A or D of EPT's, of any level, is the other way."""
    ours, other, pages = machines(ept_ad=True, cr4=0x80)
    rng = np.random.default_rng(seed)
    changed = rng.choice(words_of(ours, *(GUEST if dimension == "guest" else HOST_TABLES)), 12)
    for mmu in (ours, other):
        words = mmu.mem.read_batch(changed, np.uint64) ^ np.uint64(bits)
        mmu.mem.write_batch(changed, words)
        mmu.invept(2)
    for turn in range(8):
        vas = rng.choice(pages, PART) + rng.integers(0, 4096, PART, dtype=np.uint64)
        same(ours, other, vas, "w" if turn % 3 == 2 else "r")
    for pa in ours.mem.frames():
        assert ours.mem.read(int(pa), 4096) == other.mem.read(int(pa), 4096)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize("dimension", ["guest", "host"])
def test_stale_entries(dimension: str, upper: bool, seed: int):
    """Entries change places without an invalidation: caches go on with what they hold."""
    ours, other, pages = machines()
    rng = np.random.default_rng(seed)
    words = words_of(ours, *(GUEST if dimension == "guest" else HOST_TABLES))
    tables, used = np.unique(words >> np.uint64(12), return_counts=True)
    tables = tables[(used > 1) & (used < 16) if upper else used >= 16]
    for _turn in range(6):
        for table in rng.choice(tables, 1 if upper else 6):
            old = words[words >> np.uint64(12) == table]
            new = rng.permutation(old)
            for mmu in (ours, other):
                mmu.mem.write_batch(new, mmu.mem.read_batch(old, np.uint64))
        for _part in range(2):
            vas = rng.choice(pages, PART) + rng.integers(0, 4096, PART, dtype=np.uint64)
            same(ours, other, vas, "r")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dimension", ["guest", "host"])
def test_level_4_misses(dimension: str, seed: int):
    """Walks that begin at the root now and then: a block has changed caches when it sees one."""
    ours, other, pages = machines()
    rng = np.random.default_rng(seed)
    near = pages[:256]
    high = [near + np.uint64(k << 39) for k in range(1, 7)]
    for mmu in (ours, other):
        host = pv.PageTables(mmu.mem, format="ept", frames=(224 * MIB, 16 * MIB))
        for region in np.unique(pages >> np.uint64(21)):
            host.map_range(int(region) << 21, (int(region) << 21) + OFFSET, 2 * MIB)
        host.map_range(GUEST_TABLES[0], GUEST_TABLES[0] + OFFSET, GUEST_TABLES[1])
        host.map_range(208 * MIB, 208 * MIB + OFFSET, 16 * MIB)
        for gpas in high if dimension == "host" else []:
            host.map(gpas, near + np.uint64(OFFSET))
        guest = pv.PageTables(mmu.mem, frames=(208 * MIB, 16 * MIB), outer=host.walker())
        guest.map(pages, pages, attrs=0x60)
        for vas in high:
            guest.map(vas, vas if dimension == "host" else near, attrs=0x60)
        mmu.vm_switch(1, guest.root, host.root)
    for turn in range(10):
        vas = rng.choice(pages, PART)
        odd = rng.integers(0, PART, rng.integers(1, 8) if turn > 3 else 0)
        vas[odd] = rng.choice(np.concatenate(high), len(odd))
        same(ours, other, vas, "r")


@pytest.mark.parametrize("cut", [1, 63, 64, 65, 1000, 1024, 1087])
def test_any_split(cut: int):
    """Calls that end within a block, at its end, and with fewer accesses than one."""
    ours, other, pages = machines()
    vas = np.random.default_rng(cut).choice(pages, 4 * PART)
    want = other.translate(vas, "r")
    for first in range(0, len(vas), cut):
        part = ours.translate(vas[first : first + cut], "r")
        np.testing.assert_array_equal(part.code, want.code[first : first + cut])
        np.testing.assert_array_equal(part.pa, want.pa[first : first + cut])
    for field in ours.stats().dtype.names:
        np.testing.assert_array_equal(ours.stats()[field], other.stats()[field], field)
    np.testing.assert_array_equal(ours.entries(), other.entries())
