"""Borrowed virtual time: its bounds of fairness, and what a warp does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvirt.errors import InvalidValueError
from pyvirt.sched import Bvt, OnOff, Periodic, Scheduler

C = 1000
weights = st.lists(st.integers(1, 1000), min_size=2, max_size=20)


@given(
    weights=weights,
    warp=st.integers(0, 100_000),
    times=st.lists(st.integers(1, 50_000), min_size=1, max_size=20),
)
@settings(deadline=None)
def test_nobody_is_more_than_an_allowance_ahead(weights, warp, times):
    """Of always running worlds A differs by C, and a ns, over the weight of who is ahead; by W."""
    host = Scheduler(policy=Bvt(allowance_ns=C))
    for number, weight in enumerate(weights):
        host.add_vm(1, weight=weight, warp=0 if number else warp)
    for time in times:
        host.advance(host.now_ns + time)
        actual = host.counters()["run"] / weights
        borrowed = np.zeros(len(weights))
        borrowed[0] = warp
        ahead = actual - actual.min()
        assert (ahead <= (C + 1) / np.array(weights) + borrowed + 0.01).all()


@given(pair=st.tuples(*[st.integers(1, 1000)] * 2), allowance=st.integers(1, 10**6))
@settings(deadline=None)
def test_run_lengths_of_two(pair, allowance):
    """Each runs from C over the other's weight behind to C over its own ahead."""
    host = Scheduler(policy=Bvt(allowance_ns=allowance))
    for weight in pair:
        host.add(weight=weight)
    host.record()
    host.run(10**12, events=30)
    runs = host.timeline().segments()[1:-1]
    assert len(runs) >= 10
    for world, weight in enumerate(pair):
        mine = runs[runs["world"] == world]
        lengths, more = mine["end_ns"] - mine["begin_ns"], 1 + weight / pair[1 - world]
        # a run ends at a whole nanosecond, and the other's may have ended so much late
        assert np.abs(lengths - allowance * more).max() <= more + 1e-6


@pytest.mark.parametrize("hogs", [1, 3, 9])
def test_warp_is_dispatch_at_once(hogs):
    """A world that needs less than its share runs the moment it wakes if it is warped enough."""
    worst = {}
    for warp in (0, 100_000):
        host = Scheduler(policy=Bvt(allowance_ns=20_000))
        for _ in range(hogs):
            host.add()
        vm = host.add_vm(1, workload=Periodic(1000, 20_000, start_ns=500), warp=warp)
        host.run(10**7)
        row = host.counters()[vm.worlds[0]]
        worst[warp] = row["wake_most"]
    assert row["jobs_done"] >= 499
    assert worst[100_000] == 0
    assert 0 < worst[0] <= 20_000 * (hogs + 1)


def test_a_warp_borrows_and_does_not_give():
    """Over time a warped world has no more than its share, however far it is warped."""
    host = Scheduler(policy=Bvt(allowance_ns=C))
    host.add(weight=3)
    vm = host.add_vm(1, weight=1, warp=50_000)
    host.run(10**7)
    run = host.counters()["run"]
    # ahead by W in virtual time, which is W of CPU time at weight 1
    assert run[vm.worlds[0]] == pytest.approx(10**7 / 4, abs=50_000 + C)


def test_a_warp_ends_at_its_limit_and_begins_no_sooner_than_allowed():
    ms = 1_000_000
    host = Scheduler(policy=Bvt(allowance_ns=ms))
    host.add()
    vm = host.add_vm(
        1,
        workload=OnOff(20 * ms, 30 * ms, "fixed", "fixed"),
        warp=1000 * ms,
        warp_limit=5 * ms,
        unwarp=200 * ms,
    )
    # it starts warped: after 5 ms it is as the other one
    host.run(5 * ms)
    assert host.counters()["run"].tolist() == [0, 5 * ms]
    # it had 5 ms: the other one catches up, and an allowance
    host.run(11 * ms)
    assert host.counters()["run"].tolist() == [6 * ms, 5 * ms]
    # it wakes long before 200 ms are over, and is not warped then: it waits for an allowance
    world = vm.worlds[0]
    while host.counters()["wakes"][world] < 2:
        host.step()
    assert host.now_ns < 200 * ms
    assert host.counters()["wake_most"][world] > 0
    # the next warp is not sooner than U after the end of the first
    warped = []
    while len(warped) < 5:
        before = host.counters()[world]
        host.step()
        after = host.counters()[world]
        at_once = after["wakes"] > before["wakes"] and after["wake_time"] == before["wake_time"]
        if at_once:
            warped.append(host.now_ns)
    assert np.diff([5 * ms, *warped]).min() >= 200 * ms - 20 * ms


def test_sleep_is_not_saved_up():
    """After a long sleep a world shares with the others from then on."""
    host = Scheduler(policy=Bvt(allowance_ns=C))
    host.add()
    sleeper = host.add()
    host.block(sleeper)
    host.run(10**6)
    host.wake(sleeper)
    before = host.counters()["run"]
    host.run(2 * 10**6)
    gained = host.counters()["run"] - before
    assert abs(gained[0] - gained[1]) <= 2 * C


def test_bad_arguments():
    with pytest.raises(InvalidValueError, match="allowance_ns"):
        Bvt(allowance_ns=0)
    host = Scheduler(policy=Bvt())
    with pytest.raises(InvalidValueError, match="warp"):
        host.add_vm(1, warp=-1)
