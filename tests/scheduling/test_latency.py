"""Percentiles of the wake-up histogram, against the times themselves."""

import numpy as np
import pytest

from pyvirt.errors import InvalidValueError
from pyvirt.sched import OnOff, Scheduler, latency_bounds, latency_percentiles

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


def test_nothing_and_nonsense():
    assert latency_percentiles(np.zeros(512), [50, 99]).tolist() == [-1, -1]
    for percent in (0, -1, 101):
        with pytest.raises(InvalidValueError, match=f"up to 100, got {percent}"):
            latency_percentiles(np.ones(512), [percent])
    for counts in (np.ones(5), -np.ones(512)):
        with pytest.raises(InvalidValueError, match="counts must be 512 numbers"):
            latency_percentiles(counts, [50])
