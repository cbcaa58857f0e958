"""Random clusters for the tests of DRS and of what it asks."""

import numpy as np

from pyvirt.cluster import Cluster


def random_cluster(
    seed: int,
    *,
    hosts: int = 6,
    vms: int = 24,
    rules: int = 5,
    capacities: int = 2,
    off: float = 0.1,
    reserved: float = 0.5,
) -> Cluster:
    """A crowded cluster with masks, reservations and all kinds of rules.

    Two of three VMs start on the first half of the hosts.
    """
    rng = np.random.default_rng(seed)
    sizes = np.array([[16_000_000, 4_000_000], [24_000_000, 8_000_000], [9_000_001, 3_000_017]])
    capacity = sizes[rng.integers(0, capacities, hosts)].T.copy()
    crowded = rng.integers(0, max(1, hosts // 2), vms)
    where = np.where(rng.random(vms) < 0.66, crowded, rng.integers(0, hosts, vms))
    per_vm = capacity.sum(axis=1) / vms
    demand = (rng.lognormal(-1.0, 0.6, (2, vms)) * per_vm[:, None]).astype(np.int64)
    keeps = rng.random((2, vms)) < reserved
    reservation = np.where(keeps, (demand * rng.random((2, vms)) * 0.6).astype(np.int64), 0)
    kind = rng.integers(0, 6, rules)
    groups = [
        np.sort(rng.choice(vms, int(rng.integers(2, 5)), replace=False)).tolist()
        for _ in range(rules)
    ]
    on_hosts = [
        np.sort(rng.choice(hosts, int(rng.integers(1, hosts)), replace=False)).tolist()
        if k >= 2
        else []
        for k in kind
    ]
    bits = np.array([1, 2, 4, 7], np.uint64)
    return Cluster.from_arrays(
        {
            "capacity": capacity,
            "cores": np.full(hosts, 8),
            "core_khz": np.full(hosts, 3_000_000),
            "features": np.where(rng.random(hosts) < 0.8, 7, 3).astype(np.uint64),
            "datastores": np.where(rng.random((hosts, 2)) < 0.85, 7, 5).astype(np.uint64),
            "networks": np.where(rng.random((hosts, 1)) < 0.9, 3, 1).astype(np.uint64),
        },
        {
            "host": where,
            "on": rng.random(vms) >= off,
            "vcpus": rng.integers(1, 9, vms),
            "memory": demand[1] * 2,
            "demand": demand,
            "reservation": reservation,
            "overhead": rng.integers(0, 20_000, vms),
            "active": demand[1] // 2,
            "consumed": demand[1],
            "features": np.where(rng.random(vms) < 0.8, 0, rng.choice(bits, vms)),
            "datastores": np.where(rng.random((vms, 2)) < 0.9, 1, rng.choice(bits, (vms, 2))),
            "networks": np.where(rng.random((vms, 1)) < 0.9, 1, 3).astype(np.uint64),
            "dirty_pages_s": rng.integers(0, 20_000, vms).astype(float),
            "working_set": demand[1] // 4,
        },
        rules={"kind": kind, "vms": groups, "hosts": on_hosts, "enabled": rng.random(rules) < 0.9},
    )
