"""Fault Tolerance: a secondary on another host that goes on where the primary stops.

Limits are documented ("Fault Tolerance Requirements, Limits, and Licensing", vSphere
Availability 6.7, page 50, and 8.0): 4 fault tolerant VMs and 8 of their vCPUs on a host, primaries
and secondaries together (``das.maxftvmsperhost``, ``das.maxftvcpusperhost``; 0: no limit), up to 8
vCPUs in a VM. Costs are models with recalled or chosen parameters, said at each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.checks import number, whole
from pyvirt.cluster.columns import ClusterError
from pyvirt.cluster.ha_whatif import reach_of
from pyvirt.cluster.model import Cluster
from pyvirt.cluster.tables import CPU, MEMORY, NONE, PAGE, HostState
from pyvirt.errors import InvalidValueError

__all__ = ["FTCost", "FaultTolerance", "Protection", "ft_cost", "protect"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FaultTolerance:
    """Limits, timings and costs.

    Attributes
    ----------
    vms_per_host, vcpus_per_host : int
        Primaries and secondaries on one host; 0: no limit.
    vcpus_per_vm : int
        Of one VM (2 or 8 by licence).
    mode : {"checkpoint", "lockstep"}
        Memory that changed is sent several times a second and output waits for it (since
        vSphere 6.0); or the secondary replays what came in (to 5.5, one vCPU).
    takeover_ns : int
        From the failure until the secondary goes on (our choice: 1 s).
    sync_mbps : int
        At which a new secondary gets its memory, megabits a second.
    headroom : float
        Factor on the logging bandwidth (1.2, for headers and timer events: recalled).
    epochs_s : float
        Checkpoints a second (our choice: 100); what is written twice in between is sent once.
    secondary_cpu : float
        Part of the primary's CPU that the secondary takes. None: 1 in lockstep, since it does
        the same work; 0.1 for checkpoints (our choice).
    """

    vms_per_host: int = 4
    vcpus_per_host: int = 8
    vcpus_per_vm: int = 8
    mode: Literal["checkpoint", "lockstep"] = "checkpoint"
    takeover_ns: int = 1_000_000_000
    sync_mbps: int = 10_000
    headroom: float = 1.2
    epochs_s: float = 100.0
    secondary_cpu: float | None = None

    def __post_init__(self) -> None:
        for name in ("vms_per_host", "vcpus_per_host", "takeover_ns"):
            whole(getattr(self, name), name, 0)
        whole(self.vcpus_per_vm, "vcpus_per_vm", 1)
        whole(self.sync_mbps, "sync_mbps", 1)
        number(self.headroom, "headroom", 1.0)
        number(self.epochs_s, "epochs_s", above=True)
        if self.secondary_cpu is not None:
            number(self.secondary_cpu, "secondary_cpu")
        if self.mode not in ("checkpoint", "lockstep"):
            raise InvalidValueError(
                f"mode must be 'checkpoint' or 'lockstep', got {self.mode!r:.80}"
            )

    def sync_ns(self, pages: int) -> int:
        """Give the time in which a new secondary has so much memory."""
        return -(-pages * PAGE * 8000 // self.sync_mbps)


@dataclass(frozen=True, slots=True)
class Protection:
    """Which VMs are fault tolerant, and where their secondaries are.

    Attributes
    ----------
    rules : FaultTolerance
    protected : ndarray of bool, shape (V,)
    secondary : ndarray of int64, shape (V,)
        Host; NONE for VMs that are not protected, or just have lost it.
    """

    rules: FaultTolerance
    protected: npt.NDArray[np.bool_] = field(repr=False)
    secondary: Ints = field(repr=False)

    def copy(self) -> Protection:
        """Give an independent one."""
        return Protection(self.rules, self.protected.copy(), self.secondary.copy())

    def reserved(self, need: Ints, hosts: int) -> Ints:
        """Sum up what secondaries reserve on each host; `need` is what VMs do, shape (2, V)."""
        there = np.flatnonzero(self.secondary != NONE)
        where = self.secondary[there]
        return np.stack(
            [np.bincount(where, weights=row[there], minlength=hosts) for row in need]
        ).astype(np.int64)

    def full(self, cluster: Cluster, vm: int) -> npt.NDArray[np.bool_]:
        """Say which hosts have no place for one more primary or secondary of a VM's size."""
        hosts = len(cluster.hosts)
        count, vcpus = np.zeros(hosts, np.int64), np.zeros(hosts, np.int64)
        for where in (np.where(cluster.vms.on == 1, cluster.vms.host, NONE), self.secondary):
            there = np.flatnonzero(self.protected & (where != NONE))
            # the VM itself is not in the way of where it goes
            there = there[there != vm]
            np.add.at(count, where[there], 1)
            np.add.at(vcpus, where[there], cluster.vms.vcpus[there])
        rules = self.rules
        full = np.zeros(hosts, bool)
        if rules.vms_per_host:
            full |= count + 1 > rules.vms_per_host
        if rules.vcpus_per_host:
            full |= vcpus + cluster.vms.vcpus[vm] > rules.vcpus_per_host
        return full


