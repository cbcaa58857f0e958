"""Histograms of wake-ups and their percentiles, against the times themselves."""

import numpy as np
import pytest

from pyvirt.errors import InvalidValueError
from pyvirt.sched import (
    POLICIES,
    EsxHost,
    Jobs,
    OnOff,
    Poisson,
    Scheduler,
    latency_bounds,
    latency_percentiles,
    response_bounds,
)

MS = 1_000_000


def test_against_the_times_themselves():
    rng = np.random.default_rng(4)
    times = np.concatenate([rng.integers(0, 40, 500), (10 ** rng.uniform(1, 9, 5000)).astype(int)])
    bounds = latency_bounds()
    counts = np.bincount(np.searchsorted(bounds, times, side="right") - 1, minlength=512)
    for percent in (1, 10, 50, 90, 99, 99.9, 100):
        (got,) = latency_percentiles(counts, [percent]).tolist()
        exact = np.sort(times)[int(np.ceil(percent * len(times) / 100 - 1e-9)) - 1]
        assert exact <= got <= exact * 9 / 8


def test_of_a_scheduler():
    host = Scheduler(1, policy="rr", quantum_ns=MS, rng=2)
    for _ in range(3):
        host.add()
    host.add(OnOff(100_000, 7 * MS))
    host.run(10_000 * MS)
    p50, p100 = latency_percentiles(host.latency_counts(), [50, 100]).tolist()
    most = host.counters()["wake_most"].max()
    assert most <= p100 <= most * 9 / 8
    assert 2 * MS < p50 <= 3 * MS * 9 / 8


@pytest.mark.parametrize("policy", [*POLICIES, "esx", "credit2", "cfs"])
def test_worlds_add_up_to_vms_and_to_the_host(policy):
    host = Scheduler(2, policy=policy, quantum_ns=MS, rng=3)
    vms = [
        host.add_vm(3, Poisson(MS // 5, 3 * MS), wakes=True),
        host.add_vm(2, [OnOff(MS, 5 * MS), None], wakes=True),
        host.add_vm(2, wakes=True),
    ]
    host.run(2000 * MS)
    host.block(vms[2].worlds[0])
    host.wake(vms[2].worlds[0])
    host.run(3000 * MS)
    rows = host.counters()
    for vm in vms:
        each = [host.wake_counts(world) for world in vm.worlds]
        assert [int(c.sum()) for c in each] == rows["wakes"][vm.worlds].tolist()
        assert (sum(each) == host.wake_counts(vm.worlds)).all()
    assert rows["wakes"][vms[2].worlds].tolist() == [1, 0]
    assert np.isnan(host.wake_percentiles(vms[2].worlds[1])).all()
    # the histogram of the host has every fourth of their bounds
    place = np.searchsorted(latency_bounds(), response_bounds(), side="right") - 1
    coarse = np.bincount(place, weights=host.wake_counts().astype(float), minlength=512)
    assert (coarse == host.latency_counts()).all()
    longest = rows["wake_most"][vms[0].worlds].max()
    assert abs(host.wake_percentiles(vms[0], 100)[0] - longest) <= longest / 64


def test_a_known_wait():
    """Each wake-up finds the rest of a slice before it."""
    host = Scheduler(1, policy="rr", quantum_ns=10 * MS)
    host.add()
    world = host.add(Jobs(), wakes=True)
    waits = (7 * MS + 321, 3 * MS, 50, 5)
    for wait in waits:
        host.run(host.next_event_time())
        host.run(host.now_ns + 10 * MS - wait)
        host.submit(world, MS)
        host.run(host.now_ns + wait)
        host.run(host.now_ns + MS)
    for q, exact in zip((25, 50, 75, 100), sorted(waits), strict=True):
        found = host.wake_percentiles(world, q)[0]
        assert abs(found - exact) <= exact / 64
        assert found == exact or exact >= 64
    assert host.counters()["wake_time"][world] == sum(waits)


def test_an_esx_host_records_them_too():
    host = EsxHost(cpus=1, mhz=1000, rng=5)
    web = host.power_on("web", workload=Poisson(MS, 9 * MS), wakes=True, responses=True)
    plain = host.power_on("plain")
    host.run(2000 * MS)
    row = host.counters()[web.worlds[0]]
    assert host.wake_counts(web.worlds).sum() == row["wakes"] > 0
    assert host.response_counts(web.worlds).sum() == row["jobs_done"] > 0
    with pytest.raises(InvalidValueError, match="wakes=True"):
        host.wake_counts(plain.worlds)


def test_only_who_asks_for_a_histogram_has_one():
    plain, some = (Scheduler(1) for _ in range(2))
    for i in range(64):
        plain.add(), some.add(wakes=i < 8)
    assert some.nbytes - plain.nbytes == 8 * len(response_bounds()) * 8
    assert some.wake_counts().shape == response_bounds().shape
    with pytest.raises(InvalidValueError, match="world 9 was not added with wakes=True"):
        some.wake_counts([0, 9])
    some.remove(3)
    assert some.wake_counts().sum() == 0
    with pytest.raises(InvalidValueError, match="world 3 was removed"):
        some.wake_counts(3)


def test_nothing_and_nonsense():
    assert latency_percentiles(np.zeros(512), [50, 99]).tolist() == [-1, -1]
    for percent in (0, -1, 101):
        with pytest.raises(InvalidValueError, match=f"up to 100, got {percent}"):
            latency_percentiles(np.ones(512), [percent])
    for counts in (np.ones(5), -np.ones(512)):
        with pytest.raises(InvalidValueError, match="counts must be 512 numbers"):
            latency_percentiles(counts, [50])
