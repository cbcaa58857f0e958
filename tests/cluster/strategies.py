"""Random clusters, small and crowded, with rules that may contradict each other."""

import numpy as np
from hypothesis import strategies as st

from pyvirt.cluster import Cluster


def random_cluster(seed, hosts=5, vms=12, rules=4, placed=True, crowded=1.0):
    rng = np.random.default_rng(seed)
    hosts, vms = int(rng.integers(2, hosts + 1)), int(rng.integers(2, vms + 1))
    kinds = rng.integers(0, 6, int(rng.integers(0, rules + 1)))
    of_vms = [rng.choice(vms, int(rng.integers(2, min(vms, 4) + 1)), False) for _ in kinds]
    of_hosts = [
        rng.choice(hosts, int(rng.integers(1, hosts)), False) if k >= 2 else [] for k in kinds
    ]
    where = rng.integers(0, hosts, vms)
    share = crowded * 2 * hosts / vms
    capacity = rng.choice([1000, 2000], (1, hosts)) * np.ones((2, 1), np.int64)
    return Cluster.from_arrays(
        {
            "capacity": capacity,
            "state": rng.choice([0, 0, 0, 0, 2, 3], hosts),
            "features": rng.choice([1, 3, 3, 3], hosts),
            "datastores": rng.choice([1, 3, 3], hosts).astype(np.uint64),
        },
        {
            "host": where if placed else np.where(rng.random(vms) < 0.3, where, -1),
            "on": rng.random(vms) < 0.9,
            "demand": rng.integers(0, int(1000 * share) + 1, (2, vms)),
            "reservation": rng.integers(0, int(700 * share) + 1, (2, vms)),
            "overhead": rng.integers(0, 10, vms),
            "memory": rng.integers(100, 1000, vms),
            "features": rng.choice([0, 0, 1, 2], vms),
            "datastores": rng.choice([0, 0, 1, 2], vms).astype(np.uint64),
            "automation": rng.choice([0, 1, 2, 2, 2, 2, 3], vms),
        },
        rules={"kind": kinds, "vms": of_vms, "hosts": of_hosts},
    )


def clusters(**options):
    return st.integers(0, 2**32).map(lambda seed: random_cluster(seed, **options))
