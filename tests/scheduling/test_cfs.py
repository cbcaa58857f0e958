"""CFS: the spread of virtual runtimes, slices and ticks, sleepers, groups, balancing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.sched import Cfs, OnOff, Scheduler, nice_weight

MS = 1_000_000
weights = st.lists(st.integers(15, 88761), min_size=2, max_size=20)


@given(weights=weights, times=st.lists(st.integers(1, 200 * MS), min_size=1, max_size=10))
@settings(deadline=None, max_examples=50)
def test_spread_of_virtual_runtimes(weights, times):
    """On one CPU nobody gets further ahead than a slice and a tick, by its weight.

    A world runs on while its virtual runtime is at most a slice ahead of the first one's, which is
    looked at at ticks; a new one starts a slice, by its weight, behind the others.
    """
    host = Scheduler(policy=Cfs())
    for weight in weights:
        host.add(weight=weight)
    w = np.array(weights)
    granularity, tick = 750_000, 4 * MS
    period = max(6 * MS, len(weights) * granularity)
    slices = np.maximum(period * w / w.sum(), granularity)
    start = np.maximum(period * 1024 / w.cumsum(), granularity * 1024 / w).max()
    for time in times:
        host.advance(host.now_ns + time)
        virtual = host.counters()["run"] * 1024 / w
        # it had the CPU as the first, for a slice, and to the next tick; from where they started
        bound = (slices + tick) * 1024 / w + start
        assert (virtual - virtual.min() <= bound + 1).all()


def test_runs_are_of_whole_ticks():
    """Without sleepers worlds change at ticks only."""
    host = Scheduler(policy=Cfs())
    for nice in (0, 5, 10):
        host.add(weight=nice_weight(nice))
    running = -1
    for _ in range(2000):
        host.step()
        now = host.cpu_counters()["world"][0]
        if now != running:
            assert host.now_ns % (4 * MS) == 0
            running = now


def test_a_sleeper_preempts():
    """Half a latency of credit is more than the wake-up granularity: it runs at once."""
    host = Scheduler(policy=Cfs())
    host.add(weight=1024)
    work = OnOff(MS // 2, 20 * MS, "fixed", "fixed", start_ns=30 * MS)
    sleeper = host.add(work, weight=1024)
    host.run(10_000 * MS)
    row = host.counters()[sleeper]
    assert row["wakes"] > 400
    # but for the first time, when it has slept in no queue
    assert row["wake_time"] == row["wake_most"] < 4 * MS


def test_credit_of_sleepers_is_bounded():
    """A long sleep is worth half a latency and no more."""
    host = Scheduler(policy=Cfs())
    host.add(weight=1024)
    sleeper = host.add(weight=1024)
    host.block(sleeper)
    host.run(10_000 * MS)
    host.wake(sleeper)
    before = host.counters()["run"]
    host.run(10_400 * MS)
    gained = host.counters()["run"] - before
    assert 0 <= gained[1] - gained[0] <= 3 * MS + 2 * 6 * MS


def test_groups_divide_by_machine():
    host = Scheduler(cpus=2, policy=Cfs(groups=True))
    host.add_vm(6, weight=1024)
    host.add_vm(2, weight=1024)
    host.run(60_000 * MS)
    run = host.counters()["run"]
    assert run[:6].sum() == pytest.approx(run[6:].sum(), rel=0.05)


def test_balancing_evens_out_load():
    """Worlds that all begin on one CPU, since the others were not allowed, spread."""
    host = Scheduler(cpus=4, policy=Cfs(balance_ns=10 * MS))
    worlds = [host.add(affinity=[0]) for _ in range(8)]
    for world in worlds:
        host.set_affinity(world, None)
    host.run(4000 * MS)
    run = host.counters()["run"]
    assert host.cpu_counters()["idle"].sum() == 0
    assert run.min() >= 0.9 * 2000 * MS


def test_nice_weights():
    assert nice_weight(-20) == 88761
    assert nice_weight(19) == 15
    with pytest.raises(InvalidValueError, match="nice must be from -20 to 19, got 20"):
        nice_weight(20)
    with pytest.raises(InvalidTypeError):
        nice_weight("0")
    with pytest.raises(InvalidValueError, match="imbalance"):
        Cfs(imbalance=99)
