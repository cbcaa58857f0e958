"""Scenarios: a cluster, what it does by itself, what happens to it, and for how long."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from pyvirt.spec.base import Spec
from pyvirt.spec.cluster import ClusterSpec
from pyvirt.spec.events import ACTIONS, FAULTS, EventSpec, FaultSpec
from pyvirt.spec.fields import count, one_of, part, parts, refuse, text, time
from pyvirt.spec.host import HYPERVISORS
from pyvirt.spec.policy import PolicySpec

__all__ = ["ScenarioSpec"]

SECOND = 10**9
MOST_SAMPLES = 10_000_000
#: How messages call what targets name.
WORDS = {
    "vm": "a VM",
    "host": "a host",
    "host, or empty": "a host",
    "pool": "a pool",
    "datastore": "a datastore",
    "array": "an array",
    "host/adapter": "an adapter, as host/adapter,",
    "array/fabric": "a fabric, as array/number,",
    "array/processor": "a storage processor, as array/number,",
    "host/datastore or datastore": "a datastore, or one of a host, as host/datastore,",
}


@dataclass(frozen=True, slots=True)
class ScenarioSpec(Spec):
    """A whole system, and what is to happen to it.

    Attributes
    ----------
    cluster : ClusterSpec
        Hosts, virtual machines with their workloads, storage and networks.
    duration_ns : int
        How long it runs.
    name : str
        For reports.
    policies : PolicySpec
        What the cluster does by itself.
    faults, events : tuple of FaultSpec, of EventSpec
        What fails, and what operators do; times from the start.
    step_ns : int
        How often hosts and cluster tell each other (20 s: the interval of vSphere's real-time
        statistics).
    sample_ns : int or None
        Time between samples, a multiple of the step; None: the step.
    warmup_ns : int
        What of the start is left out of means.
    mode : {"exact", "demand"}
        Whether hosts schedule their vCPUs to the nanosecond, or divide each step's CPU time by
        entitlement.
    hypervisor : {"esxi", "xen", "hyperv", "virtualbox", "kvm"} or None
        For all hosts; None: as each host says.
    seed : int
        Of all that is random.
    replications : int
        Runs with seeds of their own, for means with confidence intervals.
    """

    WHAT: ClassVar[str] = "scenario"

    cluster: ClusterSpec = part(ClusterSpec, optional=False)
    duration_ns: int = time(None, least=1)
    name: str = text("scenario")
    policies: PolicySpec = part(PolicySpec, default=PolicySpec(), optional=False)
    faults: tuple[FaultSpec, ...] = parts(FaultSpec, named=False)
    events: tuple[EventSpec, ...] = parts(EventSpec, named=False)
    step_ns: int = time(20 * SECOND, least=1)
    sample_ns: int | None = time(None, least=1, optional=True)
    warmup_ns: int = time(0)
    mode: str = one_of("exact", ("exact", "demand"))
    hypervisor: str | None = one_of(None, HYPERVISORS, optional=True)
    seed: int = count(0)
    replications: int = count(1, least=1, most=1_000_000)

    def check(self, whose: str) -> None:
        """Check times, and that all that happens is to something that is there."""
        if not self.cluster.hosts:
            refuse(f"hosts of {whose} must be one at least, got none", "cluster", "hosts")
        self._check_times(whose)
        known = _Known(self.cluster)
        for at, fault in enumerate(self.faults):
            what = f"target of {fault.WHAT} {fault.what!r} of {whose}"
            known.check(fault.target, FAULTS[fault.what], what, ("faults", at, "target"))
            self._check_within(fault.at_ns, fault.WHAT, whose, ("faults", at, "at_ns"))
        for at, event in enumerate(self.events):
            target, to = ACTIONS[event.what]
            what = f"{event.WHAT} {event.what!r} of {whose}"
            known.check(event.target, target, f"target of {what}", ("events", at, "target"))
            if event.to:
                known.check(event.to, to, f"to of {what}", ("events", at, "to"))
            self._check_within(event.at_ns, event.WHAT, whose, ("events", at, "at_ns"))
        if self.policies.ha is not None:
            for at, host in enumerate(self.policies.ha.failover_hosts):
                path = ("policies", "ha", "failover_hosts", at)
                known.check(host, "host", f"each of failover_hosts of {whose}", path)

    def under(self, hypervisor: str) -> ScenarioSpec:
        """Give the same system with another hypervisor on all hosts, and its default scheduler.

        Parameters
        ----------
        hypervisor : {"esxi", "xen", "hyperv", "virtualbox", "kvm"}
            Which.
        """
        hosts = [host.replace(hypervisor=hypervisor, scheduler=None) for host in self.cluster.hosts]
        return self.replace(cluster=self.cluster.replace(hosts=hosts), hypervisor=None)

    def _check_times(self, whose: str) -> None:
        if self.step_ns > self.duration_ns:
            refuse(
                f"step_ns of {whose} must not exceed duration_ns, {self.duration_ns}, "
                f"got {self.step_ns}",
                "step_ns",
            )
        if self.sample_ns is not None and self.sample_ns % self.step_ns:
            refuse(
                f"sample_ns of {whose} must be a multiple of step_ns, {self.step_ns}, "
                f"got {self.sample_ns}",
                "sample_ns",
            )
        if self.duration_ns // self.step_ns > MOST_SAMPLES:
            refuse(
                f"step_ns of {whose} must be at least a {MOST_SAMPLES:,}th of duration_ns, "
                f"{self.duration_ns}, got {self.step_ns}",
                "step_ns",
            )
        if self.warmup_ns >= self.duration_ns:
            refuse(
                f"warmup_ns of {whose} must be below duration_ns, {self.duration_ns}, "
                f"got {self.warmup_ns}",
                "warmup_ns",
            )
        for at, vm in enumerate(self.cluster.vms):
            self._check_within(
                vm.start_ns, f"VM {vm.name!r:.80}", whose, ("cluster", "vms", at, "start_ns")
            )

    def _check_within(self, at: int, what: str, whose: str, path: tuple[str | int, ...]) -> None:
        if at > self.duration_ns:
            refuse(
                f"{path[-1]} of {what} of {whose} must be within duration_ns, "
                f"{self.duration_ns}, got {at}",
                *path,
            )


class _Known:
    """What targets may name, by the words of `FAULTS` and `ACTIONS`."""

    def __init__(self, cluster: ClusterSpec) -> None:
        hosts, arrays = cluster.hosts, cluster.arrays
        self.names: dict[str, Collection[str]] = {
            "vm": {vm.name for vm in cluster.vms},
            "pool": {pool.name for pool in cluster.pools},
            "host": {host.name for host in hosts},
            "host/adapter": {f"{host.name}/{one.name}" for host in hosts for one in host.adapters},
            "array": {array.name for array in arrays},
            "array/fabric": {f"{one.name}/{i}" for one in arrays for i in range(one.fabrics)},
            "array/processor": {f"{one.name}/{i}" for one in arrays for i in range(one.processors)},
            "datastore": {store.name for store in cluster.datastores}
            | {name for host in hosts for name in host.datastores},
            "host/datastore": {f"{host.name}/{name}" for host in hosts for name in host.datastores},
        }

    def check(self, target: str, kind: str, what: str, path: tuple[str | int, ...]) -> None:
        """Check that a target is there: of one kind, or of one of several."""
        kinds = kind.removesuffix(", or empty").split(" or ")
        if kind != "snapshot" and not any(target in self.names[one] for one in kinds):
            refuse(
                f"{what} must name {WORDS.get(kind, kind)} of the cluster, got {target!r:.80}",
                *path,
            )
