"""New event programs: made alike, equal in all modes, and the same with any TLB."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from oracle.slowshadow import (
    ACTIONS,
    MODES,
    Op,
    Program,
    Replay,
    load_programs,
    random_program,
    replay,
    save_programs,
)
from oracle.slowshadow.guestwalk import CR4_PGE, CR4_SMEP, allowed, guest_walk
from oracle.slowshadow.machine import IDENTITY_END, LOW_PDPT, write_identity_map
from oracle.slowshadow.memory import FRAME, TABLES, A, D, Memory, P, index_of, rights_of
from oracle.slowshadow.nested import NestedMMU
from oracle.slowshadow.programs import initial_memory, replay_on
from shadow.truth import CARRIED

ROOTS = [0x100000, 0x107000, 0x108000, 0x109000]


def made(seed: int, family: str | None = None) -> Program:
    return random_program(random.Random(seed), family, name=f"seed{seed}")


def without_ad(run: Replay) -> tuple:
    """What no mode and no TLB may change: a READ may see an A or D bit of a table."""
    results = {i: value & ~(A | D) for i, value in run.results.items()}
    return results, run.hashes["hash_tables"], run.hashes["hash_data"]


class HoldingMMU(NestedMMU):
    """A processor with the worst TLB: it holds whatever it may, and uses the oldest that permits.

    After each store to a table it looks up all pages of the program anew, through entries with
    A=1, from the root and from each upper entry that it holds. It forgets what it must only.
    """

    def __init__(self, memory: Memory, pages: set[int]) -> None:
        super().__init__(memory)
        self.pages = pages
        self.held: dict[int, list[tuple[int, int]]] = {}
        """Page to (frame, rights), oldest first."""
        self.tables: dict[int, list[tuple[int, int]]] = {}
        """2M region to (leaf table, rights above it)."""

    def _access(self, va: int, kind: str) -> int:
        r = self.registers
        for frame, rights in self.held.get(va >> 12, ()):
            if allowed(rights, kind, wp=r.wp, smep=r.smep, smap=r.smap):
                return (frame << 12) + (va & 0xFFF)
        gpa = super()._access(va, kind)
        self._look_up({va >> 12} & self.pages)
        return gpa

    def store(self, va: int, value: int) -> None:
        super().store(va, value)
        if va in TABLES or va >> 12 in self.pages:
            self._look_up(self.pages)

    def _look_up(self, pages: set[int]) -> None:
        for page in pages:
            walk = guest_walk(self.memory, self.registers, page << 12, "read")
            whole = all(step.entry & P and step.entry & A for step in walk.steps)
            if whole:
                self._hold(self.held, page, (walk.frame, walk.rights))
            above = walk.steps[:3]
            if walk.leaf.level == 1 and all(step.entry & A for step in above):
                table = walk.leaf.table << 12, walk.leaf.rights_above
                self._hold(self.tables, page >> 9, table)
            for table, rights in self.tables.get(page >> 9, ()):
                entry = self.memory.read(table + 8 * index_of(page << 12, 1))
                if entry & P and entry & A:
                    both = rights & rights_of(entry)
                    self._hold(self.held, page, ((entry & FRAME) >> 12, both))

    @staticmethod
    def _hold(cache: dict[int, list], key: int, value: tuple[int, int]) -> None:
        lines = cache.setdefault(key, [])
        if value not in lines:
            lines.append(value)

    def invlpg(self, va: int) -> None:
        self.held.pop(va >> 12, None)
        self.tables.clear()

    def mov_cr3(self, value: int) -> None:
        super().mov_cr3(value)
        self._forget_all()

    def mov_cr4(self, value: int) -> None:
        """mmu.md 2b: PGE toggled, or SMEP 0 to 1 (the data's programs count on it)."""
        toggled = value ^ self.registers.cr4
        if toggled & CR4_PGE or toggled & value & CR4_SMEP:
            self._forget_all()
        super().mov_cr4(value)

    def _forget_all(self) -> None:
        self.held.clear()
        self.tables.clear()


def on_holding_mmu(program: Program) -> tuple[Replay, Memory]:
    ops = ("READ", "WRITE", "AND", "OR", "EXEC")
    pages = {op.address >> 12 for op in program.ops if op.op in ops}
    mmu = HoldingMMU(initial_memory(program), {page for page in pages if page << 12 > IDENTITY_END})
    return replay_on(program, mmu), mmu.memory


def check(program: Program) -> Counter:
    """Equal in all modes and with the worst TLB, the identity map untouched; the shadow counts."""
    runs = {mode: replay(program, mode) for mode in MODES}
    expected = without_ad(runs["npt_tdp_mmu"])
    for run in runs.values():
        assert without_ad(run) == expected
    held, memory = on_holding_mmu(program)
    assert without_ad(held) == expected
    start = Memory()
    write_identity_map(start)
    for gpa in range(LOW_PDPT, 0x107000, 8):
        assert memory.read(gpa) & ~(A | D) == start.read(gpa)
    return Counter(runs["shadow"].counts)


@pytest.mark.parametrize("family", ACTIONS)
def test_random_programs(family: str):
    """Two of each family; among them everything that is counted happens."""
    counts = check(made(1, family)) + check(made(2, family))
    for name in ("pf_fixed", "pf_guest", "pf_spurious", "mmu_cache_miss", "tlb_flush"):
        assert counts[name]
    if family not in ("plain", "leaf"):
        for name in ("pf_emulate", "mmu_pte_write"):
            assert counts[name]


@pytest.mark.slow
def test_many_random_programs():
    counts: Counter = Counter()
    for seed in range(100):
        counts.update(check(made(seed)))
    never = {"x_npf", "x_invpcid"}  # there are no nested tables, nor PCIDs
    assert {name for name, count in counts.items() if count <= 0} == never


@pytest.mark.slow
def test_the_data_has_no_need_of_a_tlb_either(data_dir: Path):
    """The paragraph "Flushes", as the generator reads it, holds for the data's programs."""
    for program in load_programs(data_dir / "guest-images" / "programs").values():
        held, _ = on_holding_mmu(program)
        assert without_ad(held) == without_ad(replay(program, "npt_tdp_mmu"))


@pytest.mark.parametrize("name", ["plain01", "reuse01", "mixed04"])
def test_a_carried_program_has_no_need_of_a_tlb_either(name: str):
    program = load_programs(CARRIED / "programs")[name]
    held, _ = on_holding_mmu(program)
    assert without_ad(held) == without_ad(replay(program, "npt_tdp_mmu"))


def test_the_worst_tlb_is_seen_where_a_flush_is_missing():
    """Without their INVLPGs some programs do depend on it, so the tests above can fail."""
    program = made(2, "leaf")
    nothing = Op("READ", 0, 0)
    ops = tuple(nothing if op.op == "INVLPG" else op for op in program.ops)
    bare = replace(program, ops=ops)
    held, _ = on_holding_mmu(bare)
    assert without_ad(held) != without_ad(replay(bare, "npt_tdp_mmu"))


def test_programs_are_written_as_the_data_is(tmp_path: Path):
    programs = [made(seed) for seed in range(3)]
    save_programs(tmp_path, programs)
    assert list(load_programs(tmp_path).values()) == programs

    carried = load_programs(CARRIED / "programs")
    save_programs(tmp_path, carried.values())
    assert load_programs(tmp_path) == carried
    columns = "program,huge_backing,mmu_page_limit,spaces,ops,begin,list_pages"
    assert (tmp_path / "programs.csv").read_text().splitlines()[0] == columns
    text = (CARRIED / "programs" / "programs.csv").read_text()
    assert (tmp_path / "programs.csv").read_text() == text


def test_a_seed_makes_one_program():
    assert made(5) == made(5)
    assert made(5) != made(6)


@pytest.mark.parametrize("length", [1, 250, 251, 252, 253, 254, 255, 1000])
def test_the_list_is_present_before_the_count(length: int):
    program = random_program(random.Random(length), "plain", ops=length)
    names = [op.op for op in program.ops]
    assert names[: program.begin + 1] == ["READ"] + ["OR"] * program.list_pages + ["BEGIN"]
    assert names[-1] == "END"
    assert 16 * len(names) <= 0x1000 * program.list_pages
    assert {op.value for op in program.ops if op.op == "CR3"} <= set(ROOTS[: program.spaces])
