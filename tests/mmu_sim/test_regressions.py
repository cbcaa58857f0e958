"""What the random scripts found once, as small as it gets."""

import pytest

import pyvirt as pv
from mmu_sim.machines import MIB
from pyvirt.mmu.geometry import Cache, Geometry, TlbArray, WalkCache


@pytest.mark.parametrize("sets", [1, 2, 3, 5])
def test_inclusion_finds_pages_of_the_upper_half(sets: int):
    """What leaves level 2 leaves level 1, whatever the number of sets."""
    memory = pv.PhysicalMemory(16 * MIB)
    tables = pv.PageTables(memory, frames=(MIB, MIB))
    upper = (1 << 64) - (1 << 46)
    tables.map([upper, 0x1000], [0x5000, 0x6000])
    first, second = Cache(4 * sets, 4), Cache(1)
    arrays = TlbArray("l1", 1, first), TlbArray("l2", 2, second)
    mmu = pv.MMU("native", memory, cr3=tables.root, tlb=Geometry("x", arrays, inclusive=True))
    mmu.translate([upper, 0x1000])
    assert sorted(mmu.entries()["page"].tolist()) == [1, 1]


def test_pdptes_of_pae_have_no_accessed_bit():
    """Bit 5 of a PDPTE is reserved: a cached one must not have it either."""
    memory = pv.PhysicalMemory(16 * MIB)
    tables = pv.PageTables(memory, format="pae", levels=3, frames=(MIB, MIB))
    tables.map([0x1000, 0x2000], [0x5000, 0x6000])
    geometry = Geometry("x", guest=WalkCache("page-table", Cache(16)))
    mmu = pv.MMU("native", memory, cr3=tables.root, guest_format="pae", tlb=geometry)
    codes = mmu.translate([0x1000, 0x2000]).code
    assert (codes & 15).tolist() == [0, 0]
    assert (codes >> 7 & 63).tolist() == [3, 1]
