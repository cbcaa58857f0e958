"""Placement, repair, packing, DPM and entitlement of large clusters, beside plain loops."""

from __future__ import annotations

import numpy as np
from numba import njit

from pyvirt.cluster import Cluster, DemandHistory, DPMOptions, dpm, pack, place, repair
from pyvirt.cluster.entitle import PoolOrder

from .timing import paired, seconds, target, unit


@njit(cache=True)
def bare(order, cpu, memory, hosts, room):
    """A heap of hosts by CPU with a check of memory, and nothing else."""
    load, used = np.zeros(hosts), np.zeros(hosts, np.int64)
    heap = np.arange(hosts)
    where = np.empty(order.size, np.int64)
    for vm in order:
        host = heap[0]
        if used[host] + memory[vm] > room:
            return where
        where[vm] = host
        used[host] += memory[vm]
        load[host] += cpu[vm]
        at = 0
        while 2 * at + 1 < hosts:
            child = 2 * at + 1
            if child + 1 < hosts and load[heap[child + 1]] < load[heap[child]]:
                child += 1
            if load[host] <= load[heap[child]]:
                break
            heap[at] = heap[child]
            at = child
        heap[at] = host
    return where


class ClusterPlace:
    """A million VMs without a host, ten thousand equal hosts; CPU and memory."""

    def setup(self):
        rng = np.random.default_rng(1)
        self.vms, self.hosts = 1_000_000, 10_000
        self.cpu = rng.integers(0, 1_000_000, self.vms)
        self.memory = rng.integers(1 << 18, 1 << 20, self.vms)
        self.cluster = Cluster.from_arrays(
            {"capacity": np.full((2, self.hosts), [[100_000_000], [1 << 27]])},
            {"host": np.full(self.vms, -1), "demand": np.stack([self.cpu, self.memory])},
        )
        assert place(self.cluster).unplaced.size == 0
        self.bare()

    def bare(self):
        order = np.argsort(-self.cpu, kind="stable")
        where = bare(order, self.cpu, self.memory, self.hosts, 1 << 27)
        return where

    @target("<=", 0.3)
    def time_million(self):
        place(self.cluster)

    @unit("times the time of a bare heap in Numba")
    @target("<=", 2)
    def track_over_bare(self):
        return 1 / paired(lambda: place(self.cluster), self.bare, least=5).ratio


class ClusterRepair:
    """5,000 hosts, 100 of them in maintenance, 30,000 VMs, 5,000 rules of which many are broken."""

    def setup(self):
        rng = np.random.default_rng(1)
        hosts, vms, rules = 5_000, 30_000, 5_000
        kinds = rng.choice([0, 1, 1, 2, 3, 4], rules)
        sizes = rng.integers(2, 6, rules)
        named = np.split(rng.permutation(vms)[: sizes.sum()], np.cumsum(sizes)[:-1])
        self.cluster = Cluster.from_arrays(
            {
                "capacity": np.full((2, hosts), [[40_000_000], [1 << 26]]),
                "state": (rng.random(hosts) < 0.02) * 2,
            },
            {
                "host": rng.integers(0, hosts, vms),
                "demand": np.stack(
                    [rng.integers(0, 2_000_000, vms), rng.integers(1 << 18, 1 << 22, vms)]
                ),
                "reservation": np.stack(
                    [rng.integers(0, 1_000_000, vms), rng.integers(1 << 18, 1 << 22, vms)]
                ),
            },
            rules={
                "kind": kinds,
                "vms": named,
                "hosts": [rng.choice(hosts, 200, replace=False) if k >= 2 else [] for k in kinds],
            },
        )
        assert repair(self.cluster).left.size == 0

    @target("<=", 0.2)
    def time_repair(self):
        repair(self.cluster)


class ClusterPack:
    """200 VMs on 18 hosts, where the volume takes 17.7."""

    def setup(self):
        rng = np.random.default_rng(0)
        cpu = np.rint(rng.lognormal(0, 0.6, 200) * 1000).astype(np.int64)
        memory = rng.choice([1, 2, 4, 8, 16], 200) * 256 + rng.integers(0, 256, 200)
        self.size = np.stack([cpu, memory])
        capacity = np.ceil(self.size.sum(axis=1) / 17.7).astype(np.int64)
        self.capacity = np.repeat(capacity[:, None], 30, axis=1)
        pack(self.size, self.capacity)

    @target("<=", 0.01)
    def time_pack(self):
        pack(self.size, self.capacity)

    @unit("hosts more than the bound, over 100 instances of other seeds")
    def track_gap(self):
        total = 0
        for seed in range(100):
            packed = pack(self.size, self.capacity, rng=np.random.default_rng(seed))
            total += packed.bins - packed.bound
        return total


class ClusterEntitlement:
    """10,000 VMs in 1,000 pools, CPU and memory."""

    def setup(self):
        rng = np.random.default_rng(1)
        pools, vms, hosts = 1_000, 10_000, 96
        self.cluster = Cluster.from_arrays(
            {"capacity": np.full((2, hosts), [[40_000_000], [1 << 26]])},
            {
                "host": rng.integers(0, hosts, vms),
                "pool": rng.integers(-1, pools, vms),
                "demand": rng.integers(0, 1_000_000, (2, vms)),
                "reservation": rng.integers(0, 10_000, (2, vms)),
                "memory": np.full(vms, 1 << 20),
            },
            {"parent": [-1 if i < 10 else int(rng.integers(0, i)) for i in range(pools)]},
        )
        self.order = PoolOrder(self.cluster)

    @target("<=", 2e-3)
    def time_entitlement(self):
        self.cluster.entitlement(order=self.order)

    @unit("bytes a VM in the cluster's arrays")
    def track_bytes(self):
        vms = self.cluster.vms
        return sum(getattr(vms, key).nbytes for key in vms.COLUMNS) / len(vms)


class ClusterDpm:
    """1,000 hosts, 900 of them on and some above 81 %: one decision."""

    def setup(self):
        rng = np.random.default_rng(0)
        hosts, vms = 1_000, 10_000
        self.cluster = Cluster.from_arrays(
            {
                "capacity": np.full((2, hosts), [[40_000_000], [1 << 26]]),
                "state": (np.arange(hosts) >= 900) * 1,
            },
            {
                "host": np.arange(vms) % 900,
                "memory": np.full(vms, 1 << 20),
                "demand": np.stack(
                    [rng.integers(1_000_000, 5_000_000, vms), rng.integers(1 << 19, 1 << 21, vms)]
                ),
            },
            power_tables=[np.linspace(100, 200, 11)],
        )
        self.history = DemandHistory(vms)
        for _ in range(5):
            self.history.record(self.cluster)
        self.actions = len(dpm(self.cluster, self.history, DPMOptions()).actions)

    @unit("s for each action that is recommended")
    def track_action(self):
        return seconds(lambda: dpm(self.cluster, self.history)) / max(self.actions, 1)
