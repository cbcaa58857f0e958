"""Hosts, virtual machines, resource pools and rules, as a user describes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.spec.base import Spec, _field, count, flag, frequency, names, parts, share, size, time

__all__ = ["RULES", "ClusterSpec", "HostSpec", "PoolSpec", "RuleSpec", "VMSpec"]

RULES = ("together", "separate", "must-run", "should-run", "must-not-run", "should-not-run")
STATES = ("on", "standby", "maintenance", "failed")
RESTARTS = ("lowest", "low", "medium", "high", "highest")
AUTOMATIONS = ("manual", "partial", "full", "disabled")


def one_of(default: str | None, choices: tuple[str, ...]) -> Any:
    """A field that is one of some words."""

    def parse(value: Any, what: str) -> str:
        if value not in choices:
            raise InvalidValueError(
                f"{what} must be one of {', '.join(choices)}, got {value!r:.80}"
            )
        return str(value)

    return _field(default, parse, None, None, False)


def watts() -> Any:
    """A field of eleven numbers: watts at 0, 10, ... 100 % of a host's CPU; or none."""

    def parse(value: Any, what: str) -> tuple[float, ...]:
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            raise InvalidTypeError(f"{what} must be 11 numbers of watts, not {value!r:.80}")
        made = tuple(float(one) for one in value)
        if len(made) not in (0, 11) or not all(0 <= one < float("inf") for one in made):
            raise InvalidValueError(f"{what} must be 11 numbers of watts, got {made!r:.80}")
        return made

    return _field((), parse, None, None, False)


@dataclass(frozen=True, slots=True)
class HostSpec(Spec):
    """A host.

    Attributes
    ----------
    name : str
        Unique in its cluster.
    cpus : int
        Logical CPUs.
    mhz : float
        Of each core; or text as ``"2.6GHz"``.
    memory : int
        Bytes; or text as ``"64GiB"``.
    threads_per_core : int
        Two with simultaneous multithreading.
    memory_for_host : int
        Bytes of it that the hypervisor keeps.
    state : {"on", "standby", "maintenance", "failed"}
        What it is doing.
    features, datastores, networks : tuple of str
        CPU features that it offers, and what it reaches.
    power_w : tuple of float
        Watts at 0, 10, ... 100 % of its CPU; empty where that is not known.
    standby_ns : int
        How long it takes to come out of standby.
    link_mbps : int
        Megabits a second for migrations.
    """

    WHAT: ClassVar[str] = "host"

    name: str
    cpus: int = count(1, least=1, most=4096)
    mhz: float = frequency(1000.0, least=1)
    memory: int = size(0)
    threads_per_core: int = count(1, least=1, most=8)
    memory_for_host: int = size(0)
    state: str = one_of("on", STATES)
    features: tuple[str, ...] = names()
    datastores: tuple[str, ...] = names()
    networks: tuple[str, ...] = names()
    power_w: tuple[float, ...] = watts()
    standby_ns: int = time(180 * 10**9)
    link_mbps: int = count(10_000, least=1)

    def check(self, whose: str) -> None:
        """Check that threads make whole cores, and that memory is left for VMs."""
        if self.cpus % self.threads_per_core:
            raise InvalidValueError(
                f"cpus of {whose} must be a multiple of {self.threads_per_core} threads a core, "
                f"got {self.cpus}"
            )
        if self.memory_for_host > self.memory:
            raise InvalidValueError(
                f"memory_for_host of {whose} must not exceed its memory of {self.memory}, "
                f"got {self.memory_for_host}"
            )

    @property
    def cores(self) -> int:
        """Physical cores."""
        return self.cpus // self.threads_per_core


