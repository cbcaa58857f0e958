"""The dirty log against what a walk in plain Python says each access of random streams touches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pyvirt as pv
from pyvirt.traces import EVENT_DTYPE, Arg, Op
from shadow.engine_machine import (
    DATA,
    OTHER_PML4,
    PHYSMAP,
    PML4,
    SIZE,
    A,
    D,
    Machine,
    page,
    pte,
)
from shadow.front_machine import TINY

BIG = 0x40000000 + (2 << 21)
TABLES = (0x100000 >> 12, 0x120000 >> 12)
P, W, LARGE, NX = 1, 2, 0x80, 1 << 63
ADDRESS = 0x000FFFFFFFFFF000


def walk(memory: pv.PhysicalMemory, cr3: int, va: int) -> tuple[list[int], int | None]:
    """Frames of the tables that are read, and where the page is; None without one."""
    table, frames = cr3 & ADDRESS, []
    for level in (4, 3, 2, 1):
        frames.append(table >> 12)
        entry = memory.read_u64(table + 8 * (va >> 3 + 9 * level & 511))
        if not entry & P:
            return frames, None
        if level == 1 or (level == 2 and entry & LARGE):
            inside = (1 << 3 + 9 * level) - 1
            return frames, entry & ADDRESS & ~inside | va & inside
        table = entry & ADDRESS
    raise AssertionError("a table of leaves has no children")


def actions(rng: np.random.Generator, count: int) -> list[tuple[int, int, int, int]]:
    """Accesses, edits of tables of all levels with their flushes, loads of CR3."""
    rows: list[tuple[int, int, int, int]] = []
    for _ in range(count):
        i, kind, user = int(rng.integers(40)), int(rng.integers(14)), int(rng.integers(2))
        if kind < 3:
            rows.append((Op.LOAD, page(i), 0, user))
        elif kind < 6:
            rows.append((Op.STORE, page(i) + 8, 5, user | Arg.GIVEN))
        elif kind < 8:
            at = BIG + 4096 * int(rng.integers(0, 512, 1)[0] & ~0x1F)
            rows.append((Op.LOAD if kind == 6 else Op.STORE, at, 0, user))
        elif kind == 8:
            rows.append((Op.STORE, page(i) + 4092, 1 << 40 | 7, Arg.GIVEN))  # crosses
        elif kind < 11:
            flags = int(rng.choice([0, 1, 3, 7, 7, 7 | A, 7 | A | D, 5 | A | D]))
            entry = DATA + 4096 * int(rng.integers(48)) | flags | int(rng.integers(2)) << 63
            rows.append((Op.STORE, PHYSMAP + pte(i), entry, Arg.GIVEN))
            rows.append((Op.INVLPG, page(i), 0, 0))
            if i:
                rows.append((Op.INVLPG, page(i - 1), 0, 0))
        elif kind == 11:
            target = 0x103000 | int(rng.choice([0, 3, 7, 7, 7]))
            rows.append((Op.STORE, PHYSMAP + 0x102000, target if target & P else 0, Arg.GIVEN))
            rows.append((Op.MOV_CR3, 0, PML4, 0))
        elif kind == 12:
            rows.append((Op.STORE_TABLE, pte(200 + i), DATA | 7, 0))
        else:
            rows.append((Op.MOV_CR3, 0, int(rng.choice([PML4, OTHER_PML4])), 0))
    return rows


class Watched:
    """A machine, and what its log must have, from the guest's tables before each event."""

    def __init__(self, **options) -> None:
        self.m = Machine(**options)
        self.m.mem.write_u64(0x102000 + 16, 0x400000 | 0x87)
        self.shadow = options.get("tables", "shadow") == "shadow"
        self.walks = options.get("tlb") is None
        """Each access walks, so that nested tables see it read each table."""
        self.written: set[int] = set()
        self.read: set[int] = set()
        self.logged: set[int] = set()
        self.begun: set[int] = set()
        """Where stores that cross pages were refused at the second: they may be in the log."""

    def step(self, op: int, addr: int, value: int, arg: int) -> None:
        m, cr3 = self.m, self.m.registers()["cr3"]
        before = np.frombuffer(m.mem.read(TABLES[0] << 12, TABLES[1] - TABLES[0] << 12), "<u8")
        size = 8 if op in (Op.LOAD, Op.STORE, Op.STORE_TABLE) else 0
        places = []
        if op in (Op.LOAD, Op.STORE):
            places = [addr] if addr & 0xFFF <= 4088 else [addr, (addr | 0xFFF) + 1]
        walks = [walk(m.mem, cr3, va) for va in places]
        event = np.zeros(1, EVENT_DTYPE)
        event[0] = op, size, 0, int(arg), addr, value
        codes = np.zeros(1, np.uint16)
        m.run(event, codes=codes)
        done = codes[0] != 4
        after = np.frombuffer(m.mem.read(TABLES[0] << 12, TABLES[1] - TABLES[0] << 12), "<u8")
        changed = np.flatnonzero(before != after) >> 9
        self.written |= {TABLES[0] + int(f) for f in changed}
        if op == Op.STORE_TABLE:
            self.written.add(addr >> 12)
        for i, (frames, gpa) in enumerate(walks):
            if not self.shadow and (done or i == 0):
                (self.written if self.walks else self.read).update(frames)
            if gpa is not None and not done and len(places) == 2:
                self.begun.add(gpa >> 12)
            elif gpa is not None and done:
                (self.written if op == Op.STORE else self.read).add(gpa >> 12)

    def fetch(self) -> tuple[set[int], set[int], set[int]]:
        """What the log has, what it must have, and what was only read."""
        found = set(map(int, self.m.dirty()))
        self.logged |= found
        written, read = self.written, self.read
        found -= self.begun - written
        self.written, self.read, self.begun = set(), set(), set()
        return found, written, read - written


