"""Agile paging: when tables move, what that spares, and what its hardware aids do."""

import pytest

import pyvirt as pv
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.mmu.geometry import Geometry
from pyvirt.traces import Op
from shadow.engine_machine import OTHER_PML4, PDPT, PHYSMAP, PML4, PT, A, D, Machine, page, pte
from shadow.engine_machine import PD as DIRECTORY

EVERY = pv.ShadowRules.policy("write_protect", flood_limit=0)
LEVEL_OF = {PT: 1, DIRECTORY: 2, PDPT: 3, PML4: 4}
NOTHING = 8 * 500  # offset of an entry that no address goes through


def agile(rules: pv.ShadowRules = EVERY, tlb: object = "reference", **options) -> Machine:
    machine = {name: options.pop(name) for name in ("vcpus", "cr3", "flags") if name in options}
    agile = pv.AgileRules(**({"interval": 0} | options))
    return Machine(tables="agile", tlb=tlb, rules=rules, agile=agile, **machine)


def write(m: Machine, table: int, times: int = 1) -> None:
    """Write an entry of a table that stays as it is."""
    for _ in range(times):
        assert m.edit(table + NOTHING, 0)[0] in (0, 2)


def idle(m: Machine, events: int) -> None:
    for _ in range(events):
        m.do(Op.NOP)


def references(m: Machine, va: int) -> int:
    before = m.mmu_counters.copy()
    assert m.load(va)[0] == 0
    after = m.mmu_counters
    return sum(int((after[n] - before[n]).sum()) for n in ("guest_refs", "host_refs"))


@pytest.mark.parametrize("table", LEVEL_OF)
def test_a_table_that_is_written_often_moves(table: int):
    m = agile(writes=3, tlb=Geometry.none())
    m.load(page(0))
    write(m, table, 2)
    assert len(m.nested_tables()) == 0
    write(m, table)
    trapped, exits = m.count("agile_trapped"), m.since("x_pf", "x_npf", "mmu_pte_write")
    m.load(page(0))
    moved = m.nested_tables().tolist()
    assert moved[0] == [table >> 12, LEVEL_OF[table]]
    assert [PT >> 12, 1] in moved  # with what is below
    write(m, table)  # the mapping of its frame becomes writable
    exits = m.since("x_pf", "x_npf", "mmu_pte_write")
    write(m, table, 10)
    assert exits() == (0, 0, 0)
    assert m.count("agile_trapped") == trapped == 3
    assert m.count("agile_untrapped") == 11
    assert m.count("agile_moved") == len(moved)
    m.load(page(0))
    assert references(m, page(0)) == 4 + 4 * LEVEL_OF[table]
    assert m.counters["agile_switches"][0, LEVEL_OF[table]] > 0
    assert m.check() == []


def test_an_edit_of_a_nested_table_needs_no_exit_but_the_guests_flush():
    m = agile(writes=1)
    m.store(page(0), 7)
    m.store(page(1), 8)
    write(m, PT)
    m.edit(pte(0), 0x201003)
    m.load(page(0))
    exits = m.since("x_pf", "x_npf")
    m.edit(pte(0), 0x201003)
    m.invlpg(page(0))
    assert m.load(page(0)) == (0, 8)
    m.edit(pte(0), 0)
    m.invlpg(page(0))
    assert m.load(page(0)) == (4, 0)  # the guest's own fault: no exit
    assert exits() == (0, 0)


def test_writes_are_counted_by_interval():
    m = agile(writes=2, interval=20)
    m.load(page(0))
    write(m, PT)
    idle(m, 25)
    write(m, PT)
    m.load(page(0))
    assert m.count("agile_intervals") == 1
    assert m.count("agile_moved") == 0
    write(m, PT)
    m.load(page(0))
    assert m.count("agile_moved") == 1


