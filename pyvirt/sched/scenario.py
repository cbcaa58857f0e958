"""A host, its virtual machines and how long they run, as a TOML file describes them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyvirt.entitlement.pools import Shares
from pyvirt.errors import AdmissionError, InvalidValueError, PyvirtError
from pyvirt.sched import workloads
from pyvirt.sched.fields import Fields
from pyvirt.sched.numa import Numa
from pyvirt.sched.numa_fields import check_nodes, read_numa
from pyvirt.sched.policy_options import (
    WEIGHTS_ONLY,
    check_policy,
    make_policy,
    read_policy,
    read_vm_params,
    reserved,
    takes_numa,
    takes_pools,
    vm_params,
)
from pyvirt.sched.pool_fields import ScenarioPool, admit_all, cpu_time, read_pools
from pyvirt.sched.recording import Sink, run_recorded
from pyvirt.sched.scheduler import Scheduler
from pyvirt.sched.series import Series, sample
from pyvirt.sched.topology import Topology
from pyvirt.sched.topology_fields import read_topology
from pyvirt.sched.workload_fields import read_workload

__all__ = ["Scenario", "ScenarioPool", "ScenarioRun", "ScenarioVM"]

LEVELS = {level.value: level for level in Shares}
MOST_CPUS, MOST_WORLDS, MOST_WEIGHT = 1024, 1 << 20, 1 << 20
MOST_INTERVALS = 1_000_000
#: Into how many a run is split at least, so that its progress is seen; results are the same.
STEPS = 200
ALWAYS = workloads.Always()
QUANTUM_NS = 10_000_000


@dataclass(frozen=True, slots=True)
class ScenarioVM:
    """A virtual machine: vCPUs that all do the same.

    Attributes
    ----------
    name : str
        Of which the scenario has one.
    vcpus : int
        How many worlds it is.
    shares : int
        Of all vCPUs together; each has an equal part, rounded down, but at least 1.
    workload : workload
        What each vCPU does, with random numbers of its own.
    affinity : tuple of tuple of int, or None
        The CPUs that each vCPU may run on; None: all.
    quota : (int, int) or None
        CPU time and the period in which it is had, in ns, of each vCPU.
    slice_ns : int or None
        How long a vCPU may run at a time; None: the scenario's quantum.
    reservation, limit : int or None
        CPU time in ns per second of time, of all vCPUs together, for policies that know of it.
    params : mapping of str to int
        What the scenario's policy declares as parameters of virtual machines.
    pool : str or None
        The resource pool that it is in; None: the host.
    percentiles : bool
        Whether its wake-ups and the response times of its jobs are recorded: 22 kB a vCPU.
    """

    name: str
    vcpus: int = 1
    shares: int = 1000
    workload: workloads.Workload = ALWAYS
    affinity: tuple[tuple[int, ...], ...] | None = None
    quota: tuple[int, int] | None = None
    slice_ns: int | None = None
    reservation: int | None = None
    limit: int | None = None
    params: Mapping[str, int] = dataclasses.field(default_factory=dict)
    pool: str | None = None
    percentiles: bool = False


@dataclass(frozen=True, slots=True)
class ScenarioRun:
    """What came out of a scenario under one policy.

    Attributes
    ----------
    scenario : Scenario
        What ran.
    policy : str
        Under which policy.
    host : Scheduler
        As it is at the end.
    groups : dict of str to tuple of int
        The worlds of each virtual machine.
    series : Series
        What was sampled; one interval if the scenario names none.
    """

    scenario: Scenario
    policy: str
    host: Scheduler
    groups: dict[str, tuple[int, ...]]
    series: Series


@dataclass(frozen=True, slots=True)
class Scenario:
    """One host's scheduling: CPUs, a policy, virtual machines, and how long they run.

    Attributes
    ----------
    name : str
        For messages and titles.
    cpus : int
        How many.
    vms : tuple of ScenarioVM
        All there from the start.
    duration_ns : int
        How long they run.
    policy : str
        Its name: of an inlined policy, or of a plug-in one.
    options : mapping of str to object
        The policy's parameters.
    quantum_ns : int
        Slice of a vCPU without one of its own.
    interval_ns : int
        Of the samples; by default the whole duration.
    seed : int
        Of workloads, and of policies that draw.
    pools : tuple of ScenarioPool
        Breadth-first; for policies that know of them.
    topology : Topology or None
        Of the CPUs; None: each is a core, and all are alike.
    numa : Numa or None
        Home nodes, for policies that know of them; None: VMs have none.
    """

    name: str
    cpus: int
    vms: tuple[ScenarioVM, ...]
    duration_ns: int
    policy: str = "stride"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    quantum_ns: int = QUANTUM_NS
    interval_ns: int | None = None
    seed: int = 0
    pools: tuple[ScenarioPool, ...] = ()
    topology: Topology | None = None
    numa: Numa | None = None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Scenario:
        """Read a scenario from a TOML file; the guide to CPU scheduling has all its keys.

        Raises
        ------
        InvalidValueError
            For what cannot be; the message names line, key, value and what is accepted.
        AdmissionError
            Reservations that cannot be met, in percent of one CPU.
        """
        file = Path(path)
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InvalidValueError(f"{file}: {error}") from None
        return cls.parse(text, os.fspath(path))

    @classmethod
    def parse(cls, text: str, source: str = "scenario") -> Scenario:
        """Read a scenario from the text of a TOML file that messages call `source`."""
        top = Fields.parse(text, source)
        shape = top.table("topology")
        topology = None if shape is None else read_topology(shape)
        needed = "the number of CPUs" if topology is None else None
        cpus = top.integer("cpus", 1, MOST_CPUS, needed)
        if topology is not None and cpus is not None and cpus != topology.cpus:
            top.refuse("cpus", f"the {topology.cpus} of the topology")
        cpus = cpus if topology is None else topology.cpus
        assert cpus is not None
        duration = top.time("duration", needed="how long it runs") or 1
        interval = top.time("interval")
        if interval and -(-duration // interval) > MOST_INTERVALS:
            top.refuse("interval", f"at least a millionth of the duration, {duration:,} ns")
        policy, options = read_policy(top)
        pools = read_pools(top)
        if pools and not takes_pools(policy):
            raise InvalidValueError(f"{top.name('pool')}: the policy {policy} knows of no pools")
        numa = _numa(top, policy, topology)
        quantum = top.time("quantum") or QUANTUM_NS
        seed = top.integer("seed", 0, (1 << 63) - 1) or 0
        percentiles = top.flag("percentiles")
        vms: list[ScenarioVM] = []
        names: set[str] = set()
        for fields in top.tables("vm", "one [[vm]] at least"):
            for vm in _vms(fields, cpus, topology, policy, pools, percentiles):
                if vm.name in names:
                    fields.refuse("name", "a name that no other VM has")
                names.add(vm.name)
                vms.append(vm)
        if not vms:
            top.refuse("vm", "one [[vm]] at least")
        clients = [
            (
                vm.name,
                vm.pool,
                (vm.reservation or 0) + reserved(policy, options, vm.params, vm.vcpus),
            )
            for vm in vms
        ]
        admit_all(pools, clients, cpus)
        if sum(vm.vcpus for vm in vms) > MOST_WORLDS:
            raise InvalidValueError(f"{source}: a host has at most {MOST_WORLDS:,} vCPUs")
        top.finish("a scenario")
        return cls(
            Path(source).stem,
            cpus,
            tuple(vms),
            duration,
            policy,
            options,
            quantum,
            interval,
            seed,
            pools,
            topology,
            numa,
        )

    def build(self, policy: str | None = None) -> tuple[Scheduler, dict[str, tuple[int, ...]]]:
        """Make the host at time 0.

        Parameters
        ----------
        policy : str, optional
            Another policy than the scenario's, with its default parameters.

        Returns
        -------
        (Scheduler, dict of str to tuple of int)
            The host, and the numbers of each virtual machine's worlds.
        """
        name = check_policy(policy or self.policy)
        own = name == self.policy
        made, arguments = make_policy(name, self.options if own else {}, self.pools, self.numa)
        host = Scheduler(
            self.cpus,
            policy=made,
            quantum_ns=self.quantum_ns,
            topology=self.topology,
            rng=self.seed,
            **arguments,
        )
        known = vm_params(name)
        groups = {}
        for vm in self.vms:
            try:
                groups[vm.name] = self._add(host, vm, known)
            except AdmissionError as error:
                raise AdmissionError(error.pool, error.needed, error.available, vm.name) from None
            except PyvirtError as error:
                raise InvalidValueError(f"{self.name}: VM {vm.name!r}: {error}") from None
        return host, groups

    def _add(self, host: Scheduler, vm: ScenarioVM, known: Container[str]) -> tuple[int, ...]:
        """Add a virtual machine, of whose parameters the policy knows some."""
        every = set().union(*vm.affinity) if vm.affinity else None
        params: dict[str, Any] = {key: value for key, value in vm.params.items() if key in known}
        if vm.pool is not None and "pool" in known:
            params["pool"] = 1 + [pool.name for pool in self.pools].index(vm.pool)
        worlds = host.add_vm(
            vm.vcpus,
            vm.workload,
            weight=vm.shares,
            reservation=vm.reservation,
            limit=vm.limit,
            slice_ns=vm.slice_ns,
            affinity=every,
            responses=vm.percentiles,
            wakes=vm.percentiles,
            **params,
        ).worlds
        for i, world in enumerate(worlds):
            if vm.affinity and set(vm.affinity[i]) != every:
                host.set_affinity(world, vm.affinity[i])
            if vm.quota:
                host.set_limit(world, vm.quota)
        return tuple(worlds)

    def world_names(self) -> dict[int, str]:
        """Give the name of each world: that of its VM, and with several vCPUs which of them."""
        names = [
            vm.name if vm.vcpus == 1 else f"{vm.name}/{i}"
            for vm in self.vms
            for i in range(vm.vcpus)
        ]
        return dict(enumerate(names))

    def with_percentiles(self) -> Scenario:
        """Give the same with wake-ups and response times of all virtual machines recorded."""
        vms = tuple(dataclasses.replace(vm, percentiles=True) for vm in self.vms)
        return dataclasses.replace(self, vms=vms)

    def run(
        self,
        policy: str | None = None,
        sinks: Sequence[Sink] = (),
        progress: Callable[[float], object] | None = None,
    ) -> ScenarioRun:
        """Run it from the beginning.

        Parameters
        ----------
        policy : str, optional
            As for `build`.
        sinks : sequence of ChromeTrace or others with `add`
            They get the timeline, a part at a time.
        progress : callable, optional
            Is told now and then which part of the duration is over, from 0 to 1.
        """
        host, groups = self.build(policy)
        if sinks:
            host.record()

        def run(until_ns: int) -> None:
            step = -(-self.duration_ns // STEPS)
            for end in (*range(host.now_ns + step, until_ns, step), until_ns):
                if sinks:
                    run_recorded(host, end, sinks)
                else:
                    host.run(end)
                if progress:
                    progress(end / self.duration_ns)

        interval = self.interval_ns or self.duration_ns
        series = sample(host, self.duration_ns, interval, groups=groups, run=run)
        return ScenarioRun(self, policy or self.policy, host, groups, series)


def _numa(top: Fields, policy: str, topology: Topology | None) -> Numa | None:
    """Read the table [numa], which the host and the policy must be fit for."""
    fields = top.table("numa")
    if fields is None:
        return None
    if not takes_numa(policy):
        raise InvalidValueError(f"{fields.name()}: the policy {policy} knows of no home nodes")
    numa = read_numa(fields)
    fields.said(None, lambda: make_policy(policy, {}, (), numa))
    check_nodes(fields, topology)
    return numa


def _vms(
    fields: Fields,
    cpus: int,
    topology: Topology | None,
    policy: str,
    pools: Sequence[ScenarioPool],
    percentiles: bool,
) -> list[ScenarioVM]:
    """Read a [[vm]], which may stand for several that are alike."""
    name = fields.text("name", "its name") or ""
    vcpus = fields.integer("vcpus", 1, MOST_WORLDS) or 1
    count = fields.integer("count", 1, MOST_WORLDS)
    pool = fields.choice("pool", [pool.name for pool in pools]) if pools else None
    vm = ScenarioVM(
        name,
        vcpus,
        _shares(fields, vcpus),
        read_workload(fields.table("workload")),
        _affinity(fields, vcpus, cpus, topology),
        _quota(fields.table("quota")),
        fields.time("slice"),
        _cpu_time(fields, "reservation", policy),
        _cpu_time(fields, "limit", policy),
        read_vm_params(fields, policy),
        pool,
        fields.flag("percentiles") if "percentiles" in fields else percentiles,
    )
    fields.finish("a VM")
    if count is None:
        return [vm]
    return [dataclasses.replace(vm, name=f"{name}-{i}") for i in range(1, count + 1)]


def _shares(fields: Fields, vcpus: int) -> int:
    """Read shares: a level, or a number for all vCPUs together."""
    shares = fields.raw("shares")
    if shares is None:
        shares = "normal"
    if isinstance(shares, str):
        level = fields.choice("shares", LEVELS)
        return min(int(LEVELS[level or "normal"].number("cpu", vcpus)), MOST_WEIGHT)
    accepted = f"low, normal, high or an integer from 1 to {MOST_WEIGHT:,}"
    if not isinstance(shares, int) or isinstance(shares, bool) or not 1 <= shares <= MOST_WEIGHT:
        fields.refuse("shares", accepted)
    return shares


def _cpu_time(fields: Fields, key: str, policy: str) -> int | None:
    """Read CPU time that a policy must know of."""
    value = cpu_time(fields, key)
    if value is not None and policy in WEIGHTS_ONLY:
        known = ", ".join(name.removesuffix("_ns") for name in vm_params(policy))
        hint = f"; it knows {known}" if known else ""
        raise InvalidValueError(f"{fields.name(key)}: the policy {policy} knows of no {key}{hint}")
    return value


def _affinity(
    fields: Fields, vcpus: int, cpus: int, topology: Topology | None
) -> tuple[tuple[int, ...], ...] | None:
    """Read the CPUs, or the nodes they are in; with `pin` one CPU for each vCPU, in turn."""
    chosen = _numbers(fields, "affinity", "CPUs", cpus)
    pin = fields.flag("pin")
    nodes = _numbers(fields, "nodes", "NUMA nodes", 1 if topology is None else topology.nodes)
    if nodes is not None:
        if topology is None:
            fields.refuse("nodes", "in a scenario with a [topology]")
        if chosen is not None:
            fields.refuse("nodes", "left out beside an affinity")
        chosen = [cpu for node in nodes for cpu in topology.members("node", node)]
    if chosen is None:
        return tuple((i % cpus,) for i in range(vcpus)) if pin else None
    if pin:
        return tuple((chosen[i % len(chosen)],) for i in range(vcpus))
    return (tuple(chosen),) * vcpus


def _numbers(fields: Fields, key: str, what: str, count: int) -> list[int] | None:
    """Read numbers below `count`, or text like ``"0-3,8"``, in the order of the file."""
    given = fields.raw(key)
    if given is None:
        return None
    accepted = f'numbers of {what} from 0 to {count - 1}, such as [0, 1] or "0-3,8"'
    chosen: list[int] = []
    parts = given.split(",") if isinstance(given, str) else given
    if not isinstance(parts, list) or not parts:
        fields.refuse(key, accepted)
    for part in parts:
        first, dash, last = part.partition("-") if isinstance(part, str) else (part, "", "")
        try:
            ends = int(first), int(last if dash else first)
        except (TypeError, ValueError):
            fields.refuse(key, accepted)
        if isinstance(part, (bool, float)) or not 0 <= ends[0] <= ends[1] < count:
            fields.refuse(key, accepted)
        chosen += range(ends[0], ends[1] + 1)
    return list(dict.fromkeys(chosen))


def _quota(fields: Fields | None) -> tuple[int, int] | None:
    if fields is None:
        return None
    run = fields.time("run", needed="CPU time in a period") or 1
    period = fields.time("period") or 100_000_000
    fields.finish("a quota")
    return run, period
