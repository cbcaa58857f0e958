"""For how long hosts and virtual machines were in which state, and the energy of hosts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.cluster import Cluster, HostState, host_watts

__all__ = ["Meter"]

Ints = npt.NDArray[np.int64]
#: States of hosts that execute machines.
RUNS = (HostState.ON, HostState.MAINTENANCE)


class Meter:
    """Adds up times and energy.

    Power follows a host's table by its mean utilisation between two readings, which are the ends
    of steps and its own changes of state. A host that comes out of standby draws what it does when
    idle; one that is in standby, or has failed, draws nothing.

    Parameters
    ----------
    cluster : Cluster
        Whose host states and power tables count.
    capacity_ns : ndarray of int64, shape (H,)
        CPU time that hosts have in a second.

    Attributes
    ----------
    vm : dict of str to ndarray of int64
        ``on_ns``, ``down_ns``, ``stunned_ns`` of each virtual machine.
    host_on_ns : ndarray of int64
        For how long each host was on.
    joules : ndarray of float64
        Of each host.
    """

    def __init__(self, cluster: Cluster, capacity_ns: Ints) -> None:
        count, vms = len(cluster.hosts), len(cluster.vms)
        self._cluster, self._capacity = cluster, capacity_ns
        self.vm = {name: np.zeros(vms, np.int64) for name in ("on_ns", "down_ns", "stunned_ns")}
        self.host_on_ns = np.zeros(count, np.int64)
        self.joules = np.zeros(count)
        self._run = np.zeros(count, np.int64)
        self._read = 0
        self.coming: set[int] = set()

    def pass_time(self, dt_ns: int, state: npt.NDArray[Any], stunned: npt.NDArray[Any]) -> None:
        """Add an interval in which no state changed; numbers of `VM_STATES`."""
        on = state == 1
        self.vm["on_ns"] += np.where(on, dt_ns, 0)
        self.vm["down_ns"] += np.where(state == 3, dt_ns, 0)
        self.vm["stunned_ns"] += np.where(on & stunned, dt_ns, 0)
        self.host_on_ns += np.where(np.isin(self._cluster.hosts.state, RUNS), dt_ns, 0)

    def read(self, now_ns: int, run_ns: Ints) -> None:
        """Add the energy since the last reading.

        Parameters
        ----------
        now_ns : int
            The present time.
        run_ns : ndarray of int64
            CPU time of hosts since the start.
        """
        dt = now_ns - self._read
        if dt:
            used = (run_ns - self._run) / (self._capacity * (dt / 1e9))
            states = self._cluster.hosts.state
            runs = np.isin(states, RUNS)
            for host in self.coming:
                runs[host] = True
            watts = host_watts(
                self._cluster.power_tables,
                self._cluster.hosts.power,
                np.minimum(np.where(runs, used, 0.0), 1.0),
                on=runs,
            )
            self.joules += watts * (dt / 1e9)
        self._read, self._run = now_ns, run_ns