@pytest.mark.parametrize("back", ["dirty", "all"])
def test_what_was_written_stays(back: str):
    m = agile(writes=1, interval=30, back=back)
    m.load(page(0))
    write(m, PT)
    for _ in range(3):
        idle(m, 28)
        m.load(page(0))
        write(m, PT, 2)
    assert m.count("agile_intervals") == 3
    if back == "dirty":
        assert m.count("agile_returned") == 0
        assert len(m.nested_tables()) == 1
        idle(m, 70)
        assert m.count("agile_returned") == 1
    else:
        assert m.count("agile_returned") == m.count("agile_intervals") == 3
    assert m.check() == []


def test_a_table_returns_for_good_if_nobody_writes_it():
    m = agile(writes=1, interval=20, tlb=Geometry.none())
    m.load(page(0))
    write(m, PML4)
    m.load(page(0))
    assert references(m, page(0)) == 20
    idle(m, 60)
    m.load(page(0))
    assert references(m, page(0)) == 4
    assert len(m.nested_tables()) == 0
    assert m.count("agile_returned") == m.count("agile_moved")


def test_a_process_is_nested_as_a_whole():
    m = agile(writes=3, interval=50, granularity="process", tlb=Geometry.none())
    m.load(page(0))
    for table in (PT, DIRECTORY, PT):  # counted together
        write(m, table)
    m.load(page(0))
    assert references(m, page(0)) == 24
    assert m.nested_tables()[0].tolist() == [PML4 >> 12, 4]
    exits = m.since("x_invlpg", "invlpg")
    m.invlpg(page(0))
    assert exits() == (0, 0)
    m.mov_cr3(OTHER_PML4)
    m.load(page(0))
    assert references(m, page(0)) == 4
    m.mov_cr3(PML4)
    m.load(page(0))
    assert references(m, page(0)) == 24
    assert m.check() == []
    idle(m, 120)
    m.load(page(0))
    assert references(m, page(0)) == 4


def test_other_processes_switch_to_the_same_table():
    m = agile(writes=1, tlb=Geometry.none())
    for root in (PML4, OTHER_PML4):
        m.mov_cr3(root)
        m.load(page(0))
    write(m, PDPT)
    for root in (PML4, OTHER_PML4):
        m.mov_cr3(root)
        m.load(page(0))
        assert references(m, page(0)) == 16
    assert m.counters["agile_switches"][0, 3] == 2
    assert m.check() == []


def test_walk_caches_know_where_their_entries_lead():
    """A switching entry that is cached spares the shadow part of a walk, and keeps the rest."""
    m = agile(writes=1)
    for i in range(8):
        m.load(page(i))
    write(m, DIRECTORY)
    for i in range(8):
        m.load(page(i))
    m.mov_cr3(PML4)
    m.load(page(0))
    before = m.mmu_counters.copy()
    m.load(page(1))  # the directory's entry is cached with the place of the table in the host
    after = m.mmu_counters
    assert (after["guest_cache_hits"] - before["guest_cache_hits"])[0].tolist() == [
        0,
        0,
        1,
        0,
        0,
        0,
    ]
    assert (after["guest_refs"] - before["guest_refs"])[0].tolist() == [0, 1, 0, 0, 0, 0]
    assert (after["nested_walks"] - before["nested_walks"])[0] == 1  # of the page


def test_hardware_sets_a_and_d_without_exits():
    """The first write to a page that was read: an exit for D, or one more walk."""
    for aid in (False, True):
        m = agile(writes=0, hardware_ad=aid)
        for i in range(4):
            m.load(page(i))
        walks = m.since("x_pf")
        for i in range(4):
            assert m.store(page(i), 1)[0] == 0
        assert walks() == (0 if aid else 4)
        assert m.count("x_npf") == (len({PML4, PDPT, DIRECTORY, PT}) if aid else 0)
        for i in range(4):
            assert m.mem.read_u64(pte(i)) & (A | D) == A | D
        assert m.check() == []


