"""The paths of a described cluster: from hosts' adapters to datastores and networks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.cluster import Cluster, StorageLoss
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.machine.paths.codes import ArrayKind, DeviceState, PathEvent, PathPolicy
from pyvirt.machine.paths.engine import PathEngine
from pyvirt.machine.paths.topology import Topology
from pyvirt.spec import ClusterSpec, HostSpec
from pyvirt.spec.events import FAULTS, FaultSpec
from pyvirt.spec.storage import ArraySpec, DatastoreSpec, SwitchSpec

__all__ = ["PATH_FAULTS", "Site"]

KINDS = {
    "active-active": ArrayKind.ACTIVE_ACTIVE,
    "active-passive": ArrayKind.ACTIVE_PASSIVE,
    "alua": ArrayKind.ALUA,
}
POLICIES = {
    "fixed": PathPolicy.FIXED,
    "mru": PathPolicy.MRU,
    "round-robin": PathPolicy.ROUND_ROBIN,
    "port-id": PathPolicy.PORT_ID,
    "mac-hash": PathPolicy.MAC_HASH,
    "ip-hash": PathPolicy.IP_HASH,
    "explicit": PathPolicy.EXPLICIT,
    "load-based": PathPolicy.LOAD_BASED,
}

#: The kinds of `pyvirt.spec.events.FAULTS` that happen to paths, and the components that they hit.
PATH_FAULTS = {
    "adapter": "adapter",
    "cable": "cable",
    "fabric": "fabric",
    "processor": "processor",
    "array": "array",
    "all-paths-down": "access",
    "device-lost": "",
}

_UNBOUNDED = 2**31 - 1


class Site:
    """What a `ClusterSpec` says of storage and networks, as a plan, with its names.

    A host has a path to a datastore for each of its adapters of the right kind (HBAs for VMFS, NICs
    for NFS) and each processor of the array: adapter, cable, fabric, processor, access (the zoning
    and masking of this host and datastore) and array. Of a host without such adapters it begins at
    the fabric. A datastore without an array, or a local one, is one path that takes no time but
    what requests bring along.

    Parameters
    ----------
    spec : ClusterSpec

    Attributes
    ----------
    plan : Topology
    hosts, datastores : list of str
        Names; datastores are those that hosts and VMs name, in the order of `Cluster.from_spec`.
    device : ndarray of int64, shape (H, D)
        The device of a host and a datastore; -1: it is not to reach it.
    volume : ndarray of int64, shape (D,)
    team : dict of (str, str) to int
        The team of a host and a switch that has uplinks there.
    port : dict of (str, str) to int
        The port of a VM and its NIC, on the switch of its network: the key of frames.

    Examples
    --------
    >>> from pyvirt.machine.paths import Site
    >>> from pyvirt.spec import AdapterSpec, ArraySpec, ClusterSpec, DatastoreSpec, HostSpec
    >>> hba = [AdapterSpec(f"vmhba{k}", "hba") for k in range(2)]
    >>> spec = ClusterSpec(
    ...     hosts=[HostSpec("h0", adapters=hba, datastores=["store"])],
    ...     arrays=[ArraySpec("san", "alua")],
    ...     datastores=[DatastoreSpec("store", array="san")],
    ... )
    >>> engine = Site(spec).engine()
    >>> [state.name for state in engine.path_states(0)]
    ['ACTIVE', 'UNOPTIMIZED', 'ACTIVE', 'UNOPTIMIZED']
    """

    def __init__(self, spec: ClusterSpec) -> None:
        if not isinstance(spec, ClusterSpec):
            raise InvalidTypeError(f"spec must be a ClusterSpec, not {spec!r:.80}")
        self.plan = Topology()
        self.hosts = [host.name for host in spec.hosts]
        named = (*(host.datastores for host in spec.hosts), *(vm.datastores for vm in spec.vms))
        self.datastores = list(dict.fromkeys(name for names in named for name in names))
        self.device = np.full((len(self.hosts), len(self.datastores)), -1, np.int64)
        known = {one.name: one for one in spec.datastores}
        specs = [known.get(name, DatastoreSpec(name)) for name in self.datastores]
        self.volume = np.array(
            [self.plan.volume(one.name, owner=one.processor) for one in specs], np.int64
        )
        self.team: dict[tuple[str, str], int] = {}
        self.port: dict[tuple[str, str], int] = {}
        self._arrays = {array.name: array for array in spec.arrays}
        for array in spec.arrays:
            self._array(array)
        for h, host in enumerate(spec.hosts):
            self._adapters(host)
            for d, store in enumerate(specs):
                if store.name in host.datastores:
                    self.device[h, d] = self._storage(host, store, d)
        self._networks(spec)

    def engine(self, **options: Any) -> PathEngine:
        """Make an engine of the plan; options are `PathEngine`'s."""
        return PathEngine(self.plan, **options)

    # --- the plan ---------------------------------------------------------------------------

    def _array(self, array: ArraySpec) -> None:
        for k in range(array.fabrics):
            self.plan.component(f"{array.name}/{k}", "fabric")
        for k in range(array.processors):
            self.plan.component(f"{array.name}/{k}", "processor")
        self.plan.component(
            array.name, "array", iops=array.iops, mbps=array.mbps, delay_ns=array.latency_ns
        )

    def _adapters(self, host: HostSpec) -> None:
        for one in host.adapters:
            self.plan.component(f"{host.name}/{one.name}", "adapter", mbps=one.mbps)
            self.plan.component(f"{host.name}/{one.name}", "cable")

    def _storage(self, host: HostSpec, store: DatastoreSpec, d: int) -> int:
        name = f"{host.name}/{store.name}"
        access = self.plan.component(name, "access")
        if store.kind == "local" or not store.array:
            disk = self.plan.component(name, "disk")
            volume = int(self.volume[d])
            return self.plan.device(name, [[access, disk]], volume=volume, depth=_UNBOUNDED)
        array = self._arrays[store.array]
        wanted = "nic" if store.kind == "nfs" else "hba"
        mine = [one for one in host.adapters if one.kind == wanted]
        if store.preferred and store.preferred not in [one.name for one in mine]:
            raise InvalidValueError(
                f"preferred of datastore {store.name!r} must be one of the {wanted}s of host "
                f"{host.name!r}: {', '.join(one.name for one in mine) or 'none'}; "
                f"got {store.preferred!r:.80}"
            )
        rows: list[list[int]] = []
        leads: list[int] = []
        preferred = None
        for k in range(max(1, len(mine))):
            begin = []
            if mine:
                adapter = f"{host.name}/{mine[k].name}"
                begin = [self.plan.find(kind, adapter) for kind in ("adapter", "cable")]
            begin.append(self.plan.find("fabric", f"{array.name}/{k % array.fabrics}"))
            for p in range(array.processors):
                if mine and mine[k].name == store.preferred and p == store.processor:
                    preferred = len(rows)
                processor = self.plan.find("processor", f"{array.name}/{p}")
                end = [processor, access, self.plan.find("array", array.name)]
                rows.append([*begin, *end])
                leads.append(p)
        return self.plan.device(
            name,
            rows,
            volume=int(self.volume[d]),
            processors=leads,
            kind=KINDS[array.kind],
            policy=POLICIES[store.path_policy] if store.path_policy else None,
            preferred=preferred,
            switch_ios=store.switch_after,
            depth=min([array.queue_depth, *(one.queue_depth for one in mine)]),
        )

    def _networks(self, spec: ClusterSpec) -> None:
        switch_of = {network.name: network.switch for network in spec.networks}
        ports = {switch.name: 0 for switch in spec.switches}
        for vm in spec.vms:
            for nic in vm.nics:
                where = switch_of.get(nic.network, "")
                if where:
                    self.port[vm.name, nic.name] = ports[where]
                    ports[where] += 1
        for switch in spec.switches:
            for host in spec.hosts:
                if switch.host in ("", host.name):
                    self._team(host, switch, ports[switch.name])

    def _team(self, host: HostSpec, switch: SwitchSpec, ports: int) -> None:
        nics = {one.name for one in host.adapters if one.kind == "nic"}
        active = [name for name in switch.uplinks if name in nics]
        standby = [name for name in switch.standby if name in nics]
        if not active and not standby:
            return
        rows = [
            [self.plan.find(kind, f"{host.name}/{name}") for kind in ("adapter", "cable")]
            for name in (*active, *standby)
        ]
        self.team[host.name, switch.name] = self.plan.team(
            f"{host.name}/{switch.name}",
            rows,
            # a team of standbys alone uses the first of them
            active=max(1, len(active)),
            policy=POLICIES[switch.teaming],
            failback=switch.failback,
            ports=max(1, ports),
            beacon=switch.detection == "beacon",
            detection_ns=switch.detect_ns,
        )

    # --- faults -----------------------------------------------------------------------------

    def fault(self, engine: PathEngine, fault: FaultSpec) -> bool:
        """Plan a fault, and its end.

        Returns
        -------
        bool
            False if it is none of `PATH_FAULTS`, which are others' business.

        Raises
        ------
        InvalidValueError
            A target that there is not.
        """
        if not isinstance(fault, FaultSpec):
            raise InvalidTypeError(f"fault must be a FaultSpec, not {fault!r:.80}")
        if fault.what not in PATH_FAULTS:
            return False
        if fault.what == "device-lost":
            for host, store in self._targets(fault):
                if host is None:
                    engine.lose(int(self.volume[store]), fault.at_ns)
                else:
                    engine.lose_device(int(self.device[host, store]), fault.at_ns)
            return True
        for part in self._components(fault):
            engine.fail(part, fault.at_ns)
            if fault.recover_after_ns is not None:
                engine.repair(part, fault.at_ns + fault.recover_after_ns)
        return True

    def _components(self, fault: FaultSpec) -> Iterable[int]:
        kind = PATH_FAULTS[fault.what]
        if fault.what != "all-paths-down":
            return [self._found(fault, kind, fault.target)]
        return [
            self.plan.find("access", f"{self.hosts[h]}/{self.datastores[store]}")
            for host, store in self._targets(fault)
            for h in (range(len(self.hosts)) if host is None else [host])
            if self.device[h, store] >= 0
        ]

    def _found(self, fault: FaultSpec, kind: str, name: str) -> int:
        try:
            return self.plan.find(kind, name)
        except InvalidValueError:
            raise self._unknown(fault) from None

    def _targets(self, fault: FaultSpec) -> list[tuple[int | None, int]]:
        """Find a datastore (host None), or a host's view of it; names may contain slashes."""
        if fault.target in self.datastores:
            return [(None, self.datastores.index(fault.target))]
        for h, host in enumerate(self.hosts):
            store = fault.target.removeprefix(f"{host}/")
            if store != fault.target and store in self.datastores:
                d = self.datastores.index(store)
                if self.device[h, d] >= 0:
                    return [(h, d)]
        raise self._unknown(fault)

    @staticmethod
    def _unknown(fault: FaultSpec) -> InvalidValueError:
        return InvalidValueError(
            f"target of a fault {fault.what!r} must be {FAULTS[fault.what]}, and be there, "
            f"got {fault.target!r:.80}"
        )

    # --- for clusters -----------------------------------------------------------------------

    def reach(self, engine: PathEngine) -> npt.NDArray[np.bool_]:
        """Say which hosts reach which datastores now, shape (H, D).

        A host reaches one as long as it does not know better: until the paths are seen dead.
        """
        states = np.append(engine.devices["state"], DeviceState.PDL)
        return states[self.device] == DeviceState.ON

    def words(self, engine: PathEngine) -> npt.NDArray[np.uint64]:
        """Give the same as the bits of `pyvirt.cluster.Hosts.datastores`."""
        reach = self.reach(engine)
        width = max(1, -(-reach.shape[1] // 64))
        bits = np.zeros((reach.shape[0], 64 * width), np.uint8)
        bits[:, : reach.shape[1]] = reach
        packed = np.packbits(bits, axis=1, bitorder="little").view("<u8")
        return packed.astype(np.uint64)

    def apply(self, engine: PathEngine, cluster: Cluster) -> None:
        """Write what hosts reach into a cluster, which `Cluster.from_spec` made.

        `Reach`, DRS, placement and vMotion then ask nothing of a host that does not reach what a
        VM is on.
        """
        if not isinstance(cluster, Cluster):
            raise InvalidTypeError(f"cluster must be a Cluster, not {cluster!r:.80}")
        if cluster.hosts.name != self.hosts:
            raise InvalidValueError("cluster must have the hosts of the description, in its order")
        cluster.hosts.datastores = self.words(engine)

    def losses(self, engine: PathEngine) -> list[StorageLoss]:
        """Give what hosts lost so far, as `pyvirt.cluster.recover` takes it.

        Returns
        -------
        list of StorageLoss
            In the order in which it began. Paths that are all down are a loss from when the host
            has seen it, so that ``HARules.apd_timeout_ns`` counts from there.
        """
        where = {int(self.device[h, d]): (h, d) for h, d in np.argwhere(self.device >= 0).tolist()}
        found: list[list[Any]] = []
        open_at: dict[int, int] = {}
        for row in engine.log:
            d, time = int(row["device"]), int(row["time"])
            if d not in where:
                continue
            if row["what"] in (PathEvent.APD_OVER, PathEvent.PDL) and d in open_at:
                found[open_at.pop(d)][3] = time
            if row["what"] == PathEvent.APD:
                open_at[d] = len(found)
                found.append([d, time, "APD", None])
            elif row["what"] == PathEvent.PDL:
                found.append([d, time, "PDL", None])
        return [StorageLoss(*_place(where[d], time), kind, end) for d, time, kind, end in found]


def _place(where: tuple[int, int], time: int) -> tuple[int, int, int]:
    return int(where[0]), time, int(where[1])
