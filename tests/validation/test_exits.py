"""A9 and A9b: each rule matters, and one changed figure of the data is noticed."""

import csv
import lzma
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from pyvirt.errors import ImageFormatError
from pyvirt.mmu.shadow import ShadowRules
from pyvirt.validation import Context, Outcome, experiments
from pyvirt.validation.datasets import Table
from pyvirt.validation.exits import (
    HASHES,
    find_programs,
    find_workloads,
    read_programs,
    run_program,
    run_workload,
)
from pyvirt.validation.guests import Workload, exit_guest
from pyvirt.validation.programs import data_frames, program_events
from pyvirt.validation.tally import Tally

CARRIED = Path(__file__).parents[1] / "data"
MAIN = ("x_pf", "x_invlpg", "x_cr3_write", "guest_pf_handled")
MORE = (*MAIN, "pf_fixed", "pf_spurious", "pages_4k", "mmu_cache_miss", "mmu_unsync", "tlb_flush")


@cache
def shadow_rows() -> list[dict[str, str]]:
    with open(CARRIED / "guest-images" / "kvm_exits.csv", newline="") as stream:
        return [row for row in csv.DictReader(stream) if row["mode"] == "shadow"]


@cache
def programs() -> list:
    ((folder, prefix),) = find_programs(Context(CARRIED))
    return list(read_programs(folder, prefix, Tally()))


def wrong_workloads(rules: ShadowRules) -> tuple[set[str], set[str]]:
    """Workloads with a wrong main column, and with any wrong column."""
    main, more = set(), set()
    for row in shadow_rows():
        numbers = (int(row[name]) for name in ("N", "R", "K", "W"))
        flags = (row[name] == "1" for name in ("warm", "huge_backing", "cow"))
        workload = Workload(row["workload"], *numbers, *flags)
        counts = run_workload(exit_guest(workload), "shadow", workload.huge_backing, rules)
        if any(int(row[name]) != counts[name] for name in MAIN):
            main.add(workload.workload)
        if any(int(row[name]) != counts[name] for name in MORE):
            more.add(workload.workload)
    return main, more


def wrong_programs(rules: ShadowRules) -> set[str]:
    """Programs with a wrong count or hash in shadow mode."""
    shared = data_frames().tobytes()
    wrong = set()
    for program in programs():
        row = dict(program.counts)["shadow"]
        run = run_program(program, "shadow", shared, rules)
        assert run.machine.check() == []
        if any(
            int(text, 16 if name in HASHES else 10) != run.counts[name]
            for name, text in row.items()
            if name in run.counts
        ):
            wrong.add(program.name.rstrip("0123456789"))
    return wrong


def test_with_all_rules_nothing_is_wrong():
    assert wrong_workloads(ShadowRules()) == (set(), set())
    assert wrong_programs(ShadowRules()) == set()


