"""Seeded clusters with a crowded start, for the distance of a balance from the best there is."""

from __future__ import annotations

import zlib

import numpy as np

from pyvirt.cluster import PAGE, Cluster

__all__ = ["HOSTS", "STEP_KHZ", "VMS", "balance_case", "checksum"]

HOSTS, VMS = 16, 160

#: Demands are whole multiples of this, so that a solver can count in small numbers.
STEP_KHZ = 10_000

_HOST_STEPS = 4000  # 40 GHz
_HOST_GIB = 448


def balance_case(seed: int) -> Cluster:
    """Make a cluster of 16 hosts and 160 VMs whose CPU load is skewed and whose memory is tight.

    Demands are lognormal and add up to half of the CPU. All of a VM's memory is reserved, about
    three quarters of what there is, so that not every VM fits on every host. Memory is not what is
    to be balanced: no VM demands any.

    Parameters
    ----------
    seed : int
        For NumPy's `default_rng`.

    Returns
    -------
    Cluster
    """
    rng = np.random.default_rng(seed)
    sizes = rng.lognormal(0.0, 0.5, VMS)
    steps = np.maximum(np.rint(sizes * (HOSTS * _HOST_STEPS * 0.5 / sizes.sum())), 1)
    steps = steps.astype(np.int64)
    gib = rng.choice([8, 16, 32, 64], VMS, p=[0.25, 0.35, 0.25, 0.15])
    weight = rng.permutation(np.linspace(0.02, 1.98, HOSTS)) / HOSTS
    load = np.zeros(HOSTS, np.int64)
    used = np.zeros(HOSTS, np.int64)
    where = np.empty(VMS, np.int64)
    for vm in np.argsort(-gib, kind="stable"):
        for host in rng.choice(HOSTS, HOSTS, replace=False, p=weight):
            if load[host] + steps[vm] < _HOST_STEPS and used[host] + gib[vm] <= _HOST_GIB:
                break
        load[host] += steps[vm]
        used[host] += gib[vm]
        where[vm] = host
    pages = gib * ((1 << 30) // PAGE)
    return Cluster.from_arrays(
        {
            "capacity": [
                [_HOST_STEPS * STEP_KHZ] * HOSTS,
                [_HOST_GIB * (1 << 30) // PAGE] * HOSTS,
            ],
            "cores": [16] * HOSTS,
        },
        {
            "host": where,
            "vcpus": np.full(VMS, 4),
            "memory": pages,
            "demand": np.stack([steps * STEP_KHZ, np.zeros(VMS, np.int64)]),
            "reservation": np.stack([np.zeros(VMS, np.int64), pages]),
        },
        name=f"balance case {seed}",
    )


def checksum(cluster: Cluster) -> int:
    """Give a number that tells whether a case is the one whose optimum was stored."""
    vms = cluster.vms
    return zlib.crc32(np.concatenate([vms.host, vms.demand[0], vms.memory]).astype("<i8").tobytes())
