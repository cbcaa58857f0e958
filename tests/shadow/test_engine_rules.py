"""Each rule of the shadow MMU on a guest of a few tables: what exits, and what the entries say."""

import numpy as np
import pytest

import pyvirt as pv
from pyvirt.traces import EVENT_DTYPE, Arg, Op
from shadow.engine_machine import (
    DATA,
    NX,
    OTHER_PML4,
    OTHER_PT,
    PD,
    PHYSMAP,
    PML4,
    PT,
    SIZE,
    A,
    D,
    Machine,
    U,
    W,
    page,
    pte,
)

PGE, SMEP, SMAP = 1 << 7, 1 << 20, 1 << 21


@pytest.fixture
def m():
    machine = Machine()
    yield machine
    assert machine.check() == []


def warm(m: Machine, *gpas: int) -> None:
    """Have the guest's mapping of these frames in the shadow tables, without a table in step."""
    for gpa in gpas:
        m.load(PHYSMAP + gpa)


# --- demand and A, D --------------------------------------------------------------------------


def test_a_page_faults_once(m):
    taken = m.since("x_pf", "pf_fixed")
    assert m.store(page(3), 77) == (0, 0)
    assert taken() == (1, 1)
    assert m.load(page(3)) == (0, 77)
    assert taken() == (1, 1)
    assert m.mem.read_u64(DATA + 3 * 4096) == 77
    assert m.mem.read_u64(pte(3)) == DATA + 3 * 4096 | 3 | A | D


def test_a_page_that_is_read_is_read_only_until_it_is_dirty(m):
    m.load(page(0))
    flags, gpa = m.entry(page(0))
    assert (flags & W, gpa) == (0, DATA)
    assert m.mem.read_u64(pte(0)) & D == 0
    taken = m.since("pf_fixed")
    m.store(page(0))
    assert taken() == 1
    assert m.entry(page(0))[0] & (W | D) == W | D
    assert m.mem.read_u64(pte(0)) & D


def test_without_that_rule_the_guest_misses_a_dirty_bit():
    m = Machine(rules=pv.ShadowRules(clean_read_only=False))
    m.load(page(0))
    taken = m.since("x_pf")
    m.store(page(0))
    assert taken() == 0
    assert m.mem.read_u64(pte(0)) & D == 0


def test_prefetch_stops_at_the_first_page_that_was_not_used(m):
    for i in (8, 9, 11):
        m.mem.write_u64(pte(i), DATA + 4096 * i | 3 | A)
    m.load(page(15))
    assert m.entry(page(8)) is not None
    assert m.entry(page(9)) is not None
    assert m.entry(page(10)) is None
    assert m.entry(page(11)) is None
    assert m.entry(page(8))[0] & A == 0
    assert m.count("prefetched") == 2


def test_without_that_rule_it_takes_all_present_ones():
    m = Machine(rules=pv.ShadowRules(prefetch_accessed=False))
    m.mem.write_u64(pte(5), 0)
    m.load(page(7))
    assert [m.entry(page(i)) is not None for i in range(8)] == [True] * 5 + [False] * 2 + [True]


def test_rights_of_all_levels(m):
    m.mem.write_u64(pte(0), DATA | 1)
    m.mem.write_u64(pte(1), DATA + 4096 | 7 | NX)
    assert m.load(page(0), user=True) == (4, 5)
    assert m.store(page(0)) == (4, 3)
    assert m.store(page(1), user=True) == (0, 0)
    assert m.fetch(page(1)) == (4, 0x11)
    assert m.load(0x123456789000) == (4, 0)
    flags, _ = m.entry(page(1))
    assert flags & (U | NX | W) == U | NX | W
    assert m.count("pf_guest") == m.count("guest_faults") == 4


@pytest.mark.parametrize("tables", ["shadow", "tdp"])
def test_one_word_that_is_an_entry_of_two_levels(tables):
    m = Machine(tables=tables)
    m.mem.write_u64(0x101000 + 16, 0x1F0000 | 7)
    m.mem.write_u64(0x1F0018, 0x1F0000 | 3)  # PD and PT at once: the entry maps its own table
    m.store(0x80000000 + (3 << 21 | 3 << 12) + 0x100)
    assert m.mem.read_u64(0x1F0018) == 0x1F0000 | 3 | A | D
    assert m.check() == []


