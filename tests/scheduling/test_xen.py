"""Laws of Xen's policies: shares, caps, budgets, latency, and no idle CPU beside work."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvirt.errors import InvalidValueError
from pyvirt.sched import Credit, Credit2, Jobs, OnOff, Periodic, Rtds, Scheduler

MS = 1_000_000


def relative(host, weights):
    """CPU time of always runnable VMs, one for each weight, over their parts."""
    run = host.counters()["run"]
    return run / run.sum() * sum(weights) / np.array(weights)


@pytest.mark.parametrize("policy", [Credit(ratelimit_ns=0), Credit2(runqueue="cpu"), Rtds()])
def test_a_copy_goes_on_alike(policy):
    host = Scheduler(3, policy=policy, rng=3)
    params = {} if policy.name == "rtds" else {"cap": 60}
    for i in range(5):
        host.add_vm(1 + i % 2, OnOff(3 * MS, 2 * MS) if i % 2 else None, weight=1 + i, **params)
    host.run(333 * MS + 333)
    twin = pickle.loads(pickle.dumps(host))
    for each in (host, twin):
        each.block(2)
        each.run(700 * MS)
        each.wake(2)
        each.run(1000 * MS)
    assert (host.counters() == twin.counters()).all()
    assert host.next_event_time() == twin.next_event_time()


@pytest.mark.parametrize(
    ("kind", "arguments", "named"),
    [
        (Credit, {"timeslice_ns": 1_000_000}, "ticks_per_timeslice"),
        (Credit, {"credit_ns": 0}, "credit_ns"),
        (Credit, {"ratelimit_ns": -1}, "ratelimit_ns"),
        (Credit2, {"runqueue": "socket of mine"}, "runqueue"),
        (Credit2, {"max_run_ns": 1}, "max_run_ns"),
        (Credit2, {"balance_over": 40}, "balance_over"),
    ],
)
def test_constants_that_cannot_be(kind, arguments, named):
    with pytest.raises(InvalidValueError, match=named):
        kind(**arguments)


def test_parameters_of_vms_that_cannot_be():
    for policy, params in (("credit", {"cap": -1}), ("rtds", {"extratime": 2})):
        host = Scheduler(policy=policy)
        with pytest.raises(InvalidValueError, match=next(iter(params))):
            host.add_vm(1, **params)
        host.add_vm(1)
        host.run(MS)
        assert host.counters()["run"].tolist() == [MS]


@given(weights=st.lists(st.integers(100, 200), min_size=2, max_size=4))
@settings(deadline=None, max_examples=50)
def test_credit_gives_shares(weights):
    """To some percent: turns are whole timeslices, and credits beyond a period's are lost."""
    host = Scheduler(policy="credit")
    host.run(7 * MS)  # not in step with the accounting
    for weight in weights:
        host.add_vm(1, weight=weight)
    host.run(10_000 * MS)
    assert np.abs(relative(host, weights) - 1).max() <= 0.06


@given(weights=st.lists(st.integers(1, 10), min_size=2, max_size=8), seconds=st.integers(1, 4))
@settings(deadline=None, max_examples=50)
def test_credit2_gives_shares(weights, seconds):
    """Credits lie between -10 and 10.5 ms of the heaviest: that bounds the time, over weights.

    Debts do not reach their end: the 1 ms that a world may run without credit costs at most 10. But
    the first slice was given when no heavier world was there.
    """
    host = Scheduler(policy="credit2")
    for weight in weights:
        host.add_vm(1, weight=weight)
    host.run(200 * MS)
    before = host.counters()["run"]
    host.run(seconds * 1000 * MS)
    run = (host.counters()["run"] - before) / MS
    scaled = run * max(weights) / np.array(weights)
    assert scaled.max() - scaled.min() <= 2 * 20.5  # at both ends


@pytest.mark.parametrize("policy", ["credit", "credit2"])
def test_work_is_conserved(policy):
    host = Scheduler(3, policy=policy)
    for i in range(4):
        host.add_vm(1 + i % 3, weight=1 + 300 * i)
    host.run(1000 * MS)
    assert host.cpu_counters()["idle"].tolist() == [0, 0, 0]


def test_extratime_conserves_work():
    host = Scheduler(2, policy="rtds")
    for i in range(3):
        host.add_vm(1, extratime=1, budget_ns=(1 + i) * MS)
    host.run(1000 * MS)
    assert host.cpu_counters()["idle"].tolist() == [0, 0]


