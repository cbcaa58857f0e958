"""The public scheduler: state as a value, bad input, what its page promises."""

import copy
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.sched import (
    POLICIES,
    Always,
    Jobs,
    OnOff,
    Periodic,
    Poisson,
    Scheduler,
    latency_bounds,
)

MS = 1_000_000


def busy(policy: str = "stride", rng=7) -> Scheduler:
    """Some of everything."""
    host = Scheduler(cpus=3, policy=policy, quantum_ns=MS, rng=rng)
    for weight in (1, 2, 3, 4):
        host.add(weight=weight)
    host.add(weight=5, affinity=[1])
    host.add(weight=9, limit=(3 * MS, 10 * MS))
    host.add(OnOff(2 * MS, 3 * MS), affinity=[0, 2])
    host.add(Poisson(MS, 5 * MS))
    host.add(Periodic(MS, 7 * MS, "uniform"))
    return host


def facts(host: Scheduler) -> list:
    tables = (host.counters(), host.cpu_counters(), host.latency_counts(), host.virtual_times())
    return [host.now_ns, host.events, *(t.tobytes() for t in tables)]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    "twin", [copy.copy, copy.deepcopy, lambda host: pickle.loads(pickle.dumps(host))]
)
def test_a_copy_goes_on_alike(policy, twin):
    host = busy(policy)
    host.run(333_333_333)
    other = twin(host)
    assert facts(other) == facts(host)
    for each in (host, other):
        each.run(500 * MS)
        each.remove(2)
        assert each.add(Poisson(MS, 2 * MS), weight=3) == 2
        each.run(1000 * MS)
    assert facts(other) == facts(host)


@pytest.mark.parametrize("policy", POLICIES)
def test_restore_goes_back(policy):
    host = busy(policy)
    host.run(100 * MS)
    snapshot = host.snapshot()
    host.run(200 * MS)
    host.add(affinity=[0])
    then = facts(host)
    host.restore(snapshot)
    assert host.now_ns == 100 * MS
    host.run(200 * MS)
    host.add(affinity=[0])
    assert facts(host) == then


@pytest.mark.parametrize("policy", POLICIES)
def test_a_run_may_be_split_anywhere(policy):
    whole, parts, steps = busy(policy), busy(policy), busy(policy)
    whole.run(300 * MS)
    for t in np.random.default_rng(1).integers(0, 300 * MS, 500).tolist():
        parts.advance(max(t, parts.now_ns)) if t >= parts.now_ns else None
    parts.advance(300 * MS)
    while steps.next_event_time() <= 300 * MS:
        assert steps.step()
    steps.advance(300 * MS)
    assert facts(whole) == facts(parts) == facts(steps)


def test_events_bound_a_run():
    host = Scheduler(quantum_ns=10)
    host.add()
    assert host.run(1000, events=3) == 3
    assert host.now_ns == 30
    assert host.run(1000) == 97
    assert host.next_event_time() == 1010


def test_nothing_to_do():
    host = Scheduler()
    assert host.next_event_time() is None
    assert host.step() is False
    assert host.run(50) == 0
    assert host.now_ns == 50
    assert host.cpu_counters()["idle"].tolist() == [50]
    world = host.add(Jobs())
    assert host.next_event_time() is None
    host.submit(world, 20)
    assert host.next_event_time() == 70


def test_a_far_timer():
    """Farther away than the keys of timers reach."""
    host = Scheduler(quantum_ns=MS)
    host.add(Periodic(5, 1 << 50, start_ns=(1 << 49) + 3))
    assert host.next_event_time() == (1 << 49) + 3
    assert host.run(1 << 51) == 4
    assert host.counters()["jobs_done"].tolist() == [2]
    assert host.next_event_time() == (1 << 51) + (1 << 49) + 3


def test_limits_hold_in_each_period():
    host = Scheduler(cpus=2, quantum_ns=3 * MS)
    world = host.add(limit=(25 * MS, 100 * MS))
    host.add(limit=(MS, 7 * MS))
    for _ in range(2):
        host.add(weight=3)
    before = 0
    for period in range(1, 60):
        host.run(period * 100 * MS)
        run = int(host.counters()["run"][world])
        assert run - before == 25 * MS
        before = run


def test_job_time_is_the_sum_of_response_times():
    host = Scheduler(policy="rr", quantum_ns=MS)
    host.add(Periodic(30, 100))
    host.add(Periodic(20, 100))
    host.run(1000)
    rows = host.counters()
    assert rows["jobs_done"].tolist() == [10, 10]
    assert rows["job_time"].tolist() == [300, 500]


