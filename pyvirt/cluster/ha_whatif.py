"""What if hosts failed: which VMs would start again where, for all single or double failures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.checks import whole
from pyvirt.cluster.columns import ClusterError
from pyvirt.cluster.ha_admission import FailoverHosts
from pyvirt.cluster.model import Cluster
from pyvirt.cluster.reach import Reach
from pyvirt.cluster.tables import CPU, MEMORY, NONE, HostState, RuleKind
from pyvirt.errors import InvalidTypeError, InvalidValueError

if TYPE_CHECKING:
    from pyvirt.cluster.ft import Protection

__all__ = ["Failures", "Placement", "restart_order", "what_if"]

Ints = npt.NDArray[np.int64]
Placement = Literal["most_free", "first_fit"]

FAILURE = np.dtype(
    [("stopped", "i8"), ("lost", "i8"), ("first_lost", "i8"), ("free_percent", "f8")]
)
"""One failure: VMs that stop, VMs that find no host, the first of them (-1: none), and what is
unreserved of the scarcer resource on the fullest host that is left."""


@dataclass(frozen=True, slots=True)
class Failures:
    """What each failure would do.

    Attributes
    ----------
    hosts : list of tuple of int
        The hosts that fail together.
    table : ndarray of `FAILURE`
        For each of them.
    targets : ndarray of int64, shape (failures, V), or None
        Where VMs would start again, or are taken over by their secondaries: -1 for those that
        find no host, -2 for those that run on.
    cluster : Cluster
        What was asked about, for names.
    """

    hosts: list[tuple[int, ...]]
    table: npt.NDArray[Any] = field(repr=False)
    targets: Ints | None = field(repr=False)
    cluster: Cluster = field(repr=False)

    @property
    def survived(self) -> bool:
        """Whether no failure would lose a VM."""
        return not self.table["lost"].any()

    def reason(self, row: int) -> str:
        """Say in words what one failure would do.

        Parameters
        ----------
        row : int
            Which one. To learn why a VM finds no host, let it happen: `recover`.
        """
        row = whole(row, "row", 0, len(self.hosts) - 1)
        stopped, lost, first, free = self.table[row].tolist()
        who = " and ".join(repr(self.cluster.hosts.name[host]) for host in self.hosts[row])
        text = f"without {who or 'any host'}: VMs that stop: {stopped}, that find no host: {lost}"
        if lost:
            text += f", the first of them {self.cluster.vms.name[first]!r}"
        return text + f"; {free:.1f} % unreserved on the fullest host"

    @property
    def worst(self) -> int:
        """The failure that loses most VMs; of equal ones that which leaves the fullest host."""
        if not self.hosts:
            raise InvalidValueError("there is no failure")
        order = np.lexsort((self.table["free_percent"], -self.table["lost"]))
        return int(order[0])


def restart_order(cluster: Cluster) -> Ints:
    """Give all VMs in the order in which HA starts them again.

    By restart priority, and within one by reservation, the largest first: of memory with
    overhead, then of CPU (which of both counts is not documented); equal ones by row.
    """
    vms = cluster.vms
    memory = vms.reservation[MEMORY] + vms.overhead
    keys = (-vms.reservation[CPU], -memory, -vms.restart.astype(np.int64))
    return np.lexsort(keys)


def reach_of(cluster: Cluster, separate: bool) -> Reach:
    """What HA heeds: EVC, datastores, networks, must rules, and rules that keep VMs apart."""
    rules = cluster.rules
    heeded = (rules.enabled == 1) & (rules.kind != RuleKind.TOGETHER)
    if not separate:
        heeded &= rules.kind != RuleKind.SEPARATE
    return Reach(cluster, heeded)


def kept_hosts(cluster: Cluster, policy: FailoverHosts | None) -> npt.NDArray[np.uint8]:
    """Mark the dedicated hosts."""
    kept = np.zeros(len(cluster.hosts), np.uint8)
    if policy is not None:
        for host in policy.hosts:
            kept[whole(host, "policy", 0, len(cluster.hosts) - 1)] = 1
    return kept


def what_if(
    cluster: Cluster,
    failures: int | Sequence[Sequence[int]] = 1,
    *,
    placement: Placement = "most_free",
    separate: bool = True,
    policy: FailoverHosts | None = None,
    protection: Protection | None = None,
    targets: bool = False,
    reach: Reach | None = None,
) -> Failures:
    """Try failures of hosts, each from the present state.

    Parameters
    ----------
    cluster : Cluster
        Stays as it is.
    failures : int or sequence of sequences of int, default 1
        1 or 2: each host that is on, or each pair; or lists of hosts that fail together.
    placement : {"most_free", "first_fit"}, default "most_free"
        The host with the most unreserved capacity, by the scarcer of CPU and memory ("Failure
        Detection and Host Network Isolation", vSphere Availability), or the first one.
    separate : bool, default True
        Whether rules that keep VMs apart bind HA (``das.respectvmvmantiaffinityrules``).
    policy : FailoverHosts, optional
        Dedicated hosts, which are tried first.
    protection : Protection, optional
        Fault tolerant VMs: they do not stop if the host of their secondary is left, and what
        secondaries reserve is not to be had. New secondaries are not looked for.
    targets : bool, default False
        Whether to say where each VM goes.
    reach : Reach, optional
        Of this cluster, made by ``reach_of``, where it is asked often.

    Returns
    -------
    Failures

    Notes
    -----
    A host takes a VM if its features, datastores and networks suffice, no must rule forbids it,
    and the VM's reservation and overhead are free. VMs that run on stay where they are.

    Examples
    --------
    >>> from pyvirt.cluster import Cluster, what_if
    >>> cluster = Cluster.from_tables(
    ...     {"name": ["a", "b", "c"], "cpu_mhz": [9000] * 3, "memory_bytes": [8 << 30] * 3},
    ...     {
    ...         "host": [0, 0, 1, 2],
    ...         "reservation_memory_bytes": [3 << 30, 4 << 30, 6 << 30, 1 << 30],
    ...     },
    ... )
    >>> what_if(cluster).table["lost"].tolist()
    [0, 0, 0]
    >>> double = what_if(cluster, 2)
    >>> double.hosts, double.table["lost"].tolist()
    ([(0, 1), (0, 2), (1, 2)], [2, 2, 1])
    """
    from pyvirt.cluster.kernels.restart import what_if as kernel

    if placement not in ("most_free", "first_fit"):
        raise InvalidValueError(
            f"placement must be 'most_free' or 'first_fit', got {placement!r:.80}"
        )
    hosts, vms = cluster.hosts, cluster.vms
    sets = _sets(cluster, failures)
    fail_start = np.cumsum([0, *(len(one) for one in sets)], dtype=np.int64)
    fail = np.array([host for one in sets for host in one], np.int64)
    order = restart_order(cluster)
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    running = (vms.on == 1) & (vms.host != NONE)
    where = np.where(running, vms.host, NONE)
    listed = order[running[order]]
    listed = listed[np.argsort(where[listed], kind="stable")]
    start = np.searchsorted(where[listed], np.arange(len(hosts) + 1)).astype(np.int64)
    reach = reach or reach_of(cluster, separate)
    free, second = reach.free(), np.full(len(vms), NONE, np.int64)
    if protection is not None:
        free -= protection.reserved(reach.arrays.need, len(hosts))
        second = protection.secondary
    out = np.zeros((len(sets), 4), np.int64)
    target = np.full((len(sets) if targets else 0, len(vms)), -2, np.int64)
    kernel(
        reach.arrays,
        where,
        free,
        hosts.capacity,
        kept_hosts(cluster, policy),
        second,
        start,
        listed,
        rank,
        fail_start,
        fail,
        placement == "first_fit",
        out,
        target,
    )
    table = np.zeros(len(sets), FAILURE)
    for at, name in enumerate(("stopped", "lost", "first_lost")):
        table[name] = out[:, at]
    table["free_percent"] = out[:, 3] / 10_000
    return Failures(sets, table, target if targets else None, cluster)


def _sets(cluster: Cluster, failures: Any) -> list[tuple[int, ...]]:
    on = [int(host) for host in np.flatnonzero(cluster.hosts.state == HostState.ON)]
    if isinstance(failures, (int, np.integer)):
        return list(combinations(on, whole(failures, "failures", 1, 2)))
    if isinstance(failures, str) or not hasattr(failures, "__iter__"):
        raise InvalidTypeError(f"failures must be 1, 2 or lists of hosts, got {failures!r:.80}")
    sets = []
    for number, one in enumerate(failures):
        name = f"failures[{number}]"
        hosts = tuple(whole(host, name, 0, len(cluster.hosts) - 1) for host in one)
        if len(set(hosts)) != len(hosts):
            raise ClusterError(f"{name} names a host twice: {hosts}", "hosts")
        sets.append(hosts)
    return sets
