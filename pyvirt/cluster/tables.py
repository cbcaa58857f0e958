"""Hosts, virtual machines, resource pools and rules: the four tables of a cluster.

CPU is counted in kHz and memory in pages of 4 KiB, in integers below 2**53, so that sums depend
neither on their order nor on the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.columns import LARGEST, ClusterError, Column, Table
from pyvirt.errors import InvalidTypeError

__all__ = [
    "CPU",
    "MEMORY",
    "NONE",
    "PAGE",
    "UNLIMITED",
    "Automation",
    "HostState",
    "Hosts",
    "Pools",
    "RestartPriority",
    "RuleKind",
    "Rules",
    "VMs",
]

CPU, MEMORY = 0, 1
"""Rows of arrays of shape (2, n): kHz, and pages."""

NONE = -1
"""No host; the root pool."""

UNLIMITED = -1
"""A limit that there is not."""

PAGE = 4096
"""Bytes of a page."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]
Masks = npt.NDArray[np.uint64]


class HostState(IntEnum):
    """What a host is doing; only one that is on runs VMs."""

    ON = 0
    STANDBY = 1
    MAINTENANCE = 2
    FAILED = 3


class Automation(IntEnum):
    """What DRS may do with a VM without being asked (vSphere Resource Management, "DRS")."""

    MANUAL = 0
    PARTIAL = 1
    FULL = 2
    DISABLED = 3


class RestartPriority(IntEnum):
    """In which order HA starts VMs again (vSphere Availability, "VM Restart Priority")."""

    LOWEST = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    HIGHEST = 4


class RuleKind(IntEnum):
    """VMs together or apart; groups of VMs on groups of hosts, or never there."""

    TOGETHER = 0
    SEPARATE = 1
    MUST_RUN = 2
    SHOULD_RUN = 3
    MUST_NOT_RUN = 4
    SHOULD_NOT_RUN = 5


class Hosts(Table):
    """The hosts of a cluster.

    Attributes
    ----------
    name : list of str
        Unique.
    capacity : ndarray of int64, shape (2, H)
        kHz and pages that VMs can have, net of the hypervisor's own.
    cores, core_khz : ndarray of int64, shape (H,)
        A vCPU never runs faster than one core.
    state : ndarray of uint8, shape (H,)
        See `HostState`.
    features : ndarray of uint64, shape (H,)
        Bits of CPU features that the host offers (EVC).
    datastores, networks : ndarray of uint64, shape (H, words)
        Bits of what the host reaches.
    power : ndarray of int64, shape (H,)
        The row of `Cluster.power_tables`.
    standby_ns : ndarray of int64, shape (H,)
        How long it takes to come out of standby.
    link_mbps : ndarray of int64, shape (H,)
        Megabits a second of the network that migrations use.
    """

    TABLE = "hosts"
    ROW = "host"
    COLUMNS: ClassVar = {
        "capacity": Column(form="resource"),
        "cores": Column(default=1, lowest=1),
        "core_khz": Column(default=LARGEST, lowest=1),
        "state": Column("u1", default=HostState.ON, highest=HostState.FAILED),
        "features": Column("u8", default=0, highest=2**64),
        "datastores": Column("u8", "words", default=2**64 - 1, highest=2**64),
        "networks": Column("u8", "words", default=2**64 - 1, highest=2**64),
        "power": Column(default=0),
        "standby_ns": Column(default=180 * 10**9),
        "link_mbps": Column(default=10_000, lowest=1),
    }

    capacity: Ints
    cores: Ints
    core_khz: Ints
    state: Bytes
    features: Masks
    datastores: Masks
    networks: Masks
    power: Ints
    standby_ns: Ints
    link_mbps: Ints


