"""Clusters: hosts, virtual machines, pools, rules, storage and networks together."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import ClassVar

from pyvirt.spec.base import Spec
from pyvirt.spec.fields import flag, label, names, one_of, parts, refuse, text
from pyvirt.spec.host import STATES, HostSpec
from pyvirt.spec.storage import ArraySpec, DatastoreSpec, NetworkSpec, SwitchSpec
from pyvirt.spec.vm import AUTOMATIONS, RESTARTS, PoolSpec, VMSpec

__all__ = ["AUTOMATIONS", "RESTARTS", "RULES", "STATES", "ClusterSpec", "RuleSpec"]

RULES = ("together", "separate", "must-run", "should-run", "must-not-run", "should-not-run")


@dataclass(frozen=True, slots=True)
class RuleSpec(Spec):
    """A rule of affinity.

    Attributes
    ----------
    name : str
        Unique in its cluster.
    kind : str
        One of `RULES`.
    vms, hosts : tuple of str
        Names; hosts for the kinds that end in "run".
    enabled : bool
        Whether it counts.
    """

    WHAT: ClassVar[str] = "rule"

    name: str = label()
    kind: str = one_of(None, RULES)
    vms: tuple[str, ...] = names()
    hosts: tuple[str, ...] = names()
    enabled: bool = flag(True)


@dataclass(frozen=True, slots=True)
class ClusterSpec(Spec):
    """A cluster: what `pyvirt.Cluster.from_spec` takes.

    Attributes
    ----------
    name : str
        For reports.
    hosts, vms, pools, rules : tuple
        Of `HostSpec`, `VMSpec`, `PoolSpec` and `RuleSpec`; a pool stands after its parent, an older
        rule before a newer.
    datastores, arrays : tuple
        Of `DatastoreSpec` and `ArraySpec`. Without any datastore those that hosts and VMs name
        are no more than names; with one, all that are named must be there.
    networks, switches : tuple
        Of `NetworkSpec` and `SwitchSpec`; likewise.
    """

    WHAT: ClassVar[str] = "cluster"
    FILED: ClassVar[bool] = True

    name: str = text("cluster")
    hosts: tuple[HostSpec, ...] = parts(HostSpec)
    vms: tuple[VMSpec, ...] = parts(VMSpec)
    pools: tuple[PoolSpec, ...] = parts(PoolSpec)
    rules: tuple[RuleSpec, ...] = parts(RuleSpec)
    datastores: tuple[DatastoreSpec, ...] = parts(DatastoreSpec)
    arrays: tuple[ArraySpec, ...] = parts(ArraySpec)
    networks: tuple[NetworkSpec, ...] = parts(NetworkSpec)
    switches: tuple[SwitchSpec, ...] = parts(SwitchSpec)

    @property
    def reached(self) -> frozenset[str]:
        """Datastores that any host names; others are in reach of all."""
        return frozenset(name for host in self.hosts for name in host.datastores)

    def check(self, whose: str) -> None:
        """Check that all that is named is there."""
        hosts = {host.name for host in self.hosts}
        vms = {vm.name for vm in self.vms}
        pools: set[str] = set()
        for at, pool in enumerate(self.pools):
            _known(pool.parent, pools, "a pool before it", ("pools", at, "parent"), pool)
            pools.add(pool.name)
        for at, vm in enumerate(self.vms):
            _known(vm.host, hosts, "a host", ("vms", at, "host"), vm)
            _known(vm.pool, pools, "a pool", ("vms", at, "pool"), vm)
        for at, rule in enumerate(self.rules):
            for which, known, kind in (("vms", vms, "a VM"), ("hosts", hosts, "a host")):
                for i, one in enumerate(getattr(rule, which)):
                    _known(one, known, kind, ("rules", at, which, i), rule)
        self._check_storage()
        self._check_networks(hosts)

    def _check_storage(self) -> None:
        arrays = {array.name: array for array in self.arrays}
        for at, store in enumerate(self.datastores):
            _known(store.array, arrays, "an array", ("datastores", at, "array"), store)
            if store.array and store.processor >= arrays[store.array].processors:
                refuse(
                    f"processor of datastore {store.name!r:.80} must be below the "
                    f"{arrays[store.array].processors} of array {store.array!r:.80}, "
                    f"got {store.processor}",
                    *("datastores", at, "processor"),
                )
        if not self.datastores:
            return
        stores = {store.name for store in self.datastores}
        self._check_reach("datastores", stores, "a datastore")
        for at, vm in enumerate(self.vms):
            for i, disk in enumerate(vm.disks):
                place = ("vms", at, "disks", i, "datastore")
                _known(disk.datastore, stores, "a datastore", place, disk)

    def _check_networks(self, hosts: Container[str]) -> None:
        switches = {switch.name for switch in self.switches}
        for at, switch in enumerate(self.switches):
            _known(switch.host, hosts, "a host", ("switches", at, "host"), switch)
            nics = {
                adapter.name
                for host in self.hosts
                if switch.host in ("", host.name)
                for adapter in host.adapters
                if adapter.kind == "nic"
            }
            for which in ("uplinks", "standby"):
                for i, one in enumerate(getattr(switch, which)):
                    path = ("switches", at, which, i)
                    _known(one, nics, "a NIC of a host", path, switch)
        for at, network in enumerate(self.networks):
            _known(network.switch, switches, "a switch", ("networks", at, "switch"), network)
        if not self.networks:
            return
        networks = {network.name for network in self.networks}
        self._check_reach("networks", networks, "a network")
        for at, vm in enumerate(self.vms):
            for i, nic in enumerate(vm.nics):
                place = ("vms", at, "nics", i, "network")
                _known(nic.network, networks, "a network", place, nic)

    def _check_reach(self, field: str, known: Container[str], kind: str) -> None:
        specs: tuple[tuple[str, tuple[HostSpec | VMSpec, ...]], ...]
        specs = (("hosts", self.hosts), ("vms", self.vms))
        for where, those in specs:
            for at, one in enumerate(those):
                for i, each in enumerate(getattr(one, field)):
                    _known(each, known, kind, (where, at, field, i), one)


def _known(
    given: str, known: Container[str], kind: str, path: tuple[str | int, ...], spec: Spec
) -> None:
    """Check that what is named is there; an empty name names nothing."""
    if not given or given in known:
        return
    field = path[-1] if isinstance(path[-1], str) else f"each of {path[-2]}"
    whose = f"{spec.WHAT} {getattr(spec, 'name', '')!r:.80}"
    refuse(f"{field} of {whose} must name {kind} of the cluster, got {given!r:.80}", *path)
