"""Migrations that share links: each moment's part; with one part all along, as `migrate` has it."""

import numpy as np
import pytest

from machine.scenario.generate import GIB, SECOND
from machine.scenario.test_arrows import MODES, host, machine, run
from pyvirt.cluster import ConstantRate, DirtyLog, Link, WorkingSet, migrate
from pyvirt.machine.scenario.course import Course
from pyvirt.spec import EventSpec

PAGE = 4096


def models(rng):
    times = np.sort(rng.integers(0, 2 * SECOND, 3000))
    frames = rng.integers(0, 20_000, 3000)
    return [
        ConstantRate(float(rng.integers(0, 60_000))),
        WorkingSet(int(rng.integers(1, 30_000)), float(rng.integers(0, 90_000)), 10.0),
        WorkingSet(int(rng.integers(1, 30_000)), float(rng.integers(0, 90_000)), 10.0, "at random"),
        DirtyLog(times, frames),
        DirtyLog(times, frames, period_ns=2 * SECOND + 17),
    ]


@pytest.mark.parametrize("seed", range(20))
def test_with_one_part_it_is_migrate(seed):
    rng = np.random.default_rng(seed)
    memory = int(rng.integers(40_000, 200_000)) * PAGE
    link = Link(float(rng.integers(500, 10_000)))
    for dirty in models(rng):
        plan = migrate(memory, dirty, link)
        course = Course(memory, dirty, link.bytes_s)
        # to be looked at on the way changes nothing but roundings
        for at in np.sort(rng.integers(0, plan.total_ns, int(rng.integers(0, 4)))).tolist():
            course.change(at, link.bytes_s)
        stop, end = course.times()
        assert end == pytest.approx(plan.total_ns, abs=50)
        assert end - stop == pytest.approx(plan.downtime_ns, abs=50)
        made = course.outcome(stop, end)
        assert made.ended == plan.ended
        assert len(made.rounds) == len(plan.rounds)
        assert made.sent_bytes == pytest.approx(plan.sent_bytes, rel=1e-9)
        assert made.lost_ns == pytest.approx(plan.lost_ns, abs=50)


@pytest.mark.parametrize("mode", MODES)
def test_two_that_overlap(mode):
    """Neither writes: A is alone until B begins, then both have a half, then B is alone."""
    vms = [machine(f"v{i}", cpu=0).replace(memory=1 * GIB, memory_overhead=PAGE) for i in range(2)]
    events = [EventSpec((10 + 2 * i) * SECOND, "migrate", f"v{i}", "b") for i in range(2)]
    hosts = [host(name, link_mbps=1000) for name in "ab"]
    result = run(hosts, vms, mode, events=events)
    size = 1 * GIB + PAGE
    alone = size / 125e6
    switch = 0.1
    # of A 2 s' worth is sent when B begins; the rest takes twice as long; the switch-over, during
    # which A still has its half, is no data
    first = 12 + 2 * (alone - 2) + switch
    # by then B has had a half for that long; the rest it sends alone
    second = first + (alone - (first - 12) / 2) + switch
    ends = {one.vm: one.time_ns / 1e9 for one in result.of("migrated")}
    assert ends == pytest.approx({"v0": first, "v1": second}, abs=1e-8)
    assert [one.value for one in result.of("migrated")] == pytest.approx([1e8, 1e8], abs=2)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_cancelled_leaves_its_part(mode):
    vms = [machine(f"v{i}", cpu=0).replace(memory=1 * GIB, memory_overhead=PAGE) for i in range(2)]
    events = [EventSpec(10 * SECOND, "migrate", f"v{i}", "b") for i in range(2)]
    events.append(EventSpec(14 * SECOND, "power-off", "v1"))
    hosts = [host(name, link_mbps=1000) for name in "ab"]
    result = run(hosts, vms, mode, events=events)
    (moved,) = result.of("migrated")
    assert moved.time_ns / 1e9 == pytest.approx(14 + (1 * GIB + PAGE) / 125e6 - 2 + 0.1, abs=1e-8)
