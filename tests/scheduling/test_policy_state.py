"""BVT, CFS and Hyper-V: their state is a value, and a run may be split anywhere."""

import copy
import pickle

import numpy as np
import pytest

from pyvirt.sched import Bvt, Cfs, HyperV, OnOff, Poisson, Scheduler, Topology

MS = 1_000_000
POLICIES = [
    Bvt(allowance_ns=3 * MS),
    Cfs(),
    Cfs(groups=True, balance_ns=7 * MS),
    HyperV("classic", quantum_ns=2 * MS, period_ns=20 * MS),
    HyperV("core", quantum_ns=2 * MS, period_ns=20 * MS),
]


def busy(policy) -> Scheduler:
    host = Scheduler(topology=Topology(cores=2, threads=2), policy=policy, rng=3)
    names = list(policy.vm_params)
    for number in range(9):
        params = {name: 20 + number for name in names if number % 3 == 0 and name != "threads"}
        load = [None, OnOff(2 * MS, 3 * MS), Poisson(MS, 7 * MS)][number % 3]
        host.add_vm(1 + number % 2, load, weight=100 + 300 * number, **params)
    host.add(weight=500, limit=(MS, 9 * MS), affinity=[1, 2])
    return host


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_copies_go_on_alike(policy):
    host = busy(policy)
    host.run(133 * MS + 7)
    twins = [copy.copy(host), pickle.loads(pickle.dumps(host)), busy(policy)]
    twins[-1].restore(host.snapshot())
    host.run(500 * MS)
    for twin in twins:
        while twin.now_ns < 500 * MS:
            twin.advance(min(500 * MS, twin.now_ns + 1_234_567))
        assert (twin.counters() == host.counters()).all()
        assert (twin.cpu_counters() == host.cpu_counters()).all()
    assert host.counters()["run"].min() > 0


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_named_like_its_class(policy):
    host = Scheduler(policy=policy.name)
    host.add(weight=1024)
    host.run(10**9)
    assert host.counters()["run"].tolist() == [10**9]


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_removed_worlds_leave_nothing_behind(policy):
    """Numbers are given again, and shares are those of who is there."""
    host = Scheduler(policy=policy)
    rng = np.random.default_rng(5)
    there = [host.add(weight=1024) for _ in range(3)]
    for _ in range(300):
        host.run(host.now_ns + int(rng.integers(1, 20 * MS)))
        host.remove(there.pop(int(rng.integers(0, 3))))
        there.append(host.add(weight=1024))
    before, start = host.counters()["run"], host.now_ns
    host.run(start + 3000 * MS)
    gained = (host.counters()["run"] - before)[there]
    assert gained.sum() == 3000 * MS
    assert np.abs(gained - 1000 * MS).max() <= 40 * MS
