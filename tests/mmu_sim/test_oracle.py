"""The plain model itself: cases worked by hand, and the walker that it must equal uncached."""

from __future__ import annotations

import random
from collections import OrderedDict

import numpy as np
import pytest

import pyvirt as pv
from core.strategies import Tape
from mmu_sim.machines import GIB, MIB, addresses, machine
from oracle.slowmmu import SlowMMU
from pyvirt.mmu.geometry import Cache, Geometry, TlbArray, WalkCache
from pyvirt.validation.streams import streams

NONE = Geometry.none()
SPLIT = WalkCache("split", {level: Cache(8) for level in (2, 3, 4, 5)})


def native(tlb: Geometry, **options) -> SlowMMU:
    """4 KiB pages at 0, 4K, 2M, 1G, 512G; a 2 MiB page at 4M; a 1 GiB page at 2G."""
    mem = pv.PhysicalMemory(64 * MIB)
    tables = pv.PageTables(mem, frames=(MIB, MIB))
    tables.map([0, 4096, 2 * MIB, GIB, 512 * GIB], [0x5000] * 5, rights="rwx")
    tables.map([4 * MIB], [2 * MIB], page_shift=21, rights="rw")
    tables.map([2 * GIB], [0], page_shift=30, rights="r")
    return SlowMMU("native", mem, cr3=tables.root, tlb=tlb, **options)


def refs(code: int) -> int:
    return code >> 7 & 63


@pytest.mark.parametrize("mode", ["native", "nested"])
def test_without_caches_it_is_the_walker(mode: str):
    """Codes, addresses, references and the A and D bits left in memory."""
    generator = random.Random(5)
    for _ in range(12):
        tape = Tape(generator.randbytes(4096))
        m = machine(tape, mode)
        memory, keywords = m.build()
        del keywords["tables"]
        slow = SlowMMU(memory=memory, tlb=NONE, marking_counts=False, **keywords)
        guest = {"cr4": keywords["cr4"], "set_ad": keywords["set_ad"], "pa_width": 52}
        if mode == "native":
            space = pv.AddressSpace(
                memory, m.roots[0], format=m.guest_format, levels=m.guest_levels, **guest
            )
        else:
            space = pv.NestedAddressSpace(
                memory,
                guest_cr3=m.roots[0],
                nested_root=m.nested_roots[0],
                nested_format=m.nested_format,
                nested_levels=m.nested_levels,
                guest_levels=m.guest_levels,
                guest_format=m.guest_format,
                ept_ad=keywords["ept_ad"],
                **guest,
            )
        draw = addresses(tape, m)
        for _ in range(80):
            va, access, user = draw(), tape.pick("rwx"), tape.chance(50)
            want = space.translate(va, access, user)
            read = len(space.references(va, access, user)) if not want.code else 0
            got = slow.translate_one(va, access, user)
            if want.code:
                assert got.code == want.code
            else:
                assert (got.pa, refs(got.code)) == (want.pa, read)
        for frame in set(memory.frames().tolist()) | set(slow.memory.mem.frames().tolist()):
            assert memory.read(frame, 4096) == slow.memory.mem.read(frame, 4096)


def test_references_by_level_of_the_hit():
    """One reference after a PDE hit, two after a PDPTE hit, three after a PML4E hit."""
    mmu = native(Geometry("psc", guest=SPLIT))
    codes = [mmu.translate_one(va).code for va in (0, 4096, 2 * MIB, GIB, 512 * GIB)]
    assert [refs(code) for code in codes] == [4, 1, 2, 3, 4]
    assert mmu.stats()["guest_cache_hits"].tolist() == [0, 0, 1, 1, 1, 0]
    assert mmu.stats()["guest_refs"].tolist() == [0, 5, 4, 3, 2, 0]
    # Leaves are never in a walk cache: the PDPTE (read with the page at GIB in another region)
    # serves the 2 MiB page, and the PML4E the 1 GiB page.
    assert refs(mmu.translate_one(4 * MIB).code) == 1
    assert refs(mmu.translate_one(2 * GIB).code) == 1


def test_page_table_cache_reads_each_pointer_once():
    mmu = native(Geometry("ptc", guest=WalkCache("page-table", Cache(16))))
    codes = [mmu.translate_one(va).code for va in (0, 4096, 2 * MIB, GIB, 512 * GIB, 4 * MIB)]
    assert [refs(code) for code in codes] == [4, 1, 2, 3, 4, 1]


def test_path_cache_shares_prefixes():
    mmu = native(Geometry("path", guest=WalkCache("path", Cache(2))))
    codes = [mmu.translate_one(va).code for va in (0, 4096, 2 * MIB, 0, GIB, 2 * MIB)]
    # The third path takes over the upper pointers of the first; the fifth drives one out.
    assert [refs(code) for code in codes] == [4, 1, 2, 1, 3, 2]


def test_sizes_levels_and_codes():
    arrays = (
        TlbArray("small", 1, Cache(4), ("4K",)),
        TlbArray("all", 2, Cache(8), ("4K", "2M", "1G")),
    )
    mmu = native(Geometry("sizes", arrays))
    for va, size in ((0, 0), (4 * MIB, 1), (2 * GIB, 2)):
        assert mmu.translate_one(va).code >> 13 & 3 == size
    # Only the 4K page is in level 1; the others hit level 2 every time.
    assert [mmu.translate_one(va).code for va in (0, 4 * MIB, 2 * GIB)] == [
        1 << 4,
        2 << 4 | 1 << 13,
        2 << 4 | 2 << 13,
    ]


