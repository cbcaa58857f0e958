"""DRS at vSphere's largest cluster, beside loops that recompute deviations for each candidate."""

from __future__ import annotations

import time

import numpy as np

from pyvirt.cluster import Cluster, MigrationCost, Reach, drs
from pyvirt.cluster.balance import State

from .timing import seconds, target, unit


def crowded(hosts: int = 96, vms: int = 10_000, rules: int = 300, seed: int = 0) -> Cluster:
    """CPU and memory lognormal, a skewed start, reservations, and rules of all kinds."""
    rng = np.random.default_rng(seed)
    capacity = np.tile([[96_000_000], [201_326_592]], hosts)
    weight = rng.uniform(0.05, 1.95, hosts)
    demand = rng.lognormal(0, 0.8, (2, vms))
    demand *= (capacity.sum(axis=1) * [0.6, 0.48] / demand.sum(axis=1))[:, None]
    demand = demand.astype(np.int64)
    kind = rng.integers(1, 6, rules)
    return Cluster.from_arrays(
        {"capacity": capacity, "cores": [32] * hosts, "core_khz": [3_000_000] * hosts},
        {
            "host": rng.choice(hosts, vms, p=weight / weight.sum()),
            "vcpus": np.full(vms, 4),
            "memory": demand[1] * 2,
            "demand": demand,
            "reservation": np.where(rng.random((2, vms)) < 0.3, demand // 3, 0),
            "overhead": np.full(vms, 10_000),
            "consumed": demand[1],
        },
        rules={
            "kind": kind,
            "vms": [np.sort(rng.choice(vms, 6, replace=False)) for _ in kind],
            "hosts": [
                np.sort(rng.choice(hosts, hosts - 8, replace=False)) if k > 1 else [] for k in kind
            ],
        },
    )


def recompute(norm: np.ndarray, part: np.ndarray, where: np.ndarray, vms: int) -> float:
    """What a plain NumPy balancer does: a copy and a deviation for each candidate."""
    best = np.inf
    for vm in range(vms):
        for host in range(norm.shape[1]):
            after = norm.copy()
            after[:, where[vm]] -= part[:, vm]
            after[:, host] += part[:, vm]
            best = min(best, float((after.std(axis=1) ** 2).sum()))
    return best


def plain(norm, part, where, vms):
    """The same compiled, with sums over all hosts for each candidate."""
    best = np.inf
    hosts = norm.shape[1]
    for vm in range(vms):
        for host in range(hosts):
            total = 0.0
            for r in range(2):
                s1, s2 = 0.0, 0.0
                for h in range(hosts):
                    x = norm[r, h]
                    if h == where[vm]:
                        x -= part[r, vm]
                    if h == host:
                        x += part[r, vm]
                    s1 += x
                    s2 += x * x
                total += s2 / hosts - (s1 / hosts) ** 2
            best = min(best, total)
    return best


class BestMove:
    """One best move over 96 hosts and 10,000 VMs, with CPU, memory and rules."""

    timer = time.process_time

    def setup(self):
        from numba import njit

        from pyvirt.cluster.kernels import balance, index

        self.balance, self.index = balance, index
        cluster = crowded()
        state = State(cluster, Reach(cluster), cluster.entitlement(), MigrationCost())
        self.state, self.rows = state, state.rows()
        self.best = index.best(state.balance, self.rows)
        if self.best != balance.scan(state.balance):
            raise AssertionError("the index finds another move than looking at all")
        size = cluster.hosts.capacity[:, :1].astype(float)
        self.norm = cluster.normalised()
        self.part = cluster.entitlement() / size
        self.where = cluster.vms.host
        self.plain = njit(plain)
        self.plain(self.norm, self.part, self.where, 1)

    @target("<=", 3e-3)
    def time_scan(self):
        self.balance.scan(self.state.balance)

    @target("<=", 2e-4)
    def time_two_indexed(self):
        """The best move is made, the next one found; then it is taken back, and found again."""
        b, rows, index = self.state.balance, self.rows, self.index
        _gain, vm, host = self.best
        source = int(b.where[vm])
        index.step(b, rows, vm, host)
        index.best(b, rows)
        index.step(b, rows, vm, source)
        if index.best(b, rows) != self.best:
            raise AssertionError("the best move is another one now")

    def time_index_from_scratch(self):
        self.index.build(self.state.balance, self.rows)
        self.index.best(self.state.balance, self.rows)

    @unit("times faster than a compiled loop that recomputes the deviation")
    def track_scan_over_plain(self):
        mine = min(seconds(self.time_scan) for _ in range(9))
        theirs = min(
            seconds(lambda: self.plain(self.norm, self.part, self.where, 500)) for _ in range(3)
        )
        return theirs * 20 / mine

    @unit("times faster than NumPy with a copy and a deviation for each candidate")
    def track_scan_over_numpy(self):
        mine = min(seconds(self.time_scan) for _ in range(9))
        theirs = min(
            seconds(lambda: recompute(self.norm, self.part, self.where, 20)) for _ in range(3)
        )
        return theirs * 500 / mine


class Pass:
    """All of DRS: entitlements, conflicts, what must be done, 500 moves."""

    timer = time.process_time

    def setup(self):
        self.cluster = crowded()
        first = drs(self.cluster)
        self.fixed = self.cluster.copy()
        for vm, host, urgent in zip(first.vm, first.target, first.priority, strict=True):
            if urgent == 1:
                self.fixed.vms.host[vm] = host
        drs(self.fixed)

    @target("<=", 20e-3)
    def time_pass(self):
        drs(self.fixed, level=5)

    def time_pass_with_repair(self):
        drs(self.cluster, level=5)

    @unit("moves")
    def track_moves(self):
        return len(drs(self.fixed, level=5))
