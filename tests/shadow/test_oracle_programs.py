"""The plain shadow MMU against KVM: event programs, their counts, results and final memory."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import pytest

from oracle.slowshadow import KVM, MODES, Program, Rules, load_programs, replay
from shadow.truth import CARRIED, program_differences, program_results, program_rows

FOLDER = CARRIED / "programs"
KINDS = ("plain", "leaf", "ad", "upper", "big", "huge", "cr", "reuse", "mixed", "limit")


@cache
def truth(folder: Path) -> tuple[dict[str, Program], dict, dict]:
    return load_programs(folder), program_rows(folder), program_results(folder)


def wrong_rows(folder: Path, kind: str, modes=MODES, rules: Rules = KVM) -> dict:
    programs, rows, results = truth(folder)
    wrong = {}
    for name, program in programs.items():
        if name.rstrip("0123456789") != kind:
            continue
        for mode in modes:
            run = replay(program, mode, rules)
            found = program_differences(rows[name, mode], results[name], run)
            if found:
                wrong[name, mode] = found
    return wrong


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_of_each_kind(kind: str):
    assert sum(name.startswith(kind) for name in truth(FOLDER)[0]) == 1
    assert not wrong_rows(FOLDER, kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_all_programs(data_dir: Path, kind: str):
    folder = data_dir / "guest-images" / "programs"
    assert sum(name.startswith(kind) for name in truth(folder)[0]) == 5
    assert not wrong_rows(folder, kind)


def test_the_carried_programs_are_the_data(data_dir: Path):
    real = truth(data_dir / "guest-images" / "programs")
    for carried, whole in zip(truth(FOLDER), real, strict=True):
        assert carried
        assert carried.items() <= whole.items()


@pytest.mark.parametrize("rule", [rule.name for rule in fields(Rules)])
@pytest.mark.parametrize("kind", ["leaf", "ad", "cr"])
def test_each_rule_matters(kind: str, rule: str):
    """Without any one of the rules the exits are not those of the real machine."""
    wrong = wrong_rows(FOLDER, kind, ["shadow"], replace(KVM, **{rule: False}))
    (found,) = wrong.values()
    assert "x_pf" in found


def test_rules_do_not_change_the_guest():
    """Exits are a matter of cost: what the guest reads and leaves is the same without a rule."""
    programs, rows, results = truth(FOLDER)
    row = rows["plain01", "shadow"]
    for rule in ("unsync", "pages_outlive_cr3", "refill_at_invlpg"):
        run = replay(programs["plain01"], "shadow", replace(KVM, **{rule: False}))
        assert run.results == results["plain01"]
        assert run.hashes["hash_tables"] == int(row["hash_tables"], 16)
        assert run.hashes["hash_data"] == int(row["hash_data"], 16)


def test_unknown_names_are_refused():
    program = truth(FOLDER)[0]["plain01"]
    with pytest.raises(ValueError, match="mode 'ept'"):
        replay(program, "ept")
    with pytest.raises(ValueError, match="XOR"):
        replay(replace(program, ops=(program.ops[0]._replace(op="XOR"),)), "shadow")
