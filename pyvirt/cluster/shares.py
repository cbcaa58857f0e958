"""CPU that the VMs of each host get, over time: the state of a replay that its kernels work on."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.model import Cluster
from pyvirt.cluster.tables import CPU, NONE, HostState

__all__ = ["RUNS", "HostShares"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

RUNS = (HostState.ON, HostState.MAINTENANCE)
"""States of hosts whose VMs run."""

_FAST = 1 << 42  # kHz; no core is faster, so that what a VM could take stays an int64

# Rows of `vm`: kHz within limits; kHz x ms; VMs in the list of their host, -1 at its ends.
DEMAND, LIMIT, FLOOR, SHARE, VCPUS, STILL, GIVEN, MISSED, NEXT, BEFORE = range(10)
# Rows of `host`. ON: 0 off or failed, 1 on, 2 coming out of standby; BUSY: what migrations take;
# what is before SINCE is in the sums, which are in kHz x ms and ms.
HEAD, CAPACITY, CORE, BUSY, ON, SINCE, WANTED, DELIVERED = range(8)
SUM_WANTED, SUM_DELIVERED, SUM_ON, SUM_SHORT = range(8, 12)
# Rows of `real`: W, and W while off, and J.
POWER, IDLE, SUM_JOULES = range(3)


class HostShares:
    """The state; row H of hosts stands for no host, where VMs want CPU and get none.

    Parameters
    ----------
    cluster : Cluster
        Where it begins; nothing is demanded.
    standby_watts : float
        What a host in standby draws.

    Attributes
    ----------
    vm : ndarray of int64, shape (10, V)
    host : ndarray of int64, shape (12, H + 1)
    real : ndarray of float64, shape (3, H + 1)
        See the names of the rows in this module.
    watts : ndarray of float64, shape (H + 1, 11)
        The hosts' power tables.
    nowhere : int
        H.
    """

    def __init__(self, cluster: Cluster, standby_watts: float) -> None:
        vms, hosts = cluster.vms, cluster.hosts
        self.nowhere = count = len(hosts)
        self.vm = np.zeros((10, len(vms)), np.int64)
        self.host = np.zeros((12, count + 1), np.int64)
        self.real = np.zeros((3, count + 1))
        self.watts = np.concatenate([cluster.power_tables[hosts.power], np.zeros((1, 11))])
        self._order, self._most = np.zeros((2, len(vms)), np.int64)
        self.vm[LIMIT], self.vm[FLOOR] = vms.limit[CPU], vms.reservation[CPU]
        self.vm[SHARE], self.vm[VCPUS] = vms.shares[CPU], vms.vcpus
        self.vm[NEXT] = self.vm[BEFORE] = -1
        self.host[HEAD] = -1
        self.host[CAPACITY, :count] = hosts.capacity[CPU]
        self.host[CORE, :count] = np.minimum(hosts.core_khz, hosts.capacity[CPU])
        self.host[CORE, count] = _FAST
        self.host[ON, :count] = np.isin(hosts.state, RUNS)
        np.minimum(self.host[CORE], _FAST, out=self.host[CORE])
        self.real[IDLE, :count] = np.where(hosts.state == HostState.STANDBY, standby_watts, 0.0)
        for vm in np.flatnonzero(vms.on).tolist():
            place = int(vms.host[vm])
            _kernels().join(self.vm, self.host, vm, count if place == NONE else place)

    def new_demand(self, khz: Ints, now: int) -> None:
        """Take over the demands of all VMs."""
        _kernels().new_demand(*self._arrays(), khz, now)

    def settle(self, now: int, *hosts: int) -> None:
        """Bring the sums of hosts up to date, before anything about them changes."""
        for host in hosts:
            _kernels().settle(self.vm, self.host, self.real, host, now)

    def refresh(self, *hosts: int) -> None:
        """Share out anew what hosts have."""
        for host in hosts:
            _kernels().refresh(*self._arrays(), host)

    def shift(self, vm: int, source: int, target: int) -> None:
        """Move a VM between the lists of hosts that are up to date."""
        _kernels().leave(self.vm, self.host, vm, source)
        _kernels().join(self.vm, self.host, vm, target)

    def clear(self) -> None:
        """Begin new sums."""
        self.host[SUM_WANTED:] = 0
        self.real[SUM_JOULES] = 0.0

    def _arrays(self) -> Any:
        return self.vm, self.host, self.real, self.watts, self._order, self._most


@functools.cache
def _kernels() -> Any:
    """Import Numba when it is needed."""
    from pyvirt.cluster.kernels import share

    return share