@given(
    cap=st.integers(1, 250),
    worlds=st.integers(1, 3),
    others=st.integers(0, 3),
    cpus=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=50)
def test_credit2_keeps_caps_in_each_period(cap, worlds, others, cpus, seed):
    host = Scheduler(cpus, policy="credit2", rng=seed)
    capped = host.add_vm(worlds, cap=cap)
    for i in range(others):
        host.add_vm(1 + i % 2, OnOff(3 * MS, 2 * MS) if i else None)
    before = 0
    for period in range(1, 40):
        host.run(period * 10 * MS)
        run = int(host.counters()["run"][list(capped.worlds)].sum())
        assert run - before <= cap * 10 * MS // 100
        if not others and cpus >= worlds:
            assert run - before == min(cap * 10 * MS // 100, worlds * 10 * MS)
        before = run


@given(cap=st.integers(1, 250), worlds=st.integers(1, 3), others=st.integers(0, 3))
@settings(deadline=None, max_examples=50)
def test_credit_keeps_caps_in_the_long_run(cap, worlds, others):
    """Xen parks at the accounting: each world is beyond the cap by two periods at most."""
    host = Scheduler(3, policy="credit")
    capped = host.add_vm(worlds, cap=cap)
    for _ in range(others):
        host.add_vm(1)
    host.run(6000 * MS)
    run = int(host.counters()["run"][list(capped.worlds)].sum())
    assert run <= cap * 60 * MS + worlds * 60 * MS
    if not others:
        assert run >= min(cap, 100 * worlds) * 60 * MS - worlds * 60 * MS


servers = st.lists(st.tuples(st.integers(1, 40), st.floats(0.01, 1.0)), min_size=1, max_size=6)


@given(servers=servers, seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=100)
def test_rtds_meets_budgets(servers, seed):
    """Up to the whole of one CPU each gets its budget in each period: Liu and Layland, 1973."""
    total = max(1.0, sum(u for _, u in servers))
    host = Scheduler(policy="rtds", rng=seed)
    made = []
    for period, u in servers:
        period *= MS
        budget = max(1, int(period * u / total * (1 - 1e-9)))
        made.append((host.add_vm(1, period_ns=period, budget_ns=budget).worlds[0], period, budget))
    bounds = sorted({k * period for _, period, _ in made for k in range(1, 120 * MS // period + 1)})
    before = {world: 0 for world, _, _ in made}
    for time in bounds:
        host.run(time)
        run = host.counters()["run"]
        for world, period, budget in made:
            if time % period == 0:
                assert run[world] - before[world] == budget
                before[world] = int(run[world])


def test_rtds_keeps_the_budget_of_who_sleeps():
    """Deferrable: what is left of the budget is there when work comes, until the period ends."""
    host = Scheduler(policy="rtds")
    early = host.add_vm(1, Periodic(4 * MS, 10 * MS, start_ns=6 * MS)).worlds[0]
    host.run(10 * MS)
    assert host.counters()["run"][early] == 4 * MS
    host.run(16 * MS)
    assert host.counters()["run"][early] == 4 * MS
    host.run(20 * MS)
    assert host.counters()["run"][early] == 8 * MS


def longest_wait(policy, hogs):
    """Of a world with short jobs, some of which a tick finds running: it stays UNDER."""
    host = Scheduler(policy=policy)
    for _ in range(hogs):
        host.add_vm(1)
    web = host.add_vm(1, Jobs()).worlds[0]
    rng = np.random.default_rng(5)
    for tick in range(1, 500):
        times = [*rng.integers((tick - 1) * 10 * MS, tick * 10 * MS, 3), tick * 10 * MS - MS // 10]
        for time in sorted(map(int, times)):
            host.run(time)
            host.submit(web, MS // 5)
    row = host.counters()[web]
    assert row["wakes"] > 500
    return int(row["wake_most"])


@pytest.mark.parametrize("hogs", [1, 3])
def test_boost_preempts_within_the_rate_limit(hogs):
    assert MS // 2 < longest_wait("credit", hogs) <= MS


@pytest.mark.parametrize("limit", [0, 5 * MS])
def test_rate_limit_is_a_parameter(limit):
    assert limit // 2 <= longest_wait(Credit(ratelimit_ns=limit), 1) <= limit
