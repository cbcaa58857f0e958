"""The dirty log: what it notes, what that costs, and large pages before and after it."""

import numpy as np
import pytest

import pyvirt as pv
from pyvirt.errors import InvalidTypeError, InvalidValueError, PyvirtError
from pyvirt.traces import Op
from shadow.engine_machine import DATA, PHYSMAP, PML4, PT, SIZE, A, D, Machine, page, pte

FRAMES = SIZE >> 12
BIG = 0x40000000 + (2 << 21)
"""A guest page of 2 MiB at 4 MiB."""
NESTED = ["tdp", "legacy"]


def frame(i: int) -> int:
    return (DATA >> 12) + i


def machine(**options) -> Machine:
    m = Machine(**options)
    m.mem.write_u64(0x102000 + 16, 0x400000 | 0x87)
    for i in range(8):
        m.store(page(i))
    m.store(BIG)
    return m


def test_a_clean_page_faults_once_and_is_logged():
    m = machine()
    m.log_dirty()
    assert m.dirty().tolist() == []
    exits = m.since("x_pf", "pf_fixed", "log_faults", "logged", "pf_fast")
    for _ in range(3):
        m.store(page(2))
        m.store(page(5))
        m.load(page(3))
    assert exits() == (2, 2, 2, 2, 0)
    assert m.dirty().tolist() == [frame(2), frame(5)]
    assert m.dirty().tolist() == []
    m.store(page(2))
    assert exits() == (3, 3, 3, 3, 0)
    assert m.dirty(clear=False).tolist() == m.dirty().tolist() == [frame(2)]
    assert m.check() == []


@pytest.mark.parametrize("tables", NESTED)
def test_nested_entries_get_w_back_without_the_lock(tables: str):
    """Reads of the guest's tables are writes to the nested ones: they are logged, too."""
    m = machine(tables=tables)
    m.log_dirty()
    exits = m.since("x_npf", "pf_fast", "log_faults")
    m.store(page(2))
    path = [f >> 12 for f in (PML4, 0x101000, 0x102000, PT)]
    assert exits() == (5, 5, 5)
    assert m.dirty().tolist() == [*path, frame(2)]
    m.load(page(3))
    assert exits() == (9, 9, 9)
    assert m.dirty().tolist() == path
    assert m.check() == []


@pytest.mark.parametrize("tables", NESTED)
def test_page_modification_logging_costs_no_exit_until_it_is_full(tables: str):
    m = Machine(tables=tables)
    for i in range(600):
        m.store(page(i))
    m.log_dirty(method="pml")
    assert m.count("log_protected") > 600
    exits = m.since("x_npf", "x_pml_full")
    for i in range(507):  # and five tables: two of leaves
        m.store(page(i))
    assert exits() == (0, 0)
    m.store(page(507))
    assert exits() == (0, 0)
    m.store(page(508))
    assert exits() == (0, 1)
    for _ in range(3):
        m.store(page(508))
        m.do(Op.IO)  # an exit takes over what was noted
    m.store(page(509))
    assert exits() == (0, 1)
    logged = m.dirty().tolist()
    assert logged == [0x100, 0x101, 0x102, 0x103, *(frame(i) for i in range(510))]
    assert m.check() == []


def test_every_vcpu_has_its_own_page_modification_log():
    m = Machine(tables="tdp", vcpus=2)
    for i in range(512):
        m.store(page(i))
    m.log_dirty(method="pml")
    for i in range(512):
        m.store(page(i), vcpu=i & 1)
    assert m.count("x_pml_full") == 0
    assert len(m.dirty()) == 516


