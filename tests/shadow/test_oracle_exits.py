"""The plain shadow MMU and NPT against KVM: the exit workloads of kvm_exits.csv."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from oracle.slowshadow import KVM, Workload, run_workload
from shadow.truth import (
    CARRIED,
    EXIT_COLUMNS,
    EXIT_PARAMETERS,
    differences,
    exit_groups,
)

GROUPS = exit_groups(CARRIED)
SHORT = 600
"""Writes of work pages in a run that takes little time."""


def writes(row: dict[str, str]) -> int:
    w = Workload.of_row(row)
    passes = 1 if w.workload == "random" else w.N
    return w.R * (w.K * w.W if w.workload == "switch" else passes)


def cases(short: bool) -> list:
    chosen = {name: rows for name, rows in GROUPS.items() if (writes(rows[0]) <= SHORT) == short}
    return [pytest.param(rows, id="-".join(name)) for name, rows in chosen.items()]


@cache
def run(workload: Workload, mode: str) -> dict[str, int]:
    return run_workload(workload, mode)


def check(rows: list[dict[str, str]]) -> None:
    counts = run(Workload.of_row(rows[0]), rows[0]["mode"])
    for row in rows:
        assert not differences(row, counts, EXIT_COLUMNS)


def test_the_file_is_whole():
    assert len(GROUPS) == 135
    assert all(len(rows) == 1 for rows in GROUPS.values())
    short = [case.values[0][0] for case in cases(short=True)]
    assert {row["workload"] for row in short} == {name[0] for name in GROUPS}


@pytest.mark.parametrize("rows", cases(short=True))
def test_rows_of_short_workloads(rows):
    check(rows)


@pytest.mark.slow
@pytest.mark.parametrize("rows", cases(short=False))
def test_rows_of_long_workloads(rows):
    check(rows)


def test_the_data_repeat_what_is_carried(data_dir: Path):
    """In each repetition on the real machine the counts are those of the one that is carried."""
    groups = exit_groups(data_dir / "guest-images")
    for parameters, rows in groups.items():
        for row in rows:
            counts = {name: int(row[name]) for name in EXIT_COLUMNS}
            assert not differences(GROUPS[parameters][0], counts, EXIT_COLUMNS)


@pytest.mark.parametrize(
    ("rule", "workload"),
    [
        ("unsync", Workload("churn", N=16, R=16, warm=True)),
        ("unsync", Workload("wprotect", N=16, R=8, warm=True)),
        ("read_only_while_clean", Workload("read_then_write", N=64)),
        ("pages_outlive_cr3", Workload("switch", R=64, K=2, W=1, warm=True)),
        ("pages_outlive_cr3", Workload("switch", R=64, K=2, W=1)),
        ("refill_at_invlpg", Workload("wprotect", N=16, R=8, warm=True)),
        ("refill_at_invlpg", Workload("wprotect_cow", N=16, R=8, warm=True, cow=True)),
        ("sync_at_cr3", Workload("clear_accessed", N=64, R=4, warm=True)),
        ("prefetch_only_accessed", Workload("read_then_write", N=64)),
    ],
    ids=str,
)
def test_each_rule_matters(rule: str, workload: Workload):
    """Without the rule the exits of a row are not those of the real machine."""
    ours = {
        **{name: str(value) for name, value in vars(workload).items()},
        **{name: str(int(getattr(workload, name))) for name in ("warm", "huge_backing", "cow")},
        "mode": "shadow",
    }
    rows = GROUPS[tuple(ours[name] for name in EXIT_PARAMETERS)]
    assert not differences(rows[0], run(workload, "shadow"), EXIT_COLUMNS)
    counts = run_workload(workload, "shadow", replace(KVM, **{rule: False}))
    assert "x_pf" in differences(rows[0], counts, EXIT_COLUMNS)


def test_unknown_workloads_are_refused():
    with pytest.raises(ValueError, match="workload 'fork'"):
        run_workload(Workload("fork"), "shadow")
