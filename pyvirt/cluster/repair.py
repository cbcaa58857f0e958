"""What is wrong with where VMs are, and the moves that put it right.

These are DRS's mandatory moves (priority 1): rules that are broken, hosts that are to be emptied or
have failed, and hosts on which more is reserved than they have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.groups import group_of, joint_classes
from pyvirt.cluster.placement import make_fleet
from pyvirt.cluster.reach import Reach
from pyvirt.cluster.rules import Conflict, consistent
from pyvirt.cluster.tables import MEMORY, NONE, Automation, HostState
from pyvirt.errors import InvalidValueError

if TYPE_CHECKING:
    from pyvirt.cluster.model import Cluster

__all__ = ["Repair", "evacuate", "repair", "violations"]

Ints = npt.NDArray[np.int64]

PASSES = 4
WORDS = {
    1: "its host is not on",
    2: "its host does not offer or reach what it needs, or a rule forbids it",
    4: "a rule between VMs is broken",
    8: "more is reserved on its host than it has",
}


@dataclass(frozen=True, slots=True)
class Repair:
    """Moves that put right what is wrong.

    Attributes
    ----------
    cluster : Cluster
        Which is not changed until `apply`.
    vm, source, target : ndarray of int64, shape (moves,)
        In the order in which they are to be made.
    flaw : ndarray of uint8, shape (moves,)
        What was wrong with the VM: bits 1 host not on, 2 features, reach or rules with hosts, 4
        rules between VMs, 8 too much reserved; 0: it makes room for another.
    left : ndarray of int64
        VMs for which something is wrong still.
    conflicts : list of Conflict
        Rules that contradict older ones and do not count.
    """

    cluster: Cluster
    vm: Ints
    source: Ints
    target: Ints
    flaw: npt.NDArray[np.uint8]
    left: Ints
    conflicts: list[Conflict]

    def __len__(self) -> int:
        return self.vm.size

    def apply(self) -> None:
        """Make the moves."""
        for vm, target in zip(self.vm, self.target, strict=True):
            self.cluster.vms.host[vm] = target

    def reason(self, move: int) -> str:
        """Say in words why a move is made."""
        flaw = int(self.flaw[move])
        if flaw == 0:
            return "it makes room for another"
        return "; ".join(text for bit, text in WORDS.items() if flaw & bit)

    def why_left(self, vm: int) -> str:
        """Say what keeps a VM that is left from each host, as they are after the moves."""
        if vm not in self.left:
            raise InvalidValueError(f"vm must be one that is left, got {vm}")
        after = self.cluster.copy()
        for one, target in zip(self.vm, self.target, strict=True):
            after.vms.host[one] = target
        reach = Reach(after)
        parts = [
            f"{after.hosts.name[host]}: {reach.refusal(vm, host) or 'others would have to move'}"
            for host in range(len(after.hosts))
            if host != after.vms.host[vm]
        ]
        return "\n".join(parts)


def violations(cluster: Cluster) -> list[tuple[int, str]]:
    """Name each VM for which something is wrong where it is.

    Parameters
    ----------
    cluster : Cluster
        Rules that contradict older ones do not count, see `consistent`.

    Returns
    -------
    list of (int, str)
        Rows of VMs, and what is wrong, in words.
    """
    active, _ = consistent(cluster)
    reach = Reach(cluster, active)
    made = []
    flaw = _flaws(reach)
    for vm in np.flatnonzero(flaw):
        host = int(cluster.vms.host[vm])
        words = reach.refusal(int(vm), host)
        if flaw[vm] & 8:
            words = "; ".join(part for part in (words, WORDS[8]) if part)
        made.append((int(vm), words))
    return made


def repair(cluster: Cluster, *, most: int | None = None, automatic: bool = False) -> Repair:
    """Find moves after which rules and reservations hold, and no VM is on a host that is not on.

    Parameters
    ----------
    cluster : Cluster
        Is not changed.
    most : int, optional
        Moves at most; by default four for each VM.
    automatic : bool, default False
        Whether VMs whose automation is not full stay where they are.

    Returns
    -------
    Repair
        What cannot be put right is left as it is, and named.

    Examples
    --------
    >>> from pyvirt.cluster import Cluster, RuleKind, repair
    >>> cluster = Cluster.from_tables(
    ...     {"cpu_mhz": [8000] * 3, "memory_bytes": [32 << 30] * 3},
    ...     {"name": ["a", "b"], "host": [0, 0], "demand_cpu_mhz": [3000, 2000]},
    ...     rules={"kind": [RuleKind.SEPARATE], "vms": [["a", "b"]]},
    ... )
    >>> moves = repair(cluster)
    >>> moves.vm.tolist(), moves.target.tolist(), moves.reason(0)
    ([0], [1], 'a rule between VMs is broken')
    """
    return _repair(cluster, None, most, automatic)


def evacuate(cluster: Cluster, hosts: Sequence[int], *, most: int | None = None) -> Repair:
    """Find moves that empty hosts, so that they can go into maintenance.

    Parameters
    ----------
    cluster : Cluster
        Is not changed.
    hosts : sequence of int
        Rows of hosts that are to be empty.
    most : int, optional
        Moves at most; by default four for each VM.

    Returns
    -------
    Repair
        VMs that have nowhere to go are `left`. VMs elsewhere move only to make room.
    """
    rows = [int(host) for host in hosts]
    for host in rows:
        if not 0 <= host < len(cluster.hosts):
            raise InvalidValueError(
                f"each of hosts must be one of {len(cluster.hosts)}, got {host}"
            )
    emptied = cluster.copy()
    emptied.hosts.state[rows] = HostState.MAINTENANCE
    inside = np.isin(cluster.vms.host, rows)
    made = _repair(emptied, np.flatnonzero(inside), most, False)
    return Repair(cluster, made.vm, made.source, made.target, made.flaw, made.left, made.conflicts)


def _where(reach: Reach) -> Ints:
    vms = reach.cluster.vms
    return np.where(vms.on == 1, vms.host, NONE)


def _flaws(reach: Reach, where: Ints | None = None) -> npt.NDArray[np.uint8]:
    """Say what is wrong with each VM, where they are or would be."""
    from pyvirt.cluster.kernels.repair import flaws

    made = np.zeros(len(reach.cluster.vms), dtype=np.uint8)
    placed = _where(reach) if where is None else where
    here = np.flatnonzero(placed != NONE)
    capacity = reach.cluster.hosts.capacity
    used = [
        np.bincount(placed[here], weights=row[here], minlength=capacity.shape[1])
        for row in reach.arrays.need
    ]
    flaws(reach.arrays, placed, capacity - np.stack(used).astype(np.int64), made)
    return made


def _repair(cluster: Cluster, chosen: Ints | None, most: int | None, automatic: bool) -> Repair:
    from pyvirt.cluster.kernels.repair import repair_all

    vms = cluster.vms
    if most is not None and most < 0:
        raise InvalidValueError(f"most must not be negative, got {most}")
    active, conflicts = consistent(cluster)
    reach = Reach(cluster, active)
    flaw = _flaws(reach)
    group = group_of(reach)
    arrays = joint_classes(reach.arrays, group)
    where = _where(reach)
    group[where == NONE] = -1
    members = np.flatnonzero(group >= 0)
    members = members[np.argsort(group[members], kind="stable")]
    start = np.zeros(int(group.max(initial=-1)) + 2, dtype=np.int64)
    np.cumsum(np.bincount(group[members], minlength=start.size - 1), out=start[1:])
    demand = vms.demand.copy()
    demand[MEMORY] += vms.overhead
    fleet = make_fleet(cluster, arrays, where, demand)
    rows = np.flatnonzero(flaw) if chosen is None else chosen[flaw[chosen] != 0]
    whole = np.maximum(cluster.hosts.capacity.max(axis=1, initial=1), 1)[:, None]
    size = (np.maximum(demand, arrays.need)[:, rows] / whole).max(axis=0, initial=0.0)
    # Hosts that are gone first, then what stands alone, then rules between VMs; the largest first.
    rank = np.array([min(bit for bit in WORDS if one & bit) for one in flaw[rows]], dtype=np.int64)
    order = rows[np.lexsort((rows, -size, rank))]
    mobile = np.ones(len(vms), dtype=np.uint8)
    mobile[vms.automation == Automation.DISABLED] = 0
    if automatic:
        mobile[vms.automation != Automation.FULL] = 0
    limit = 4 * len(vms) if most is None else most
    moves = np.empty((limit + 64, 3), dtype=np.int64)
    count, _ = repair_all(
        arrays, fleet, where, demand, group, start, members, order, mobile, PASSES, moves
    )
    count = min(count, limit)
    made = moves[:count]
    after = _where(reach)
    for vm, _source, target in made.tolist():
        after[vm] = target
    left = _flaws(reach, after)[order] != 0
    return Repair(
        cluster,
        made[:, 0].copy(),
        made[:, 1].copy(),
        made[:, 2].copy(),
        flaw[made[:, 0]],
        np.sort(order[left]),
        conflicts,
    )
