"""HA: every host of a large cluster fails, beside the same with NumPy, one VM after the other."""

from __future__ import annotations

import time

import numpy as np

from pyvirt.cluster import Cluster, HostFailure, Slots, headroom, recover, restart_order, what_if
from pyvirt.cluster.ha_whatif import reach_of
from pyvirt.cluster.tables import MEMORY

from .timing import paired, target, unit

HOSTS, VMS = 96, 10_000


def large(seed: int = 0) -> Cluster:
    """vSphere's largest cluster: three datastores, 200 rules, a quarter of the memory reserved."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice([1, 2, 4], 200)
    return Cluster.from_arrays(
        {
            "capacity": np.array([[100_000_000] * HOSTS, [20_000_000] * HOSTS]),
            "datastores": np.full((HOSTS, 1), 7, np.uint64),
        },
        {
            "host": rng.integers(0, HOSTS, VMS),
            "reservation": np.stack([rng.integers(0, 500_000, VMS), rng.integers(0, 100_000, VMS)]),
            "overhead": rng.integers(0, 10_000, VMS),
            "restart": rng.integers(0, 5, VMS),
            "datastores": rng.choice([1, 2, 4], (VMS, 1)).astype(np.uint64),
        },
        rules={
            "kind": kinds,
            "vms": [rng.choice(VMS, 4, replace=False).tolist() for _ in kinds],
            "hosts": [
                rng.choice(HOSTS, HOSTS // 2, replace=False).tolist() if kind > 1 else []
                for kind in kinds
            ],
        },
    )


def numpy_singles(cluster: Cluster) -> list[int]:
    """Count lost VMs for each failed host: arrays over hosts, a Python loop over VMs."""
    vms, hosts, rules = cluster.vms, cluster.hosts, cluster.rules
    need = vms.reservation.copy()
    need[MEMORY] += vms.overhead
    free = hosts.capacity - cluster.sum_on_hosts(need)
    allowed = (vms.datastores & ~hosts.datastores[:, 0]) == 0
    mates: dict[int, list[int]] = {}
    for row in range(len(rules)):
        members = rules.vms_of(row).tolist()
        listed = np.isin(np.arange(HOSTS), rules.hosts_of(row))
        if rules.kind[row] == 1:
            for vm in members:
                mates.setdefault(vm, []).extend(m for m in members if m != vm)
        else:
            allowed[members] &= listed if rules.kind[row] == 2 else ~listed
    order = restart_order(cluster)
    lost = []
    for failed in range(HOSTS):
        room, where = free.copy(), vms.host.copy()
        stopped = order[vms.host[order] == failed]
        where[stopped] = -1
        count = 0
        for vm in stopped.tolist():
            able = allowed[vm] & (need[:, vm, None] <= room).all(axis=0)
            able[failed] = False
            for mate in mates.get(vm, ()):
                if where[mate] >= 0:
                    able[where[mate]] = False
            if not able.any():
                count += 1
                continue
            score = (room * 1_000_000 // hosts.capacity).min(axis=0)
            host = int(np.where(able, score, -1).argmax())
            where[vm] = host
            room[:, host] -= need[:, vm]
        lost.append(count)
    return lost


class Failover:
    """96 hosts, 10,000 VMs."""

    timer = time.process_time
    timeout = 300

    def setup(self):
        self.cluster = large()
        self.reach = reach_of(self.cluster, True)
        if what_if(self.cluster).table["lost"].tolist() != numpy_singles(self.cluster):
            raise AssertionError("the NumPy loop loses other VMs")
        recover(self.cluster, [HostFailure(0, 0)])

    @target("<=", 10e-3)
    def time_all_single_failures(self):
        what_if(self.cluster)

    def time_all_single_failures_prepared(self):
        what_if(self.cluster, reach=self.reach)

    def time_all_double_failures(self):
        what_if(self.cluster, 2, reach=self.reach)

    def time_admission_by_slots(self):
        headroom(self.cluster, Slots(2))

    def time_recover_from_one_failure(self):
        recover(self.cluster, [HostFailure(0, 0)])

    @unit("times faster than a loop over VMs with NumPy")
    @target(">=", 20)
    def track_over_numpy(self):
        return paired(
            lambda: what_if(self.cluster), lambda: numpy_singles(self.cluster), least=3
        ).ratio
