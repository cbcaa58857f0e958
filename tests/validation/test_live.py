"""Live forms of S5 and S6: what they find here, and that they would find a wrong kernel."""

import os
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from click.testing import CliRunner

from pyvirt.cli import main
from pyvirt.errors import InvalidValueError
from pyvirt.sched import Scheduler, nice_weight
from pyvirt.validation import Context, experiments, live, run, select
from pyvirt.validation.tally import Tally

MS = 1_000_000
TICK = 4 * MS


@pytest.mark.kernel
@pytest.mark.parametrize("id", ["S5", "S6"])
def test_this_kernel(id: str):
    outcome = experiments()[id].run_live(Context())
    if outcome.verdict == "skip":
        pytest.skip(outcome.reason)
    assert outcome.verdict == "pass", f"{outcome.measured}; {outcome.reason}"
    assert outcome.cases >= 10
    assert outcome.measured == outcome.expected


@pytest.mark.kernel
def test_tasks_share_one_cpu():
    try:
        found = live.measure([1, 1], [{"nice": 5}, {"nice": 5}], 1.5)
    except live.CannotMeasureError as error:
        pytest.skip(str(error))
    assert found.run.shape == (50, 2)
    assert (np.diff(found.run, axis=0) >= 0).all()
    assert 0 < found.part <= 1.01
    # never two at a time, as far as the tasks' own clocks tell
    every = sorted((*pair, task) for task, runs in enumerate(found.runs) for pair in runs.tolist())
    assert all(end <= start for (_, end, _), (start, _, _) in pairwise(every))
    # what the tasks saw of their runs is what the kernel charged, but for switches and interrupts
    seen = sum(end - start for start, end, _ in every)
    assert seen == pytest.approx(found.run[-1].sum(), rel=0.15)


def pretended(nice: list[int], weights: list[int] | None = None) -> live.Measured:
    """What a kernel gives that schedules as the model does, for other weights if wanted."""
    host = Scheduler(policy="eevdf", quantum_ns=1_400_000, linux_tick_ns=TICK)
    for weight in weights or [nice_weight(n) for n in nice]:
        host.add(weight=weight)
    host.record()
    samples = []
    for end in range(4000, 5000, 20):
        host.run(end * MS)
        samples.append(host.counters()["run"].copy())
    rows = host.timeline().segments()
    rows = rows[rows["end_ns"] - rows["begin_ns"] > 0]
    pairs = np.stack([rows["begin_ns"], rows["end_ns"]], axis=1)
    return live.Measured(
        weights=[nice_weight(n) for n in nice],
        run=np.array(samples),
        runs=[pairs[rows["world"] == world] for world in range(len(nice))],
        part=1.0,
        idle=1.0,
        tick_ns=TICK,
        slice_ns=1_400_000,
    )


def test_a_kernel_that_does_what_the_model_does():
    tally = Tally()
    for nice in ([0, 0, 0], [0, 5, 10], [0, 19]):
        assert live.compare_lags(tally, pretended(nice), "") < 1 * MS
        live.compare_runs(tally, pretended(nice), "")
    outcome = tally.outcome("S6")
    assert (outcome.verdict, outcome.failed) == ("pass", 0)
    assert outcome.measured == (
        "8 tasks within 4 ms of the model, 8 shares, 8 medians of runs, 8 means of runs"
    )


def test_a_kernel_with_other_weights_is_found_out():
    # half a per cent more for the first
    tally = Tally()
    assert live.compare_lags(tally, pretended([0, 5], [1034, 335]), "nice 0, 5") > TICK
    assert tally.outcome("S5").verdict == "fail"
    assert tally.outcome("S5").reason.startswith("nice 0, 5: off by")
    tally = Tally()
    live.compare_runs(tally, pretended([0, 5], [1100, 335]), "nice 0, 5")
    assert tally.outcome("S6").reason.startswith("nice 0, 5: shares off by")


def test_a_kernel_with_longer_runs_is_found_out():
    found = pretended([0, 0, 0])
    doubled = replace(found, runs=[runs * 2 for runs in found.runs])
    tally = Tally()
    live.compare_runs(tally, doubled, "nice 0, 0, 0")
    assert tally.failed == 6
    assert "medians of runs" in tally.outcome("S6").reason


def test_breaks_within_a_run_are_not_its_end():
    found = pretended([0, 5])
    # something else ran for half a millisecond in the middle of each run
    cut = [
        np.concatenate(
            [[[start, start + 2 * MS], [start + 2 * MS + MS // 2, end]] for start, end in r]
        )
        for r in found.runs
    ]
    tally = Tally()
    live.compare_runs(tally, replace(found, runs=cut), "")
    # the medians are 3.5 and 11.5 ms now, and so off: but not 2 ms
    assert "[11.5  3.5] ms" in tally.outcome("S6").reason


def test_what_a_busy_cpu_cannot_tell_is_named():
    found = pretended([0, 5])
    tally = Tally()
    live.compare_runs(tally, replace(found, part=0.6), "nice 0, 5")
    outcome = tally.outcome("S6")
    assert (outcome.verdict, outcome.measured) == ("pass", "2 shares")
    assert outcome.reason == (
        "not run: lengths of runs of nice 0, 5, since others had 40 % of the CPU"
    )
    tally = Tally()
    live.compare_runs(tally, replace(found, idle=0.5), "nice 0, 5")
    assert tally.outcome("S6").measured == "2 shares, 2 medians of runs"
    assert "the CPU was 50 % idle" in tally.outcome("S6").reason


def test_what_cannot_be_measured_is_skipped(monkeypatch: pytest.MonkeyPatch):
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("no affinities here")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    for outcome in run(["s5", "S6"], live=True):
        assert (outcome.verdict, outcome.cases) == ("skip", 0)
        assert "got one" in outcome.reason
    monkeypatch.setattr(live.platform, "release", lambda: "6.1.0-generic")
    outcome = experiments()["S6"].run_live(Context())
    assert outcome.verdict == "skip"
    assert "no EEVDF" in outcome.reason
    monkeypatch.setattr(live.sys, "platform", "win32")
    assert "not Linux" in experiments()["S6"].run_live(Context()).reason


def test_only_some_have_a_live_form():
    assert [chosen.id for chosen in select(live=True)] == ["S5", "S6", "X1"]
    with pytest.raises(InvalidValueError, match="no live experiment has the id 'A1'"):
        select(["A1"], live=True)
    outcome = experiments()["A1"].run_live(Context())
    assert (outcome.verdict, outcome.reason) == ("skip", "it has no live form")
    result = CliRunner().invoke(main, ["validate", "--live", "A1"])
    assert result.exit_code == 2
    assert "there are S5, S6, X1" in result.stderr
