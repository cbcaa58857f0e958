"""Queues against queueing theory: closed forms that no code here was written from."""

import numpy as np
import pytest

from machine.paths.samples import two_paths
from pyvirt.machine.paths import PathEngine, PathPolicy, Topology

MEAN = 1_000_000
COUNT = 400_000


def one_server(depth=2**31 - 1):
    plan = Topology()
    plan.device("d", [[plan.component("disk", "array")]], depth=depth)
    return PathEngine(plan)


def arrivals(rng, load, count=COUNT):
    return np.cumsum(rng.exponential(MEAN / load, count)).astype(np.int64)


@pytest.mark.parametrize("load", [0.3, 0.7, 0.9])
@pytest.mark.parametrize("kind", ["M/M/1", "M/D/1"])
def test_mean_time_in_the_system(kind, load):
    """Pollaczek and Khinchine: 1 + load / (1 - load) * (1 + cv^2) / 2 services."""
    rng = np.random.default_rng(7)
    engine = one_server()
    work = rng.exponential(MEAN, COUNT) if kind == "M/M/1" else np.full(COUNT, MEAN)
    engine.submit(arrivals(rng, load), 0, work_ns=work.astype(np.int64))
    engine.run()
    times = engine.requests["end"] - engine.requests["at"]
    variation = 1 if kind == "M/M/1" else 0
    expected = 1 + load / (1 - load) * (1 + variation) / 2
    # means of batches are nearly independent: their spread gives the error of the mean
    batches = times.reshape(50, -1).mean(axis=1) / MEAN
    error = batches.std(ddof=1) / 50**0.5
    assert abs(batches.mean() - expected) < 4 * error
    assert error < 0.1 * expected
    busy = engine.components["busy_ns"][0] / engine.now_ns
    assert busy == pytest.approx(load, rel=0.02)


def test_times_of_one_queue_are_lindleys():
    rng = np.random.default_rng(3)
    engine = one_server()
    at, work = arrivals(rng, 0.8, 20_000), rng.integers(0, 2 * MEAN, 20_000)
    engine.submit(at, 0, work_ns=work)
    engine.run()
    free, ends = 0, []
    for come, needs in zip(at.tolist(), work.tolist(), strict=True):
        free = max(free, come) + needs
        ends.append(free)
    assert engine.requests["end"].tolist() == ends


def test_times_of_a_row_of_queues_are_lindleys():
    rng = np.random.default_rng(4)
    plan = Topology()
    row = [
        plan.component("hba", mbps=8000, delay_ns=5000),
        plan.component("switch", iops=1e6),
        plan.component("array", iops=20_000, mbps=16_000, delay_ns=200_000),
    ]
    plan.device("d", [row], depth=2**31 - 1)
    engine = PathEngine(plan)
    at = arrivals(rng, 18.0, 20_000)
    nbytes = rng.choice([512, 4096, 65536], 20_000)
    engine.submit(at, 0, nbytes=nbytes)
    engine.run()
    times = at.tolist()
    services = (
        [-(-n // 1) for n in nbytes.tolist()],  # 8 Gbit/s: a byte each ns
        [1000] * 20_000,
        [max(50_000, -(-n * 500 // 1000)) for n in nbytes.tolist()],
    )
    for service, delay in zip(services, (5000, 0, 200_000), strict=True):
        free = 0
        for i, needs in enumerate(service):
            free = max(free, times[i]) + needs
            times[i] = free + delay
    assert engine.requests["end"].tolist() == times


def test_littles_law():
    rng = np.random.default_rng(5)
    engine = one_server(depth=4)
    engine.submit(arrivals(rng, 0.9, 50_000), 0, work_ns=rng.integers(0, 2 * MEAN, 50_000))
    engine.run()
    r, d = engine.requests, engine.devices[0]
    assert int(d["area"]) == int((r["end"] - r["at"]).sum())
    assert int(d["active_area"]) == int(r["device_ns"].sum())
    rate, mean = len(r) / engine.now_ns, (r["end"] - r["at"]).mean()
    assert int(d["area"]) / engine.now_ns == pytest.approx(rate * mean, rel=1e-12)


def test_the_queue_depth_bounds_what_is_under_way():
    engine = one_server(depth=4)
    engine.submit(np.zeros(10), 0, work_ns=MEAN)
    engine.advance(MEAN // 2)
    stats = engine.stats()
    assert (stats["DQLEN"][0], stats["ACTV"][0], stats["QUED"][0]) == (4, 4, 6)
    engine.run()
    stats = engine.stats()
    # 1, 2, 3, 4 and then always 4 ms under way; the rest of 1 ... 10 ms in the host
    assert stats["GAVG"][0] == pytest.approx(5.5)
    assert stats["DAVG"][0] == pytest.approx((1 + 2 + 3 + 4 * 7) / 10)
    assert stats["KAVG"][0] == pytest.approx(5.5 - 3.4)


def test_round_robin_over_more_adapters_carries_more():
    ends = []
    for paths in (1, 2, 4):
        plan = Topology()
        disk = plan.component("array")
        hbas = [plan.component(f"hba{k}", mbps=8000) for k in range(paths)]
        plan.device("d", [[hba, disk] for hba in hbas], policy=PathPolicy.ROUND_ROBIN, switch_ios=1)
        engine = PathEngine(plan)
        engine.submit(np.zeros(4000), 0, nbytes=65536)
        engine.run()
        ends.append(engine.now_ns if engine.now_ns else int(engine.requests["end"].max()))
    assert ends[0] == 2 * ends[1] == 4 * ends[2] == 4000 * 65536


def test_devices_share_what_their_paths_share():
    plan = two_paths(hosts=2)
    engine = PathEngine(plan)
    engine.submit(np.zeros(100), np.tile([0, 1], 50))
    engine.run()
    # 100,000 requests a second of the array, whoever asks: in turn
    assert engine.requests["end"].tolist() == [10_000 * (k + 1) for k in range(100)]