def test_wake_latency():
    host = Scheduler(policy="rr", quantum_ns=40)
    host.add()
    host.add(Periodic(1, 1000, start_ns=10))
    host.run(10_000)
    row = host.counters()[1]
    # from the first arrival to the end of the slice that runs then
    assert row["wakes"] == 10
    assert 30 <= row["wake_most"] <= 40
    assert row["rdy"] == row["wake_time"]
    counts = host.latency_counts()
    bounds = latency_bounds()
    assert np.flatnonzero(counts)[-1] == np.searchsorted(bounds, row["wake_most"], "right") - 1
    assert counts.sum() == 10
    assert (counts * bounds.astype(np.uint64)).sum() <= row["wake_time"]
    assert (np.diff(bounds.astype(float)) >= 0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda h: h.add(weight=0), "weight"),
        (lambda h: h.add(weight=(1 << 20) + 1), "weight"),
        (lambda h: h.add(weight=1.5), "weight"),
        (lambda h: h.add(slice_ns=0), "slice_ns"),
        (lambda h: h.add(slice_ns=1 << 32), "slice_ns"),
        (lambda h: h.add(affinity=[]), "affinity"),
        (lambda h: h.add(affinity=[2]), "affinity"),
        (lambda h: h.add(affinity="01"), "affinity"),
        (lambda h: h.add(affinity=3), "affinity"),
        (lambda h: h.add(limit=5), "limit"),
        (lambda h: h.add(limit=(0, 5)), "quota_ns"),
        (lambda h: h.add(limit=(5, 0)), "period_ns"),
        (lambda h: h.add("always"), "workload"),
        (lambda h: h.add(OnOff(0, 5)), "work_ns"),
        (lambda h: h.add(Poisson(5, 0)), "gap_ns"),
        (lambda h: h.add(Poisson(5, 5, "normal")), "distribution"),
        (lambda h: h.add(Periodic(5, 5, start_ns=-1)), "start_ns"),
        (lambda h: h.remove(7), "world"),
        (lambda h: h.remove("a"), "world"),
        (lambda h: h.block(-1), "world"),
        (lambda h: h.remove(1), "removed"),
        (lambda h: h.submit(0, 5), "Jobs"),
        (lambda h: h.submit(2, 0), "work_ns"),
        (lambda h: h.set_weight(0, 0), "weight"),
        (lambda h: h.set_affinity(0, [9]), "affinity"),
        (lambda h: h.set_limit(0, (1, -1)), "period_ns"),
        (lambda h: h.run(-1), "until_ns"),
        (lambda h: h.run(5), "until_ns"),
        (lambda h: h.run(1 << 62), "until_ns"),
        (lambda h: h.run("1s"), "until_ns"),
        (lambda h: h.run(500, events=-1), "events"),
        (lambda h: h.restore(3), "snapshot"),
        (lambda h: h.restore(Scheduler(cpus=3).snapshot()), "other arguments"),
        (lambda h: h.restore(Scheduler(cpus=2, policy="rr").snapshot()), "other arguments"),
    ],
)
def test_bad_input_leaves_it_usable(call, message):
    host = Scheduler(cpus=2)
    for workload in (Always(), None, Jobs()):
        host.add(workload)
    host.remove(1)
    host.run(100)
    before = facts(host)
    with pytest.raises((InvalidValueError, InvalidTypeError), match=message):
        call(host)
    assert facts(host) == before
    host.run(200)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cpus": 0}, "cpus"),
        ({"cpus": 1025}, "cpus"),
        ({"policy": "fifo"}, "policy"),
        ({"rng": -1}, "rng"),
        ({"rng": "a"}, "rng"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises((InvalidValueError, InvalidTypeError), match=message):
        Scheduler(**arguments)


def test_not_initialised():
    host = Scheduler.__new__(Scheduler)
    for call in (host.step, host.next_event_time, lambda: host.run(5), lambda: host.remove(0)):
        with pytest.raises(InvalidTypeError, match="not initialised"):
            call()
    with pytest.raises(InvalidTypeError, match="not initialised"):
        host._state()


def test_worlds_come_and_go_without_end():
    host = Scheduler(cpus=2, quantum_ns=10)
    for round in range(300):
        worlds = [host.add(weight=1 + i, affinity=[i % 2]) for i in range(5)]
        assert sorted(worlds) == [0, 1, 2, 3, 4]
        host.run(100 * (round + 1))
        for world in worlds:
            host.remove(world)
    size = host.nbytes
    host.run(10**6)
    assert host.nbytes == size < 5000 + 2**15
    assert host.cpu_counters()["run"].sum() == 2 * 300 * 100


def test_one_thread_at_a_time():
    """A run does not hold the GIL; whoever comes meanwhile is turned away, and hosts run apart."""
    host = Scheduler(cpus=8)
    host.fast_forward = False  # it would be over at once
    for weight in range(1, 50):
        host.add(weight=weight)
    thread = threading.Thread(target=host.run, args=(10**15,), kwargs={"events": 20_000_000})
    thread.start()
    refused = 0
    while thread.is_alive():
        try:
            host.add()
        except InvalidValueError as error:
            refused += "another thread" in str(error)
            time.sleep(0.001)
    thread.join()
    assert refused
    assert host.run(10**15, events=5) == 5


def test_hosts_in_threads_are_as_one_after_the_other():
    serial, apart = ([busy(rng=i) for i in range(8)] for _ in range(2))
    for host in serial:
        host.run(3000 * MS)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda host: host.run(3000 * MS), apart))
    assert [facts(h) for h in serial] == [facts(h) for h in apart]


@pytest.mark.parametrize("policy", ["rr", "stride", "fixed"])
def test_work_that_is_done_at_the_moment_of_a_block_is_done(policy):
    """Two jobs end at the same time, and the second world is blocked between these events."""
    host = Scheduler(cpus=2, policy=policy)
    first, second = host.add(Jobs()), host.add(Jobs())
    host.submit(first, 100)
    host.submit(second, 100)
    host.step()
    host.block(second)
    assert host.counters()["jobs_done"].tolist() == [1, 1]
    host.run(200)
    host.wake(second)
    host.submit(second, 5)
    host.run(300)
    assert host.counters()["jobs_done"].tolist() == [1, 2]
    assert host.counters()["run"].tolist() == [100, 105]
