"""HA admission control: what must stay free so that VMs can be started again after a failure.

Three policies of vSphere Availability (6.7, pages 24 to 29; 8.0, GUID-FAFEFEFF): slots, a
percentage of the resources, dedicated failover hosts. Reservations count, not demand; a VM
without a CPU reservation counts 32 MHz. What a VM needs of memory is reservation and overhead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.checks import number, whole
from pyvirt.cluster.model import Cluster
from pyvirt.cluster.tables import CPU, MEMORY, NONE, PAGE, HostState
from pyvirt.errors import AdmissionError, InvalidTypeError, InvalidValueError

if TYPE_CHECKING:
    from pyvirt.cluster.ft import Protection

__all__ = [
    "Degradation",
    "FailoverError",
    "FailoverHosts",
    "Headroom",
    "Percentage",
    "Policy",
    "Slots",
    "admit",
    "degradation",
    "headroom",
]

Ints = npt.NDArray[np.int64]
MIB = 2**20 // PAGE  # pages
GHZ = 10**6  # kHz


class FailoverError(AdmissionError):
    """A VM that HA does not let start, since what is kept for failures would be gone.

    Attributes
    ----------
    pool : str
        The cluster, or the host.
    resource : str
        What is missing: ``"slots"``, ``"CPU (kHz)"``, ``"memory (pages)"`` or ``"hosts"``.
    needed, available, missing : float
        Of that resource.
    client : str
        The VM; empty where the cluster as it is lacks something.
    """

    def __init__(
        self, pool: str, needed: float, available: float, client: str = "", resource: str = ""
    ) -> None:
        super().__init__(pool, needed, available, client)
        self.args = (pool, needed, available, client, resource)
        self.resource = resource

    def __str__(self) -> str:
        asks = f" to start {self.client!r}" if self.client else ""
        return (
            f"HA of {self.pool!r} needs {self.needed:,.12g} {self.resource}{asks} and has "
            f"{self.available:,.12g}: {self.missing:,.12g} missing"
        )


@dataclass(frozen=True, slots=True)
class Slots:
    """Keep the slots of so many hosts free, the largest first.

    Attributes
    ----------
    host_failures : int
        Hosts that may fail.
    cpu_min_mhz : int
        ``das.vmcpuminmhz``: what a VM without CPU reservation counts (256 before vSphere 5.0).
    memory_min_mb : int
        ``das.vmmemoryminmb``: likewise, before overhead.
    slot_cpu_mhz, slot_memory_mb : int or None
        ``das.slotcpuinmhz``, ``das.slotmeminmb``: the largest slot; a VM that needs more takes
        several. None: the largest VM is the slot.
    """

    host_failures: int = 1
    cpu_min_mhz: int = 32
    memory_min_mb: int = 0
    slot_cpu_mhz: int | None = None
    slot_memory_mb: int | None = None

    def __post_init__(self) -> None:
        whole(self.host_failures, "host_failures", 1)
        whole(self.cpu_min_mhz, "cpu_min_mhz", 0)
        whole(self.memory_min_mb, "memory_min_mb", 0)
        for name in ("slot_cpu_mhz", "slot_memory_mb"):
            if getattr(self, name) is not None:
                whole(getattr(self, name), name, 1)


@dataclass(frozen=True, slots=True)
class Percentage:
    """Keep a part of CPU and memory free.

    Attributes
    ----------
    cpu, memory : float
        Percent of what all hosts have.
    cpu_min_mhz, memory_min_mb : int
        As for `Slots`.
    """

    cpu: float = 25.0
    memory: float = 25.0
    cpu_min_mhz: int = 32
    memory_min_mb: int = 0

    def __post_init__(self) -> None:
        number(self.cpu, "cpu", 0.0, 100.0)
        number(self.memory, "memory", 0.0, 100.0)
        whole(self.cpu_min_mhz, "cpu_min_mhz", 0)
        whole(self.memory_min_mb, "memory_min_mb", 0)

    @classmethod
    def of_failures(
        cls, cluster: Cluster, host_failures: int = 1, *, largest: bool = False
    ) -> Percentage:
        """Derive it from the host failures to tolerate, as vSphere does since 6.5.

        Parameters
        ----------
        cluster : Cluster
            Its hosts that are on count.
        host_failures : int, default 1
            Fewer than there are hosts.
        largest : bool, default False
            False: failures / hosts in whole percent, rounded down (recalled). True: the part
            that the largest hosts have, per resource, which is our choice for unequal hosts.
        """
        on = np.flatnonzero(cluster.hosts.state == HostState.ON)
        count = whole(host_failures, "host_failures", 1)
        if count >= on.size:
            raise InvalidValueError(
                f"host_failures must be below the {on.size} hosts that are on, got {count}"
            )
        if not largest:
            percent = 100 * count // on.size
            return cls(percent, percent)
        capacity = np.sort(cluster.hosts.capacity[:, on], axis=1)
        parts = 100.0 * capacity[:, -count:].sum(axis=1) / capacity.sum(axis=1)
        return cls(float(parts[CPU]), float(parts[MEMORY]))


@dataclass(frozen=True, slots=True)
class FailoverHosts:
    """Keep hosts empty.

    Attributes
    ----------
    hosts : tuple of int
        No VM is started on these; after a failure VMs go there first.
    """

    hosts: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.hosts:
            raise InvalidValueError("hosts must name at least one host")
        for host in self.hosts:
            whole(host, "hosts", 0)


Policy = Slots | Percentage | FailoverHosts


@dataclass(frozen=True, slots=True)
class Headroom:
    """What a policy finds in a cluster as it is.

    Attributes
    ----------
    ok : bool
        Whether the policy is fulfilled.
    reason : str
        What it comes from, in words.
    slot : (int, int)
        kHz and pages of a slot; 0 for a resource that bounds nothing. (0, 0) without slots.
    host_slots : ndarray of int64, shape (H,)
        Slots of each host; 0 for hosts that are not on.
    used_slots, unreserved_slots : int
        Taken by VMs that are on; and what may still be taken.
    failover_capacity : int
        Slots: how many hosts can fail, the largest first, and leave enough slots.
    total, required : (int, int)
        kHz and pages: of all hosts that are on, and of all VMs that are on.
    free_percent : (float, float)
        (total - required) / total of CPU and memory.
    usable : (int, int)
        Percentage: kHz and pages that VMs may reserve.
    """

    ok: bool
    reason: str
    slot: tuple[int, int] = (0, 0)
    host_slots: Ints = field(default_factory=lambda: np.zeros(0, np.int64), repr=False)
    used_slots: int = 0
    unreserved_slots: int = 0
    failover_capacity: int = 0
    total: tuple[int, int] = (0, 0)
    required: tuple[int, int] = (0, 0)
    free_percent: tuple[float, float] = (0.0, 0.0)
    usable: tuple[int, int] = (0, 0)


def headroom(cluster: Cluster, policy: Policy, *, protection: Protection | None = None) -> Headroom:
    """Say whether a cluster, with the VMs that are on, fulfils a policy, and by how much.

    Parameters
    ----------
    cluster : Cluster
        Hosts that are not on do not count.
    policy : Slots, Percentage or FailoverHosts
    protection : Protection, optional
        Fault tolerant VMs: each secondary counts like a VM (recalled).

    Returns
    -------
    Headroom

    Examples
    --------
    The example of vSphere Availability: hosts of 9, 9 and 6 GHz with 9, 6 and 6 GB, five VMs.

    >>> from pyvirt.cluster import Cluster, Percentage, Slots, headroom
    >>> gib = 1 << 30
    >>> cluster = Cluster.from_tables(
    ...     {"cpu_mhz": [9000, 9000, 6000], "memory_bytes": [9 * gib, 6 * gib, 6 * gib]},
    ...     {
    ...         "host": [0, 0, 1, 1, 2],
    ...         "reservation_cpu_mhz": [2000, 2000, 1000, 1000, 1000],
    ...         "reservation_memory_bytes": [gib, gib, 2 * gib, gib, gib],
    ...     },
    ... )
    >>> found = headroom(cluster, Slots(host_failures=1))
    >>> found.host_slots.tolist(), found.used_slots, found.failover_capacity
    ([4, 3, 3], 5, 1)
    >>> [round(part, 1) for part in headroom(cluster, Percentage(25, 25)).free_percent]
    [70.8, 71.4]
    """
    if isinstance(policy, Slots):
        return _slots(cluster, policy, _counted(cluster.vms.on == 1, protection))
    if isinstance(policy, Percentage):
        return _percentage(cluster, policy, _counted(cluster.vms.on == 1, protection))
    if isinstance(policy, FailoverHosts):
        return _failover_hosts(cluster, policy)
    raise InvalidTypeError(f"policy must be Slots, Percentage or FailoverHosts: {policy!r:.80}")


def admit(
    cluster: Cluster,
    policy: Policy,
    vm: int,
    *,
    host: int = NONE,
    protection: Protection | None = None,
) -> Headroom:
    """Decide whether a VM that is off may be started.

    Parameters
    ----------
    cluster : Cluster
        Stays as it is.
    policy : Slots, Percentage or FailoverHosts
    vm : int
        Row of the VM.
    host : int, optional
        Where it would start; only `FailoverHosts` asks.
    protection : Protection, optional
        As for `headroom`.

    Returns
    -------
    Headroom
        With the VM on.

    Raises
    ------
    FailoverError
        With what is missing.
    InvalidValueError
        No such VM, or it is on.
    """
    vms = cluster.vms
    vm = whole(vm, "vm", 0, len(vms) - 1)
    if vms.on[vm]:
        raise InvalidValueError(f"{vms.where(vm)} is on already")
    starting = vms.on == 1
    starting[vm] = True
    on = _counted(starting, protection)
    client = vms.name[vm]
    if isinstance(policy, Slots):
        found = _slots(cluster, policy, on)
        if not found.ok:
            rest = found.host_slots.sum() - _largest(found.host_slots, policy.host_failures)
            raise FailoverError(cluster.name, found.used_slots, int(rest), client, "slots")
        return found
    if isinstance(policy, Percentage):
        found = _percentage(cluster, policy, on)
        count = int((cluster.hosts.state == HostState.ON).sum())
        if count < 2:
            raise FailoverError(cluster.name, 2, count, client, "hosts")
        for resource, name in ((CPU, "CPU (kHz)"), (MEMORY, "memory (pages)")):
            if found.required[resource] > found.usable[resource]:
                needed, usable = found.required[resource], found.usable[resource]
                raise FailoverError(cluster.name, needed, usable, client, name)
        return found
    found = headroom(cluster, policy)
    if host in policy.hosts:
        raise FailoverError(cluster.hosts.name[host], 1, 0, client, "place: a failover host")
    if not found.ok:
        raise FailoverError(cluster.name, 1, 0, client, f"failover hosts: {found.reason}")
    return found


def needs(cluster: Cluster, policy: Slots | Percentage) -> Ints:
    """Give what each VM counts for admission, shape (2, V): kHz and pages."""
    vms = cluster.vms
    cpu = np.where(vms.reservation[CPU] > 0, vms.reservation[CPU], policy.cpu_min_mhz * 1000)
    least = policy.memory_min_mb * MIB
    memory = np.where(vms.reservation[MEMORY] > 0, vms.reservation[MEMORY], least) + vms.overhead
    return np.stack([cpu, memory])


def _counted(on: npt.NDArray[np.bool_], protection: Protection | None) -> Ints:
    """Give the rows of VMs that count; those with a secondary twice."""
    rows = np.flatnonzero(on)
    if protection is None:
        return rows
    return np.concatenate([rows, np.flatnonzero(protection.secondary != NONE)])


def _largest(values: Ints, count: int) -> int:
    return int(np.sort(values)[::-1][:count].sum())


def _slots(cluster: Cluster, policy: Slots, on: Ints) -> Headroom:
    hosts = cluster.hosts
    need = needs(cluster, policy)[:, on]
    total, required = _sums(cluster, need)
    slot = need.max(axis=1, initial=0)
    if not need.size:
        slot[CPU] = policy.cpu_min_mhz * 1000
    caps = (
        None if policy.slot_cpu_mhz is None else policy.slot_cpu_mhz * 1000,
        None if policy.slot_memory_mb is None else policy.slot_memory_mb * MIB,
    )
    for resource, cap in enumerate(caps):
        if cap is not None:
            slot[resource] = min(slot[resource], cap)
    up = hosts.state == HostState.ON
    each = np.full((2, len(hosts)), np.iinfo(np.int64).max)
    taken = np.ones((2, need.shape[1]), np.int64)
    for resource in (CPU, MEMORY):
        if slot[resource] > 0:
            each[resource] = hosts.capacity[resource] // slot[resource]
            taken[resource] = np.maximum(-(-need[resource] // slot[resource]), 1)
    host_slots = np.where(up, each.min(axis=0), 0) if slot.any() else np.zeros(len(hosts), np.int64)
    used = int(taken.max(axis=0, initial=0).sum())
    # how many hosts can fail, the largest first
    left = host_slots.sum() - np.cumsum(np.sort(host_slots[up])[::-1])
    capacity = int((left >= used).sum())
    unreserved = max(0, int(host_slots.sum()) - _largest(host_slots, policy.host_failures) - used)
    ok = capacity >= policy.host_failures
    reason = (
        f"{used} slots of {slot[CPU] / 1000:g} MHz and {slot[MEMORY] / MIB:g} MiB are used of "
        f"{host_slots.sum()}; hosts that can fail: {capacity}, "
        f"to be tolerated: {policy.host_failures}"
    )
    return Headroom(
        ok,
        reason,
        slot=(int(slot[CPU]), int(slot[MEMORY])),
        host_slots=host_slots,
        used_slots=used,
        unreserved_slots=unreserved,
        failover_capacity=capacity,
        total=total,
        required=required,
    )


def _sums(cluster: Cluster, need: Ints) -> tuple[tuple[int, int], tuple[int, int]]:
    """What all hosts have, and what all VMs need."""
    up = cluster.hosts.state == HostState.ON
    total = cluster.hosts.capacity[:, up].sum(axis=1)
    required = need.sum(axis=1)
    return (int(total[CPU]), int(total[MEMORY])), (int(required[CPU]), int(required[MEMORY]))


def _percentage(cluster: Cluster, policy: Percentage, on: Ints) -> Headroom:
    total, required = _sums(cluster, needs(cluster, policy)[:, on])
    kept = (policy.cpu, policy.memory)
    free = [100.0 * (t - r) / t if t else 0.0 for t, r in zip(total, required, strict=True)]
    usable = [int(t * (100.0 - k) / 100.0) for t, k in zip(total, kept, strict=True)]
    count = int((cluster.hosts.state == HostState.ON).sum())
    ok = count >= 2 and all(r <= u for r, u in zip(required, usable, strict=True))
    reason = (
        f"{free[CPU]:.1f} % of CPU and {free[MEMORY]:.1f} % of memory are free on {count} hosts; "
        f"{policy.cpu:g} % and {policy.memory:g} % are to be, on at least 2"
    )
    return Headroom(
        ok,
        reason,
        total=total,
        required=required,
        free_percent=(free[0], free[1]),
        usable=(usable[0], usable[1]),
    )


def _failover_hosts(cluster: Cluster, policy: FailoverHosts) -> Headroom:
    hosts, vms = cluster.hosts, cluster.vms
    for host in policy.hosts:
        whole(host, "hosts", 0, len(hosts) - 1)
    kept = np.zeros(len(hosts), bool)
    kept[list(policy.hosts)] = True
    problems = [
        f"{hosts.name[h]!r} is {HostState(hosts.state[h]).name}"
        for h in policy.hosts
        if hosts.state[h] != HostState.ON
    ]
    there = np.flatnonzero((vms.on == 1) & (vms.host != NONE))
    there = there[kept[vms.host[there]]]
    problems += [f"{vms.name[v]!r} runs on {hosts.name[vms.host[v]]!r}" for v in there[:1]]
    names = ", ".join(repr(hosts.name[h]) for h in policy.hosts)
    reason = "; ".join(problems) or f"{names} are kept empty"
    total, required = _sums(cluster, vms.reservation[:, vms.on == 1])
    return Headroom(not problems, reason, total=total, required=required)


@dataclass(frozen=True, slots=True)
class Degradation:
    """What VMs would get after failures, by demand and not by reservation.

    Attributes
    ----------
    percent : (float, float)
        By how much CPU and memory that VMs use now would have to shrink.
    ok : bool
        Whether that is tolerated.
    reason : str
        In words.
    """

    percent: tuple[float, float]
    ok: bool
    reason: str


def degradation(
    cluster: Cluster, tolerated: float, failed: Sequence[int] | None = None
) -> Degradation:
    """Compare what VMs use now with what is left ("performance degradation VMs tolerate").

    Parameters
    ----------
    cluster : Cluster
        Demand of the VMs that are on, wherever they are.
    tolerated : float
        Percent; 0: VMs must be able to go on as they do, 100: no check (vSphere Availability
        6.5: a warning is given if usage less this part of it exceeds what is left).
    failed : sequence of int, optional
        The hosts that fail; by default, for each resource, the one that has the most.

    Returns
    -------
    Degradation
    """
    number(tolerated, "tolerated", 0.0, 100.0)
    hosts, vms = cluster.hosts, cluster.vms
    up = np.flatnonzero(hosts.state == HostState.ON)
    used = vms.demand[:, vms.on == 1].sum(axis=1)
    used[MEMORY] += vms.overhead[vms.on == 1].sum()
    capacity = hosts.capacity[:, up]
    if failed is None:
        left = capacity.sum(axis=1) - capacity.max(axis=1, initial=0)
    else:
        gone = [whole(host, "failed", 0, len(hosts) - 1) for host in failed]
        left = hosts.capacity[:, np.setdiff1d(up, gone)].sum(axis=1)
    percent = [
        max(0.0, 100.0 * float(u - c) / float(u)) if u else 0.0
        for u, c in zip(used, left, strict=True)
    ]
    ok = bool(max(percent) <= tolerated)
    reason = (
        f"CPU would shrink by {percent[CPU]:.1f} % and memory by {percent[MEMORY]:.1f} %; "
        f"{tolerated:g} % are tolerated"
    )
    return Degradation((percent[CPU], percent[MEMORY]), ok, reason)