class VMs(Table):
    """The virtual machines of a cluster.

    Attributes
    ----------
    name : list of str
        Unique.
    host : ndarray of int64, shape (V,)
        Where it is registered; `NONE` for one that is to be placed.
    on : ndarray of uint8, shape (V,)
        Whether it is powered on.
    pool : ndarray of int64, shape (V,)
        Its resource pool; `NONE` for the root.
    vcpus, memory : ndarray of int64, shape (V,)
        Number of vCPUs, and pages of configured memory.
    demand : ndarray of int64, shape (2, V)
        What it could use now, in kHz and pages.
    reservation, limit, shares : ndarray of int64, shape (2, V)
        See `pyvirt.entitlement.Client`; a limit may be `UNLIMITED`. Shares that are not given are
        those of the level "normal".
    overhead, active, consumed : ndarray of int64, shape (V,)
        Pages that the VMM needs, that the guest touched of late, and that the host backs.
    features : ndarray of uint64, shape (V,)
        Bits of CPU features that it needs on its host (EVC).
    datastores, networks : ndarray of uint64, shape (V, words)
        Bits of what its host must reach.
    dirty_pages_s : ndarray of float64, shape (V,)
        Pages that it writes a second, for migration.
    working_set : ndarray of int64, shape (V,)
        Pages among which these writes fall.
    restart : ndarray of uint8, shape (V,)
        See `RestartPriority`.
    automation : ndarray of uint8, shape (V,)
        See `Automation`.
    """

    TABLE = "vms"
    ROW = "vm"
    COLUMNS: ClassVar = {
        "host": Column(default=NONE, lowest=NONE),
        "on": Column("u1", default=1, highest=1),
        "pool": Column(default=NONE, lowest=NONE),
        "vcpus": Column(default=1, lowest=1, highest=2**20),
        "memory": Column(default=0),
        "demand": Column(form="resource", default=0),
        "reservation": Column(form="resource", default=0),
        "limit": Column(form="resource", default=UNLIMITED, lowest=UNLIMITED),
        "shares": Column(form="resource", default=-1, lowest=-1, highest=10**15),
        "overhead": Column(default=0),
        "active": Column(default=0),
        "consumed": Column(default=0),
        "features": Column("u8", default=0, highest=2**64),
        "datastores": Column("u8", "words", default=0, highest=2**64),
        "networks": Column("u8", "words", default=0, highest=2**64),
        "dirty_pages_s": Column("f8", default=0.0),
        "working_set": Column(default=0),
        "restart": Column("u1", default=RestartPriority.MEDIUM, highest=RestartPriority.HIGHEST),
        "automation": Column("u1", default=Automation.FULL, highest=Automation.DISABLED),
    }

    host: Ints
    on: Bytes
    pool: Ints
    vcpus: Ints
    memory: Ints
    demand: Ints
    reservation: Ints
    limit: Ints
    shares: Ints
    overhead: Ints
    active: Ints
    consumed: Ints
    features: Masks
    datastores: Masks
    networks: Masks
    dirty_pages_s: Floats
    working_set: Ints
    restart: Bytes
    automation: Bytes

    def __init__(self, name: Sequence[str] | int, **columns: npt.ArrayLike) -> None:
        super().__init__(name, **columns)
        # "Normal": 1000 shares a vCPU and 10 a MB (vSphere Resource Management).
        normal = np.stack([self.vcpus * 1000, self.memory * 10 // (2**20 // PAGE)])
        self.shares = np.where(self.shares < 0, normal, self.shares)

    def check(self) -> None:
        """Check each value, and that reservations are within limits."""
        super().check()
        bad = (self.limit != UNLIMITED) & (self.reservation > self.limit)
        if bad.any():
            row = int(bad.any(axis=0).argmax())
            raise ClusterError(
                f"{self.where(row)}: reservation {self.reservation[:, row]} must not exceed "
                f"limit {self.limit[:, row]}",
                self.TABLE,
                row,
            )


class Pools(Table):
    """Resource pools below the cluster, which is the root pool.

    Attributes
    ----------
    name : list of str
        Unique.
    parent : ndarray of int64, shape (P,)
        A pool that stands before this one; `NONE` for the root.
    reservation, limit, shares : ndarray of int64, shape (2, P)
        In kHz and pages; a limit may be `UNLIMITED`. By default the shares of a VM of 4 vCPUs and
        16 GB (vSphere Resource Management).
    expandable : ndarray of uint8, shape (2, P)
        Whether its children's reservations may come from its parent.
    """

    TABLE = "pools"
    ROW = "pool"
    COLUMNS: ClassVar = {
        "parent": Column(default=NONE, lowest=NONE),
        "reservation": Column(form="resource", default=0),
        "limit": Column(form="resource", default=UNLIMITED, lowest=UNLIMITED),
        "shares": Column(form="resource", default=-1, lowest=-1, highest=10**15),
        "expandable": Column("u1", "resource", default=1, highest=1),
    }

    parent: Ints
    reservation: Ints
    limit: Ints
    shares: Ints
    expandable: Bytes

    def __init__(self, name: Sequence[str] | int, **columns: npt.ArrayLike) -> None:
        super().__init__(name, **columns)
        self.shares = np.where(self.shares < 0, np.array([[4000], [163840]]), self.shares)

    def check(self) -> None:
        """Check each value, that parents come first, and that reservations are within limits."""
        super().check()
        self.refuse(self.parent >= np.arange(len(self)), "parent", "must stand before the pool")
        bad = (self.limit != UNLIMITED) & (self.reservation > self.limit)
        if bad.any():
            row = int(bad.any(axis=0).argmax())
            raise ClusterError(
                f"{self.where(row)}: reservation {self.reservation[:, row]} must not exceed "
                f"limit {self.limit[:, row]}",
                self.TABLE,
                row,
            )


class Rules(Table):
    """Rules of affinity, the older before the newer.

    Parameters
    ----------
    name : sequence of str or int
        As for each table.
    vms, hosts : sequence of sequences of int, optional
        The VMs of each rule, and its hosts where its kind has any.
    **columns : array_like
        `kind`, and `enabled`.

    Attributes
    ----------
    name : list of str
        Unique.
    kind : ndarray of uint8, shape (G,)
        See `RuleKind`.
    enabled : ndarray of uint8, shape (G,)
        Whether it counts.
    vm_start : ndarray of int64, shape (G + 1,)
        The VMs of rule g are ``vm[vm_start[g]:vm_start[g + 1]]``, in ascending order.
    vm, host_start, host : ndarray of int64
        Likewise.
    """

    TABLE = "rules"
    ROW = "rule"
    COLUMNS: ClassVar = {
        "kind": Column("u1", highest=RuleKind.SHOULD_NOT_RUN),
        "enabled": Column("u1", default=1, highest=1),
    }

    kind: Bytes
    enabled: Bytes
    vm_start: Ints
    vm: Ints
    host_start: Ints
    host: Ints

    def __init__(
        self,
        name: Sequence[str] | int,
        *,
        vms: Sequence[Sequence[int] | Ints] = (),
        hosts: Sequence[Sequence[int] | Ints] = (),
        **columns: npt.ArrayLike,
    ) -> None:
        super().__init__(name, **columns)
        self.vm_start, self.vm = self._lists(vms, "vms")
        self.host_start, self.host = self._lists(hosts, "hosts")
        on_hosts = self.kind >= RuleKind.MUST_RUN
        counts = np.diff(self.vm_start)
        self._need(counts < np.where(on_hosts, 1, 2), "names too few VMs")
        empty = np.diff(self.host_start) == 0
        self._need(on_hosts & empty, "names no host")
        self._need(~on_hosts & ~empty, "is about VMs and must name no host")

    def __eq__(self, other: object) -> bool:
        return (
            super().__eq__(other) is True
            and isinstance(other, Rules)
            and all(
                np.array_equal(getattr(self, key), getattr(other, key))
                for key in ("vm_start", "vm", "host_start", "host")
            )
        )

    __hash__ = None

    def copy(self) -> Rules:
        """Give a table with copies of all columns."""
        made = super().copy()
        for key in ("vm_start", "vm", "host_start", "host"):
            setattr(made, key, getattr(self, key).copy())
        return made

    def vms_of(self, rule: int) -> Ints:
        """Give the VMs of a rule."""
        return self.vm[self.vm_start[rule] : self.vm_start[rule + 1]]

    def hosts_of(self, rule: int) -> Ints:
        """Give the hosts of a rule."""
        return self.host[self.host_start[rule] : self.host_start[rule + 1]]

    def _need(self, bad: npt.NDArray[np.bool_], what: str) -> None:
        if bad.any():
            row = int(bad.argmax())
            raise ClusterError(
                f"{self.where(row)}: a rule {RuleKind(self.kind[row]).name} {what}", "rules", row
            )

    def _lists(self, lists: Any, what: str) -> tuple[Ints, Ints]:
        rows = [np.asarray(one) for one in lists] or [np.empty(0, np.int64)] * len(self)
        if len(rows) != len(self):
            raise InvalidTypeError(
                f"{what} must have a list for each of {len(self)} rules, got {len(rows)}"
            )
        made = []
        for row, one in enumerate(rows):
            if one.ndim != 1 or (one.size and one.dtype.kind not in "iu"):
                raise InvalidTypeError(f"{self.where(row)}: {what} must be a list of row numbers")
            unique = np.unique(one.astype(np.int64))
            if unique.size != one.size:
                raise ClusterError(f"{self.where(row)}: {what} has a row twice", "rules", row)
            made.append(unique)
        start = np.zeros(len(self) + 1, dtype=np.int64)
        np.cumsum([one.size for one in made], out=start[1:])
        flat = np.concatenate(made) if made else np.empty(0, np.int64)
        return start, flat.astype(np.int64)
