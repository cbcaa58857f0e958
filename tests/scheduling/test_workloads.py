"""Workloads through the public scheduler: what comes, what waits, and what is counted."""

import copy
import math
import os
import pickle
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.sched import (
    POLICIES,
    Always,
    Barrier,
    Between,
    BoundedPareto,
    Demand,
    Empirical,
    Exponential,
    Fixed,
    Jobs,
    Lock,
    LogNormal,
    OnOff,
    Periodic,
    Poisson,
    Scheduler,
    percentiles,
    response_bounds,
)
from pyvirt.traces import read_demands

US, MS = 1000, 1_000_000
DATA = Path(os.environ.get("PYVIRT_DATA", "nowhere")) / "planetlab"


def busy(policy: str = "stride", rng=7) -> Scheduler:
    """Some of everything."""
    host = Scheduler(cpus=3, policy=policy, quantum_ns=MS, rng=rng)
    host.add(weight=2)
    host.add(Poisson(LogNormal(MS, 1.5), 9 * MS), responses=True, wakes=True)
    host.add(Poisson(Empirical([MS, 2 * MS, 5 * MS]), 20 * MS))
    host.add(OnOff(BoundedPareto(MS // 5, 9 * MS, 1.1), Between(MS, 3 * MS)), responses=True)
    cpus = [0.3, 0, 0.9, 1.7]
    host.add(Demand.sampled(cpus, 7 * MS, grain_ns=MS // 3, unserved="drop", repeat=True))
    host.add_vm(2, Demand.sampled(cpus, 5 * MS, grain_ns=MS, repeat=True), responses=True)
    host.add_vm(3, Barrier(2 * MS, spin_ns=MS, pause_exit_ns=100 * US), responses=True)
    host.add_vm(3, Lock(200 * US, 50 * US), wakes=True)
    host.add_vm(2, Lock(200 * US, 90 * US, lock="test_and_set", spin_ns=30 * US))
    host.wait_swap(0, 3 * MS)
    return host


def facts(host: Scheduler) -> list:
    tables = (
        host.counters(),
        host.work_counters(),
        host.cpu_counters(),
        host.response_counts(),
        host.wake_counts(),
        host.virtual_times(),
    )
    return [host.now_ns, host.events, *(t.tobytes() for t in tables)]


# --- state ---


@pytest.mark.parametrize("policy", [*POLICIES, "fixed"])
@pytest.mark.parametrize("twin", [copy.copy, lambda host: pickle.loads(pickle.dumps(host))])
def test_a_copy_goes_on_alike(policy, twin):
    host = busy(policy)
    host.run(33_333_333)
    other = twin(host)
    assert facts(other) == facts(host)
    for each in (host, other):
        each.run(50 * MS)
        each.remove(7)  # of the barrier
        each.remove(9)  # of the ticket lock
        each.add(Poisson(Empirical([MS, 2 * MS, 5 * MS]), 9 * MS), responses=True)
        each.add_vm(2, Lock(MS, MS, spin_ns=0))
        each.interrupt(2, 5 * US)
        each.run(100 * MS)
    assert facts(other) == facts(host)


@pytest.mark.parametrize("policy", [*POLICIES, "fixed"])
def test_a_run_may_be_split_anywhere(policy):
    whole, parts = busy(policy), busy(policy)
    whole.run(100 * MS)
    for t in np.sort(np.random.default_rng(1).integers(0, 100 * MS, 200)).tolist():
        parts.advance(t)
    parts.advance(100 * MS)
    assert facts(whole) == facts(parts)


def test_restore_takes_records_back():
    host = busy()
    host.run(20 * MS)
    snapshot = host.snapshot()
    before = facts(host)
    for world in range(5, 12):
        host.remove(world)
    host.add(Poisson(Empirical(list(range(1, 500))), MS), responses=True)
    host.run(40 * MS)
    host.restore(snapshot)
    assert facts(host) == before
    host.run(60 * MS)
    again = busy()
    again.run(60 * MS)
    assert facts(host) == facts(again)


def test_recording_changes_nothing_else():
    hosts = [Scheduler(2, quantum_ns=MS, rng=3) for _ in range(2)]
    for responses, host in enumerate(hosts):
        for work in (Poisson(MS, 3 * MS), OnOff(MS, MS), Periodic(MS, 2 * MS, "uniform")):
            host.add(work, responses=bool(responses), wakes=bool(responses))
        host.run(500 * MS)
    assert hosts[0].counters().tobytes() == hosts[1].counters().tobytes()


def test_what_comes_does_not_depend_on_the_policy():
    """Work and arrivals are drawn apart, so that policies meet the same jobs."""
    runs = []
    for policy in ("rr", "stride", "lottery"):
        host = Scheduler(policy=policy, quantum_ns=MS, rng=5)
        worlds = [host.add(Poisson(MS, 10 * MS)) for _ in range(5)]
        host.run(3000 * MS)
        for world in worlds:
            host.set_weight(world, 7)
        host.run(60_000 * MS)
        rows = host.counters()
        runs.append((rows["jobs"] + rows["jobs_done"]).tolist())
    assert runs[0] == runs[1] == runs[2]


def test_records_are_given_again():
    host = Scheduler()
    sizes = []
    for _ in range(20):
        worlds = [host.add(Poisson(Empirical([5, 9]), 50), responses=True) for _ in range(9)]
        worlds += host.add_vm(3, Barrier(9)).worlds
        worlds += host.add_vm(5, wakes=True).worlds
        host.run(host.now_ns + 1000)
        for world in worlds:
            host.remove(world)
        sizes.append(host.nbytes)
    assert len(set(sizes[1:])) == 1


# --- demand ---


@given(
    steps=st.lists(st.integers(1, 5000), min_size=1, max_size=8),
    cpus=st.data(),
    grain=st.integers(1, 3000),
)
@settings(deadline=None, max_examples=100)
def test_demand_comes_to_the_nanosecond(steps, cpus, grain):
    """At each end of a demand what came is the integral so far, rounded down."""
    demand = [cpus.draw(st.floats(0, 1)) for _ in steps]
    times = np.concatenate([[0], np.cumsum(steps)])
    host = Scheduler()
    world = host.add(Demand(times, demand, grain_ns=grain))
    for i, end in enumerate(times[1:].tolist()):
        host.run(end - 1)
        exact = sum(
            Fraction(round(d * 10**9), 10**9) * s
            for d, s in zip(demand[: i + 1], steps[: i + 1], strict=True)
        )
        assert host.work_counters()["demanded"][world] == math.floor(exact)
    host.run(10 * int(times[-1]) + 10)
    row = host.counters()[world]
    assert row["run"] == host.work_counters()["demanded"][world]
    assert row["jobs"] == 0


def test_unserved_work_waits_or_is_dropped():
    hosts = []
    for unserved in ("queue", "drop"):
        host = Scheduler(policy="rr", quantum_ns=MS)
        host.add()
        host.add(Demand.sampled([0.8, 0.0], 1000 * MS, unserved=unserved))
        host.run(2000 * MS)
        hosts.append((host.counters()[1], host.work_counters()[1]))
    (queued, all_of_it), (row, work) = hosts
    assert queued["run"] == all_of_it["demanded"] == work["demanded"] == 800 * MS
    assert 480 * MS < row["run"] < 520 * MS  # half of the CPU while there is demand
    assert row["run"] + work["dropped"] == work["demanded"]
    assert row["jobs_done"] + work["dropped_jobs"] == 100
    assert row["jobs"] == 0


def test_demand_of_a_vm_is_split_exactly():
    host = Scheduler(4)
    demand = Demand.sampled([1.0 / 3, 2.5], MS, repeat=True)
    vm = host.add_vm(3, demand)
    host.run(6 * MS - 1)
    came = host.work_counters()["demanded"][vm.worlds]
    parts = np.array([each.integers() for each in demand.split(3)])
    assert parts.sum(axis=0).tolist() == demand.integers().tolist()
    assert came.tolist() == [int(p) * 3 // 1000 for p in parts.sum(axis=1)]
    host.run(60 * MS)
    assert host.counters()["jobs"].max() <= 1


@pytest.mark.skipif(not DATA.exists(), reason="PYVIRT_DATA has no PlanetLab traces")
def test_a_day_of_planetlab():
    """50 machines on a host that is large enough: each gets what it asks for, its percent."""
    times, percent, _ = read_demands(DATA / "20110303.npz")
    host = Scheduler(24, quantum_ns=10 * MS)
    worlds = [
        host.add(Demand(times, percent[i] / 100, grain_ns=1_000_000_000), responses=True)
        for i in range(50)
    ]
    host.run(int(times[-1]) - 1)
    rows, work = host.counters()[worlds], host.work_counters()[worlds]
    asked = np.rint(percent[:50].sum(axis=1) * (300 * 10**9 // 100)).astype(np.int64)
    assert work["demanded"].tolist() == asked.tolist()
    assert (rows["run"] >= asked - 2 * 10**9).all()
    assert rows["run"].sum() == host.cpu_counters()["run"].sum()
    assert (rows["idle"] == rows["wait"]).all()


# --- distributions ---


def moments(t) -> tuple[float, float]:
    """Mean and mean square, from the formulas of the distributions."""
    if isinstance(t, Fixed):
        return t.time_ns, t.time_ns**2
    if isinstance(t, Exponential):
        return t.mean_ns, 2 * t.mean_ns**2
    if isinstance(t, Between):
        mean, n = (t.low_ns + t.high_ns) / 2, t.high_ns - t.low_ns + 1
        return mean, mean**2 + (n * n - 1) / 12
    if isinstance(t, LogNormal):
        return t.mean_ns, t.mean_ns**2 * math.exp(t.sigma**2)
    if isinstance(t, BoundedPareto):
        low, high, a = t.low_ns, t.high_ns, t.alpha
        scale = low**a / (1 - (low / high) ** a) * a
        return tuple(scale * (low ** (k - a) - high ** (k - a)) / (a - k) for k in (1, 2))
    values = np.asarray(t.values_ns, float)
    return values.mean(), (values**2).mean()


TIMES = [
    Fixed(MS),
    Exponential(MS),
    Between(MS // 2, 3 * MS // 2),
    LogNormal(MS, 1.0),
    BoundedPareto(MS // 4, 20 * MS, 1.5),
    Empirical([MS // 10, MS // 2, MS // 2, 3 * MS]),
]


def one_queue(time, load: float, jobs: int, rng: int):
    """Mean response of M/G/1 in order of arrival, and that of Pollaczek and Khinchine."""
    mean, square = moments(time)
    gap = int(mean / load)
    host = Scheduler(policy="rr", quantum_ns=1 << 31, rng=rng)
    host.add(Poisson(time, gap), responses=True)
    host.run(gap * jobs)
    row = host.counters()[0]
    expected = mean + square / gap / 2 / (1 - mean / gap)
    return row["job_time"] / row["jobs_done"] / expected, row["run"] / row["jobs_done"] / mean


def shared(time, load: float, jobs: int, rng: int) -> float:
    """Mean response of M/G/1 under round robin with a short quantum, over processor sharing's."""
    mean, _ = moments(time)
    gap, worlds = int(mean / load), 1024
    host = Scheduler(policy="rr", quantum_ns=int(mean) // 50, rng=rng)
    for _ in range(worlds):
        host.add(Poisson(time, gap * worlds))
    host.run(gap * jobs)
    rows = host.counters()
    found = rows["job_time"].sum() / rows["jobs_done"].sum()
    return found / (mean / (1 - mean / gap))


@pytest.mark.parametrize("time", TIMES)
def test_pollaczek_khinchine(time):
    response, work = one_queue(time, 0.5, 200_000, 4)
    assert work == pytest.approx(1, abs=0.01)
    assert response == pytest.approx(1, abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("load", [0.5, 0.7])
@pytest.mark.parametrize("time", TIMES)
def test_pollaczek_khinchine_and_sharing(time, load):
    response, work = one_queue(time, load, 2_000_000, 4)
    assert work == pytest.approx(1, abs=0.005)
    assert response == pytest.approx(1, abs=0.02)
    # of a job alone the quantum decides nothing; beside others it favours short ones by a quantum
    assert shared(time, load, 1_000_000, 9) == pytest.approx(1, abs=0.02)


# --- response times ---


def test_buckets():
    bounds = response_bounds()
    assert len(bounds) == 1376
    assert (np.diff(bounds) > 0).all()
    assert bounds[-1] == (63 << 41)
    assert ((bounds[65:] - bounds[64:-1]) / bounds[64:-1] <= 1 / 32).all()


def test_responses_of_one_queue_to_the_nanosecond():
    """Jobs of a known gap and work, by hand (Lindley)."""
    host = Scheduler(policy="rr", quantum_ns=1 << 31)
    world = host.add(Periodic(Empirical([10, 10, 10, 55]), 20), responses=True)
    expected, waits, work, before = [], 0, 20, 0
    for _ in range(300):
        host.step()
        done = host.counters()[world]["jobs_done"]
        if done > len(expected):
            run = host.counters()[world]["run"]
            waits = max(0, waits + work - 20)
            work, before = int(run - before), run
            expected.append(waits + work)
    counts = host.response_counts(world)
    buckets = np.searchsorted(response_bounds(), expected, "right") - 1
    assert counts.tolist() == np.bincount(buckets, minlength=1376).tolist()
    assert host.work_counters()["response_most"][world] == max(expected)


@given(
    times=st.lists(st.integers(0, 1 << 46), min_size=1, max_size=200),
    q=st.floats(0.1, 100),
)
def test_percentiles_are_close(times, q):
    bounds = response_bounds()
    counts = np.bincount(np.searchsorted(bounds, times, "right") - 1, minlength=len(bounds))
    rank = max(1, math.ceil(round(q * len(times) / 100, 9)))
    exact = sorted(times)[rank - 1]
    assert abs(percentiles(counts, q)[0] - exact) <= exact / 64


def test_percentiles_of_a_vm():
    host = Scheduler(4, policy="rr", quantum_ns=MS)
    vm = host.add_vm(3, Poisson(MS, 10 * MS), responses=True)
    other = host.add(Poisson(MS, 10 * MS), responses=True)
    none = host.add(Poisson(MS, 10 * MS))
    assert np.isnan(host.response_percentiles()).all()
    host.run(10_000 * MS)
    assert host.response_counts(vm.worlds).sum() == host.counters()["jobs_done"][vm.worlds].sum()
    p = host.response_percentiles(vm)
    assert (np.diff(p) > 0).all()
    assert host.response_percentiles(vm, 50)[0] == p[0]
    assert (host.response_counts() - host.response_counts(other)).sum() == host.response_counts(
        vm.worlds
    ).sum()
    with pytest.raises(InvalidValueError, match="responses=True"):
        host.response_counts(none)
    for q in (0, 101, [50, -1]):
        with pytest.raises(InvalidValueError, match="q must be"):
            host.response_percentiles(vm, q)
    with pytest.raises(InvalidValueError, match="buckets"):
        percentiles([1, 2])


# --- barriers and locks ---


def test_a_barrier_on_its_own_cpus():
    host = Scheduler(4, quantum_ns=MS)
    work = Empirical([100, 200, 300, 700])
    vm = host.add_vm(4, Barrier(work), responses=True)
    host.run(10 * MS)
    rows, works = host.counters()[vm.worlds], host.work_counters()[vm.worlds]
    assert len(set(rows["jobs_done"].tolist())) == 1
    assert (rows["run"] == 10 * MS).all()
    # the last of each round has not waited
    assert works["waits"].sum() >= 3 * rows["jobs_done"][0]
    rounds = rows["jobs_done"][0]
    mean = 10 * MS / rounds
    expected = sum(  # of the largest of four
        value * ((i + 1) ** 4 - i**4) / 256 for i, value in enumerate([100, 200, 300, 700])
    )
    assert mean == pytest.approx(expected, rel=0.02)
    assert (works["spin"] + works["useful"] == rows["run"]).all()
    assert works["useful"].sum() / rounds == pytest.approx(4 * 325, rel=0.02)


def test_who_halts_at_a_barrier_is_idle():
    host = Scheduler(2, quantum_ns=MS)
    slow, fast = host.add_vm(2, [b := Barrier(Between(500, 1500), spin_ns=0), b]).worlds
    host.run(MS)
    rows = host.counters()[[slow, fast]]
    assert (rows["idle"] == rows["wait"]).all()
    assert rows["idle"].sum() > 0
    assert host.work_counters()["spin"].sum() == 0
    assert (rows["run"] + rows["rdy"] + rows["wait"] == MS).all()


def test_a_lock_is_held_by_one():
    """On CPUs of their own the sections of all worlds together take no more than the time."""
    for lock in ("ticket", "test_and_set"):
        host = Scheduler(4, quantum_ns=MS)
        vm = host.add_vm(4, Lock(Fixed(130), Fixed(100), lock=lock))
        host.run(MS)
        done = host.counters()["jobs_done"][vm.worlds]
        # the lock is the bottleneck: one section after the other
        assert abs(int(done.sum()) - (MS - 100) // 100) <= 1
        assert done.max() - done.min() <= (1 if lock == "ticket" else 0.2 * done.mean())


def preempted(policy: str, workload, competitors: int = 3) -> tuple:
    host = Scheduler(3, policy=policy, quantum_ns=5 * MS, rng=2)
    vm = host.add_vm(4, workload)
    for _ in range(competitors):
        host.add()
    host.run(5000 * MS)
    return host.counters()[vm.worlds], host.work_counters()[vm.worlds]


def test_preemption_of_holders_and_waiters_is_seen():
    _, alone = preempted("rr", Lock(90 * US, 30 * US, lock="test_and_set"), 0)
    assert alone["holder_preempted"].sum() > 0  # four worlds on three CPUs
    ticket_rows, ticket = preempted("rr", Lock(90 * US, 30 * US))
    tas_rows, tas = preempted("rr", Lock(90 * US, 30 * US, lock="test_and_set"))
    assert tas["waiter_preempted"].sum() == 0
    assert ticket["waiter_preempted"].sum() > 0
    assert min(ticket["holder_off"].sum(), tas["holder_off"].sum()) > 100 * MS
    # the order of tickets makes all wait for worlds without a CPU
    assert ticket_rows["jobs_done"].sum() < tas_rows["jobs_done"].sum() / 2
    assert ticket["useful"].sum() < tas["useful"].sum()
    # who halts leaves its CPU to others instead of spinning
    _, halting = preempted("rr", Lock(90 * US, 30 * US, lock="test_and_set", spin_ns=0))
    assert halting["spin"].sum() == 0
    _, exits = preempted("rr", Lock(90 * US, 30 * US, pause_exit_ns=50 * US))
    assert exits["yields"].sum() > 0
    assert exits["spin"].sum() < ticket["spin"].sum() / 4


def test_members_may_go():
    host = Scheduler(2, quantum_ns=100)
    vm = host.add_vm(3, Barrier(Fixed(50)))
    host.run(75)  # two wait, or one runs
    for world in vm.worlds[:2]:
        host.remove(world)
        host.run(host.now_ns + 500)
    left = vm.worlds[2]
    done = host.counters()["jobs_done"][left]
    host.run(host.now_ns + 500)
    assert host.counters()["jobs_done"][left] == done + 10
    lock = host.add_vm(3, Lock(Fixed(10), Fixed(1000), spin_ns=0))
    host.run(host.now_ns + 100)
    host.remove(lock.worlds[0])  # it has the lock
    host.run(host.now_ns + 5000)
    assert (host.counters()["jobs_done"][lock.worlds[1:]] >= 1).all()


# --- halts, interrupts, devices, pages ---


def test_wait_has_parts():
    host = Scheduler(2, quantum_ns=1000)
    a, b = host.add(), host.add(Periodic(50, 100))
    host.run(1000)
    host.wait_swap(a, 300)
    host.run(1100)
    host.wait_swap(a, 100)  # one page more: until 1,400
    host.run(2000)
    host.wait_device(a, 500)
    host.run(3000)
    host.halt(a)
    host.run(3200)
    host.interrupt(a)
    host.run(4000)
    host.block(a)
    host.run(4700)
    host.wake(a)
    host.run(5000)
    row = host.counters()[a]
    assert (row["wait"], row["swpwt"], row["idle"]) == (400 + 500 + 200 + 700, 400, 200)
    assert (row["run"], row["interrupts"]) == (5000 - row["wait"], 1)
    row = host.counters()[b]
    assert (row["idle"], row["wait"], row["swpwt"]) == (2500, 2500, 0)


def test_interrupts_wake_and_take_time():
    host = Scheduler(1, quantum_ns=1000)
    world = host.add(Periodic(50, 1000, start_ns=100), responses=True)
    host.run(120)
    host.interrupt(world, 7)  # while it runs: the job ends later
    host.run(500)
    host.interrupt(world, 9)  # while it is idle
    host.run(1000)
    row = host.counters()[world]
    assert (row["run"], row["jobs_done"], row["interrupts"]) == (66, 1, 2)
    assert host.work_counters()["response_most"][world] == 57
    host.run(1110)
    host.halt(world)  # in the middle of a job
    host.run(1500)
    assert host.counters()[world]["idle"] == 1500 - 76
    host.interrupt(world)
    host.run(1600)
    assert host.counters()[world]["jobs_done"] == 2
    host.halt(world)
    host.run(2200)  # a job wakes it, too
    assert host.counters()[world]["jobs_done"] == 3


def test_pages_keep_a_world_from_running():
    host = Scheduler(1, quantum_ns=10)
    a, b = host.add(), host.add()
    host.run(95)
    host.wait_swap(a, 1000)
    host.wait_swap(b, 20)
    host.run(105)
    assert host.cpu_counters()["world"][0] == -1
    host.block(b)
    host.run(200)
    assert host.counters()[b]["swpwt"] == 20
    host.wake(b)
    host.run(2000)
    rows = host.counters()
    assert rows["swpwt"].tolist() == [1000, 20]
    assert rows["wait"].tolist() == [1000, 105]


# --- bad input ---


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda h: h.add(Barrier(5)), "add_vm"),
        (lambda h: h.add(Lock(5, 5)), "add_vm"),
        (lambda h: h.add(Always(), responses=True), "responses"),
        (lambda h: h.add_vm(2, Barrier(0)), "work"),
        (lambda h: h.add_vm(2, Barrier(5, "normal")), "distribution"),
        (lambda h: h.add_vm(2, Barrier(5, spin_ns=-1)), "spin_ns"),
        (lambda h: h.add_vm(2, Barrier(5, pause_exit_ns=0)), "pause_exit_ns"),
        (lambda h: h.add_vm(2, Barrier(5, start_ns=-1)), "start_ns"),
        (lambda h: h.add_vm(2, Lock(5, 0)), "section"),
        (lambda h: h.add_vm(2, Lock(5, 5, lock="mcs")), "lock must be"),
        (lambda h: h.add_vm(2, Lock(5, 5, lock="barrier")), "lock must be"),
        (lambda h: h.add_vm(2, [Barrier(5), "always"]), "workload"),
        (lambda h: h.add(Demand([0, 5], [1, 2])), "one more than"),
        (lambda h: h.add(Demand([1, 5], [1])), "begin with 0"),
        (lambda h: h.add(Demand([0, 5, 5], [1, 1])), "increase, got 5 and then 5"),
        (lambda h: h.add(Demand([0, 5.5], [1])), "integers"),
        (lambda h: h.add(Demand([0, 5], [-0.5])), "cpus"),
        (lambda h: h.add(Demand([0, 5], [math.nan])), "cpus"),
        (lambda h: h.add(Demand([0, 5], [4.5])), "demand"),
        (lambda h: h.add(Demand([0, 5], ["a"])), "cpus"),
        (lambda h: h.add(Demand([0, 5], [1], grain_ns=0)), "grain_ns"),
        (lambda h: h.add(Demand([0, 5], [1], unserved="lost")), "unserved"),
        (lambda h: h.add(Demand([0, 5], [1], start_ns=-1)), "start_ns"),
        (lambda h: h.add(Demand.sampled([1], 0)), "interval_ns"),
        (lambda h: h.add(Demand.sampled([1], 0.5)), "interval_ns"),
        (lambda h: h.add(Poisson(Fixed(0), 5)), "work"),
        (lambda h: h.add(Poisson(LogNormal(5, 0), 5)), "sigma"),
        (lambda h: h.add(Poisson(LogNormal(5, math.nan), 5)), "sigma"),
        (lambda h: h.add(Poisson(LogNormal(5, "a"), 5)), "sigma"),
        (lambda h: h.add(Poisson(BoundedPareto(5, 4, 1), 5)), "high_ns"),
        (lambda h: h.add(Poisson(BoundedPareto(5, 9, -1), 5)), "alpha"),
        (lambda h: h.add(Poisson(Between(5, 4), 5)), "high_ns"),
        (lambda h: h.add(Poisson(Empirical([]), 5)), "values_ns"),
        (lambda h: h.add(Poisson(Empirical([1.5]), 5)), "values_ns"),
        (lambda h: h.add(Poisson(Empirical([1, 0]), 5)), "values_ns"),
        (lambda h: h.wait_swap(0, 0), "ns"),
        (lambda h: h.wait_swap(9, 5), "world"),
        (lambda h: h.wait_device(2, 5), "waits for pages"),
        (lambda h: h.interrupt(0, 5), "work_ns"),
        (lambda h: h.interrupt(1, -5), "work_ns"),
        (lambda h: h.interrupt(3, 5), "work_ns"),
        (lambda h: h.halt(3), "barrier or a lock"),
        (lambda h: h.response_counts(0), "responses=True"),
        (lambda h: h.wake_counts([0, 1]), "world 0 was not added with wakes=True"),
        (lambda h: h.wake_counts(17), "world"),
        (lambda h: h.add_vm(2, [None, Poisson(0, 5)], wakes=True), "work_ns"),
        (lambda h: h.response_counts([17]), "world"),
    ],
)
def test_bad_input_leaves_it_usable(call, message):
    host = Scheduler(cpus=2)
    for workload in (Always(), Jobs(), Jobs()):
        host.add(workload)
    host.add_vm(2, Barrier(50))
    host.run(100)
    host.wait_swap(2, 1000)
    before, size = facts(host), host.nbytes
    with pytest.raises((InvalidValueError, InvalidTypeError), match=message):
        call(host)
    assert facts(host) == before
    host.run(200)
    assert host.nbytes - size < 3000
