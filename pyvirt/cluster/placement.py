"""Initial placement: where VMs that have no host go, many at once, or one with all its choices.

As vSphere places VMs when they are powered on: on a host that rules, EVC, datastores, networks and
reservations allow, so that load is even. Should rules and demand give way where nothing else is
possible. The measure of a host is ours: the larger of its two loads over its capacity.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.checks import whole
from pyvirt.cluster.groups import group_of, joint_classes
from pyvirt.cluster.reach import Reach
from pyvirt.cluster.tables import MEMORY, NONE, HostState
from pyvirt.errors import InvalidTypeError, InvalidValueError

if TYPE_CHECKING:
    from pyvirt.cluster.kernels.place import Fleet
    from pyvirt.cluster.kernels.reach import ReachArrays
    from pyvirt.cluster.model import Cluster

__all__ = ["Choice", "Placements", "choices", "place"]

Ints = npt.NDArray[np.int64]

FEW = 4
"""A class of hosts has at least so many; the others are tried one by one."""

WORDS = (
    "fits",
    "its demand does not fit anywhere, its reservation does",
    "a should rule speaks against it, nothing else is possible",
    "no host",
)


@dataclass(frozen=True, slots=True)
class Placements:
    """Where VMs are placed.

    Attributes
    ----------
    cluster : Cluster
        Which is not changed until `apply`.
    vm : ndarray of int64, shape (n,)
        The VMs, in the order in which they were placed: the largest first.
    host : ndarray of int64, shape (n,)
        Their hosts; `NONE` for one that has none.
    how : ndarray of uint8, shape (n,)
        0: its demand fits; 1: only its reservation does; 2: a should rule speaks against the host;
        3: there is none.
    avoided : tuple of int
        Hosts that were not to be taken.
    """

    cluster: Cluster
    vm: Ints
    host: Ints
    how: npt.NDArray[np.uint8]
    avoided: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self.vm.size

    @property
    def unplaced(self) -> Ints:
        """VMs that have no host."""
        return self.vm[self.host == NONE]

    def apply(self) -> None:
        """Put the VMs where they were placed."""
        self.cluster.vms.host[self.vm] = self.host

    def reason(self, vm: int) -> str:
        """Say in words how a VM was placed, or what keeps it from the hosts."""
        at = np.flatnonzero(self.vm == vm)
        if at.size == 0:
            raise InvalidValueError(f"vm must be one that was placed, got {vm}")
        how = int(self.how[at[0]])
        if self.host[at[0]] != NONE:
            return WORDS[how]
        after = self.cluster.copy()
        after.vms.host[self.vm] = self.host
        reach = Reach(after)
        refusals = [
            "not to be taken" if host in self.avoided else reach.refusal(vm, host)
            for host in range(len(after.hosts))
        ]
        counted = Counter(
            one or "those that are kept together with it do not fit" for one in refusals
        )
        parts = [f"{count} hosts: {text}" for text, count in counted.most_common(3)]
        return f"{WORDS[how]}: " + ("; ".join(parts) if parts else "there are none")


@dataclass(frozen=True, slots=True)
class Choice:
    """What a host would be for a VM.

    Attributes
    ----------
    host : int
        The row.
    name : str
        Of the host.
    fullness : float
        The larger of its loads over its capacity, with the VM on it.
    imbalance : float
        The standard deviation of that over all hosts that are on, with the VM on it.
    refusal : str
        Why it may not be there; empty if it may.
    """

    host: int
    name: str
    fullness: float
    imbalance: float
    refusal: str


def place(
    cluster: Cluster, vms: npt.ArrayLike | None = None, *, avoid: Iterable[int] = ()
) -> Placements:
    """Find hosts for VMs that have none.

    Parameters
    ----------
    cluster : Cluster
        What is placed where counts; it is not changed.
    vms : array_like of int, optional
        Rows of VMs without a host; by default all that are on and have none. They count as on.
    avoid : iterable of int
        Hosts that take none of them, such as those that HA keeps free.

    Returns
    -------
    Placements
        VMs that rules keep together are placed as one, those that reserve or demand most first. A
        VM for which there is no host keeps none.

    Raises
    ------
    InvalidValueError
        A row that there is not, or that comes twice, or whose VM has a host; a host that there is
        not.

    Examples
    --------
    >>> from pyvirt.cluster import Cluster, place
    >>> cluster = Cluster.from_tables(
    ...     {"cpu_mhz": [8000, 8000], "memory_bytes": [32 << 30, 32 << 30]},
    ...     {"demand_cpu_mhz": [3000, 2000, 2000], "reservation_memory_bytes": [20 << 30] * 3},
    ... )
    >>> placed = place(cluster)
    >>> placed.host.tolist(), placed.unplaced.tolist()
    ([0, 1, -1], [2])
    >>> placed.reason(2)
    'no host: 2 hosts: it reserves 20480 MiB with its overhead, of 12288 free'
    """
    from pyvirt.cluster.kernels import place as kernel

    rows = _rows(cluster, vms)
    avoided = tuple(whole(host, "each of avoid", 0, len(cluster.hosts) - 1) for host in avoid)
    reach, demand, where = _prepared(cluster, rows)
    if avoided:
        up = reach.arrays.up.copy()
        up[list(avoided)] = 0
        reach.arrays = reach.arrays._replace(up=up)
    group = group_of(reach) if len(cluster.rules) else np.empty(0, np.int64)
    arrays = joint_classes(reach.arrays, group)
    fleet = make_fleet(cluster, arrays, where, demand)
    order, company = _order(cluster, rows, demand, arrays.need, group)
    how = np.zeros(len(cluster.vms), dtype=np.uint8)
    kernel.place_all(arrays, fleet, where, demand, company, order, how)
    return Placements(cluster, order, where[order], how[order], avoided)


def choices(cluster: Cluster, vm: int) -> list[Choice]:
    """Rank the hosts for one VM: those that it may be on first, the most even first.

    Parameters
    ----------
    cluster : Cluster
        Is not changed.
    vm : int
        A row; where it is now does not count.

    Returns
    -------
    list of Choice
        One for each host.
    """
    if not 0 <= vm < len(cluster.vms):
        raise InvalidValueError(f"vm must be one of {len(cluster.vms)}, got {vm}")
    without = cluster.copy()
    without.vms.on[vm] = 1
    without.vms.host[vm] = NONE
    reach = Reach(without)
    load = without.load().astype(np.float64)
    wanted = without.vms.demand[:, vm].astype(np.float64)
    wanted[MEMORY] += without.vms.overhead[vm]
    capacity = without.hosts.capacity.astype(np.float64)
    on = without.hosts.state == HostState.ON
    made = []
    for host, name in enumerate(without.hosts.name):
        after = load.copy()
        after[:, host] += wanted
        full = np.divide(after, capacity, out=np.where(after > 0, np.inf, 0.0), where=capacity > 0)
        each = full.max(axis=0)
        spread = float(np.std(each[on])) if on.any() and np.isfinite(each[on]).all() else np.inf
        made.append(Choice(host, name, float(each[host]), spread, reach.refusal(vm, host)))
    return sorted(made, key=lambda one: (one.refusal != "", one.imbalance, one.host))


def make_fleet(cluster: Cluster, arrays: ReachArrays, where: Ints, demand: Ints) -> Fleet:
    """Order the hosts by how full they are with the VMs where they are."""
    from pyvirt.cluster.kernels.place import fleet

    capacity = np.ascontiguousarray(cluster.hosts.capacity)
    hosts = capacity.shape[1]
    placed = np.flatnonzero((where != NONE) & (arrays.on == 1))

    def summed(amounts: Ints) -> Ints:
        return np.stack(
            [np.bincount(where[placed], weights=row[placed], minlength=hosts) for row in amounts]
        ).astype(np.int64)

    klass = _alike(capacity)
    often = np.bincount(klass) >= FEW
    number = np.where(often, np.cumsum(often) - 1, -1)
    klass = number[klass]
    free = capacity - summed(arrays.need)
    made: Fleet = fleet(arrays.up, free, summed(demand), capacity, klass, int(often.sum()))
    return made


def _alike(capacity: Ints) -> Ints:
    """Number the capacities that hosts have, ascending: that of each host. Sorts once."""
    order = np.lexsort(capacity[::-1])
    new = (np.diff(capacity[:, order], axis=1) != 0).any(axis=0)
    klass = np.zeros(order.size, dtype=np.int64)
    klass[order[1:]] = np.cumsum(new)
    return klass


def _prepared(cluster: Cluster, rows: Ints) -> tuple[Reach, Ints, Ints]:
    """Give who may be where with the VMs on, what each demands, and where each is."""
    vms = cluster.vms
    reach = Reach(cluster)
    if not vms.on[rows].all():
        on = vms.on.copy()
        on[rows] = 1
        reach.arrays = reach.arrays._replace(on=on)
    demand = vms.demand
    if vms.overhead.any():
        demand = demand.copy()
        demand[MEMORY] += vms.overhead
    where = np.where(reach.arrays.on == 1, vms.host, NONE)
    return reach, np.ascontiguousarray(demand), where


def _rows(cluster: Cluster, vms: npt.ArrayLike | None) -> Ints:
    has = cluster.vms.host != NONE
    if vms is None:
        return np.flatnonzero((cluster.vms.on == 1) & ~has)
    rows = np.asarray(vms)
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
        raise InvalidTypeError(f"vms must be a list of row numbers, not {vms!r:.80}")
    rows = rows.astype(np.int64)
    bad = (rows < 0) | (rows >= len(cluster.vms))
    if bad.any():
        raise InvalidValueError(
            f"each of vms must be one of {len(cluster.vms)}, got {rows[bad][0]}"
        )
    if np.unique(rows).size != rows.size:
        raise InvalidValueError("each of vms must come once")
    if has[rows].any():
        first = int(rows[has[rows]][0])
        raise InvalidValueError(f"{cluster.vms.where(first)} has a host already")
    return np.sort(rows)


def _order(
    cluster: Cluster, rows: Ints, demand: Ints, need: Ints, group: Ints
) -> tuple[Ints, Ints]:
    """Put the largest first, and those that stay together after each other."""
    from pyvirt.cluster.kernels import place as kernel

    on = cluster.hosts.state == HostState.ON
    whole = np.maximum(cluster.hosts.capacity[:, on].max(axis=1, initial=1), 1)
    largest = kernel.largest_part(demand, need, whole.astype(np.float64), rows)
    company = np.zeros((4, 0), dtype=np.int64)
    if not (group.size and (group[rows] >= 0).any()):
        return rows[kernel.falling(largest)], company
    # A group goes where its largest member stands in the order; it is led by that member.
    mine = group[rows]
    top = np.zeros(int(group.max()) + 1)
    total = np.zeros((4, top.size), dtype=np.int64)
    grouped = mine >= 0
    np.add.at(top, mine[grouped], largest[grouped])
    for row, amounts in enumerate((*need, *demand)):
        np.add.at(total[row], mine[grouped], amounts[rows[grouped]])
    rank = np.where(grouped, top[mine], largest)
    order = np.lexsort((rows, -largest, np.where(grouped, mine, -1), -rank))
    placed = rows[order]
    company = np.zeros((4, len(cluster.vms)), dtype=np.int64)
    seen: set[int] = set()
    for vm in placed[grouped[order]]:
        one = int(group[vm])
        if one not in seen:
            seen.add(one)
            company[:, vm] = total[:, one] - np.concatenate([need[:, vm], demand[:, vm]])
    return placed, company
