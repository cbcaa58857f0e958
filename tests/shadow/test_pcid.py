"""PCIDs: which cached roots a load of CR3 and INVPCID sync, forget, or leave as they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvirt.errors import InvalidValueError
from pyvirt.traces import Op
from shadow.engine_machine import (
    DATA,
    OTHER_PML4,
    PHYSMAP,
    PML4,
    PT,
    A,
    D,
    Machine,
    page,
    pte,
)
from shadow.front_machine import TINY
from shadow.lockstep import Lockstep

PCIDE, PGE, PAE = 1 << 17, 1 << 7, 1 << 5
KEEP = 1 << 63


@pytest.fixture
def m():
    return Machine(cr4=PAE | PCIDE)


def test_a_root_is_known_by_its_pcid_too(m):
    m.load(page(0))
    found = m.since("roots_built", "roots_hit")
    m.mov_cr3(PML4 | 5)
    m.load(page(0))
    assert found() == (1, 0)  # the same tables: their pages are found again
    m.mov_cr3(PML4 | KEEP)
    m.load(page(0))
    assert found() == (1, 1)
    assert m.registers()["cr3"] == PML4
    assert m.check() == []


def test_a_load_without_flush_syncs_nothing(m):
    m.store(page(0))
    m.edit(pte(0), DATA + 8 * 4096 | 7 | A | D)  # the table goes out of sync
    m.mov_cr3(OTHER_PML4 | 1 | KEEP)
    m.do(Op.NOP)  # makes the root
    counts = m.since("syncs", "tlb_flush", "remote_tlb_flush_requests")
    m.mov_cr3(PML4 | KEEP)
    m.do(Op.NOP)
    assert counts() == (0, 0, 0)
    assert m.entry(page(0))[1] == DATA  # as a TLB may still say
    m.mov_cr3(PML4)
    m.do(Op.NOP)
    assert counts()[:2] == (1, 1)
    assert m.load(page(0)) == (0, 0)
    assert m.entry(page(0)) is None or m.entry(page(0))[1] == DATA + 8 * 4096
    assert m.check() == []


def test_a_flush_forgets_the_other_roots_of_its_pcid(m):
    for cr3 in (PML4 | 1, OTHER_PML4 | 1 | KEEP, PML4 | 2 | KEEP):
        m.mov_cr3(cr3)
        m.load(page(0))
    found = m.since("roots_hit")
    m.mov_cr3(PML4 | 2)  # of PCID 2 there is no other
    m.mov_cr3(OTHER_PML4 | 1 | KEEP)
    assert found() == 1
    m.mov_cr3(OTHER_PML4 | 1)  # flushes PCID 1, PML4's root of it, too
    m.mov_cr3(PML4 | 1 | KEEP)
    assert found() == 1
    m.mov_cr3(PML4 | 2 | KEEP)
    assert found() == 2


def test_invpcid(m):
    m.mov_cr3(PML4 | 1)
    m.store(page(0))
    m.edit(pte(0), 0)
    m.mov_cr3(OTHER_PML4 | 2 | KEEP)
    m.do(Op.NOP)
    exits = m.since("x_invpcid", "invlpg", "sync_compared", "remote_tlb_flush_requests")
    m.do(Op.INVPCID, page(0), 3, 0)  # of no root
    assert exits() == (1, 1, 0, 0)
    m.do(Op.INVPCID, page(0), 1, 0)
    assert exits() == (2, 2, 0, 1)
    hits = m.since("roots_hit")
    m.do(Op.INVPCID, 0, 1, 1)  # forgets the root of PCID 1
    m.mov_cr3(PML4 | 1 | KEEP)
    assert hits() == 0
    m.do(Op.NOP)
    for kind in (2, 3):
        flushes = m.since("tlb_flush")
        m.do(Op.INVPCID, 0, 0, kind)
        m.do(Op.NOP)
        assert flushes() == 1
    assert m.load(page(0))[0] == 4
    assert m.check() == []


def test_pcids_begin_and_end():
    m = Machine()
    m.mov_cr3(OTHER_PML4 | 8)  # PWT: no PCID
    m.mov_cr3(PML4)
    forgot = m.since("roots_built", "tlb_flush")
    m.do(Op.MOV_CR4, value=PAE | PCIDE)
    m.load(page(0))
    assert forgot() == (1, 1)  # the flush of the last load; the processor flushes nothing now
    flushes = m.since("roots_built", "tlb_flush")
    m.mov_cr3(OTHER_PML4 | 8 | KEEP)
    m.load(page(0))
    assert flushes() == (1, 0)
    m.do(Op.MOV_CR4, value=PAE)
    m.load(page(0))
    assert flushes() == (1, 1)


def test_a_processor_keeps_what_has_another_pcid():
    m = Machine(tables="tdp", cr4=PAE | PCIDE, tlb="reference")
    m.load(page(0))
    for cr3 in (PML4 | 1, PML4 | KEEP):
        m.mov_cr3(cr3)
    walks = int(m.mmu_counters["guest_refs"][0].sum())
    m.load(page(0))
    assert int(m.mmu_counters["guest_refs"][0].sum()) == walks
    m.do(Op.INVPCID, 0, 0, 1)
    m.load(page(0))
    assert int(m.mmu_counters["guest_refs"][0].sum()) > walks


@pytest.mark.parametrize("tlb", [None, "reference"])
@pytest.mark.parametrize("tables", ["tdp", "legacy"])
def test_nested_tables_need_no_exit(tables: str, tlb):
    m = Machine(tables=tables, cr4=PAE | PCIDE, tlb=tlb)
    m.store(page(0))
    exits = m.since("x_cr3_write", "x_invpcid", "x_npf", "x_invlpg")
    m.mov_cr3(PML4 | 7 | KEEP)
    assert m.registers()["cr3"] == PML4 | 7
    m.store(page(0))
    for kind in range(4):
        m.do(Op.INVPCID, page(0), 7, kind)
    assert exits() == (0, 0, 0, 0)


@pytest.mark.parametrize("tables", ["shadow", "tdp"])
def test_what_the_processor_refuses(tables: str):
    m = Machine(tables=tables)
    refused = [
        (Op.MOV_CR3, 0, PML4 | KEEP, 0),
        (Op.INVPCID, page(0), 1, 0),
        (Op.INVPCID, page(0), 1, 1),
        (Op.INVPCID, page(0), 0x1000, 2),
        (Op.INVPCID, page(0), 0, 4),
        (Op.INVPCID, 1 << 47, 0, 0),
    ]
    for op, addr, value, arg in refused:
        with pytest.raises(InvalidValueError, match=r"event 0 .*the processor refuses this"):
            m.do(op, addr, value, arg)
    m.mov_cr3(PML4 | 0x18)
    with pytest.raises(InvalidValueError, match=r"CR3\[11:0\] must be 0"):
        m.do(Op.MOV_CR4, value=PAE | PCIDE)
    m.mov_cr3(PML4)
    m.do(Op.MOV_CR4, value=PAE | PCIDE)
    m.mov_cr3(PML4 | 0xFFF)
    m.do(Op.MOV_CR4, value=PAE | PCIDE | PGE)
    assert m.store(page(0)) == (0, 0)
    assert m.check() == []
    with pytest.raises(InvalidValueError, match="cr3 must have bit 63 clear"):
        Machine(tables=tables, cr3=PML4 | KEEP, cr4=PAE | PCIDE)


def second_space(memory) -> None:
    """A root with a table of leaves of its own."""
    memory.write_u64(OTHER_PML4, 0x106000 | 7)
    memory.write_u64(0x106000 + 8, 0x107000 | 7)
    memory.write_u64(0x107000, 0x104000 | 7)
    memory.write_u64(0x107000 + 8, PT | 7)
    entries = np.arange(512, dtype=np.uint64) * np.uint64(4096) + np.uint64(DATA + 0x40000 | 7)
    memory.write(0x104000, entries.tobytes())


@given(
    seed=st.integers(0, 1 << 32),
    count=st.integers(20, 120),
    limit=st.sampled_from([327, 327, 32]),
    tlb=st.sampled_from([None, None, "reference", TINY]),
)
@settings(max_examples=25)
def test_counts_are_those_of_the_slow_hypervisor(seed: int, count: int, limit: int, tlb):
    """Loads of CR3 with and without flush, INVPCID, edits of tables, CR4: each counts the same.

    Without flush the guest may use stale entries; both must use the same ones. A processor in
    front has more of them where two roots share a PCID, so there they do not.
    """
    rng = np.random.default_rng(seed)
    pair = Lockstep(second_space, cr4=PAE | PCIDE, page_limit=limit, tlb=tlb)
    cr4 = PAE | PCIDE
    for _ in range(count):
        kind, i = int(rng.integers(16)), int(rng.integers(6))
        at = int(rng.choice([PT, 0x104000])) + 8 * i
        pcid = int(rng.integers(4)) if cr4 & PCIDE else 0
        if kind < 6:
            pair.access(Op(int(rng.integers(1, 4))), page(i + int(rng.choice([0, 512]))), 1)
        elif kind < 9:
            flags = int(rng.choice([0, 1, 3, 7, 7 | A, 7 | A | D]))
            pair.access(Op.STORE, PHYSMAP + at, DATA + 4096 * int(rng.integers(20)) | flags)
        elif kind == 9:
            pair.access(Op.STORE, PHYSMAP + 0x102000 + 8 * int(rng.integers(2)), PT | 7)
        elif kind == 10:
            pair.invlpg(page(i))
        elif kind < 14:
            root = int(rng.choice([PML4, OTHER_PML4]))
            keep = KEEP if cr4 & PCIDE and rng.integers(3) else 0
            if tlb is not None and pcid:
                pcid = 1 + 2 * (pcid & 1) + (root == PML4)
            elif tlb is not None:
                keep = 0
            pair.mov_cr3(root | pcid | keep)
        elif kind == 14:
            pair.invpcid(int(rng.integers(4)), pcid, page(i))
        else:
            toggled = int(rng.choice([PGE, PGE, PCIDE]))
            if toggled == PCIDE and not cr4 & PCIDE and pair.fast.registers()["cr3"] & 0xFFF:
                pair.mov_cr3(PML4)
            cr4 ^= toggled
            pair.mov_cr4(cr4)
    pair.memory_is_the_same()
    assert pair.fast.check() == []