@pytest.mark.parametrize(
    ("change", "workloads"),
    [
        ({"unsync": False}, {"churn", "clear_accessed", "wprotect", "wprotect_cow"}),
        ({"clean_read_only": False}, {"read_then_write"}),
        ({"keep_pages": False}, {"switch", "clear_accessed"}),
        ({"refill_at_invlpg": False}, {"wprotect", "wprotect_cow"}),
        ({"sync_at_cr3": False}, {"clear_accessed"}),
        ({"prefetch_accessed": False}, {"read_then_write", "clear_accessed", "wprotect"}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a9_fails_without(change: dict, workloads: set[str]):
    main, _ = wrong_workloads(ShadowRules(**change))
    assert workloads <= main, main
    assert main != {row["workload"] for row in shadow_rows()}


def test_a9_sees_refill_at_injection_in_the_flushes():
    main, more = wrong_workloads(ShadowRules(refill_at_injection=False))
    assert main == set()
    assert more == {"wprotect", "wprotect_cow"}


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ({"unsync": False}, {"plain", "leaf", "ad", "upper", "big", "cr", "reuse", "mixed"}),
        ({"clean_read_only": False}, {"plain", "leaf", "ad", "mixed"}),
        ({"keep_pages": False}, {"plain", "upper", "limit"}),
        ({"refill_at_invlpg": False}, {"plain", "mixed"}),
        ({"refill_at_injection": False}, {"plain"}),
        ({"sync_at_cr3": False}, {"plain", "mixed"}),
        ({"sync_at_link": False}, {"upper"}),
        ({"prefetch_accessed": False}, {"plain"}),
        ({"prefetch": 0}, {"plain"}),
        ({"stay_unsync": False}, {"mixed"}),
        ({"large_pages": False}, {"huge"}),
        ({"flood_limit": 4}, {"upper"}),
        ({"previous_roots": 0}, {"plain"}),
        ({"least_free": 6}, {"limit"}),
        ({"refill": 24}, {"limit"}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a9b_fails_without(change: dict, kinds: set[str]):
    wrong = wrong_programs(ShadowRules(**change))
    assert kinds & wrong, wrong
    if set(change) <= {"large_pages", "least_free", "refill"}:
        assert wrong == kinds


# --- the experiments notice -------------------------------------------------------------------


@pytest.fixture
def exit_data(tmp_path: Path) -> Path:
    """The carried exit data under other names, in a folder of their own."""
    folder = tmp_path / "guest-images" / "deeper"
    shutil.copytree(CARRIED / "guest-images" / "programs", folder / "others")
    for path in (folder / "others").iterdir():
        path.rename(path.with_name(f"my_{path.name}"))
    shutil.copy(CARRIED / "guest-images" / "kvm_exits.csv", folder / "renamed.csv")
    return tmp_path


def edit(path: Path, change: Callable[[dict[str, str]], object], where: int = 5) -> None:
    """Change one row of a table."""
    opener = lzma.open if path.suffix == ".xz" else open
    with opener(path, "rt", newline="") as stream:
        rows = list(csv.DictReader(stream))
    change(rows[where])
    with opener(path, "wt", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def outcome(id: str, data: Path) -> Outcome:
    return experiments()[id].run(Context(data))


def test_names_do_not_matter(exit_data: Path):
    for id in ("A9", "A9b"):
        found, carried = outcome(id, exit_data), outcome(id, CARRIED)
        assert (found.verdict, found.cases) == ("pass", carried.cases)


COLUMNS = [
    *("x_pf", "x_npf", "x_invlpg", "x_cr3_write", "guest_pf_handled", "pf_taken", "pf_fixed"),
    *("pf_guest", "pf_spurious", "pf_emulate", "pages_4k", "pages_2m", "mmu_cache_miss"),
    *("mmu_unsync", "invlpg", "tlb_flush", "remote_tlb_flush_requests", "mmu_flooded", "x_other"),
]


@pytest.mark.parametrize("column", COLUMNS)
def test_a9_sees_each_column(exit_data: Path, column: str):
    path = exit_data / "guest-images" / "deeper" / "renamed.csv"
    edit(path, lambda row: row.update({column: str(int(row[column]) + 1)}))
    result = outcome("A9", exit_data)
    assert (result.verdict, result.failed) == ("fail", 1)
    assert column in result.reason
    assert "renamed.csv" in result.reason


def test_a9_does_not_look_at_the_timer(exit_data: Path):
    path = exit_data / "guest-images" / "deeper" / "renamed.csv"
    edit(path, lambda row: row.update(x_intr="99", irq_exits="99", exits="999"))
    assert outcome("A9", exit_data).verdict == "pass"


def test_a9_says_what_it_cannot_run(exit_data: Path):
    path = exit_data / "guest-images" / "deeper" / "renamed.csv"
    edit(path, lambda row: row.update(workload="dance"))
    edit(path, lambda row: row.update(mode="ept"), 6)
    result = outcome("A9", exit_data)
    assert result.verdict == "pass"
    assert "dance" in result.reason
    assert "ept" in result.reason


def test_a9_counts_a_guest_that_cannot_be_as_a_failure(exit_data: Path):
    path = exit_data / "guest-images" / "deeper" / "renamed.csv"
    edit(path, lambda row: row.update(N="100000000"))
    result = outcome("A9", exit_data)
    assert (result.verdict, result.failed) == ("fail", 1)
    assert "do not fit" in result.reason


@pytest.mark.parametrize("column", [*COLUMNS[:4], "guest_faults", "mmu_recycled", *HASHES])
def test_a9b_sees_each_column(exit_data: Path, column: str):
    path = exit_data / "guest-images" / "deeper" / "others" / "my_counts.csv"
    base = 16 if column in HASHES else 10
    form = "{:x}" if column in HASHES else "{}"
    edit(path, lambda row: row.update({column: form.format(int(row[column], base) ^ 1)}))
    result = outcome("A9b", exit_data)
    assert (result.verdict, result.failed) == ("fail", 1)
    assert column in result.reason


def test_a9b_sees_a_result_in_each_mode(exit_data: Path):
    path = exit_data / "guest-images" / "deeper" / "others" / "my_results.csv.xz"
    edit(path, lambda row: row.update(value=f"{int(row['value'], 16) ^ 1:x}"))
    assert outcome("A9b", exit_data).failed == 3
    edit(path, lambda row: row.update(shadow_value=f"{int(row['value'], 16) ^ 1:x}"))
    assert outcome("A9b", exit_data).failed == 2


def test_a9b_sees_an_operation(exit_data: Path):
    path = exit_data / "guest-images" / "deeper" / "others" / "my_ops.csv.xz"
    edit(path, lambda row: row.update(op="INVLPG", address="0", value="0"), 100)
    assert outcome("A9b", exit_data).verdict == "fail"


def test_a9b_needs_all_tables(exit_data: Path):
    folder = exit_data / "guest-images" / "deeper" / "others"
    (folder / "my_results.csv.xz").unlink()
    result = outcome("A9b", exit_data)
    assert result.verdict == "pass"
    assert "my_results" in result.reason
    (folder / "my_ops.csv.xz").unlink()
    result = outcome("A9b", exit_data)
    assert (result.verdict, result.cases) == ("skip", 0)
    assert "my_ops" in result.reason


def test_broken_files(exit_data: Path):
    folder = exit_data / "guest-images" / "deeper"
    path = folder / "others" / "my_ops.csv.xz"
    path.write_bytes(path.read_bytes()[:-100])
    assert outcome("A9b", exit_data).verdict == "fail"
    edit(folder / "renamed.csv", lambda row: row.update(x_pf="many"))
    assert outcome("A9", exit_data).verdict == "fail"


def test_unknown_operations_are_refused():
    zeros = np.zeros(2, np.uint64)
    with pytest.raises(ImageFormatError, match="'JUMP'"):
        program_events(["READ", "JUMP"], zeros, zeros)


# --- all data ---------------------------------------------------------------------------------


def test_every_program_leaves_consistent_tables(data_dir: Path):
    shared = data_frames().tobytes()
    for folder, prefix in find_programs(Context(data_dir)):
        for program in read_programs(folder, prefix, Tally()):
            for tables in ("shadow", "tdp", "legacy"):
                assert run_program(program, tables, shared).machine.check() == [], program.name


def test_every_workload_is_found_once_for_each_repetition(data_dir: Path):
    cases = sum(len(Table(path)) for path in find_workloads(Context(data_dir)))
    assert outcome("A9", data_dir).cases == cases
