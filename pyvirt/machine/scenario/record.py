"""Samples of a running scenario."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.tables import NONE
from pyvirt.machine.scenario.fleet import HOST_TIMES, VM_TIMES
from pyvirt.machine.scenario.result import HOST_COLUMNS, VM_COLUMNS
from pyvirt.machine.scenario.system import System

__all__ = ["Record"]

METERED = ("on_ns", "down_ns", "stunned_ns")


class Record:
    """Takes samples: differences of counters, and what is at the end of each.

    Parameters
    ----------
    system : System
    """

    def __init__(self, system: System) -> None:
        self._system = system
        self.times: list[int] = []
        self.hosts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in HOST_COLUMNS}
        self.vms: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in VM_COLUMNS}
        self._before = self._counted()

    def _counted(self) -> dict[str, dict[str, npt.NDArray[Any]]]:
        system = self._system
        vm: dict[str, npt.NDArray[Any]] = dict(system.fleet.vm_times())
        vm |= {name: system.meter.vm[name].copy() for name in METERED}
        host: dict[str, npt.NDArray[Any]] = dict(system.fleet.host_times())
        host |= {
            "on_ns": system.meter.host_on_ns.copy(),
            "joules": system.meter.joules.copy(),
        }
        return {"vm": vm, "host": host}

    def take(self) -> None:
        """Take a sample."""
        system = self._system
        system.read_meter()
        cluster, now = system.cluster, self._counted()
        count = len(cluster.hosts)
        self.times.append(system.now)
        there = (cluster.vms.on == 1) & (cluster.vms.host != NONE)
        host: dict[str, npt.NDArray[Any]] = {
            "state": cluster.hosts.state.copy(),
            "vms": np.bincount(cluster.vms.host[there], minlength=count),
            **system.memory.host_samples(count),
        }
        vm: dict[str, npt.NDArray[Any]] = {
            "state": system.state.copy(),
            "host": cluster.vms.host.copy(),
            **system.memory.vm_samples(len(cluster.vms)),
        }
        for name in (*HOST_TIMES, "on_ns", "joules"):
            host[name] = now["host"][name] - self._before["host"][name]
        for name in (*VM_TIMES, *METERED):
            vm[name] = now["vm"][name] - self._before["vm"][name]
        self._before = now
        for name, values in host.items():
            self.hosts[name].append(values)
        for name, values in vm.items():
            self.vms[name].append(values)

    def arrays(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]:
        """Give the samples of hosts and of machines, a row for each and a column for each time."""
        return _joined(self.hosts, HOST_COLUMNS), _joined(self.vms, VM_COLUMNS)


def _joined(
    samples: dict[str, list[npt.NDArray[Any]]], columns: dict[str, str]
) -> dict[str, npt.NDArray[Any]]:
    return {
        name: np.ascontiguousarray(np.stack(samples[name], axis=1).astype(kind))
        for name, kind in columns.items()
    }
