"""A9 and A9b with a processor in front of the tables: its caches change no count of exits."""

from functools import cache
from pathlib import Path

import pytest

from pyvirt.validation import Context
from pyvirt.validation.datasets import Table
from pyvirt.validation.exits import (
    HASHES,
    SHADOW_ONLY,
    TABLES_OF,
    _workloads,
    find_programs,
    find_workloads,
    read_programs,
    run_program,
    run_workload,
)
from pyvirt.validation.guests import exit_guest
from pyvirt.validation.programs import data_frames
from pyvirt.validation.tally import Tally
from shadow.front_machine import PROCESSORS, TINY, name_of

CARRIED = Path(__file__).parents[1] / "data"


@cache
def workloads(data: Path) -> list:
    """Each workload and mode that was measured, with what is counted without a processor."""
    found = {}
    for path in find_workloads(Context(data)):
        for workload, mode, _ in _workloads(Table(path)):
            if mode in TABLES_OF and (workload, mode) not in found:
                guest = exit_guest(workload)
                huge = workload.huge_backing
                found[workload, mode] = guest, run_workload(guest, TABLES_OF[mode], huge)
    return [(*key, *value) for key, value in found.items()]


@cache
def programs(data: Path) -> list:
    return [
        program
        for folder, prefix in find_programs(Context(data))
        for program in read_programs(folder, prefix, Tally())
    ]


def compare_workloads(data: Path, tlb: object) -> None:
    for workload, mode, guest, counts in workloads(data):
        found = run_workload(guest, TABLES_OF[mode], workload.huge_backing, tlb=tlb)
        assert found == counts, (workload, mode)


def compare_programs(data: Path, tlb: object) -> None:
    """Every column, value read and hash of the real machine's."""
    shared = data_frames().tobytes()
    for program in programs(data):
        for mode, row in program.counts:
            run = run_program(program, TABLES_OF[mode], shared, tlb=tlb)
            where = program.name, mode
            for name, text in row.items():
                if name in run.counts and text and (mode == "shadow" or name not in SHADOW_ONLY):
                    wanted = int(text, 16 if name in HASHES else 10)
                    assert run.counts[name] == wanted, (*where, name)
            if TABLES_OF[mode] in program.results:
                assert (run.listed == program.results[TABLES_OF[mode]]).all(), where
            assert run.machine.check() == [], where
            assert run.machine.mmu_counters["accesses"].sum() > 0, where


@pytest.mark.parametrize("tlb", PROCESSORS, ids=name_of)
def test_the_carried_workloads_have_the_same_exits(tlb: object):
    compare_workloads(CARRIED, tlb)


@pytest.mark.parametrize("tlb", PROCESSORS, ids=name_of)
def test_the_carried_programs_have_the_same_exits(tlb: object):
    compare_programs(CARRIED, tlb)


@pytest.mark.parametrize("tlb", ["reference", TINY], ids=name_of)
def test_all_data_have_the_same_exits(data_dir: Path, tlb: object):
    compare_workloads(data_dir, tlb)
    compare_programs(data_dir, tlb)