def test_all_set_protects_nothing_before_it_is_cleared():
    m = machine(backing="2M", tables="tdp")
    large = m.count("pages_2m")
    flushes = m.since("remote_tlb_flush_requests", "log_protected", "x_npf")
    m.log_dirty(all_set=True)
    m.store(page(0))
    assert flushes() == (0, 0, 0)
    assert m.count("pages_2m") == large
    assert m.clear_dirty([frame(1), frame(1), frame(9)]) == 2
    assert flushes()[0] == 1
    assert m.clear_dirty([frame(1)]) == 0
    assert flushes()[0] == 1
    assert m.count("large_split") == 1  # only the one around them
    assert len(m.dirty(clear=False)) == FRAMES - 2
    m.store(page(0))
    assert flushes()[2] == 0
    m.store(page(1))
    assert flushes()[2] == 1
    assert m.check() == []


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("method", ["write_protect", "pml"])
def test_one_page_nested_tables_split_and_collapse(eager: bool, method: str):
    m = machine(backing="2M", tables="tdp", rules=pv.ShadowRules(split_eagerly=eager))
    large = m.count("pages_2m")
    assert (large, m.count("pages_4k")) == (3, 0)
    m.log_dirty(method=method)
    split = m.since("large_split", "x_npf")
    assert m.count("large_split") == (large if eager else 0)
    assert m.count("pages_4k") == (512 * large if eager else 0)
    m.load(BIG + 0x5000)
    m.store(BIG + 0x5000)
    assert 0x405 in m.dirty().tolist()
    assert m.count("large_split") == (3 if eager else 2)  # tables, and the page
    assert m.count("pages_2m") == (0 if eager else 1)
    assert m.check() == []
    flushes = m.since("remote_tlb_flush_requests", "collapsed")
    m.log_dirty(on=False)
    assert flushes() == ((3, 1536) if eager else (2, m.count("collapsed")))
    m.store(BIG + 0x5000)
    m.store(page(0))
    assert m.count("pages_4k") == 0
    assert m.count("pages_2m") == 3
    assert m.check() == []
    assert split()[0] == (0 if eager else 2)


@pytest.mark.parametrize("tables", ["legacy", "shadow"])
def test_the_pool_of_shadow_pages_splits_at_the_first_write(tables: str):
    m = machine(backing="2M", tables=tables)
    assert m.count("pages_2m") >= 1
    large = m.count("pages_2m")
    m.log_dirty()
    m.load(BIG + 0x7000)
    if tables == "shadow":
        assert m.count("pages_2m") == large  # a read does not fault
    m.store(BIG + 0x7000)
    assert m.count("pages_2m") < large
    assert m.count("large_split") >= 1
    assert 0x407 in m.dirty().tolist()
    assert m.counters["large_refused"][0][4] >= 1
    flushes = m.since("remote_tlb_flush_requests")
    m.log_dirty(on=False)
    assert flushes() == 1
    assert m.count("collapsed") >= 1
    m.store(BIG + 0x7000)
    assert m.entry(BIG if tables == "shadow" else 0x400000)[0] & 0x80
    assert m.check() == []


def test_reads_do_not_prefetch_what_is_logged():
    for rules in (pv.ShadowRules(), pv.ShadowRules(log_writes_only=True)):
        m = Machine(tables="legacy", rules=rules)
        m.log_dirty()
        m.load(page(20))
        filled = {int(leaf["gpa"]) >> 12 for leaf in m.leaves()}
        assert filled == {0x100, 0x101, 0x102, 0x103, frame(20)}
        read = [] if rules.log_writes_only else [frame(20)]
        assert m.dirty().tolist() == [0x100, 0x101, 0x102, 0x103, *read]


def test_a_read_makes_a_dirty_page_of_the_guest_writable():
    """As in KVM; the guest's D is set already, so that nothing else would notice a write."""
    for exact in (False, True):
        m = Machine(flags=3 | A | D, rules=pv.ShadowRules(log_writes_only=exact))
        m.log_dirty()
        m.load(page(4))
        assert (frame(4) in m.dirty().tolist()) == (not exact)
        assert m.entry(page(5)) is None  # nor is it prefetched
        m.store(page(4))
        assert m.dirty().tolist() == [frame(4)]
        assert m.check() == []