MODES = [
    {"tables": "shadow"},
    {"tables": "shadow", "backing": "2M"},
    {"tables": "shadow", "policy": "write_protect"},
    {"tables": "shadow", "policy": "trace"},
    {"tables": "shadow", "policy": "xen"},
    {"tables": "shadow", "page_limit": 26},
    {"tables": "tdp"},
    {"tables": "tdp", "backing": "2M"},
    {"tables": "tdp", "backing": "2M", "split_eagerly": False},
    {"tables": "legacy"},
    {"tables": "legacy", "backing": "2M"},
    {"tables": "shadow", "tlb": "reference"},
    {"tables": "tdp", "tlb": TINY},
    {"tables": "tdp", "backing": "2M", "tlb": "reference"},
    {"tables": "legacy", "backing": "2M", "tlb": "reference"},
    {"tables": "tdp", "method": "pml"},
    {"tables": "tdp", "backing": "2M", "method": "pml"},
    {"tables": "legacy", "backing": "2M", "method": "pml"},
]


def watched(mode: dict, exact: bool) -> tuple[Watched, str]:
    options = dict(mode)
    method = options.pop("method", "write_protect")
    changes = {"log_writes_only": exact, "split_eagerly": options.pop("split_eagerly", True)}
    rules = pv.ShadowRules.policy(options.pop("policy", "unsync"), **changes)
    return Watched(rules=rules, **options), method


@given(
    mode=st.sampled_from(MODES),
    exact=st.booleans(),
    all_set=st.booleans(),
    seed=st.integers(0, 1 << 32),
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5),
)
@settings(max_examples=150)
def test_the_log_has_what_was_written(mode, exact, all_set, seed, lengths):
    rng = np.random.default_rng(seed)
    w, method = watched(mode, exact)
    for action in actions(rng, 30):
        w.step(*action)
    w.fetch()
    w.m.log_dirty(method=method, all_set=all_set)
    if all_set:
        assert w.fetch()[0] == set(range(SIZE >> 12))
    for length in lengths:
        for action in actions(rng, length):
            w.step(*action)
        assert w.m.check() == []
        found, written, read = w.fetch()
        assert written <= found
        if exact and w.walks:
            assert found == written
        elif not w.shadow:
            assert found <= written | read
        assert w.m.check() == []
    w.m.log_dirty(on=False)
    large = w.m.count("pages_2m")
    for action in actions(rng, 30):
        w.step(*action)
    assert w.m.dirty().tolist() == []
    assert w.m.check() == []
    if mode.get("backing") == "2M" and not w.shadow:
        w.m.store(BIG)
        assert w.m.count("pages_2m") >= max(large, 1)


@pytest.mark.parametrize("tables", ["tdp", "legacy"])
@pytest.mark.parametrize("seed", range(6))
def test_kvm_logs_what_it_maps_anew(tables: str, seed: int):
    """Without `log_writes_only`: a frame that was never mapped is logged when it is read."""
    rng = np.random.default_rng(seed)
    w, method = watched({"tables": tables}, False)
    w.m.log_dirty(method=method)
    extra = 0
    for _ in range(12):
        for action in actions(rng, 12):
            w.step(*action)
        mapped = set(w.logged)
        found, written, read = w.fetch()
        assert found == written | (read - mapped)
        extra += len(found - written)
    assert extra > 10


@pytest.mark.parametrize("seed", range(6))
def test_the_guest_sees_the_same_with_a_log(seed: int):
    memories = []
    for mode in [{"tables": "tdp"}, *MODES]:
        w, method = watched(mode, False)
        rng = np.random.default_rng(seed)
        for k in range(4):
            if memories and k == 1:
                w.m.log_dirty(method=method)
            if memories and k == 3:
                w.m.log_dirty(on=False)
            for action in actions(rng, 40):
                w.step(*action)
            w.fetch()
        words = np.frombuffer(w.m.mem.read(0, SIZE), "<u8") & ~np.uint64(A | D)
        memories.append(words)
    for words in memories[1:]:
        assert np.array_equal(words, memories[0])
