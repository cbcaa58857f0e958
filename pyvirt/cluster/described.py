"""From a description of a cluster to its tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.entitle import memory_demand
from pyvirt.cluster.tables import NONE, PAGE, UNLIMITED, Hosts, Pools, Rules, VMs
from pyvirt.entitlement.pools import Shares
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.spec import ClusterSpec, PoolSpec, VMSpec
from pyvirt.spec.cluster import AUTOMATIONS, RESTARTS, RULES, STATES

__all__ = ["claims_of", "from_spec", "masks_of", "store_numbers"]

MIB = 2**20


def from_spec(spec: ClusterSpec) -> dict[str, Any]:
    """Give the arguments that `Cluster` is made of."""
    if not isinstance(spec, ClusterSpec):
        raise InvalidTypeError(f"spec must be a ClusterSpec, not {spec!r:.80}")
    bits = {
        "features": _numbers((*spec.hosts, *spec.vms), "features"),
        "datastores": store_numbers(spec),
        "networks": _numbers((*spec.hosts, *spec.vms), "networks"),
    }
    if len(bits["features"]) > 64:
        raise InvalidValueError(
            f"features must be at most 64 in a cluster, got {len(bits['features'])}"
        )
    powers = dict.fromkeys(host.power_w for host in spec.hosts)
    rows = {power: row for row, power in enumerate(powers)}
    return {
        "hosts": _hosts(spec, bits, rows),
        "vms": _vms(spec, bits),
        "pools": _pools(spec),
        "rules": _rules(spec),
        "power_tables": [power or (0.0,) * 11 for power in powers] or None,
        "name": spec.name,
    }


def _hosts(spec: ClusterSpec, bits: dict[str, dict[str, int]], rows: dict[Any, int]) -> Hosts:
    hosts = spec.hosts
    return Hosts(
        [host.name for host in hosts],
        capacity=_pair(
            [host.cores * host.mhz * 1000 for host in hosts],
            [(host.memory - host.memory_for_host) // PAGE for host in hosts],
        ),
        cores=_column(host.cores for host in hosts),
        core_khz=_column(round(host.mhz * 1000) for host in hosts),
        state=_column(STATES.index(host.state) for host in hosts),
        power=_column(rows[host.power_w] for host in hosts),
        standby_ns=_column(host.standby_ns for host in hosts),
        link_mbps=_column(host.link_mbps for host in hosts),
        features=_masks(hosts, "features", bits)[:, 0],
        datastores=_masks(hosts, "datastores", bits),
        networks=_masks(hosts, "networks", bits),
    )


def _vms(spec: ClusterSpec, bits: dict[str, dict[str, int]]) -> VMs:
    vms = spec.vms
    host = {each.name: row for row, each in enumerate(spec.hosts)}
    pool = {each.name: row for row, each in enumerate(spec.pools)}
    reached = spec.reached
    active = _column(vm.memory_active // PAGE for vm in vms)
    consumed = _column(vm.memory_consumed // PAGE for vm in vms)
    return VMs(
        [vm.name for vm in vms],
        host=_column(host.get(vm.host, NONE) for vm in vms),
        on=_column(vm.power_on for vm in vms),
        pool=_column(pool.get(vm.pool, NONE) for vm in vms),
        vcpus=_column(vm.vcpus for vm in vms),
        memory=_column(vm.memory // PAGE for vm in vms),
        demand=np.stack(
            [_column(round(vm.cpu_demand * 1000) for vm in vms), memory_demand(active, consumed)]
        ),
        overhead=_column(-(-vm.memory_overhead // PAGE) for vm in vms),
        active=active,
        consumed=consumed,
        dirty_pages_s=np.array([vm.dirty_rate / PAGE for vm in vms], dtype=np.float64),
        working_set=_column(vm.working_set // PAGE for vm in vms),
        restart=_column(RESTARTS.index(vm.restart) for vm in vms),
        automation=_column(AUTOMATIONS.index(vm.automation) for vm in vms),
        features=_masks(vms, "features", bits)[:, 0],
        datastores=masks_of([vm.stores(reached) for vm in vms], bits["datastores"]),
        networks=_masks(vms, "networks", bits),
        **claims_of(vms),
    )


def _pools(spec: ClusterSpec) -> Pools:
    pools = spec.pools
    row = {each.name: at for at, each in enumerate(pools)}
    return Pools(
        [pool.name for pool in pools],
        parent=_column(row.get(pool.parent, NONE) for pool in pools),
        expandable=_pair(
            [pool.cpu_expandable for pool in pools], [pool.memory_expandable for pool in pools]
        ),
        **claims_of(pools),
    )


def _rules(spec: ClusterSpec) -> Rules:
    host = {each.name: row for row, each in enumerate(spec.hosts)}
    vm = {each.name: row for row, each in enumerate(spec.vms)}
    return Rules(
        [rule.name for rule in spec.rules],
        kind=_column(RULES.index(rule.kind) for rule in spec.rules),
        enabled=_column(rule.enabled for rule in spec.rules),
        vms=[_column(vm[name] for name in rule.vms) for rule in spec.rules],
        hosts=[_column(host[name] for name in rule.hosts) for rule in spec.rules],
    )


def claims_of(specs: Sequence[VMSpec] | Sequence[PoolSpec]) -> dict[str, Any]:
    """Give columns of shares, reservations and limits: kHz and pages."""

    def limits(values: Iterable[float | None], factor: float) -> list[float]:
        return [UNLIMITED if value is None else value * factor for value in values]

    # a pool counts as a VM of 4 vCPUs and 16 GB (vSphere Resource Management)
    sizes = [
        (one.vcpus, one.memory / MIB) if isinstance(one, VMSpec) else (4, 16384) for one in specs
    ]
    return {
        "shares": _pair(
            [_shares(one.cpu, "cpu", size[0]) for one, size in zip(specs, sizes, strict=True)],
            [_shares(one.mem, "memory", size[1]) for one, size in zip(specs, sizes, strict=True)],
        ),
        "reservation": _pair(
            [one.cpu_reservation * 1000 for one in specs],
            [one.memory_reservation / PAGE for one in specs],
        ),
        "limit": _pair(
            limits((one.cpu_limit for one in specs), 1000),
            limits((one.memory_limit for one in specs), 1 / PAGE),
        ),
    }


def _shares(value: int | str, resource: Any, size: float) -> int:
    return round(Shares(value).number(resource, size)) if isinstance(value, str) else value


def _column(values: Iterable[int]) -> npt.NDArray[np.int64]:
    return np.fromiter(values, dtype=np.int64)


def _pair(cpu: Sequence[float], memory: Sequence[float]) -> npt.NDArray[np.int64]:
    return np.rint(np.array([cpu, memory], dtype=np.float64)).astype(np.int64)


def store_numbers(spec: ClusterSpec) -> dict[str, int]:
    """Number the datastores of a cluster as the bits of its tables do."""
    return _numbers((*spec.hosts, *spec.vms), "datastores")


def _numbers(specs: Iterable[Any], field: str) -> dict[str, int]:
    """Number the names that hosts and VMs use, in the order in which they come."""
    seen = dict.fromkeys(name for spec in specs for name in getattr(spec, field))
    return {name: number for number, name in enumerate(seen)}


def _masks(
    specs: Sequence[Any], field: str, bits: dict[str, dict[str, int]]
) -> npt.NDArray[np.uint64]:
    return masks_of([getattr(spec, field) for spec in specs], bits[field])


def masks_of(names: Sequence[Sequence[str]], numbers: dict[str, int]) -> npt.NDArray[np.uint64]:
    """Give a row of bits for each list of names."""
    masks = np.zeros((len(names), max(1, -(-len(numbers) // 64))), dtype=np.uint64)
    for row, mine in enumerate(names):
        for name in mine:
            word, bit = divmod(numbers[name], 64)
            masks[row, word] |= np.uint64(1 << bit)
    return masks