# --- tables out of sync -----------------------------------------------------------------------


def test_a_leaf_table_traps_once_and_is_synced_by_cr3(m):
    warm(m, PT)
    m.store(page(0))
    taken = m.since("x_pf", "pf_fixed", "mmu_unsync", "pf_emulate")
    m.edit(pte(1), DATA + 9 * 4096 | 3)
    assert taken() == (1, 1, 1, 0)
    m.edit(pte(2), DATA + 8 * 4096 | 3)
    m.edit(pte(0), 0)
    assert taken() == (1, 1, 1, 0)
    assert m.entry(page(0)) is not None  # stale: the guest has not flushed
    m.mov_cr3()
    m.do(Op.NOP)
    assert m.entry(page(0)) is None
    assert m.count("mmu_unsync") == 0
    assert m.load(page(0)) == (4, 0)
    m.edit(pte(0), DATA | 3)
    assert taken()[:2] == (3, 2)  # the refused load, and the table traps again


def test_without_sync_at_cr3_the_stale_entry_stays():
    m = Machine(rules=pv.ShadowRules(sync_at_cr3=False))
    warm(m, PT)
    m.store(page(0))
    m.edit(pte(0), 0)
    m.mov_cr3()
    assert m.load(page(0))[0] == 0


@pytest.mark.parametrize("refill", [True, False])
def test_invlpg_takes_the_new_entry_if_it_was_used(refill: bool):
    m = Machine(rules=pv.ShadowRules(refill_at_invlpg=refill))
    warm(m, PT)
    m.store(page(0), 1)
    m.edit(pte(0), DATA + 4096 * 5 | 3 | A | D)
    m.invlpg(page(0))
    assert (m.entry(page(0)) is not None) is refill
    taken = m.since("x_pf")
    m.store(page(0), 2)
    assert taken() == (0 if refill else 1)
    assert m.mem.read_u64(DATA + 4096 * 5) == 2
    assert m.check() == []


def test_invlpg_does_nothing_to_a_table_in_step(m):
    m.store(page(0))
    requests = m.since("remote_tlb_flush_requests", "x_invlpg")
    m.invlpg(page(0))
    assert requests() == (0, 1)
    assert m.entry(page(0)) is not None


def test_a_refused_access_drops_and_refills_like_invlpg(m):
    warm(m, PT)
    m.load(page(0))
    m.edit(pte(0), DATA | 1 | A)
    requests = m.since("remote_tlb_flush_requests")
    assert m.store(page(0)) == (4, 3)
    assert requests() == 1
    assert m.entry(page(0)) is not None


def test_write_count_of_an_upper_table(m):
    warm(m, PD)
    m.store(page(0))
    emulated = m.since("pf_emulate", "mmu_pte_write", "mmu_pde_zapped", "mmu_flooded")
    m.edit(PD, PT | 7 | 0x200)
    assert emulated() == (1, 1, 1, 0)
    assert m.entry(page(0)) is None
    m.edit(PD + 16, 0)
    assert emulated() == (2, 2, 1, 0)
    m.edit(PD + 16, 0)
    assert emulated() == (3, 3, 1, 1)
    assert m.count("mmu_shadow_zapped") == 1
    found = m.since("pages_found")
    assert m.store(page(0)) == (0, 0)
    assert found() == 1  # the leaf table was kept without parents


def test_a_use_between_writes_keeps_an_upper_table(m):
    warm(m, PD)
    for _ in range(5):
        m.store(page(0))
        m.edit(PD, PT | 7)
    assert m.count("mmu_flooded") == 0


def test_a_write_that_breaks_an_entry_zaps_at_once(m):
    warm(m, PD)
    m.store(page(0))
    m.store(PHYSMAP + PD + 2, 0, size=2)
    assert m.count("mmu_flooded") == 1
    m.store(page(0))
    m.store(PHYSMAP + PD, 0x67, size=1)
    assert m.count("mmu_flooded") == 1


