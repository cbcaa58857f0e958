"""What goes into a replay, checked: traces, what a policy wants, what hosts have reserved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.checks import whole
from pyvirt.cluster.migration_link import Link
from pyvirt.cluster.replay_records import MS, Actions, ReplayOptions
from pyvirt.cluster.tables import CPU, MEMORY
from pyvirt.errors import InvalidTypeError, InvalidValueError

if TYPE_CHECKING:
    from pyvirt.cluster.model import Cluster

__all__ = ["actions_of", "busy_khz", "demand_of", "hosts_of", "moves_of", "reserved"]

Ints = npt.NDArray[np.int64]


def demand_of(
    cluster: Cluster, traces: Any, capacity_khz: Any, interval_ns: Any
) -> tuple[Ints, Ints | None, int]:
    """Give demand and memory, a row for each interval, and its length in ms."""
    memory = None
    if hasattr(traces, "khz"):
        demand = traces.khz(capacity_khz)
        interval_ns = traces.interval_ns if interval_ns is None else interval_ns
        if traces.memory is not None and getattr(traces, "memory_unit", "bytes") == "bytes":
            memory = np.ascontiguousarray(traces.pages().T)
    else:
        demand = np.asarray(traces)
        if demand.dtype.kind not in "iu" or demand.ndim != 2:
            raise InvalidTypeError(
                f"traces must be DemandTraces or integers of shape (V, T), got {traces!r:.80}"
            )
        if interval_ns is None:
            raise InvalidTypeError("interval_ns must be given where traces are an array")
    if len(demand) != len(cluster.vms):
        raise InvalidTypeError(
            f"traces have {len(demand)} machines, and the cluster has {len(cluster.vms)} VMs"
        )
    interval_ns = whole(interval_ns, "interval_ns", MS, 1 << 62)
    if interval_ns % MS:
        raise InvalidValueError(f"interval_ns must be whole milliseconds, got {interval_ns}")
    if demand.size:
        if demand.min() < 0:
            row, step = np.argwhere(demand < 0)[0]
            raise InvalidValueError(
                f"traces, row {row}, interval {step}: must not be negative, got {demand[row, step]}"
            )
        if float(demand.max()) * max(1, len(demand)) * (interval_ns // MS) >= 2.0**62:
            raise InvalidValueError(f"traces: {demand.max()} kHz of {len(demand)} VMs are too much")
    return np.ascontiguousarray(demand.T, np.int64), memory, interval_ns // MS


def reserved(cluster: Cluster) -> Ints:
    """Give what hosts have reserved for their VMs, with overhead, shape (2, H)."""
    need = cluster.vms.reservation.copy()
    need[MEMORY] += cluster.vms.overhead
    return cluster.sum_on_hosts(need)


def busy_khz(cluster: Cluster, options: ReplayOptions) -> Ints:
    """Give the kHz that one migration takes, for each host."""
    hosts = cluster.hosts
    core = np.minimum(hosts.core_khz, hosts.capacity[CPU] // hosts.cores)
    if options.migration_cores is not None:
        cores = np.full(len(hosts), float(options.migration_cores))
    else:
        known = {int(mbps): Link(int(mbps)).cores for mbps in np.unique(hosts.link_mbps)}
        cores = np.array([known[int(mbps)] for mbps in hosts.link_mbps], np.float64)
    return np.rint(cores * core).astype(np.int64)


def actions_of(wanted: Any) -> Actions:
    """Understand what a policy gave."""
    if wanted is None:
        return Actions()
    if isinstance(wanted, Actions):
        return wanted
    if hasattr(wanted, "moves"):
        return Actions(
            wanted.moves, getattr(wanted, "power_on", ()), getattr(wanted, "power_off", ())
        )
    return Actions(wanted)


def moves_of(given: Any, cluster: Cluster) -> list[tuple[int, int]]:
    """Check moves: pairs of VM and target."""
    array = np.asarray(given)
    if array.dtype.names is not None and {"vm", "target"} <= set(array.dtype.names):
        array = np.stack([array["vm"], array["target"]], axis=-1)
    if not array.size:
        return []
    if array.dtype.kind not in "iu" or array.ndim != 2 or array.shape[1] != 2:
        raise InvalidTypeError(f"moves of a policy must be pairs of VM and host, got {given!r:.80}")
    for key, column, count in (
        ("vm", array[:, 0], len(cluster.vms)),
        ("host", array[:, 1], len(cluster.hosts)),
    ):
        bad = (column < 0) | (column >= count)
        if bad.any():
            row = int(np.argmax(bad))
            raise InvalidValueError(
                f"moves of a policy, row {row}: {key} must be one of {count}, got {column[row]}"
            )
    return [(int(vm), int(host)) for vm, host in array]


def hosts_of(given: Any, count: int, what: str) -> list[int]:
    """Check hosts."""
    rows = [whole(one, what) for one in given]
    for row in rows:
        if row >= count:
            raise InvalidValueError(f"{what} of a policy: must be one of {count} hosts, got {row}")
    return rows