def test_smashed_pages():
    arrays = (TlbArray("l1", 1, Cache(4), ("4K",), smash=True),)
    mmu = native(Geometry("smash", arrays))
    first = mmu.translate_one(4 * MIB + 0x3123)
    assert (first.pa, first.code >> 13 & 3) == (2 * MIB + 0x3123, 1)
    again = mmu.translate_one(4 * MIB + 0x3FFF)
    assert (again.pa, again.code) == (2 * MIB + 0x3FFF, 1 << 4)
    assert mmu.translate_one(4 * MIB).code >> 4 & 7 == 0  # another piece


def test_dirty_assist_and_rights():
    mmu = native(Geometry("one", (TlbArray("l1", 1, Cache(16), ("4K", "2M", "1G")),)))
    assert mmu.translate_one(0, "r").code >> 4 & 7 == 0
    write = mmu.translate_one(0, "w").code
    assert (write >> 15, write & 15, refs(write)) == (1, 0, 4)
    assert mmu.translate_one(0, "w").code == 1 << 4
    mmu.translate_one(2 * GIB, "r")
    fault = mmu.translate_one(2 * GIB, "w").code
    assert fault & 15 == pv.Fault.NO_WRITE
    assert mmu.translate_one(2 * GIB, "r").code >> 4 & 7 == 0  # the fault dropped it
    stats = mmu.stats()
    assert (int(stats["dirty_assists"]), int(stats["rights_rewalks"])) == (1, 1)


def test_the_golden_streams_by_another_model():
    """20,000 addresses of each stream through two levels of dictionaries."""
    sets1, ways1, sets2, ways2 = 16, 4, 128, 12
    tlb = Geometry(
        "64/4 + 1536/12",
        (TlbArray("l1", 1, Cache(64, 4)), TlbArray("l2", 2, Cache(1536, 12))),
    )
    for name, vas in streams(20_000):
        first = [OrderedDict() for _ in range(sets1)]
        second = [OrderedDict() for _ in range(sets2)]
        counts = [0, 0, 0]
        for va in vas.tolist():
            page = va >> 12
            l1, l2 = first[page % sets1], second[page % sets2]
            level = 0 if page in l1 else 1 if page in l2 else 2
            counts[level] += 1
            if level:
                l2[page] = True
                l2.move_to_end(page)
                if len(l2) > ways2:
                    l2.popitem(last=False)
            l1[page] = True
            l1.move_to_end(page)
            if len(l1) > ways1:
                l1.popitem(last=False)
        mmu = SlowMMU("tlb-only", tlb=tlb)
        mmu.translate(vas)
        stats = mmu.stats()
        hits = np.asarray(stats["tlb_hits"])[:, 0].tolist()
        assert [*hits[:2], int(stats["walks"][0])] == counts, name


def nested(tlb: Geometry, host_shift: int = 12, **options) -> SlowMMU:
    mem = pv.PhysicalMemory(2 * GIB)
    host = pv.PageTables(mem, format="ept", frames=(GIB, 16 * MIB))
    host.map_range(0, 64 * MIB, 32 * MIB, page_shift=host_shift, rights="rwx")
    guest = pv.PageTables(mem, frames=(MIB, MIB), outer=host.walker())
    guest.map_range(0, 4 * MIB, 4 * MIB, rights="rwx")
    return SlowMMU("nested", mem, cr3=guest.root, nested_root=host.root, tlb=tlb, **options)


def test_nested_references():
    assert refs(nested(NONE, set_ad=False).translate_one(0).code) == 24
    assert refs(nested(NONE, 21, set_ad=False).translate_one(0).code) == 19
    # Setting A in four entries takes four more walks of the EPT.
    assert refs(nested(NONE).translate_one(0).code) == 24
    assert refs(nested(NONE, marking_counts=True).translate_one(0).code) == 24 + 4 * 4
    both = Geometry("both", guest=SPLIT, host=SPLIT, nested_tlb=Cache(64))
    mmu = nested(both, set_ad=False)
    first, second = (refs(mmu.translate_one(va).code) for va in (0, 4096))
    # Tables and data are near each other: after the first walk of the EPT one entry each for
    # the three other tables, then the data's (2 MiB further: two).
    assert first == 4 + 4 + 3 * 1 + 2
    assert second == 1 + 1  # the leaf of the combined pointer's table, and the data's page


def test_page_modification_log():
    mmu = nested(NONE, ept_ad=True, pml=True)
    for page in range(600):
        mmu.translate_one(page << 12, "w")
    stats = mmu.stats()
    # The guest's tables are written, too: one each of 4 levels and a second leaf table.
    assert int(stats["pml_entries"]) == 600 + 5
    assert int(stats["pml_full"]) == 1
    assert len(mmu.logs[0]) == 605 - 512
    before = int(stats["pml_entries"])
    mmu.translate_one(0, "w")
    assert int(mmu.stats()["pml_entries"]) == before
