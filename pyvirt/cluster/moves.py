"""Migrations of a cluster's VMs: its own columns as what the migration models ask for."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.budgets import LARGEST_BYTES, Budgets, Kind, Schedule, Site, schedule_migrations
from pyvirt.cluster.checks import column
from pyvirt.cluster.columns import ClusterError
from pyvirt.cluster.migration import Precopy, migrate_many
from pyvirt.cluster.migration_link import Link
from pyvirt.cluster.model import Cluster
from pyvirt.cluster.tables import NONE, PAGE, HostState
from pyvirt.errors import InvalidValueError

__all__ = ["migrate_vms", "schedule_moves"]

Ints = npt.NDArray[np.int64]
MOST_PAGES = LARGEST_BYTES // PAGE


def _chosen(cluster: Cluster, vms: npt.ArrayLike | None) -> Ints:
    """Rows of VMs that are on and have memory."""
    table = cluster.vms
    if vms is None:
        return np.flatnonzero((table.on == 1) & (table.host != NONE))
    count = np.size(vms)
    rows = column(vms, "vms", count, 0, len(table) - 1)
    off = (table.on[rows] == 0) | (table.host[rows] == NONE)
    if off.any():
        row = int(rows[np.argmax(off)])
        raise ClusterError(f"{table.where(row)}: must be on a host to migrate", "vms", row)
    return rows


def _memory(cluster: Cluster, rows: Ints) -> Ints:
    """What a first round sends: configured memory, and overhead; a page at least."""
    table = cluster.vms
    pages = np.maximum(table.memory[rows] + table.overhead[rows], 1)
    if pages.max(initial=0) > MOST_PAGES:
        row = int(rows[np.argmax(pages)])
        raise ClusterError(
            f"{table.where(row)}: memory must be at most {MOST_PAGES:,} pages to migrate, "
            f"got {pages.max():,}",
            "vms",
            row,
        )
    return pages


def migrate_vms(
    cluster: Cluster,
    vms: npt.ArrayLike | None = None,
    link: Link | None = None,
    rules: Precopy | None = None,
) -> npt.NDArray[Any]:
    """Say what a vMotion of each VM would take, each as if it were alone.

    Parameters
    ----------
    cluster : Cluster
        Memory with overhead, dirty rate and working set of its VMs (0: all memory).
    vms : array_like of int, optional
        Rows; by default all that are on.
    link : Link, optional
        By default each VM has its host's ``link_mbps`` to itself.
    rules : Precopy, optional

    Returns
    -------
    ndarray of `MIGRATED`
        One record for each row of `vms`.
    """
    table = cluster.vms
    rows = _chosen(cluster, vms)
    memory = _memory(cluster, rows)
    alone = cluster.hosts.link_mbps[table.host[rows]] * 125_000.0 if link is None else None
    return migrate_many(
        memory * PAGE,
        table.dirty_pages_s[rows],
        link or Link(10_000),
        rules,
        working_set=np.minimum(table.working_set[rows], memory),
        bytes_s=alone,
    )


def schedule_moves(
    cluster: Cluster,
    vms: npt.ArrayLike,
    destinations: npt.ArrayLike,
    *,
    rules: Precopy | None = None,
    networks: Literal["one", "per_host"] = "one",
    budgets: Budgets | None = None,
    order: Literal["fifo", "first_fit"] = "fifo",
) -> Schedule:
    """Carry out moves of VMs, such as those that DRS recommends, under the budgets.

    Parameters
    ----------
    cluster : Cluster
        Stays as it is.
    vms, destinations : array_like of int, shape (M,)
        Rows of VMs that are on, and hosts that are on; all are submitted at once, in this order.
    rules : Precopy, optional
        Downtime goal, most rounds, switch-over, and whether there is SDPS; see
        `schedule_migrations` for the rest.
    networks : {"one", "per_host"}, default "one"
        Whose budget of 4 or 8 counts: that of one network for the whole cluster, with the fastest
        host's adapters, as the documentation's words are; or of each sending host's adapters, if
        you read it so: then larger clusters move more at once.
    budgets, order
        As for `schedule_migrations`.

    Returns
    -------
    Schedule

    Examples
    --------
    >>> from pyvirt.cluster import Cluster, schedule_moves
    >>> cluster = Cluster.from_tables(
    ...     {"cpu_mhz": [9000] * 2, "memory_bytes": [64 << 30] * 2, "link_mbps": [1000] * 2},
    ...     {"host": [0] * 6, "memory_bytes": [1 << 30] * 6},
    ... )
    >>> plan = schedule_moves(cluster, range(6), 1)
    >>> (plan.table["end_ns"] / 1e9).round(2).tolist()
    [34.46, 34.46, 34.46, 34.46, 51.74, 51.74]
    """
    rows = _chosen(cluster, np.asarray(vms if np.ndim(vms) else [vms]))
    hosts, table = cluster.hosts, cluster.vms
    there = column(destinations, "destinations", rows.size, 0, len(hosts) - 1)
    bad = hosts.state[there] != HostState.ON
    if bad.any():
        host = int(there[np.argmax(bad)])
        state = HostState(hosts.state[host]).name
        raise ClusterError(f"{hosts.where(host)}: is {state} and takes no VM", "hosts", host)
    if networks not in ("one", "per_host"):
        raise InvalidValueError(f"networks must be 'one' or 'per_host', got {networks!r:.80}")
    rules = rules or Precopy()
    one = networks == "one"
    memory = _memory(cluster, rows)
    return schedule_migrations(
        Site(hosts.link_mbps, [int(hosts.link_mbps.max())] if one else hosts.link_mbps),
        np.full(rows.size, Kind.VMOTION),
        table.host[rows],
        memory * PAGE,
        destination=there,
        network=0 if one else table.host[rows],
        dirty_bytes_s=(table.dirty_pages_s[rows] * PAGE).astype(np.int64),
        working_set_bytes=np.minimum(table.working_set[rows], memory) * PAGE,
        downtime_goal_ns=rules.downtime_goal_ns,
        max_rounds=max(rules.max_rounds, 1),
        switch_over_ns=rules.switch_over_ns,
        sdps=rules.sdps,
        budgets=budgets,
        order=order,
    )