@dataclass(frozen=True, slots=True)
class VMSpec(Spec):
    """A virtual machine.

    Attributes
    ----------
    name : str
        Unique in its cluster.
    vcpus : int
        Virtual CPUs.
    memory : int
        Configured bytes; or text as ``"4GiB"``.
    cpu, mem : int or {"low", "normal", "high"}
        Shares.
    cpu_reservation, cpu_limit : float
        MHz; a limit of None is none.
    memory_reservation, memory_limit : int
        Bytes.
    cpu_demand : float
        MHz that it could use now.
    memory_active, memory_consumed : int
        Bytes that it touched of late, and that its host backs.
    memory_overhead : int
        Bytes that its VMM needs.
    host, pool : str
        Where it is; empty: to be placed, and the cluster itself.
    power_on : bool
        Whether it runs.
    features, datastores, networks : tuple of str
        What its host must offer and reach.
    restart : {"lowest", "low", "medium", "high", "highest"}
        Its priority for HA.
    automation : {"manual", "partial", "full", "disabled"}
        What DRS may do with it.
    dirty_rate : int
        Bytes that it writes a second.
    working_set : int
        Bytes among which it writes.
    """

    WHAT: ClassVar[str] = "VM"

    name: str
    vcpus: int = count(1, least=1, most=4096)
    memory: int = size(0)
    cpu: int | str = share()
    mem: int | str = share()
    cpu_reservation: float = frequency(0.0)
    cpu_limit: float | None = frequency(None, optional=True)
    memory_reservation: int = size(0)
    memory_limit: int | None = size(None, optional=True)
    cpu_demand: float = frequency(0.0)
    memory_active: int = size(0)
    memory_consumed: int = size(0)
    memory_overhead: int = size(0)
    host: str = ""
    pool: str = ""
    power_on: bool = flag(True)
    features: tuple[str, ...] = names()
    datastores: tuple[str, ...] = names()
    networks: tuple[str, ...] = names()
    restart: str = one_of("medium", RESTARTS)
    automation: str = one_of("full", AUTOMATIONS)
    dirty_rate: int = size(0)
    working_set: int = size(0)

    def check(self, whose: str) -> None:
        """Check that reservations are within limits."""
        _check_limits(self, whose)


@dataclass(frozen=True, slots=True)
class PoolSpec(Spec):
    """A resource pool.

    Attributes
    ----------
    name : str
        Unique in its cluster.
    parent : str
        The pool that it is in; empty: the cluster.
    cpu, mem : int or {"low", "normal", "high"}
        Shares.
    cpu_reservation, cpu_limit : float
        MHz.
    memory_reservation, memory_limit : int
        Bytes.
    cpu_expandable, memory_expandable : bool
        Whether its children's reservations may come from its parent.
    """

    WHAT: ClassVar[str] = "pool"

    name: str
    parent: str = ""
    cpu: int | str = share()
    mem: int | str = share()
    cpu_reservation: float = frequency(0.0)
    cpu_limit: float | None = frequency(None, optional=True)
    memory_reservation: int = size(0)
    memory_limit: int | None = size(None, optional=True)
    cpu_expandable: bool = flag(True)
    memory_expandable: bool = flag(True)

    def check(self, whose: str) -> None:
        """Check that reservations are within limits."""
        _check_limits(self, whose)


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

    name: str
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
    """

    WHAT: ClassVar[str] = "cluster"

    name: str = "cluster"
    hosts: tuple[HostSpec, ...] = parts(HostSpec)
    vms: tuple[VMSpec, ...] = parts(VMSpec)
    pools: tuple[PoolSpec, ...] = parts(PoolSpec)
    rules: tuple[RuleSpec, ...] = parts(RuleSpec)

    def check(self, whose: str) -> None:
        """Check that all that is named is there."""
        hosts = {host.name for host in self.hosts}
        vms = {vm.name for vm in self.vms}
        pools: set[str] = set()
        for pool in self.pools:
            _known(pool.parent, pools, f"parent of pool {pool.name!r:.80}", "a pool before it")
            pools.add(pool.name)
        for vm in self.vms:
            _known(vm.host, hosts, f"host of VM {vm.name!r:.80}", "a host")
            _known(vm.pool, pools, f"pool of VM {vm.name!r:.80}", "a pool")
        for rule in self.rules:
            for one in rule.vms:
                _known(one, vms, f"each of vms of rule {rule.name!r:.80}", "a VM")
            for one in rule.hosts:
                _known(one, hosts, f"each of hosts of rule {rule.name!r:.80}", "a host")


def _known(name: str, names: set[str], what: str, kind: str) -> None:
    if name and name not in names:
        raise InvalidValueError(f"{what} must name {kind} of the cluster, got {name!r:.80}")


def _check_limits(spec: VMSpec | PoolSpec, whose: str) -> None:
    for resource in ("cpu", "memory"):
        reservation = getattr(spec, f"{resource}_reservation")
        limit = getattr(spec, f"{resource}_limit")
        if limit is not None and reservation > limit:
            raise InvalidValueError(
                f"{resource}_reservation of {whose} must not exceed {resource}_limit, "
                f"got {reservation:g} > {limit:g}"
            )