def test_a_frame_that_becomes_an_upper_table_ends_what_is_unsync_of_it(m):
    warm(m, PT)
    m.store(page(0))
    m.edit(pte(1), 0)
    assert m.count("mmu_unsync") == 1
    warm(m, PD - 0x1000)
    m.edit(0x101000 + 16, PT | 7)  # the leaf table as a PD: its entries point to data frames
    m.mem.write_u64(DATA, DATA | 3)
    zapped = m.since("mmu_shadow_zapped")
    assert m.load(page(0) + (1 << 30)) == (0, DATA | 3 | A)
    assert zapped() == 1
    assert m.count("mmu_unsync") == 0


def test_a_read_that_finds_its_entry_is_spurious_where_the_frame_holds_a_table(m):
    m.edit(pte(0), PD | 3 | A | D)  # the guest may write it, the hypervisor keeps it read-only
    m.load(page(0))
    m.edit(0x101000 + 8, PD | 7)  # drops the link above; the entry stays
    faults = m.since("pf_spurious", "pf_fixed")
    m.load(page(0))
    assert faults() == (1, 0)


# --- roots ------------------------------------------------------------------------------------


def roots(m: Machine, count: int) -> list[int]:
    """Make copies of the top table."""
    found = [PML4]
    for k in range(1, count):
        at = 0x180000 + 4096 * k
        m.mem.write(at, m.mem.read(PML4, 4096))
        found.append(at)
    return found


def test_three_previous_roots_are_kept(m):
    r = roots(m, 5)
    m.load(page(0))
    for cr3 in r[1:4]:
        m.mov_cr3(cr3)
        m.load(page(0))
    hits, built = m.since("roots_hit"), m.since("roots_built")
    m.mov_cr3(r[0])
    m.do(Op.NOP)
    assert (hits(), built()) == (1, 0)
    m.mov_cr3(r[4])  # now r[1] is the oldest, and goes
    m.do(Op.NOP)
    m.mov_cr3(r[1])
    m.do(Op.NOP)
    assert (hits(), built()) == (1, 2)
    assert m.count("mmu_cache_miss") == 5 + 3  # the root is found by its frame


def test_without_kept_pages_each_load_of_cr3_starts_anew():
    m = Machine(rules=pv.ShadowRules(keep_pages=False))
    taken = m.since("x_pf")
    for _ in range(4):
        m.store(page(0))
        m.mov_cr3()
    assert taken() == 4


def test_a_flooded_root_is_built_again(m):
    m.mov_cr3(OTHER_PML4)
    m.store(page(0))
    m.mov_cr3(PML4)
    warm(m, OTHER_PML4)
    for _ in range(3):
        m.edit(OTHER_PML4 + 8 * 200, 0)
    assert m.count("mmu_shadow_zapped") == 1
    assert m.pages()["invalid"].sum() == 1
    m.do(Op.NOP)  # the entry forgets it
    assert m.count("mmu_shadow_zapped") == 2
    assert not m.pages()["invalid"].any()
    m.mov_cr3(OTHER_PML4)
    assert m.store(page(0)) == (0, 0)


def test_the_path_of_a_write_keeps_its_own_root(m):
    warm(m, PML4)
    for _ in range(5):
        m.edit(PML4 + 8 * 200, 0)
    assert m.count("pf_emulate") == 5
    assert m.count("mmu_flooded") == 0


def test_cr4_pge_forgets_stale_roots_only(m):
    r = roots(m, 3)
    for cr3 in r:
        m.mov_cr3(cr3)
        m.load(page(0))
    warm(m, PT)
    m.edit(pte(1), 0)  # marks the links above, in all roots that share the table
    m.do(Op.MOV_CR4, value=0x20 | PGE)
    built = m.since("roots_built")
    m.do(Op.NOP)
    m.mov_cr3(r[0])
    m.do(Op.NOP)
    assert built() == 1


def test_wp_clear_lets_the_kernel_write_read_only_pages(m):
    m.mem.write_u64(pte(0), DATA | 5)
    assert m.store(page(0)) == (4, 3)
    m.do(Op.MOV_CR0, value=0x80000033)
    assert m.store(page(0), 5) == (0, 0)
    assert m.entry(page(0))[0] & (W | U) == W
    assert m.load(page(0), user=True) == (0, 5)  # a fault makes it the user's again
    assert m.entry(page(0))[0] & (W | U) == U
    m.do(Op.MOV_CR0, value=0x80010033)
    assert m.store(page(0)) == (4, 3)


