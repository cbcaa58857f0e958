"""The compiled hypervisor against the plain-Python one, on programs that no one ran before.

Programs are made and run by `oracle.slowshadow`, written down in the files of the measured ones,
and run by experiment A9b from there.
"""

import csv
import lzma
import random
from functools import partial
from pathlib import Path

import pytest

from oracle.slowshadow import (
    ACTIONS,
    MODES,
    Program,
    Workload,
    random_program,
    replay,
    run_workload,
    save_programs,
)
from pyvirt.mmu.shadow import ShadowRules
from pyvirt.validation import Context, exits, experiments, guests
from pyvirt.validation.guests import exit_guest
from shadow.truth import EXIT_COLUMNS, HASHES, PROGRAM_COLUMNS, differences

COLUMNS = [*PROGRAM_COLUMNS, "insn_emulation"]
NOT_TOLD = "insn_emulation"
"""No rule of the data's README says what this is."""


def write_down(folder: Path, programs: list[Program]) -> None:
    """All files of programs/, with what the slow hypervisor counts and reads."""
    folder.mkdir(parents=True)
    save_programs(folder, programs)
    with (
        open(folder / "counts.csv", "w", newline="") as counts_file,
        lzma.open(folder / "results.csv.xz", "wt", newline="") as results_file,
    ):
        counts = csv.writer(counts_file)
        results = csv.writer(results_file)
        counts.writerow(["program", "mode", *COLUMNS, *HASHES])
        results.writerow(["program", "i", "value", "shadow_value"])
        for program in programs:
            runs = {mode: replay(program, mode) for mode in MODES}
            for mode, run in runs.items():
                row = [0 if name == NOT_TOLD else run.counts[name] for name in COLUMNS]
                hashes = [f"{run.hashes[name]:x}" for name in HASHES]
                counts.writerow([program.name, mode, *row, *hashes])
            nested, shadow = (runs[mode].results for mode in ("npt_tdp_mmu", "shadow"))
            assert nested.keys() == shadow.keys()
            for i, value in nested.items():
                other = f"{shadow[i]:x}" if shadow[i] != value else ""
                results.writerow([program.name, i, f"{value:x}", other])


@pytest.fixture
def syncs_in_one_pass(monkeypatch: pytest.MonkeyPatch):
    """The slow hypervisor syncs all tables at once: no measured program has enough to tell."""
    rules = ShadowRules(batch=512)
    monkeypatch.setattr(exits, "run_program", partial(exits.run_program, rules=rules))


def check(tmp_path: Path, seeds: range, family: str | None = None) -> None:
    programs = [random_program(random.Random(n), family, name=f"seed{n:03}") for n in seeds]
    write_down(tmp_path / "guest-images" / "programs", programs)
    outcome = experiments()["A9b"].run(Context(tmp_path))
    assert outcome.cases > 100 * len(programs)
    assert outcome.failed == 0, outcome


@pytest.mark.usefixtures("syncs_in_one_pass")
@pytest.mark.parametrize("family", ACTIONS)
def test_new_programs(tmp_path: Path, family: str):
    check(tmp_path, range(1000, 1003), family)


@pytest.mark.parametrize("mode", MODES)
def test_a_workload_with_more_spaces_than_shadow_pages(mode: str):
    """The root that the count begins with was recycled: the OUT that starts it is fetched first."""
    slow = run_workload(Workload("switch", K=100, W=2, R=3, warm=True), mode)
    guest = exit_guest(guests.Workload("switch", 0, 3, 100, 2, True, False, False))
    fast = exits.run_workload(guest, exits.TABLES_OF[mode], False)
    assert fast["mmu_recycled"] == slow["mmu_recycled"]
    assert differences({n: str(v) for n, v in slow.items()}, fast, EXIT_COLUMNS) == {}
    if mode == "shadow":
        assert fast["x_pf"] == 603


@pytest.mark.slow
@pytest.mark.usefixtures("syncs_in_one_pass")
@pytest.mark.parametrize("start", range(2000, 2300, 50))
def test_many_new_programs(tmp_path: Path, start: int):
    check(tmp_path, range(start, start + 50))