def protect(
    cluster: Cluster, vms: Sequence[int], rules: FaultTolerance | None = None
) -> Protection:
    """Make VMs fault tolerant: choose a host for each secondary.

    Parameters
    ----------
    cluster : Cluster
        Memory of protected VMs is reserved in full, which this changes: FT does so (recalled).
    vms : sequence of int
        VMs that are on, in the order in which they are protected.
    rules : FaultTolerance, optional

    Returns
    -------
    Protection
        Each secondary on the host with the most unreserved capacity that may run the VM, has
        the reservation free and keeps the limits.

    Raises
    ------
    ClusterError
        A VM that is off or too large, or whose host or secondary would exceed a limit.
    """
    from pyvirt.cluster.kernels.restart import choose

    rules = rules or FaultTolerance()
    table, hosts = cluster.vms, cluster.hosts
    made = Protection(rules, np.zeros(len(table), bool), np.full(len(table), NONE, np.int64))
    chosen = [whole(vm, f"vms[{row}]", 0, len(table) - 1) for row, vm in enumerate(vms)]
    most = 1 if rules.mode == "lockstep" else rules.vcpus_per_vm
    reservation = table.reservation.copy()
    for vm in chosen:
        if not table.on[vm] or table.host[vm] == NONE:
            raise ClusterError(f"{table.where(vm)}: must be on to be fault tolerant", "vms", vm)
        if table.vcpus[vm] > most:
            raise ClusterError(
                f"{table.where(vm)}: has {table.vcpus[vm]} vCPUs, {most} may be fault tolerant",
                "vms",
                vm,
            )
        reservation[MEMORY, vm] = max(reservation[MEMORY, vm], table.memory[vm])
    original, table.reservation = table.reservation, reservation
    try:
        reach = reach_of(cluster, True)
        kept = np.zeros(len(hosts), np.uint8)
        for vm in chosen:
            full = made.full(cluster, vm)
            host = int(table.host[vm])
            if full[host]:
                raise ClusterError(
                    f"{table.where(vm)}: {hosts.where(host)} may not have one more fault tolerant "
                    f"VM of {table.vcpus[vm]} vCPUs",
                    "vms",
                    vm,
                )
            made.protected[vm] = True
            free = reach.free() - made.reserved(reach.arrays.need, len(hosts))
            up = ((hosts.state == HostState.ON) & ~full).astype(np.uint8)
            up[host] = 0
            at = choose(reach.arrays, vm, table.host, free, hosts.capacity, kept, up, False)
            if at < 0:
                raise ClusterError(
                    f"{table.where(vm)}: no other host can have its secondary", "vms", vm
                )
            made.secondary[vm] = at
    except ClusterError:
        table.reservation = original
        raise
    return made


@dataclass(frozen=True, slots=True)
class FTCost:
    """What protecting a VM costs.

    Attributes
    ----------
    logging_mbps : float
        From the primary's to the secondary's host, megabits a second.
    secondary_khz : float
        CPU of the secondary.
    memory_pages : int
        Of the secondary, with overhead.
    output_delay_ns : int
        How long what the guest sends waits on average; checkpoints only.
    """

    logging_mbps: float
    secondary_khz: float
    memory_pages: int
    output_delay_ns: int


def ft_cost(
    cluster: Cluster,
    vm: int,
    rules: FaultTolerance | None = None,
    *,
    disk_read_mb_s: float = 0.0,
    network_in_mbps: float = 0.0,
) -> FTCost:
    """Estimate what protecting a VM costs.

    In lockstep what comes in is logged: (disk reads in MB/s * 8 + network input in Mbit/s) * 1.2
    (VMware's rule of thumb for vSphere 4 and 5: recalled). With checkpoints the pages written in
    each epoch are sent, once each; a VM without a working set writes to any page.

    Parameters
    ----------
    cluster : Cluster
        Demand, dirty rate and working set of the VM.
    vm : int
    rules : FaultTolerance, optional
    disk_read_mb_s, network_in_mbps : float
        Megabytes and megabits (10**6) a second.

    Returns
    -------
    FTCost
    """
    rules = rules or FaultTolerance()
    table = cluster.vms
    vm = whole(vm, "vm", 0, len(table) - 1)
    incoming = number(disk_read_mb_s, "disk_read_mb_s") * 8
    incoming += number(network_in_mbps, "network_in_mbps")
    part = rules.secondary_cpu
    memory = int(table.memory[vm] + table.overhead[vm])
    demand = float(table.demand[CPU, vm])
    if rules.mode == "lockstep":
        return FTCost(
            incoming * rules.headroom, demand * (1.0 if part is None else part), memory, 0
        )
    each = min(
        table.dirty_pages_s[vm] / rules.epochs_s,
        float(table.working_set[vm] or table.memory[vm]),
    )
    bits = each * PAGE * 8 * rules.epochs_s / 1e6
    # output of an epoch waits for its end, half an epoch on average, and for what it sends
    sending = each * PAGE * 8 / (rules.sync_mbps * 1e6)
    delay = round((0.5 / rules.epochs_s + sending) * 1e9)
    part = 0.1 if part is None else part
    return FTCost(bits * rules.headroom, demand * part, memory, delay)