def test_smep_and_smap(m):
    m.mem.write_u64(pte(0), DATA | 7)
    assert m.load(page(0)) == (0, 0)
    assert m.fetch(page(0)) == (0, 0)
    m.do(Op.MOV_CR4, value=0x20 | SMEP | SMAP)
    assert m.load(page(0)) == (4, 1)
    assert m.fetch(page(0)) == (4, 0x11)
    assert m.load(page(0), user=True) == (0, 0)


# --- large pages ------------------------------------------------------------------------------


def large(m: Machine, gpa: int = 0x400000) -> int:
    """A 2 MiB page of the guest; give its address."""
    m.mem.write_u64(PD + 24, gpa | 0x83)
    return 0x40000000 + 3 * (1 << 21)


def test_a_large_page_over_small_ones_comes_in_pieces(m):
    va = large(m)
    m.store(va + 0x5008)
    direct = m.pages()[m.pages()["direct"]]
    assert direct["gfn"].tolist() == [0x400]
    assert direct["present"].tolist() == [8]
    taken = m.since("x_pf")
    m.store(va + 0x7000)  # it came with the first one
    assert taken() == 0
    m.store(va + 0x8000)
    assert taken() == 1


def test_other_rights_replace_the_pieces(m):
    va = large(m)
    m.load(va)  # not dirty yet: read-only
    m.store(va + 0x9000)
    direct = m.pages()[m.pages()["direct"]]
    assert sorted(direct["rights"].tolist()) == [4, 5]
    assert m.entry(va) is None


def test_a_large_page_over_a_large_one_is_one_entry():
    m = Machine(backing="2M")
    va = large(m)
    m.store(va)
    taken = m.since("x_pf")
    m.store(va + 0x1FF000)
    assert taken() == 0
    assert m.count("pages_2m") == 1
    assert m.check() == []


def test_reasons_against_a_large_entry():
    m = Machine(backing="2M", size=(8 << 20) - 4096)
    m.store(large(m, 0))  # holds the tables
    assert m.counters["large_refused"][0].tolist() == [0, 0, 1, 0, 0]
    m.load(page(0))
    assert m.counters["large_refused"][0].tolist() == [1, 0, 1, 0, 0]
    m.store(large(m, 0x600000))  # not all of it is memory
    # the guest changed an entry behind the hypervisor's back: flush by hand
    m.mov_cr3(OTHER_PML4)
    m = Machine(backing="2M", size=(8 << 20) - 4096)
    m.store(large(m, 0x600000))
    assert m.counters["large_refused"][0].tolist() == [0, 0, 0, 1, 0]
    m = Machine()
    m.store(large(m))
    assert m.counters["large_refused"][0].tolist() == [0, 1, 0, 0, 0]


def test_a_table_in_a_large_page_takes_its_writability():
    m = Machine(backing="2M")
    va = large(m)
    m.store(va)
    assert m.entry(va)[0] & W
    m.edit(0x101000 + 16, 0x410000 | 7)  # a PD in the middle of it
    m.mem.write_u64(0x410000, OTHER_PT | 7)
    assert m.load(0x80000000)[0] == 0
    assert m.entry(va)[0] & W == 0
    assert m.store(va + 0x10008, 7) == (2, 0)  # emulated: it is a table now
    assert m.count("pages_2m") == 1
    assert m.store(va + 0x20008, 7) == (0, 0)  # split, so that what is no table is writable
    assert m.count("pages_2m") == 0
    assert m.check() == []


# --- limit and host ---------------------------------------------------------------------------


def test_recycling_keeps_the_limit():
    m = Machine(size=16 << 20, page_limit=64)
    for i in range(200):
        m.mem.write_u64(PD + 8 * (i + 4), 0x200000 + 4096 * i | 7)
        m.mem.write_u64(0x200000 + 4096 * i, 0x800000 + 4096 * i | 3)
    for i in range(400):
        assert m.load(0x40000000 + ((i % 200 + 4) << 21))[0] == 0
    assert m.count("mmu_recycled") > 300
    assert m.pages_used <= 64
    assert m.check() == []


