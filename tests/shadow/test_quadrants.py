"""32-bit and PAE guests: parts of tables, PDPTEs, and the same translations as their own tables."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pyvirt as pv
from pyvirt.errors import InvalidValueError, OutsideMemoryError
from pyvirt.traces import EVENT_DTYPE, Arg, Op
from shadow.machine32 import (
    BIG,
    BIG_FRAME,
    DATA,
    OTHER_PT,
    OTHER_ROOT,
    PAE,
    PGE,
    PHYSMAP,
    PSE,
    PT,
    ROOT,
    SIZE,
    VA,
    A,
    D,
    Guest32,
    P,
    page,
)

FORMATS = ["x86-32", "pae"]
WP, SMEP, SMAP = 1 << 16, 1 << 20, 1 << 21


def shape(m: Guest32) -> list[tuple[int, int, int]]:
    """(level, frame, quadrant) of the shadow pages."""
    return sorted((int(p["level"]), int(p["gfn"]), int(p["role"]) >> 13 & 3) for p in m.pages())


def test_a_directory_of_4_byte_entries_has_four_shadows_and_a_table_two():
    m = Guest32("x86-32")
    m.load(page(0))
    directory = [(2, 0x100, q) for q in range(4)]
    assert shape(m) == [(1, 0x103, 0), *directory]
    m.load(page(600))
    assert shape(m) == [(1, 0x103, 0), (1, 0x103, 1), *directory]
    m.load(page(1030))
    assert shape(m) == [(1, 0x103, 0), (1, 0x103, 1), (1, 0x104, 0), *directory]
    assert m.count("mmu_cache_miss") == 7
    addresses = [hex(a) for a in m.leaves()["address"]]
    assert addresses == [hex(page(i)) for i in (0, 600, 1030)]
    assert m.check() == []


def test_a_pae_guest_has_a_root_for_each_present_pdpte():
    m = Guest32("pae")
    m.load(page(0))
    assert shape(m) == [(1, 0x103, 0), (2, 0x101, 0), (2, 0x102, 0)]
    assert m.load(0x80000000) == (4, 0)
    assert m.store(0x80000000)[1] == 2
    assert m.check() == []


def test_a_write_reaches_the_shadow_entries_that_come_from_the_entry():
    m = Guest32("x86-32")
    for i in (0, 512, 1024):
        m.store(page(i))
    m.load(PHYSMAP + ROOT)
    counts = m.since("mmu_pte_write", "mmu_pde_zapped", "mmu_cache_miss", "x_pf")
    m.edit(m.pde, OTHER_PT | 7)  # 4 MiB: two entries of one quadrant of four
    assert counts() == (1, 2, 0, 1)
    assert sorted(m.leaves()["address"].tolist())[:1] == [page(1024)]
    assert m.store(page(0), 5)[0] == 0
    assert counts() == (1, 2, 0, 2)  # the first half of the other table was known
    assert m.mem.read_u64(DATA) & 0xFFFFFFFF == 5
    assert m.check() == []


def test_a_table_goes_out_of_sync_as_a_whole():
    m = Guest32("x86-32")
    for i in (0, 512):
        m.store(page(i))
    exits = m.since("x_pf", "mmu_unsync", "syncs")
    for i in range(1024):
        m.edit(m.at_pte(i), DATA + 4096 * 7 | 7 | A | D)
    assert exits() == (1, 2, 0)
    m.do(Op.INVLPG, page(0))
    m.do(Op.INVLPG, page(512))
    exits = m.since("x_pf", "syncs")
    m.store(page(0), 1)
    m.store(page(512), 2)
    assert exits()[0] == 0  # refilled by INVLPG, each from its half
    assert m.mem.read_u64(DATA + 4096 * 7) & 0xFF == 2
    m.mov_cr3()
    m.load(page(0))
    assert m.count("mmu_unsync") == 0
    assert m.check() == []


@pytest.mark.parametrize("backing", ["4K", "2M"])
@pytest.mark.parametrize("format", FORMATS)
def test_large_pages(format: str, backing: str):
    m = Guest32(format, backing=backing)
    span = 4 << 20 if format == "x86-32" else 2 << 20
    for offset in range(0, span, span // 4):
        assert m.store(BIG + offset, offset)[0] == 0
    for offset in range(0, span, span // 4):
        assert m.mem.read_u64(BIG_FRAME + offset) == offset
    large = m.count("pages_2m")
    assert large == (0 if backing == "4K" else span >> 21)
    assert m.check() == []


def test_a_4_mib_page_beyond_4_gib():
    """PSE-36: bits 39:32 of the address are bits 20:13 of the entry."""
    for tables in ("shadow", "tdp"):
        m = Guest32("x86-32", tables=tables)
        m.mem.write(m.at_pde(BIG), (0x400000 | 0x87 | 1 << 13).to_bytes(4, "little"))
        assert m.load(BIG)[0] == 3  # no memory there
        m.do(Op.MOV_CR4, value=0)  # without PSE the entry points to a table
        m.mem.write(m.at_pde(BIG), (PT | 0x87).to_bytes(4, "little"))
        m.mov_cr3()
        assert m.load(BIG) == (0, 0)
        assert m.check() == []


def test_pdptes_are_those_of_the_last_load():
    m = Guest32("pae")
    m.load(page(0))
    m.load(PHYSMAP + ROOT)
    built = m.since("roots_built", "mmu_cache_miss", "x_pf")
    m.store(PHYSMAP + ROOT + 8, 0)  # no table is shadowed there: no trap
    assert built() == (0, 0, 0)
    assert m.load(page(0))[0] == 0
    m.mov_cr3()
    assert m.load(page(0)) == (4, 0)
    assert built()[:2] == (1, 0)
    m.store(PHYSMAP + ROOT + 8, 0x101000 | P)
    m.do(Op.MOV_CR4, value=PAE | PSE | PGE)  # loads them, too
    assert m.load(page(0))[0] == 0
    assert m.check() == []


def test_the_same_pdptes_keep_their_roots():
    m = Guest32("pae")
    m.load(page(0))
    built = m.since("roots_built", "roots_hit")
    m.mov_cr3()
    m.load(page(0))
    assert built() == (0, 0)
    m.mov_cr3(OTHER_ROOT)  # others by address: built anew, though of the same directories
    m.load(page(0))
    assert built() == (2, 0)
    assert m.count("mmu_cache_miss") == 3


@pytest.mark.parametrize("tables", ["shadow", "tdp"])
def test_pdptes_that_cannot_be(tables: str):
    m = Guest32("pae", tables=tables)
    m.mem.write_u64(OTHER_ROOT + 8, 0x101000 | 7)
    with pytest.raises(InvalidValueError, match=r"event 0 .*a PDPTE has reserved bits"):
        m.mov_cr3(OTHER_ROOT)
    m.mem.write_u64(OTHER_ROOT + 8, 0x40000000 | P)
    with pytest.raises(OutsideMemoryError, match="a table of the guest is not in memory"):
        m.mov_cr3(OTHER_ROOT)
    assert m.registers()["cr3"] == ROOT
    assert m.store(page(0)) == (0, 0)
    with pytest.raises(InvalidValueError, match="the processor refuses this"):
        m.do(Op.MOV_CR4, value=PAE | PSE | 1 << 17)
    with pytest.raises(InvalidValueError, match="stays on in the format"):
        m.do(Op.MOV_CR4, value=PSE)
    with pytest.raises(OutsideMemoryError, match="CR3 is not in memory"):
        m.mov_cr3(1 << 32 | ROOT)
    assert m.check() == []
    m.mem.write_u64(ROOT, 3)
    with pytest.raises(InvalidValueError, match="a PDPTE at cr3 has reserved bits"):
        pv.Hypervisor(m.mem, format="pae", cr3=ROOT)
    with pytest.raises(InvalidValueError, match="cr3 has 32 bits"):
        pv.Hypervisor(m.mem, format="pae", cr3=1 << 32)
    with pytest.raises(InvalidValueError, match="tlb= is for 64-bit guests"):
        pv.Hypervisor(m.mem, format="x86-32", cr3=ROOT, tlb="reference")


def test_a_root_that_is_zapped_is_built_again():
    for format in FORMATS:
        m = Guest32(format)
        m.load(page(0))
        m.load(PHYSMAP + m.directory)
        zapped = m.since("mmu_flooded", "mmu_shadow_zapped")
        for i in range(3):
            m.edit(m.pde + m.size * 40, 0 if i else OTHER_PT | 7)
        m.do(Op.NOP)
        # of a 32-bit directory the quadrant that the writes themselves go through is in use
        assert zapped() == ((3, 6) if format == "x86-32" else (1, 2))
        assert m.store(page(3), 9)[0] == 0
        assert m.mem.read_u64(DATA + 3 * 4096) & 0xFF == 9
        assert m.check() == []


@pytest.mark.parametrize("tables", ["shadow", "tdp"])
def test_a_bits_in_the_last_entry_of_a_table(tables: str):
    m = Guest32("x86-32", tables=tables)
    last = 1023
    before = m.mem.read(PT + 4096, 4)
    assert m.store(page(last), 1)[0] == 0
    assert m.mem.read(PT + 4 * last, 1)[0] & (A | D) == A | D
    assert m.mem.read(PT + 4096, 4) == before


# -- random streams


def rows(rng: np.random.Generator, count: int, m: Guest32) -> list[tuple[int, ...]]:
    """Accesses, edits of whole and half entries with their flushes, loads of registers."""
    made: list[tuple[int, ...]] = []
    cr0, cr4 = 0x80010033, m.registers()["cr4"]
    for _ in range(count):
        i = int(rng.choice([0, 1, 2, 3, 511, 512, 513, 1023, 1024, 1025]))
        kind, user = int(rng.integers(18)), int(rng.integers(2))
        flags = int(rng.choice([0, 1, 3, 5, 7, 7, 7 | A, 7 | A | D]))
        if kind < 4:
            made.append((Op.LOAD, 4, user, page(i), 0))
        elif kind < 7:
            value = int(rng.integers(1 << 20)) << 12
            made.append((Op.STORE, 4, user | Arg.GIVEN, page(i) + 16, value))
        elif kind == 7:
            at = BIG + 4096 * int(rng.choice([0, 3, 300, 511, 512, 700, 1023]))
            made.append((int(rng.choice([Op.LOAD, Op.STORE])), 4, user, at, 0))
        elif kind < 12:
            entry = DATA + 4096 * int(rng.integers(24)) | flags
            at = PHYSMAP + m.at_pte(i)
            if m.size == 8 and rng.integers(2):
                made.append((Op.STORE, 4, Arg.GIVEN, at, entry))
                if rng.integers(2):
                    made.append((Op.STORE, 4, Arg.GIVEN, at + 4, int(rng.choice([0, 1 << 31]))))
            elif rng.integers(4) == 0:
                made.append((Op.STORE, 1, Arg.GIVEN, at, flags))
            else:
                made.append((Op.STORE, m.size, Arg.GIVEN, at, entry))
            made.append((Op.INVLPG, 0, 0, page(i), 0))
        elif kind < 14:
            target = int(rng.choice([PT, OTHER_PT, BIG_FRAME | 0x80]))
            at = m.at_pde(int(rng.choice([page(0), page(512), page(1024), BIG])))
            made.append((Op.STORE, m.size, Arg.GIVEN, PHYSMAP + at, target | flags | 1))
            made.append((Op.MOV_CR3, 0, 0, 0, ROOT))
        elif kind == 14:
            made.append((Op.MOV_CR3, 0, 0, 0, int(rng.choice([ROOT, OTHER_ROOT]))))
        elif kind == 15 and m.format == "pae":
            pdpte = int(rng.choice([0, 0x101000 | P, 0x101000 | P, 0x101000 | P]))
            made.append((Op.STORE, 8, Arg.GIVEN, PHYSMAP + ROOT + 8, pdpte))
            made.append((Op.MOV_CR3, 0, 0, 0, ROOT))
        elif kind == 16:
            cr0 ^= WP
            made.append((Op.MOV_CR0, 0, 0, 0, cr0))
        elif kind == 17:
            cr4 ^= int(rng.choice([PGE, SMEP, SMAP, PSE]))
            made.append((Op.MOV_CR4, 0, 0, 0, cr4))
            made.append((Op.MOV_CR3, 0, 0, 0, ROOT))
    return made


def events_of(made: list[tuple[int, ...]]) -> np.ndarray:
    events = np.zeros(len(made), EVENT_DTYPE)
    for event, (op, size, arg, addr, value) in zip(events, made, strict=True):
        event["op"], event["size"], event["arg"] = op, size, int(arg)
        event["addr"], event["value"] = addr, value
    return events


VARIANTS = [
    *({"rules": pv.ShadowRules.policy(n)} for n in ("unsync", "write_protect", "trace", "xen")),
    {"page_limit": 24},
    {"backing": "2M"},
    {"rules": pv.ShadowRules(keep_pages=False)},
    {"rules": pv.ShadowRules(prefetch=0, flood_limit=0)},
    {"tables": "tdp"},
    {"tables": "legacy"},
    {"tables": "tdp", "backing": "2M"},
]


def same_as_the_tables(m: Guest32) -> int:
    """Compare loads and stores of a flushed guest with walks of its tables; how many worked."""
    m.mov_cr3(m.registers()["cr3"])
    worked = 0
    for va in [page(i) for i in (0, 1, 2, 511, 512, 1023, 1024)] + [BIG, BIG + 0x2FF000, VA - 4096]:
        for access, user in (("r", False), ("r", True), ("w", False), ("w", True)):
            direct = m.space().translate(va, access=access, user=user)
            if access == "r":
                code, value = m.load(va, user)
            else:
                code, value = m.do(Op.STORE, va, arg=int(user), size=4)
            assert (code == 4) == (not direct.ok), (hex(va), access, user, code, direct)
            if direct.ok and access == "r":
                assert value & ~(A | D) == m.mem.read_u64(direct.pa) & 0xFFFFFFFF & ~(A | D)
                worked += 1
            elif not direct.ok:
                assert value == direct.error
    return worked


@given(
    format=st.sampled_from(FORMATS),
    options=st.sampled_from(VARIANTS),
    seed=st.integers(0, 1 << 32),
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=4),
)
@settings(max_examples=120)
def test_a_flushed_guest_sees_what_its_tables_say(format, options, seed, lengths):
    rng = np.random.default_rng(seed)
    m = Guest32(format, **options)
    for length in lengths:
        m.run(events_of(rows(rng, length, m)))
        assert m.check() == []
        same_as_the_tables(m)
        assert m.check() == []


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("seed", range(4))
def test_the_guest_sees_the_same_under_all(format: str, seed: int):
    first = Guest32(format)
    events = events_of(rows(np.random.default_rng(seed), 300, first))
    outcomes = []
    for options in VARIANTS:
        m = Guest32(format, **options)
        codes, values = np.zeros(len(events), np.uint16), np.zeros(len(events), np.uint64)
        m.run(events, codes=codes, values=values)
        assert m.check() == []
        words = np.frombuffer(m.mem.read(0, SIZE), "<u4") & ~np.uint32(A | D)
        outcomes.append((codes == 4, values & ~np.uint64(A | D), words))
    assert 20 < outcomes[0][0].sum() < len(events) // 2
    for other in outcomes[1:]:
        for found, wanted in zip(other, outcomes[0], strict=True):
            assert np.array_equal(found, wanted)


def test_random_streams_reach_what_they_should():
    """The streams above edit, fault, sync, split and emulate in both formats."""
    for format in FORMATS:
        rng = np.random.default_rng(7)
        m = Guest32(format)
        worked = 0
        for _ in range(10):
            m.run(events_of(rows(rng, 100, m)))
            worked += same_as_the_tables(m)
        assert worked > 50
        for name in ("syncs", "pf_emulate", "mmu_pde_zapped", "guest_faults", "prefetched"):
            assert m.count(name) > 5, (format, name)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("tables", ["shadow", "tdp"])
def test_a_log_of_such_a_guest(format: str, tables: str):
    m = Guest32(format, tables=tables)
    m.store(page(0))
    m.log_dirty()
    m.store(page(0))
    m.store(page(700))
    logged = m.dirty().tolist()
    assert {(DATA >> 12), (DATA >> 12) + 700 % 512} <= set(logged)
    assert set(logged) <= {0x100, 0x101, 0x103, 0x104, *range(DATA >> 12, (DATA >> 12) + 512)}
    assert m.check() == []
