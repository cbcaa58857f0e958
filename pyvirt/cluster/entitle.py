"""What each VM is entitled to, were the cluster one host: the tree of pools over its arrays.

The division is that of `pyvirt.entitlement`: the same compiled solver, here fed from columns.
"Dynamic" entitlement goes by demand, "static" entitlement by reservations, limits and shares alone
(Gulati et al., "VMware Distributed Resource Management", VMware Technical Journal 1(1), 2012).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pyvirt._core.pooltree import solve_trees
from pyvirt.cluster.tables import CPU, NONE, UNLIMITED, HostState
from pyvirt.errors import InvalidValueError

if TYPE_CHECKING:
    from pyvirt.cluster.model import Cluster

__all__ = ["PoolOrder", "entitlement", "memory_demand"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class PoolOrder:
    """The pools and powered-on VMs of a cluster in the solver's breadth-first order.

    Node 0 is the cluster; the children of each node stand side by side.

    Parameters
    ----------
    cluster : Cluster
        Its pools, and which VMs are on and in which pool, are read once.
    """

    def __init__(self, cluster: Cluster) -> None:
        vms, pools = cluster.vms, cluster.pools
        self.running: Ints = np.flatnonzero(vms.on)
        count, of_vms = len(pools), self.running.size
        # A parent's number among pools grows with its depth and then with its parent's number.
        depth = np.zeros(count + 1, dtype=np.int64)
        for pool in range(count):
            depth[pool + 1] = depth[pools.parent[pool] + 1] + 1
        parent = np.concatenate([pools.parent + 1, vms.pool[self.running] + 1])
        level = np.concatenate([depth[1:], depth[vms.pool[self.running] + 1] + 1])
        place = np.zeros(count + 1, dtype=np.int64)  # of each pool, the root first
        order: list[Ints] = []
        seen = 1
        for at in range(1, int(level.max(initial=0)) + 1):
            here = np.flatnonzero(level == at)
            here = here[np.argsort(place[parent[here]], kind="stable")]
            pool_rows = here < count
            place[here[pool_rows] + 1] = seen + np.flatnonzero(pool_rows)
            order.append(here)
            seen += here.size
        flat = np.concatenate([np.empty(0, np.int64), *order])
        nodes = 1 + count + of_vms
        children = (
            np.bincount(place[parent[flat]], minlength=nodes)
            if flat.size
            else np.zeros(nodes, np.int64)
        )
        self.first = np.ones(nodes + 1, dtype=np.int64)
        np.cumsum(children, out=self.first[1:])
        self.first[1:] += 1
        position = np.empty(count + of_vms, dtype=np.int64)
        position[flat] = np.arange(1, nodes)
        self.pool_nodes: Ints = position[:count]
        self.vm_nodes: Ints = position[count:]
        self.nodes = nodes


def entitlement(cluster: Cluster, *, static: bool = False, order: PoolOrder | None = None) -> Ints:
    """Divide the capacity of the hosts that are on among the VMs that are on.

    Parameters
    ----------
    cluster : Cluster
        CPU demand counts up to what its vCPUs can run at, on the host where the VM is.
    static : bool, default False
        Whether each VM is taken to want all it may have, instead of its demand.
    order : PoolOrder, optional
        Of this cluster, where it is asked often and its pools and powered-on VMs stay the same.

    Returns
    -------
    ndarray of int64, shape (2, V)
        kHz and pages, rounded down; 0 for VMs that are off. Where reservations exceed the
        capacity, as after the loss of hosts, all are cut by the same factor.
    """
    vms, pools, hosts = cluster.vms, cluster.pools, cluster.hosts
    order = PoolOrder(cluster) if order is None else order
    running = order.running
    given = np.zeros((2, len(vms)), dtype=np.int64)
    if running.size == 0:
        return given
    on = hosts.state == HostState.ON
    shares = np.zeros(order.nodes)
    reservation = np.zeros(order.nodes)
    limit = np.full(order.nodes, np.inf)
    for resource in (0, 1):
        for table, rows, nodes in (
            (pools, slice(None), order.pool_nodes),
            (vms, running, order.vm_nodes),
        ):
            shares[nodes] = table.shares[resource, rows]
            reservation[nodes] = table.reservation[resource, rows]
            limits = table.limit[resource, rows].astype(np.float64)
            limit[nodes] = np.where(limits == UNLIMITED, np.inf, limits)
        capacity = float(hosts.capacity[resource, on].sum())
        demand = _demand(cluster, resource, running, static, capacity)
        result = solve_trees(
            order.first,
            shares,
            reservation,
            limit,
            order.vm_nodes,
            demand[None, :],
            np.full((1, running.size), np.inf if static else np.nan),
            np.array([[capacity]]),
            True,
        )[0][0]
        # What a division of floats lost must not take a page or a kHz from an exact answer.
        given[resource, running] = np.floor(result[order.vm_nodes] + 1e-6)
    return given


def _demand(
    cluster: Cluster, resource: int, running: Ints, static: bool, capacity: float
) -> Floats:
    vms, hosts = cluster.vms, cluster.hosts
    wanted = vms.demand[resource, running].astype(np.float64)
    if static:
        most = vms.memory[running].astype(np.float64)
        wanted = np.full(running.size, capacity)
        if resource != CPU:
            wanted = np.where(most > 0, most, wanted)
    if resource == CPU:
        host = vms.host[running]
        speed = hosts.core_khz[host] if len(hosts) else np.zeros(running.size, np.int64)
        most = vms.vcpus[running].astype(np.float64) * speed
        wanted = np.where(host == NONE, wanted, np.minimum(wanted, most))
    return wanted


def memory_demand(
    active: npt.ArrayLike, consumed: npt.ArrayLike, *, idle_share: float = 0.25
) -> Ints:
    """Estimate the demand for memory from what was touched of late and what is backed.

    Parameters
    ----------
    active, consumed : array_like of int
        Pages; no less is consumed than is active.
    idle_share : float, default 0.25
        Which part of the consumed but idle memory counts (recalled, not documented by the vendor).

    Returns
    -------
    ndarray of int64
        Pages, rounded up.
    """
    if not 0 <= idle_share <= 1:
        raise InvalidValueError(f"idle_share must be in [0, 1], got {idle_share!r}")
    touched = np.asarray(active, dtype=np.int64)
    idle = np.maximum(np.asarray(consumed, dtype=np.int64) - touched, 0)
    return touched + np.ceil(idle * idle_share).astype(np.int64)
