"""Steady loads against queueing theory, against requests one by one, and in conservation."""

import numpy as np
import pytest

from machine.paths.samples import two_paths
from pyvirt.errors import PyvirtError
from pyvirt.machine.paths import ArrayKind, PathEngine, PathPolicy, Topology, steady

S = 10**9


@pytest.mark.parametrize("load", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("variation", [0.0, 1.0, 3.0])
def test_one_component_is_m_g_1(load, variation):
    plan = Topology()
    plan.device("d", [[plan.component("disk")]])
    found = steady(PathEngine(plan), load * 1000, work_ns=1e6, variation=variation)
    expected = 1 + load / (1 - load) * (1 + variation**2) / 2
    assert found.latency_ns[0] == pytest.approx(1e6 * expected, rel=1e-12)
    assert found.utilisation[0] == pytest.approx(load)


def test_as_requests_one_by_one():
    """A mix of two devices over one array, whose requests differ, with a delay behind."""
    plan = Topology()
    disk = plan.component("array", "array", iops=10_000, mbps=4000, delay_ns=300_000)
    for k in range(2):
        plan.device(f"d{k}", [[disk]], depth=2**31 - 1)
    rates, sizes = np.array([4000.0, 600.0]), np.array([4096, 262_144])
    found = steady(PathEngine(plan), rates, nbytes=sizes)
    rng = np.random.default_rng(11)
    at = [np.cumsum(rng.exponential(1e9 / rate, int(rate * 120))) for rate in rates]
    device = np.repeat([0, 1], [one.size for one in at])
    order = np.argsort(np.concatenate(at), kind="stable")
    engine = PathEngine(plan)
    engine.submit(
        np.concatenate(at).astype(np.int64)[order], device[order], nbytes=sizes[device[order]]
    )
    engine.run()
    assert engine.stats()["GAVG"] * 1e6 == pytest.approx(found.latency_ns, rel=0.02)
    busy = engine.components["busy_ns"] / engine.now_ns
    assert busy == pytest.approx(found.utilisation, rel=0.02)


def test_what_is_asked_too_much_is_shared():
    plan = Topology()
    small, large = plan.component("small", iops=100), plan.component("large", iops=1000)
    plan.device("a", [[small, large]])
    plan.device("b", [[large]])
    found = steady(PathEngine(plan), [200, 400])
    assert found.iops == pytest.approx([100, 400])
    assert found.utilisation == pytest.approx([1.0, 0.5])
    assert found.latency_ns[0] == np.inf
    assert found.latency_ns[1] < 2e6


def test_paths_as_they_are():
    engine = PathEngine(
        two_paths(PathPolicy.ROUND_ROBIN, ArrayKind.ALUA, paths=4, unoptimized_ns=7000)
    )
    best = steady(engine, 1)
    assert best.latency_ns[0] == pytest.approx(10_000, rel=1e-4)
    engine.fail(0)
    engine.advance(S)
    broken = steady(engine, 1)  # not yet seen
    assert (broken.iops[0], broken.latency_ns[0]) == (0.0, np.inf)
    engine.advance(40 * S)
    assert steady(engine, 1).latency_ns[0] == pytest.approx(17_000, rel=1e-4)
    engine.fail(2)
    engine.advance(100 * S)
    down = steady(engine, 1)
    assert (down.iops[0], down.latency_ns[0]) == (0.0, np.inf)


def test_round_robin_spreads_the_load():
    plan = Topology()
    hbas = [plan.component(f"hba{k}", iops=1000) for k in range(2)]
    plan.device("rr", [[one] for one in hbas], policy=PathPolicy.ROUND_ROBIN)
    plan.device("mru", [[one] for one in hbas], policy=PathPolicy.MRU)
    found = steady(PathEngine(plan), [1000, 400])
    assert found.utilisation == pytest.approx([0.9, 0.5])


@pytest.mark.parametrize("seed", range(20))
def test_nothing_does_more_than_it_can(seed):
    rng = np.random.default_rng(seed)
    plan = Topology()
    parts = [plan.component(f"c{k}", iops=float(rng.integers(100, 1000))) for k in range(5)]
    for d in range(6):
        rows = [rng.permutation(parts)[: rng.integers(1, 4)].tolist() for _ in range(3)]
        plan.device(f"d{d}", rows, policy=PathPolicy(int(rng.integers(3))))
    asked = rng.uniform(0, 500, 6)
    found = steady(PathEngine(plan), asked)
    assert (found.utilisation <= 1 + 1e-9).all()
    assert (found.iops <= asked + 1e-9).all()
    # a device waits for ever only if it, or another at the same component, asks for too much
    if np.isinf(found.latency_ns).any():
        assert found.utilisation.max() > 1 - 1e-9
    else:
        assert found.iops == pytest.approx(asked)


def test_refused():
    engine = PathEngine(two_paths())
    for message, call in (
        ("engine must be a PathEngine, not 3", lambda: steady(3, 1)),
        ("iops, row 0: must be at least 0, got -1", lambda: steady(engine, -1)),
        ("iops must have shape", lambda: steady(engine, [1, 2])),
        ("nbytes must be numbers", lambda: steady(engine, 1, nbytes="x")),
        ("variation must be at least 0, got -1", lambda: steady(engine, 1, variation=-1)),
    ):
        with pytest.raises(PyvirtError, match=message):
            call()
