"""The VMkernel: one per host, over a scheduler, a memory manager, device worlds and a console."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.machine import loads
from pyvirt.machine.admission import Admission
from pyvirt.machine.console import PERIOD_NS, ServiceConsole
from pyvirt.machine.modes import MonitorMode
from pyvirt.machine.monitors import Monitors
from pyvirt.machine.profile import load
from pyvirt.machine.scheduling import Chosen, choose_scheduler
from pyvirt.machine.stats import HostStats
from pyvirt.machine.stats import since as since_then
from pyvirt.machine.vm import VM
from pyvirt.machine.vmm import VMM, Counted
from pyvirt.sched import Scheduler
from pyvirt.sched.esx import pool_rows
from pyvirt.sched.workloads import Always, Workload
from pyvirt.spec import Claimant, HostSpec, PoolSpec, VMSpec
from pyvirt.spec.base import fields_of
from pyvirt.units import parse_time

__all__ = ["VMkernel"]

SECOND = 1_000_000_000
NEVER = 1 << 62


class VMkernel:
    """A host that runs virtual machines.

    Time is an integer number of nanoseconds, from 0. Nothing happens but in `run` and `advance`;
    whatever else is called takes effect at the present time.

    Parameters
    ----------
    spec : HostSpec or str
        The host, or its name, with the fields of `HostSpec` as keywords.
    scheduler : str or Plug, optional
        A scheduler of the host's hypervisor, or any policy of `pyvirt.sched`; default: the
        description's, else the hypervisor's.
    pools : sequence of PoolSpec
        Resource pools; a pool stands after its parent.
    quantum_ns : int, optional
        Slice of a world, for policies that have none of their own.
    seed : int, default 0
        Of everything that is drawn.
    memory_step_ns : int, default 1 s
        Time between two steps of the memory manager.
    event_costs : mapping of MonitorMode to str or EventCosts, optional
        Cost tables in place of the defaults; see `pyvirt.machine.EventCosts`.
    tlb : str, default "skylake-sp"
        The processor's TLBs, for the overhead of translation.
    paths : PathEngine, optional
        Storage and network paths (`pyvirt.machine.paths`): they come along in time. Its device
        ``host/datastore`` is that of a datastore; while all its paths are down, the worlds that
        serve disks there stand still, and make up for it afterwards, and so do vCPUs that wait for
        their requests (``think_ns``).
    alone : bool, default True
        False: one of several hosts, whose memory and paths somebody else lets go on in time, and
        says so by `wait_for_pages` and `see_paths`.
    **fields
        Of `HostSpec`.

    Attributes
    ----------
    spec : HostSpec
        The host.
    profile : Profile
        Its hypervisor.
    monitors : Monitors
        How machines are executed here.
    scheduler : Scheduler
        The CPUs and the worlds on them.
    memory : MachineMemory or None
        The memory manager; None: the description says nothing of memory, or no machine was on.
    console : ServiceConsole or None
        None: the host's description gives it no CPU time (``console_cpu_mhz``).
    paths : PathEngine or None
        As given.
    latencies : Latencies or None
        For how long vCPUs wait for requests to disks, from `paths` as they were at first, or as
        somebody else knows them; found for a machine when it comes here. None: not at all.
    state : {"on", "standby", "maintenance", "failed"}
        What it is doing; only one that is on takes machines.

    Notes
    -----
    The cycles of a machine's monitor are work of its vCPUs: a workload that takes some CPU time
    without a monitor takes 1 and the overhead times as much. Waits for swapped pages, which the
    memory manager counts in each of its steps, are made up at the end of the step, at most the
    length of a step for each vCPU.

    A host that gets along with a scheduler, without memory and console, costs nothing beside it.

    Examples
    --------
    >>> from pyvirt.machine import VMkernel
    >>> host = VMkernel("esx1", cpus=2, mhz=2000, memory="8GiB")
    >>> web = host.power_on("web", vcpus=1, memory="1GiB", cpu_demand=500)
    >>> host.run("10s")
    >>> web.mode.value, round(host.stats().percent("web", "%RUN"), 2)
    ('HWMMU', 25.0)
    """

    def __init__(
        self,
        spec: HostSpec | str,
        *,
        scheduler: Any = None,
        pools: Sequence[PoolSpec] = (),
        quantum_ns: int | None = None,
        seed: int = 0,
        memory_step_ns: int = SECOND,
        event_costs: Mapping[MonitorMode, Any] | None = None,
        tlb: str = "skylake-sp",
        paths: Any = None,
        alone: bool = True,
        **fields: Any,
    ) -> None:
        if isinstance(spec, str):
            spec = HostSpec(spec, **fields)
        elif fields:
            raise InvalidTypeError(
                f"fields must not be given beside a HostSpec, got {fields!r:.80}"
            )
        if not isinstance(spec, HostSpec):
            raise InvalidTypeError(f"spec must be a HostSpec or a name, got {spec!r:.80}")
        drawn: Any = seed
        if isinstance(drawn, bool) or not isinstance(drawn, (int, np.integer)) or drawn < 0:
            raise InvalidValueError(f"seed must be an integer >= 0, got {drawn!r:.80}")
        self.spec, self.profile = spec, load(spec)
        self.monitors = Monitors(
            spec, self.profile, seed=int(seed), tlb=tlb, event_costs=event_costs
        )
        self.admission = Admission(spec, pools)
        self._chosen: Chosen = choose_scheduler(
            spec, self.profile, scheduler, self.admission.cpu_tree, quantum_ns, int(seed)
        )
        self.scheduler: Scheduler = self._chosen.scheduler
        self.memory: Any = None
        self.console: ServiceConsole | None = None
        if spec.console_cpu_mhz:
            self.admission.reserve("(console)", "", spec.console_cpu_mhz, 0)
            self.console = ServiceConsole(
                self.scheduler, spec.mhz, spec.console_cpu_mhz, spec.console_memory, 1000
            )
        self.paths = paths
        self.latencies: Any = None
        if paths is not None and alone:
            from pyvirt.machine.paths.latency import Latencies

            self.latencies = Latencies(paths)
        self._devices = {} if paths is None else {n: i for i, n in enumerate(paths.device_names)}
        self._stalled: set[int] = set()
        self._stunned: set[str] = set()
        self._teams: dict[str, int] = {}
        self._ports: dict[tuple[str, str], int] = {}
        if paths is not None and paths.now_ns:
            raise InvalidValueError(f"paths must be at time 0, got {paths.now_ns:,} ns")
        self._seed = int(seed)
        self._memory_step = _step(memory_step_ns)
        self._alone = alone
        self.state = spec.state
        self._vmms: dict[str, VMM] = {}
        self._keys: dict[str, int] = {}
        self._last_key = 0
        self._gone_run = 0  # of worlds that are no more

    # --- power ---

    @property
    def now_ns(self) -> int:
        """The present time."""
        return self.scheduler.now_ns

    @property
    def name(self) -> str:
        """The host's."""
        return self.spec.name

    @property
    def vmms(self) -> tuple[VMM, ...]:
        """The monitors of the machines that are on, in the order of their power-on."""
        return tuple(self._vmms.values())

    def vmm(self, vm: VM | VMM | str) -> VMM:
        """Give the monitor of a machine that is on.

        Raises
        ------
        InvalidValueError
            No such machine is on here.
        """
        name = vm if isinstance(vm, str) else getattr(vm, "name", None)
        if name not in self._vmms:
            there = ", ".join(self._vmms) or "none"
            raise InvalidValueError(
                f"no VM {name!r:.80} is on host {self.name!r:.80}; there are {there:.200}"
            )
        return self._vmms[name]

    def power_on(
        self,
        vm: VM | VMSpec | str,
        *,
        workload: Workload | Sequence[Workload] | None = None,
        affinity: Iterable[int] | None = None,
        responses: bool = False,
        elapsed_ns: int = 0,
        **fields: Any,
    ) -> VMM:
        """Power a virtual machine on, or let a suspended one go on.

        Parameters
        ----------
        vm : VM, VMSpec or str
            The machine; or its description, or its name with the fields of `VMSpec`.
        workload : workload of `pyvirt.sched`, or one for each vCPU, optional
            What its vCPUs do, without a monitor; default: what its description says.
        affinity : iterable of int, optional
            CPUs that its vCPUs may run on.
        responses : bool, default False
            Whether the response times of its jobs are recorded.
        elapsed_ns : int, default 0
            How much of its described demand is over.
        **fields
            Of `VMSpec`.

        Returns
        -------
        VMM

        Raises
        ------
        MonitorModeError
            It cannot be executed here, for instance because the BIOS has VT-x switched off.
        AdmissionError
            Its reservation, with its monitor's memory, is not to be had.
        PowerStateError
            It is on already.
        InvalidValueError, InvalidTypeError
            For what cannot be. Nothing is changed then.
        """
        machine = vm if isinstance(vm, VM) else VM(vm, **fields)
        if isinstance(vm, VM) and fields:
            raise InvalidTypeError(f"fields must not be given beside a VM, got {fields!r:.80}")
        machine.check("power_on")
        vmm = self.prepare(machine)
        try:
            self._start(vmm, workload, affinity, responses, elapsed_ns, [])
        except BaseException:
            self.forget(vmm)
            raise
        machine.move("power_on", self.name)
        return vmm

    def prepare(self, machine: VM) -> VMM:
        """Set aside what a machine reserves, as a host does before one comes to it by vMotion.

        `receive` or `forget` ends that.

        Raises
        ------
        As `power_on`; nothing is changed then.
        """
        spec = machine.spec
        self._check_place(machine)
        vmm = self.monitors.make(machine)
        vmm._claim = self._chosen.claim(spec, self.profile, self.admission)
        if not self.admission.has_memory:
            vmm.memory_reserved = vmm.memory_overhead = 0
        self.admission.reserve(spec.name, spec.pool, spec.cpu_reservation, vmm.memory_reserved)
        vmm.cpu_reservation = spec.cpu_reservation
        return vmm

    def forget(self, vmm: VMM) -> None:
        """Give back what `prepare` set aside."""
        self.admission.release(vmm.vm.spec.pool, vmm.cpu_reservation, vmm.memory_reserved)

    def receive(self, vmm: VMM, *, elapsed_ns: int = 0, backlog: Sequence[int] = ()) -> None:
        """Let a machine that `prepare` was called for, and that `send` gave, go on here.

        Parameters
        ----------
        vmm : VMM
            From `prepare`.
        elapsed_ns : int
            How much of its described demand is over.
        backlog : sequence of int
            Work in ns, without a monitor's part, that each of its vCPUs has not done yet.
        """
        self._start(vmm, None, None, False, elapsed_ns, backlog)
        vmm.vm.host = self.name

    def send(self, vm: VM | VMM | str) -> list[int]:
        """Let a machine go to another host: its worlds end here, and its power state stays.

        Returns
        -------
        list of int
            The work in ns that its vCPUs had not done, without the monitor's part. Bursts of
            workloads that are no demand over time begin anew.
        """
        vmm = self.vmm(vm)
        rows = self.scheduler.counters()
        factor = 1.0 + vmm.overhead
        left = []
        brought = vmm._brought or (0,) * len(vmm.worlds)
        for world, work, more in zip(vmm.worlds, vmm._works, brought, strict=True):
            done = int(rows[world]["run"])
            came = loads.work_until(work, self.now_ns - vmm._since)
            rest = 0 if came is None else round((came + more - done) / factor)
            left.append(max(0, rest))
        self._leave(vmm)
        return left

    def _start(
        self,
        vmm: VMM,
        workload: Any,
        affinity: Iterable[int] | None,
        responses: bool,
        elapsed_ns: int,
        backlog: Sequence[int],
    ) -> None:
        self._add_worlds(vmm, workload, affinity, responses, elapsed_ns, backlog)
        try:
            self._add_memory(vmm)
        except BaseException:
            self._remove_worlds(vmm)
            raise
        spec = vmm.vm.spec
        vmm._host, vmm._since = self, self.now_ns
        self._vmms[spec.name] = vmm
        self._last_key += 1
        self._keys[spec.name] = self._last_key
        if self.console is not None:
            for device in spec.devices:
                self.console.attach(spec.name, device)
        self._stall()

    def power_off(self, vm: VM | VMM | str) -> None:
        """Power a machine off at once."""
        self._stop(self.vmm(vm), "power_off")

    def shut_down(self, vm: VM | VMM | str) -> None:
        """Let a guest shut itself down, by its VMtools.

        Raises
        ------
        PowerStateError
            It has none.
        """
        self._stop(self.vmm(vm), "shut_down")

    def suspend(self, vm: VM | VMM | str) -> None:
        """Suspend a machine: its worlds end, and what it reserves is given back."""
        self._stop(self.vmm(vm), "suspend")

    def reset(self, vm: VM | VMM | str) -> VMM:
        """Power a machine off and on; its description's workload begins anew."""
        old = self.vmm(vm)
        self._stop(old, "power_off")
        return self.power_on(old.vm)

    def revert(self, vm: VM | VMM | str, snapshot: int | str) -> VMM | None:
        """Go back to a snapshot; a machine whose memory is in it goes on, and its monitor is given.

        Raises
        ------
        InvalidValueError
            There is no such snapshot, or machine; nothing has changed.
        """
        old = self.vmm(vm)
        old.vm.snapshots.find(snapshot)
        self._stop(old, "power_off")
        old.vm.revert(snapshot)
        return self.power_on(old.vm) if old.vm.state == "suspended" else None

    def _stop(self, vmm: VMM, action: str) -> None:
        vmm.vm.check(action)
        self._leave(vmm)
        vmm.vm.move(action)

    def _leave(self, vmm: VMM) -> None:
        last = self.count(vmm)
        self._stunned.discard(vmm.name)
        self._remove_worlds(vmm)
        if self.memory is not None:
            self.memory.remove(vmm.name)
        self.admission.release(vmm.vm.spec.pool, vmm.cpu_reservation, vmm.memory_reserved)
        if self.console is not None:
            self.console.detach(vmm.name)
        vmm._host, vmm._last = None, last
        self._gone_run += last.run + last.device_run
        del self._vmms[vmm.name], self._keys[vmm.name]

    # --- shares and bounds ---

    def reconfigure(self, vm: VM | VMM | str, **claims: Any) -> None:
        """Give a machine that is on other shares, reservations and limits, from now on.

        Parameters
        ----------
        vm : VM, VMM or str
            The machine; its description changes.
        **claims
            Fields of `Claimant`: ``cpu``, ``mem``, ``cpu_reservation``, ``cpu_limit``,
            ``memory_reservation``, ``memory_limit``; those that are left out stay.

        Raises
        ------
        AdmissionError
            A reservation is not to be had.
        InvalidValueError, InvalidTypeError
            For what cannot be. Nothing has changed then.
        """
        vmm = self.vmm(vm)
        _check_claims(claims)
        old, spec = vmm.vm.spec, vmm.vm.spec.replace(**claims)
        claim = self._chosen.claim(spec, self.profile, self.admission)
        memory = 0
        if self.admission.has_memory:
            memory, _ = self.monitors.memory_needed(spec, vmm.mode)
        before = (vmm.cpu_reservation, vmm.memory_reserved)
        after = (spec.cpu_reservation, memory)
        self.admission.change(spec.name, spec.pool, before, after)
        try:
            if self.memory is not None and spec.memory:
                self.memory.reclaim(spec, vmm.memory_overhead)
            self._give(vmm, claim)
        except BaseException:
            self.admission.change(spec.name, spec.pool, after, before)
            if self.memory is not None and spec.memory:
                self.memory.reclaim(old, vmm.memory_overhead)
            raise
        vmm.cpu_reservation, vmm.memory_reserved = after
        vmm._claim, vmm.vm.spec = claim, spec

    def _give(self, vmm: VMM, claim: dict[str, Any]) -> None:
        """Tell the scheduler: what a claim does not have is as at a power-on."""
        rows = self.scheduler.counters()
        weight, quota = claim["weight"], claim.get("quota")
        fixed = ("weight", "reservation", "limit", "quota")
        params = self._chosen.params | {k: v for k, v in claim.items() if k not in fixed}
        self.scheduler.set_vm(
            int(rows["vm"][vmm.worlds[0]]),
            weight=weight,
            reservation=claim.get("reservation", 0),
            limit=claim.get("limit", -1),
            **params,
        )
        if quota is not None or vmm._claim.get("quota") is not None:
            for world in vmm.worlds:
                self.scheduler.set_limit(world, quota)
        for world in vmm.device_worlds.values():
            self.scheduler.set_vm(int(rows["vm"][world]), weight=weight)

    def set_pools(self, pools: Sequence[PoolSpec]) -> None:
        """Give the resource pools other shares, reservations and limits, from now on.

        Parameters
        ----------
        pools : sequence of PoolSpec
            All, with the names and parents that they have.

        Raises
        ------
        AdmissionError
            What is reserved does not fit.
        InvalidValueError
            Other pools. Nothing has changed then.
        """
        made = self.admission.with_pools(pools)
        if list(made.paths.items()) != list(self.admission.paths.items()):
            raise InvalidValueError(
                f"pools must be those of host {self.name!r:.80}, got {list(made.paths)[1:]!r:.80}"
            )
        self.admission = made
        for path, (_, shares, reservation, limit) in pool_rows(made.cpu_tree, self.spec.mhz):
            number = self._chosen.pools.get(path)
            if number:
                self.scheduler.set_pool(number, shares=shares, reservation=reservation, limit=limit)

    # --- what power_on does ---

    def _check_place(self, machine: VM) -> None:
        if machine.name in self._vmms:
            raise InvalidValueError(
                f"a VM called {machine.name!r:.80} is on host {self.name!r:.80} already"
            )
        self.monitors.check(machine.spec, self.state)

    def _add_memory(self, vmm: VMM) -> None:
        if not self._alone or not self.admission.has_memory or not vmm.vm.spec.memory:
            return
        if self.memory is None:
            from pyvirt.machine.memory import MachineMemory

            self.memory = MachineMemory(self.spec, self.profile, self._seed)
            behind = self.now_ns // self._memory_step * self._memory_step
            if behind:
                self.memory.step(behind)
        self.memory.add(vmm.vm.spec, vmm.memory_overhead, vmm.vm.spec.tools)

    def _add_worlds(
        self,
        vmm: VMM,
        workload: Any,
        affinity: Iterable[int] | None,
        responses: bool,
        elapsed_ns: int,
        backlog: Sequence[int],
    ) -> None:
        spec, factor, claim = vmm.vm.spec, 1.0 + vmm.overhead, vmm._claim
        if workload is None:
            works = loads.cpu_work(spec, self.spec.mhz, factor, self._latency(spec))
            works = [loads.going_on(one, elapsed_ns) for one in works]
        else:
            listed = workload if isinstance(workload, Sequence) else [workload] * spec.vcpus
            works = [loads.scaled(one, factor) for one in listed]
        quota = claim.get("quota")
        arguments = {key: value for key, value in claim.items() if key != "quota"}
        made = self.scheduler.add_vm(
            spec.vcpus, works, affinity=affinity, responses=responses, **arguments
        )
        vmm.worlds, vmm._works = tuple(made.worlds), tuple(works)
        try:
            if quota is not None:
                for world in vmm.worlds:
                    self.scheduler.set_limit(world, quota)
            asked = loads.device_rates(spec, self.spec.mhz, factor, self._latency(spec))
            for name, rate, kind in asked:
                work = loads.device_work(rate, kind, self.spec.mhz)
                if work is not None:
                    one = self.scheduler.add_vm(1, work, weight=arguments["weight"])
                    vmm.device_worlds[name] = one.worlds[0]
            vmm._brought = tuple(round(left * factor) for left in backlog)
            for world, work, more in zip(vmm.worlds, works, vmm._brought, strict=False):
                # who always runs here has no end of its work to be later
                if more and not isinstance(work, Always):
                    self.scheduler.interrupt(world, more)
        except BaseException:
            self._remove_worlds(vmm)
            raise

    def _latency(self, spec: VMSpec) -> int:
        """Give the time of a request that its vCPUs wait for."""
        return 0 if self.latencies is None else self.latencies.of(self.name, spec)

    def _remove_worlds(self, vmm: VMM) -> None:
        for world in (*vmm.worlds, *vmm.device_worlds.values()):
            self.scheduler.remove(world)
            self._stalled.discard(world)

    # --- time ---

    def run(self, until: int | str) -> None:
        """Let time pass up to a time: ns, or text as ``"10s"``."""
        end = parse_time(until, "until") if isinstance(until, str) else until
        self.advance(end)

    def next_event_time(self) -> int | None:
        """Give when something happens next; None: never."""
        due = min(self._due(), _never(self.scheduler.next_event_time()))
        return None if due == NEVER else due

    def advance(self, to_ns: int) -> None:
        """Let time pass up to `to_ns`: with `next_event_time`, for co-simulation.

        What happens does not depend on how a stretch of time is divided.
        """
        if isinstance(to_ns, bool) or not isinstance(to_ns, (int, np.integer)):
            raise InvalidTypeError(f"to_ns must be an integer, got {to_ns!r:.80}")
        end = int(to_ns)
        if end < self.now_ns:
            raise InvalidValueError(
                f"to_ns must be at least the present, {self.now_ns:,}, got {end:,}"
            )
        while True:
            due = max(self._due(), self.now_ns)
            if due > end:
                self.scheduler.run(end)
                if self.paths is not None and self._alone:
                    self.paths.advance(end)
                return
            self.scheduler.run(due)
            self._happen(due)

    def _due(self) -> int:
        """Give the next time at which the VMkernel itself does something, after the present."""
        due = NEVER
        now = self.now_ns
        if self.memory is not None:
            due = self.memory.model.now_ns + self._memory_step
        if self.console is not None and self.console.attached:
            due = min(due, (now // PERIOD_NS + 1) * PERIOD_NS)
        if self.paths is not None and self._alone:
            due = min(due, _never(self.paths.next_event_time()))
        return due

    def _happen(self, now: int) -> None:
        if self.paths is not None and self._alone and _never(self.paths.next_event_time()) <= now:
            self.paths.advance(now)
            self._stall()
        if self.console is not None and self.console.attached and now % PERIOD_NS == 0:
            self.console.hand_over(self.scheduler)
        if self.memory is not None and now == self.memory.model.now_ns + self._memory_step:
            for name, wait in self.memory.step(self._memory_step).items():
                self.wait_for_pages(self._vmms[name], wait, self._memory_step)

    def _stall(self) -> None:
        """Stop the worlds of disks that no path leads to, and let those go on to which one does."""
        if self.paths is None:
            return
        for vmm in self._vmms.values():
            spec, lost = vmm.vm.spec, False
            for disk in spec.disks:
                device = self._devices.get(f"{self.name}/{disk.datastore}")
                dead = device is not None and int(self.paths.state(device)) != 0
                self._stall_one(vmm, disk.name, dead)
                lost |= dead
            if spec.workload is not None and spec.workload.disk.think_ns:
                for world in vmm.worlds:
                    self._stall_world(vmm, world, lost)
            for nic in vmm.vm.spec.nics:
                team, port = self._teams.get(nic.network), self._ports.get((vmm.name, nic.name))
                if team is not None and port is not None:
                    self._stall_one(vmm, nic.name, int(self.paths.uplinks(team, [port])[0]) < 0)

    def _stall_one(self, vmm: VMM, device: str, dead: bool) -> None:
        world = vmm.device_worlds.get(device)
        if world is not None:
            self._stall_world(vmm, world, dead)

    def _stall_world(self, vmm: VMM, world: int, dead: bool) -> None:
        if dead and world not in self._stalled:
            self.scheduler.block(world)
            self._stalled.add(world)
        elif not dead and world in self._stalled:
            self._stalled.discard(world)
            if vmm.name not in self._stunned:
                self.scheduler.wake(world)

    def wire(self, teams: Mapping[str, int], ports: Mapping[tuple[str, str], int]) -> None:
        """Say by which teams of `paths` networks are reached, as `Site` has them.

        While none of a team's uplinks works, the worlds that serve its machines' adapters stand
        still, as those of disks do.

        Parameters
        ----------
        teams : mapping of str to int
            The team of a network.
        ports : mapping of (str, str) to int
            The port of a virtual machine's adapter.
        """
        if self.paths is None:
            raise InvalidValueError("paths must be given where networks are reached by teams")
        self._teams, self._ports = dict(teams), dict(ports)
        self._stall()

    def see_paths(self) -> None:
        """Look at the paths anew, after somebody else let them go on."""
        self._stall()

    def stun(self, vm: VM | VMM | str) -> None:
        """Let a machine stand still, with the worlds of its devices."""
        vmm = self.vmm(vm)
        self._stunned.add(vmm.name)
        for world in (*vmm.worlds, *vmm.device_worlds.values()):
            self.scheduler.block(world)

    def go_on(self, vm: VM | VMM | str) -> None:
        """End what `stun` began; devices that nothing leads to stand still yet."""
        vmm = self.vmm(vm)
        self._stunned.discard(vmm.name)
        for world in (*vmm.worlds, *vmm.device_worlds.values()):
            if world not in self._stalled:
                self.scheduler.wake(world)

    def wait_for_pages(self, vmm: VMM, wait_ns: int, most_ns: int) -> None:
        """Let the vCPUs of a machine wait, each for its part, and at most for so long."""
        each = min(wait_ns // len(vmm.worlds), most_ns)
        if each:
            for world in vmm.worlds:
                self.scheduler.wait_swap(world, each)
            vmm.swap_wait_ns += each * len(vmm.worlds)

    # --- counters ---

    def count(self, vmm: VMM) -> Counted:
        """Give what the worlds of a machine did; see `VMM.counted`."""
        return _count(vmm, self.scheduler.counters())

    def stats(self, since: HostStats | None = None) -> HostStats:
        """Give the columns of esxtop.

        Parameters
        ----------
        since : HostStats, optional
            An earlier reading of this host; default: since each machine was powered on, as
            percentages of the time since the host began.

        Returns
        -------
        HostStats
        """
        rows = self.scheduler.counters()
        vms = {name: _count(vmm, rows) for name, vmm in self._vmms.items()}
        busy = np.asarray(self.scheduler.cpu_counters()["run"], np.int64)
        memory: dict[str, dict[str, float]] = {}
        host_memory: dict[str, Any] = {}
        totals: dict[str, Any] = {"vms": vms, "keys": dict(self._keys), "cpu_run_ns": busy}
        if self.memory is not None:
            model = self.memory.model
            totals["memory"] = model.counters()
            earlier = None if since is None else since._totals.get("memory")
            columns = model.esxtop(earlier)
            memory = {
                name: {key: float(values[row]) for key, values in columns.items()}
                for row, name in enumerate(model.names)
            }
            host_memory = {
                "total_pages": int(model.hosts.total[0]),
                "free_pages": int(model.hosts.free[0]),
                "state": model.states()[0].name.lower(),
            }
        now = HostStats(self.name, 0, self.now_ns, vms, busy, memory, host_memory, totals)
        return since_then(now, since)

    @property
    def gone_run_ns(self) -> int:
        """CPU time of machines that are no longer on."""
        return self._gone_run

    def __repr__(self) -> str:
        return (
            f"<VMkernel {self.name}, {self.profile.title}, {self.scheduler.cpus} CPUs, "
            f"{len(self._vmms)} VMs, {self.now_ns:,} ns>"
        )


def _count(vmm: VMM, rows: Any) -> Counted:
    mine = rows[list(vmm.worlds)]
    made = Counted(worlds=len(vmm.worlds) + len(vmm.device_worlds))
    for name in ("run", "rdy", "mlmtd", "cstp", "wait", "idle", "swpwt", "used", "elapsed"):
        setattr(made, name, int(mine[name].sum()))
    if vmm.device_worlds:
        made.device_run = int(rows[list(vmm.device_worlds.values())]["run"].sum())
    return made


def _check_claims(claims: Mapping[str, Any]) -> None:
    known = fields_of(Claimant)
    for name in claims:
        if name not in known or name == "name":
            there = ", ".join(one for one in known if one != "name")
            raise InvalidValueError(
                f"what is reconfigured must be one of {there}, got {name!r:.80}"
            )


def _never(time: int | None) -> int:
    return NEVER if time is None else int(time)


def _step(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise InvalidTypeError(f"memory_step_ns must be an integer, got {value!r:.80}")
    if not 1_000_000 <= value <= 3600 * SECOND:
        raise InvalidValueError(f"memory_step_ns must be in [1 ms, 1 h], got {value}")
    return int(value)