def test_the_host_takes_a_frame(m):
    m.store(page(0))
    m.store(page(1))
    assert m.drop_frames(DATA >> 12) == 1
    assert m.entry(page(0)) is None
    assert m.entry(page(1)) is not None
    taken = m.since("x_pf")
    m.store(page(0))
    assert taken() == 1
    assert m.count("host_invalidated") == 1


@pytest.mark.parametrize("tables", ["shadow", "tdp", "legacy"])
def test_the_host_splits_and_collapses(tables):
    m = Machine(backing="2M", tables=tables)
    va = large(m)
    m.store(va)
    assert m.count("pages_2m") >= 1
    m.set_backing(0, SIZE >> 12, False)
    assert m.count("pages_2m") == 0
    m.store(va)
    assert m.count("pages_2m") == 0
    assert m.check() == []
    m.set_backing(0, SIZE >> 12, True)
    m.store(va)
    assert m.count("pages_2m") >= 1
    assert m.check() == []


@pytest.mark.parametrize("tables", ["shadow", "tdp", "legacy"])
def test_where_no_memory_is(tables):
    m = Machine(tables=tables)
    m.mem.write_u64(pte(0), 0xD0000000 | 3)
    exits = m.since("pf_emulate", "pf_mmio")
    assert m.load(page(0)) == (3, 0)
    assert exits() == (1, 0)
    assert m.store(page(0), 5) == (3, 0)
    assert exits() == (1, 1)
    m.slots_changed()
    m.load(page(0))
    assert exits() == (2, 1)
    m.slots_changed((1 << 18) - 1)  # the numbers come round
    m.load(page(0))
    assert exits() == (3, 1)
    assert m.check() == []


# --- nested tables ----------------------------------------------------------------------------


def test_nested_tables_fill_by_violations():
    m = Machine(tables="tdp")
    violations = m.since("x_npf", "pages_4k", "x_pf")
    m.store(page(0))
    assert violations() == (5, 5, 0)  # four tables and the page
    m = Machine(tables="legacy")
    violations = m.since("x_npf", "pages_4k", "x_pf")
    m.store(page(0))
    assert violations() == (2, 16, 0)  # the groups of 8 around both
    m = Machine(tables="tdp", backing="2M")
    violations = m.since("x_npf", "pages_2m", "x_pf")
    m.store(page(0))
    assert violations() == (2, 2, 0)


def test_a_processor_marks_entries_above_one_that_refuses():
    m = Machine(tables="tdp")
    m.mem.write_u64(pte(0), 0)
    assert m.load(page(0)) == (4, 0)
    assert m.mem.read_u64(PD) & A
    shadow = Machine()
    shadow.mem.write_u64(pte(0), 0)
    assert shadow.load(page(0)) == (4, 0)
    assert shadow.mem.read_u64(PD) & A == 0


# --- several vCPUs ----------------------------------------------------------------------------


def test_other_vcpus_flush_and_share_the_tables():
    m = Machine(vcpus=2)
    warm(m, PT)
    m.store(page(0))
    taken = m.since("x_pf")
    assert m.load(page(0), vcpu=1) == (0, 0)
    assert taken() == 0
    m.edit(pte(0), 0, vcpu=1)
    flushes = m.since("tlb_flush", "x_invlpg")
    m.do(Op.INVLPG, page(0), arg=1, vcpu=1)
    assert flushes() == (0, 2)
    m.load(page(1), vcpu=0)
    m.load(page(1), vcpu=1)
    assert flushes() == (2, 2)
    assert m.check() == []


# --- events -----------------------------------------------------------------------------------


def events(*rows):
    found = np.zeros(len(rows), EVENT_DTYPE)
    for event, (op, addr, value, arg, *size) in zip(found, rows, strict=True):
        event["op"], event["addr"], event["value"], event["arg"] = op, addr, value, arg
        event["size"] = size[0] if size else 8
    return found


def run(m, stream):
    codes, values = np.zeros(len(stream), np.uint16), np.zeros(len(stream), np.uint64)
    assert m.run(stream, codes=codes, values=values) == len(stream)
    return codes.tolist(), values.tolist()


