"""Entitlement of many clients, beside a sweep over sorted breakpoints and a linear program."""

from __future__ import annotations

import time

import numpy as np

from pyvirt._core.waterfill import divide
from pyvirt._core.waterwhole import divide_whole
from pyvirt.entitlement import Client, Pool, PoolTrees

from .timing import paired, seconds, target, unit

SETS = 32  # different clients in turn, so that no branch is learnt


def clients(n: int, seed: int) -> tuple:
    """Shares of VMs of 1 to 8 vCPUs, demands, reservations of a third; 60 % of what is wanted."""
    rng = np.random.default_rng(seed)
    shares = rng.choice([500.0, 1000.0, 2000.0], n) * rng.integers(1, 9, n)
    caps = rng.integers(0, 3_000_000, n) / 1000.0
    floors = np.where(rng.random(n) < 1 / 3, caps * rng.random(n) / 2, 0.0)
    return shares, floors, caps, float(caps.sum() * 0.6)


def sweep(shares, floors, caps, amount) -> np.ndarray:
    """The same with NumPy: sort the breakpoints, add up the slopes between them."""
    bends = np.concatenate([floors / shares, caps / shares])
    order = np.argsort(bends)
    slopes = np.cumsum(np.concatenate([shares, -shares])[order])
    levels = bends[order]
    given = floors.sum() + np.concatenate([[0.0], np.cumsum(slopes[:-1] * np.diff(levels))])
    k = np.searchsorted(given, amount, side="right") - 1
    level = levels[k] + (amount - given[k]) / slopes[k]
    return np.clip(level * shares, floors, caps)


class Entitlement:
    """One pool, of as many clients as the parameter says."""

    params = ["10", "100", "1000", "10000", "100000"]
    param_names = ["clients"]
    timer = time.process_time

    def setup(self, count):
        n = int(count)
        self.sets = [clients(n, seed) for seed in range(SETS if n < 10_000 else 2)]
        self.at = 0
        self.out = np.empty(n)
        for case in self.sets[:2]:
            mine, _, _ = divide(*case)
            if np.abs(mine - sweep(*case)).max() > 1e-9 * case[3]:
                raise AssertionError("the sweep gives other entitlements than pyvirt")

    def next(self) -> tuple:
        self.at = (self.at + 1) % len(self.sets)
        return self.sets[self.at]

    @target("<=", {"1000": 100e-6})
    def time_ours(self, count):
        divide(*self.next(), out=self.out)

    def time_numpy_sweep(self, count):
        sweep(*self.next())

    @unit("times faster than sorting with NumPy")
    def track_over_numpy(self, count):
        def all_of(function):
            return lambda: [function(*case) for case in self.sets]

        return paired(all_of(divide), all_of(sweep)).ratio

    @unit("us for whole units")
    def track_whole_units_us(self, count):
        whole = [[np.floor(x).astype(np.int64) for x in case] for case in self.sets]
        for case in whole:
            case[3] = int(case[3])
        times = [seconds(lambda: [divide_whole(*case) for case in whole]) for _ in range(9)]
        return float(np.median(times)) / len(whole) * 1e6


class EntitlementByProgram:
    """1,000 clients beside one linear program; a max-min division needs one for each step."""

    timer = time.process_time

    def setup(self):
        try:
            from scipy.optimize import linprog
        except ImportError:
            raise NotImplementedError("scipy is not installed") from None
        self.linprog = linprog
        self.case = clients(1000, 0)

    def program(self) -> float:
        """Raise the least amount per share of all clients as far as it goes."""
        shares, floors, caps, amount = self.case
        n = len(shares)
        rows = np.zeros((n + 1, n + 1))
        rows[np.arange(n), np.arange(n)] = -1
        rows[:n, n] = shares
        rows[n, :n] = 1
        found = self.linprog(
            np.append(np.zeros(n), -1.0),
            A_ub=rows,
            b_ub=np.append(np.zeros(n), amount),
            bounds=[*zip(floors, caps, strict=True), (0, None)],
            method="highs",
        )
        return found.x[n]

    @unit("times faster than one linear program of 1,000 clients")
    def track_over_program(self):
        shares, _, _, _ = self.case
        given, _, _ = divide(*self.case)
        if abs(self.program() - (given / shares).min()) > 1e-6:
            raise AssertionError("the program finds another least amount per share")
        return paired(lambda: [divide(*self.case) for _ in range(50)], self.program).ratio * 50


class EntitlementOfTrees:
    """10,000 clients in 1,000 pools, the largest cluster; and 1,000 hosts of 20 clients each."""

    timer = time.process_time

    def setup(self):
        rng = np.random.default_rng(1)

        def pool(name, count):
            made = [Client(f"c{i}", float(rng.integers(1, 9) * 1000)) for i in range(count)]
            return Pool(name, made, shares=4000)

        self.cluster = PoolTrees(Pool("cluster", [pool(f"p{i}", 10) for i in range(1000)]))
        self.hosts = PoolTrees([pool(f"h{i}", 20) for i in range(1000)])
        self.cluster_demand = rng.uniform(0, 3000, 10_000)
        self.host_demand = rng.uniform(0, 3000, 20_000)
        self.row_demand = rng.uniform(0, 3000, (1000, 20))
        self.host = PoolTrees(pool("h", 20))

    @target("<=", 2e-3)
    def time_cluster(self):
        self.cluster.solve(9e6, demand=self.cluster_demand)

    def time_thousand_hosts(self):
        self.hosts.solve(18_000.0, demand=self.host_demand)

    def time_thousand_demands_of_one_host(self):
        self.host.solve(18_000.0, demand=self.row_demand)
