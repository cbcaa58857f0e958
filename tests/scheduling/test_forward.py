"""Leaping over periods gives what going through them gives, to the nanosecond."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvirt.sched import Always, Credit2, Esx, OnOff, Periodic, Poisson, Scheduler

POLICIES = ["rr", "stride", "eevdf", "eevdf, 7"]
SECOND = 1_000_000_000


def host(policy: str, cpus: int, leaping: bool, quantum: int = 10) -> Scheduler:
    policy, _, tick = policy.partition(", ")
    made = Scheduler(
        cpus, policy=policy, quantum_ns=quantum, linux_tick_ns=int(tick) if tick else None
    )
    made.fast_forward = leaping
    return made


def seen(made: Scheduler) -> tuple:
    return (
        made.now_ns,
        made.events,
        made.next_event_time(),
        made.counters().tolist(),
        made.cpu_counters().tolist(),
        made.virtual_times().tolist(),
        made.latency_counts().tolist(),
        made.wake_counts().tolist(),
        made.response_counts().tolist(),
    )


times = st.integers(1, 40)
workloads = st.one_of(
    st.just(Always()),
    st.builds(OnOff, times, times, st.just("fixed"), st.just("fixed"), st.integers(0, 3000)),
    st.builds(Periodic, times, times, st.just("fixed"), st.integers(0, 3000)),
)
limits = st.one_of(st.none(), st.none(), st.tuples(st.integers(1, 12), st.integers(1, 30)))


@st.composite
def scenarios(draw):
    cpus = draw(st.integers(1, 3))
    affinity = st.one_of(st.none(), st.frozensets(st.integers(0, cpus - 1), min_size=1))
    pinned = draw(st.booleans())
    world = st.tuples(
        st.integers(1, 6),
        st.integers(1, 10),
        affinity if not pinned else st.builds(lambda c: [c], st.integers(0, cpus - 1)),
        limits,
        workloads,
    )
    return cpus, draw(st.lists(world, min_size=1, max_size=6)), draw(st.booleans())


def agree(both, until, cut):
    """The same in each moment, and after what is changed then."""
    for most in (None, cut):
        counts = [m.run(until if most is None else m.now_ns + 10**6, events=most) for m in both]
        assert counts[0] == counts[1]
        assert seen(both[0]) == seen(both[1])
    # and what is changed afterwards finds the same state
    for made in both:
        made.set_weight(0, 7)
        made.add(weight=3)
        made.run(made.now_ns + 5000)
    assert seen(both[0]) == seen(both[1])
    for _ in range(50):
        assert both[0].step() == both[1].step()
        assert seen(both[0]) == seen(both[1])


@pytest.mark.parametrize("policy", POLICIES)
@given(scenario=scenarios(), until=st.integers(1, 200_000), cut=st.integers(0, 3000))
@settings(max_examples=60, deadline=None)
def test_as_without(policy, scenario, until, cut):
    cpus, worlds, counted = scenario
    both = host(policy, cpus, True), host(policy, cpus, False)
    for made in both:
        for weight, slice_ns, affinity, limit, load in worlds:
            world = {"weight": weight, "slice_ns": slice_ns, "affinity": affinity, "limit": limit}
            responses = counted and not isinstance(load, Always)
            made.add(load, **world, responses=responses, wakes=counted)
    agree(both, until, cut)


@pytest.mark.parametrize("policy", ["rr", "stride", "eevdf", "eevdf, 4000000"])
def test_years_of_a_schedule(policy):
    made = host(policy, 2, True, 10_000_000)
    for weight in (1, 2, 3, 4):
        made.add(weight=weight)
    if policy == "rr":
        made.add(OnOff(3_000_000, 7_000_000, "fixed", "fixed"))
    made.run(10**9 * SECOND)
    rows = made.counters()
    assert made.events > 10**11
    assert (rows["run"] + rows["rdy"] + rows["mlmtd"] + rows["wait"] == rows["elapsed"]).all()
    assert made.cpu_counters()["run"].sum() == rows["run"].sum()
    if policy != "rr":
        fair = rows["weight"].astype(np.int64) * (10**9 * SECOND // 5)
        assert np.abs(rows["run"] - fair).max() <= 20_000_000


def test_a_late_start_ends_the_leap():
    both = [host("stride", 1, leaping, 1_000_000) for leaping in (True, False)]
    for made in both:
        made.add(weight=1)
        made.add(weight=2)
        made.add(Periodic(500_000, 7_000_000, start_ns=3 * SECOND), weight=2)
        made.run(4 * SECOND)
    assert seen(both[0]) == seen(both[1])


@pytest.mark.parametrize("load", [Poisson(30, 100), OnOff(30, 20)])
def test_what_is_drawn_is_not_leapt_over(load):
    both = [host("stride", 1, leaping) for leaping in (True, False)]
    for made in both:
        made.add(load)
        made.add()
        made.run(100_000)
    assert seen(both[0]) == seen(both[1])


def test_eevdf_after_a_million_events():
    """One long run is many short ones."""
    one, many = (host("eevdf", 2, False, 3_000_000) for _ in range(2))
    for made in (one, many):
        for weight in np.random.default_rng(3).integers(1, 100, 50).tolist():
            made.add(weight=weight)
    one.run(1 << 60, events=(1 << 20) + 3)
    while many.events < one.events:
        many.run(1 << 60, events=min(300_000, one.events - many.events))
    for _ in range(200):
        one.step(), many.step()
        assert (one.cpu_counters() == many.cpu_counters()).all()


# --- the ESX policy, whose timer solves entitlements ---


esx_policies = st.builds(
    dict,
    quantum_ns=st.sampled_from([7, 10, 30]),
    resolve_ns=st.sampled_from([1000, 5000, 100_000, 10**6]),
    resolve_on_wake=st.sampled_from([True, True, False]),
    cosched=st.sampled_from(["none", "balance", "relaxed", "strict"]),
    credit_ns=st.sampled_from([0, 0, 20]),
    wake_ns=st.sampled_from([0, 5]),
    pull_ns=st.sampled_from([0, 5, 30]),
    pools=st.sampled_from([((0, 1.0, 0, -1),), ((0, 1.0, 0, -1), (0, 2.0, 10**9, -1))]),
)
periodic = st.one_of(
    st.just(Always()),
    st.builds(Periodic, times, st.sampled_from([40, 60]), st.just("fixed"), st.integers(0, 99)),
    st.builds(OnOff, times, st.sampled_from([10, 20, 30]), st.just("fixed"), st.just("fixed")),
)
vms = st.tuples(periodic, st.integers(1, 8), st.sampled_from([1, 1, 1, 2]), limits)


@given(
    policy=esx_policies,
    cpus=st.integers(1, 4),
    worlds=st.lists(vms, min_size=1, max_size=8),
    until=st.integers(1, 400_000),
    cut=st.integers(0, 5000),
)
@settings(max_examples=150, deadline=None)
def test_esx_as_without(policy, cpus, worlds, until, cut):
    both = [Scheduler(cpus, policy=Esx(**policy)) for _ in range(2)]
    for made, leaping in zip(both, (True, False), strict=True):
        made.fast_forward = leaping
        for load, weight, vcpus, limit in worlds:
            if limit:
                made.add(load, weight=weight, limit=limit, wakes=True)
            else:
                pool = weight % len(policy["pools"])
                made.add_vm(vcpus, load, weight=weight, pool=pool, wakes=True)
    agree(both, until, cut)


def test_years_of_the_esx_policy():
    """Far more solves than could be made one by one, and the host's time is set back meanwhile."""
    made = Scheduler(4, policy=Esx(resolve_ns=100_000_000))
    for i in range(20):
        made.add_vm(1, Periodic(1_600_000, 10_000_000, start_ns=i * 500_000))
    years = 10**8 * SECOND
    made.run(years + SECOND // 2)
    rows = made.counters()
    assert made.events > 10**11
    assert (rows["run"] + rows["rdy"] + rows["wait"] == rows["elapsed"]).all()
    assert np.abs(rows["run"] / years - 0.16).max() < 1e-9


# --- credit2, whose credits are clipped by resets ---


credit2_policies = st.builds(
    dict,
    runqueue=st.sampled_from(["all", "all", "cpu", "llc"]),
    credit_ns=st.sampled_from([20, 100, 1000]),
    carryover_ns=st.sampled_from([0, 10]),
    min_run_ns=st.sampled_from([1, 5]),
    max_run_ns=st.sampled_from([5, 100]),
    ratelimit_ns=st.sampled_from([0, 3, 10]),
    cap_period_ns=st.sampled_from([100, 1000]),
    migrate_resist_ns=st.sampled_from([0, 5]),
    migrate_compensation_ns=st.sampled_from([0, 0, 2]),
    load_window_ns=st.sampled_from([1, 100, 5000]),
)
capped = st.tuples(
    periodic,
    st.integers(1, 8),
    st.sampled_from([1, 1, 2]),
    limits,
    st.sampled_from([0] * 7 + [50]),
    st.booleans(),
)


@given(
    policy=credit2_policies,
    cpus=st.integers(1, 4),
    worlds=st.lists(capped, min_size=1, max_size=8),
    until=st.integers(1, 400_000),
    cut=st.integers(0, 5000),
)
@settings(max_examples=150, deadline=None)
def test_credit2_as_without(policy, cpus, worlds, until, cut):
    both = [Scheduler(cpus, policy=Credit2(**policy)) for _ in range(2)]
    for made, leaping in zip(both, (True, False), strict=True):
        made.fast_forward = leaping
        for load, weight, vcpus, limit, cap, pinned in worlds:
            if limit:
                affinity = [weight % cpus] if pinned else None
                made.add(load, weight=weight, limit=limit, affinity=affinity, wakes=True)
            else:
                made.add_vm(vcpus, load, weight=weight, cap=cap, wakes=True)
    agree(both, until, cut)


@pytest.mark.parametrize("runqueue", ["all", "cpu"])
def test_years_of_credit2(runqueue):
    """Far more than could be made one by one, with and without average loads."""
    made = Scheduler(4, policy=Credit2(runqueue=runqueue, load_window_ns=1 << 22))
    for i in range(8):
        made.add_vm(1, Periodic(1_600_000, 10_000_000, start_ns=i * 500_000))
    made.run(1000 * SECOND, events=10_000_000)
    assert made.events > 10**6
    years = 10**8 * SECOND
    made.run(years + SECOND // 2)
    rows = made.counters()
    assert made.events > 10**11
    assert (rows["run"] + rows["rdy"] + rows["wait"] == rows["elapsed"]).all()
    assert np.abs(rows["run"] / years - 0.16).max() < 1e-9


def test_periods_of_many_events_are_found():
    """Jobs that come seldom, among slices that repeat themselves far more often."""
    both = [host("stride", 1, leaping, 1000) for leaping in (True, False)]
    for made in both:
        made.add(weight=1)
        made.add(weight=2)
        made.add(Periodic(500_000, SECOND // 10), weight=2)
        made.run(SECOND)
    assert seen(both[0]) == seen(both[1])