def test_an_operation_ends_with_its_fault_and_a_handler_runs(m):
    m.mem.write_u64(pte(0), DATA | 1)
    stream = events(
        (Op.STORE, page(0), 1, int(Arg.GIVEN)),
        (Op.STORE, page(1), 1, int(Arg.GIVEN | Arg.CONTINUES)),
        (Op.STORE, page(2), 0xFA00, int(Arg.ERROR | Arg.HANDLER)),
        (Op.STORE, page(3), 3, int(Arg.GIVEN)),
        (Op.STORE, page(4), 3, int(Arg.GIVEN | Arg.HANDLER)),
    )
    assert run(m, stream) == ([4, 5, 0, 0, 5], [3, 0, 0, 0, 0])
    assert [m.mem.read_u64(DATA + 4096 * i) for i in range(5)] == [0, 0, 0xFA03, 3, 0]


def test_values_of_stores(m):
    m.mem.write_u64(DATA, 0xFFF0000000001F3F)
    stream = events(
        (Op.LOAD, page(0), 0, 0),
        (Op.STORE, page(1), 0, int(Arg.LOADED)),
        (Op.STORE, page(2), 0xFF, int(Arg.AND)),
        (Op.STORE, page(3), 0x40, int(Arg.OR)),
        (Op.STORE, page(4), 0x5000, int(Arg.MOVE)),
        (Op.LOAD, page(9), 0, int(Arg.KEEP)),
        (Op.STORE, page(5), 0, int(Arg.LOADED)),
        (Op.MODIFY, page(3), 0x80, int(Arg.OR)),
        (Op.STORE, page(6), 0, 0),
        (Op.STORE, page(7), 0x1122334455667788, int(Arg.GIVEN), 4),
    )
    run(m, stream)
    assert [hex(m.mem.read_u64(DATA + 4096 * i)) for i in range(1, 8)] == [
        "0xfff0000000001f3f",
        "0x3f",
        "0xfff0000000001fff",
        "0xfff0000000005f3f",
        "0xfff0000000001f3f",
        "0x0",
        "0x55667788",
    ]


def test_an_access_that_crosses_a_page(m):
    stream = events(
        (Op.STORE, page(1) - 3, 0x1122334455667788, int(Arg.GIVEN)),
        (Op.LOAD, page(1) - 3, 0, 0),
    )
    assert run(m, stream)[1][1] == 0x1122334455667788
    assert m.mem.read(DATA + 4093, 3) + m.mem.read(DATA + 4096, 5) == bytes.fromhex(
        "8877665544332211"
    )
    assert m.count("pf_fixed") == 2
    m.mem.write_u64(pte(4), 0)
    assert m.store(page(4) - 4, 1)[0] == 4
    assert m.mem.read_u64(DATA + 4 * 4096 - 8) == 0  # nothing of it is done


def test_an_exit_starts_the_instruction_again():
    """The second access takes the page of the first by recycling: both must be there at last."""
    m = Machine(size=16 << 20, page_limit=21, rules=pv.ShadowRules(least_free=18, refill=19))
    m.mem.write_u64(PD + 8 * 4, 0x200000 | 7)
    m.mem.write_u64(0x200000, 0x800000 | 3)
    stream = events(
        (Op.FETCH, page(0), 0, 0, 1), (Op.LOAD, 0x40000000 + (4 << 21), 0, int(Arg.SAME))
    )
    with pytest.raises(pv.InvalidValueError, match=r"event 1 .* cannot end"):
        m.run(stream)
    assert m.check() == []
    m = Machine(size=16 << 20)
    m.mem.write_u64(PD + 8 * 4, 0x200000 | 7)
    m.mem.write_u64(0x200000, 0x800000 | 3)
    assert m.run(stream) == 2


def test_a_store_by_physical_address_traps_where_a_table_is(m):
    m.store(page(0))
    taken = m.since("x_pf", "pf_fixed", "pf_emulate", "mmu_unsync")
    m.do(Op.STORE_TABLE, DATA + 0x8000, 1)
    assert taken() == (0, 0, 0, 0)
    m.do(Op.STORE_TABLE, pte(1), 0)
    m.do(Op.STORE_TABLE, pte(2), 0)
    assert taken() == (1, 1, 0, 1)
    m.do(Op.STORE_TABLE, PD + 8, OTHER_PT | 7)
    assert taken() == (2, 1, 1, 1)