def test_hardware_does_not_set_d_in_a_page_that_is_only_read():
    m = agile(writes=0, hardware_ad=True)
    m.load(page(0))
    m.store(page(1), 1)
    assert m.mem.read_u64(pte(0)) & (A | D) == A
    assert m.entry(page(0))[0] & (2 | D) == 2  # writable, and clean
    # the guest cleans the page, and flushes
    m.edit(pte(1), m.mem.read_u64(pte(1)) & ~D)
    m.invlpg(page(1))
    m.load(page(1))
    assert m.mem.read_u64(pte(1)) & D == 0
    m.store(page(1), 1)
    assert m.mem.read_u64(pte(1)) & D


def test_the_root_cache_spares_exits():
    m = agile(writes=0, root_cache=1)
    for root in (PML4, OTHER_PML4):
        m.mov_cr3(root)
        m.load(page(0))
    exits = m.since("x_cr3_write", "agile_root_hits", "x_pf")
    flushes = m.mmu_counters["invalidations"][0, 1]
    for root in (PML4, OTHER_PML4) * 3:
        m.mov_cr3(root)
        assert m.load(page(0))[0] == 0
    assert exits() == (0, 6, 0)
    assert m.mmu_counters["invalidations"][0, 1] == flushes + 6
    m.mov_cr3(0x106000)  # a third one
    m.mov_cr3(PML4)  # the oldest is not known any more
    assert exits()[0] == 2


def test_a_load_of_cr3_exits_while_a_table_is_out_of_sync():
    m = agile(rules=pv.ShadowRules(), writes=0, root_cache=3)
    m.load(page(0))
    m.edit(pte(0), 0x205003)  # unsync from now on
    exits = m.since("x_cr3_write", "agile_root_hits")
    m.mov_cr3(PML4)
    assert exits() == (1, 0)
    m.load(page(0))
    m.mov_cr3(PML4)
    assert exits() == (1, 1)


def test_stores_by_physical_address_count_as_writes():
    m = agile(writes=2, interval=40)
    m.load(page(0))
    for _ in range(2):
        m.do(Op.STORE_TABLE, PT + NOTHING)
    m.load(page(0))
    assert len(m.nested_tables()) == 1
    for _ in range(3):
        m.do(Op.STORE_TABLE, PT + NOTHING)
        idle(m, 39)
    assert m.count("agile_untrapped") == 3
    assert m.count("agile_returned") == 0
    idle(m, 80)
    assert m.count("agile_returned") == 1


def test_no_memory_and_no_table():
    m = agile(writes=1)
    m.load(page(0))
    write(m, PT)
    m.edit(pte(0), 0x7000000 | 3)  # beyond memory
    m.invlpg(page(0))
    for _ in range(2):
        assert m.load(page(0)) == (3, 0)
    m.edit(DIRECTORY, 0x7000000 | 7)
    m.mov_cr3()
    with pytest.raises(pv.OutsideMemoryError, match="table of the guest"):
        m.load(page(0))
    assert m.check() == []
    m.edit(DIRECTORY, PT | 7)
    m.mov_cr3()
    assert m.load(page(1))[0] == 0


def test_bad_arguments():
    with pytest.raises(InvalidValueError, match="needs a processor"):
        Machine(tables="agile")
    with pytest.raises(InvalidValueError, match='tables="agile"'):
        Machine(agile=pv.AgileRules())
    with pytest.raises(InvalidTypeError, match="agile must be AgileRules"):
        Machine(tables="agile", tlb="reference", agile={"writes": 2})
    for change, words in (
        ({"back": "some"}, "back must be one of dirty, all"),
        ({"granularity": "page"}, "granularity must be one of table, process"),
    ):
        with pytest.raises(InvalidValueError, match=words):
            pv.AgileRules(**change)
    with pytest.raises(InvalidTypeError, match="hardware_ad"):
        pv.AgileRules(hardware_ad=1)
    for change in ({"writes": -1}, {"interval": -1}, {"root_cache": 8}):
        with pytest.raises(InvalidValueError, match=next(iter(change))):
            agile(**change)
    with pytest.raises(InvalidValueError, match="other arguments"):
        agile(writes=1).restore(agile(writes=2).snapshot())
    assert (agile().load(PHYSMAP)[0], agile().nested_tables().shape) == (0, (0, 2))