def test_writes_by_the_hypervisor_are_logged():
    m = Machine()
    m.load(PHYSMAP + PT)
    m.load(page(0))
    m.log_dirty()
    m.load(page(1))  # sets A in the guest's table
    assert m.dirty().tolist() == [PT >> 12]
    m.edit(0x102000 + 8 * 9, 0)  # emulated: a table of level 2
    assert m.count("mmu_pte_write") == 1
    assert m.dirty().tolist() == [0x102]
    clean = m.since("x_pf")
    m.do(Op.STORE_TABLE, pte(40), DATA | 7)
    m.do(Op.STORE_TABLE, pte(41), DATA | 7)
    assert m.dirty().tolist() == [PT >> 12]
    assert clean() <= 2
    assert m.check() == []


def test_a_table_that_is_protected_again_is_not_given_back_by_the_log():
    """A frame that is clean becomes a table: its entry has to stay read-only for that, too."""
    m = Machine()
    m.load(page(0))
    m.store(PHYSMAP + 0x104000)
    m.log_dirty()
    flushes = m.since("remote_tlb_flush_requests")
    m.load(page(600))
    assert flushes() == 1  # the entry could have become writable without the lock
    faults = m.since("log_faults", "mmu_unsync")
    m.edit(0x104000, DATA | 7)
    assert faults() == (0, 1)
    assert 0x104 in m.dirty().tolist()
    assert m.check() == []


def test_a_part_of_memory():
    m = machine(tables="tdp", backing="2M")
    m.log_dirty(512, 512)
    m.store(BIG)
    m.store(page(1))
    assert m.dirty().tolist() == [frame(1)]
    assert m.count("pages_2m") == 2
    with pytest.raises(InvalidValueError, match="frames from 0x200 are logged already"):
        m.log_dirty()
    with pytest.raises(InvalidValueError, match="frames from 0x0 are not logged"):
        m.log_dirty(on=False)
    m.log_dirty(0, 512, method="pml")
    m.log_dirty(512, 512, on=False)
    m.store(page(1))
    assert m.dirty().tolist() == [0x100, 0x101, 0x102, 0x103]
    m.log_dirty(0, 512, on=False)
    assert m.dirty().tolist() == []
    assert m.check() == []


def test_a_snapshot_has_the_log():
    m = machine(tables="tdp")
    m.log_dirty(method="pml")
    m.store(page(1))
    before = m.snapshot()
    first = m.dirty().tolist()
    m.store(page(2))
    m.restore(before)
    assert m.dirty().tolist() == first
    assert m.check() == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"first": 3}, "multiples of 512"),
        ({"count": 3}, "multiples of 512"),
        ({"first": FRAMES}, "first must be in"),
        ({"count": FRAMES + 1}, "count must be in"),
        ({"method": "dirty_ring"}, "method must be one of write_protect, pml, got 'dirty_ring'"),
        ({"method": "pml"}, "for nested tables"),
        ({"on": False}, "frames from 0x0 are not logged"),
    ],
)
def test_bad_arguments(arguments: dict, text: str):
    m = machine()
    with pytest.raises(PyvirtError, match=text):
        m.log_dirty(**arguments)
    assert m.check() == []


def test_a_processor_in_front_keeps_no_log():
    m = machine(tables="tdp", tlb="reference")
    with pytest.raises(InvalidValueError, match="without tlb="):
        m.log_dirty(method="pml")
    m.log_dirty()
    for _ in range(2):
        m.store(page(3))
        assert frame(3) in m.dirty().tolist()
        m.load(page(3))
        assert frame(3) not in m.dirty().tolist()


def test_bad_frames():
    m = machine()
    m.log_dirty()
    with pytest.raises(InvalidValueError, match=r"frames must be in \[0, 0x800\), got"):
        m.clear_dirty([FRAMES])
    with pytest.raises(InvalidTypeError, match="one-dimensional array of integers"):
        m.clear_dirty(np.zeros(2))
    with pytest.raises(InvalidValueError, match="first must be in"):
        m.dirty(FRAMES)
    assert m.clear_dirty([]) == 0
    raw = pv.Hypervisor.__new__(pv.Hypervisor)
    for call in (raw.log_dirty, raw.dirty):
        with pytest.raises(InvalidTypeError, match="not initialised"):
            call()
