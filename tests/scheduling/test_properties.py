"""Laws of fair shares: bounds of lag, limits, and worlds that go and come back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvirt.sched import OnOff, Poisson, Scheduler

QUANTUM = 1000
weights = st.lists(st.integers(1, 1000), min_size=2, max_size=30)


def lags(host: Scheduler, weights) -> np.ndarray:
    """CPU time that is missing of the ideal share, of always runnable worlds since 0, in quanta."""
    ideal = host.now_ns * np.array(weights) / sum(weights)
    return (ideal - host.counters()["run"]) / QUANTUM


@given(weights=weights, times=st.lists(st.integers(1, 5000), min_size=1, max_size=20))
@settings(deadline=None)
def test_eevdf_is_within_a_quantum(weights, times):
    host = Scheduler(policy="eevdf", quantum_ns=QUANTUM)
    for weight in weights:
        host.add(weight=weight)
    for time in times:
        host.advance(host.now_ns + time)
        assert np.abs(lags(host, weights)).max() <= 1 + 1e-9


@given(weights=weights, times=st.lists(st.integers(1, 5000), min_size=1, max_size=20))
@settings(deadline=None)
def test_stride_is_pairwise_within_a_quantum(weights, times):
    """TM-528: of two clients neither is ever more than a quantum away from its part."""
    host = Scheduler(policy="stride", quantum_ns=QUANTUM)
    for weight in weights:
        host.add(weight=weight)
    w = np.array(weights)
    for time in times:
        host.advance(host.now_ns + time)
        run = host.counters()["run"] / QUANTUM
        both = run[:, None] + run[None, :]
        ideal = both * w[:, None] / (w[:, None] + w[None, :])
        assert np.abs(run[:, None] - ideal).max() <= 1 + 1e-9


@pytest.mark.parametrize("policy", ["stride", "eevdf"])
@given(
    weights=weights,
    changes=st.lists(
        st.tuples(st.integers(0, 29), st.integers(1, 5000), st.integers(0, 20_000)), max_size=8
    ),
)
@settings(deadline=None)
def test_going_and_coming_back_wins_and_loses_little(policy, weights, changes):
    """Who blocks and wakes, again and again, is not more than some quanta off its part.

    The part of a world is its share of what is given out while it competes; each leave and
    each return costs or wins a quantum at most.
    """
    host = Scheduler(policy=policy, quantum_ns=QUANTUM)
    for weight in weights:
        host.add(weight=weight)
    active = np.ones(len(weights), bool)
    part = np.zeros(len(weights))
    w = np.array(weights, float)

    def advance(by: int) -> None:
        if active.any():
            part[active] += by * w[active] / w[active].sum()
        host.advance(host.now_ns + by)

    for world, before, absent in changes:
        world %= len(weights)
        advance(before)
        host.block(world)
        active[world] = False
        advance(absent)
        host.wake(world)
        active[world] = True
    advance(30 * QUANTUM)
    off = np.abs(part - host.counters()["run"]) / QUANTUM
    # stride bounds the error of one client by the number of clients (O(n_c))
    bound = 2 + 2 * len(changes) + (len(weights) if policy == "stride" else 0)
    assert off.max() <= bound


@pytest.mark.parametrize("policy", ["rr", "stride", "hstride", "lottery", "eevdf"])
@given(
    quota=st.integers(1, 3000),
    period=st.integers(1, 9000),
    others=st.integers(0, 4),
    cpus=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=40)
def test_limits_are_kept_in_every_period(policy, quota, period, others, cpus, seed):
    host = Scheduler(cpus, policy=policy, quantum_ns=QUANTUM, rng=seed)
    always = host.add(limit=(quota, period))
    sometimes = host.add(OnOff(700, 900), limit=(quota, period))
    for i in range(others):
        host.add(Poisson(300, 1000) if i % 2 else None, weight=1 + i)
    before = np.zeros(2)
    for count in range(1, 30):
        host.advance(count * period)
        run = host.counters()["run"][[always, sometimes]]
        assert (run - before <= min(quota, period)).all()
        if not others and cpus > 1:
            assert run[0] - before[0] == min(quota, period)
        before = run


@pytest.mark.parametrize("policy", ["rr", "stride", "hstride", "lottery", "eevdf"])
def test_work_is_conserved(policy):
    """No CPU idles while there is enough to do, and none does more than there is."""
    host = Scheduler(3, policy=policy, quantum_ns=QUANTUM)
    for i in range(7):
        host.add(weight=1 + 3 * i)
    host.run(10**6)
    assert host.cpu_counters()["idle"].tolist() == [0, 0, 0]
    assert host.counters()["run"].sum() == 3 * 10**6
