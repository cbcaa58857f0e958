"""The state of a running scenario, and what can be done to it at the present time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.cluster import (
    NONE,
    Cluster,
    FailoverError,
    HostState,
    Placements,
    choices,
    place,
)
from pyvirt.cluster.described import claims_of, masks_of, store_numbers
from pyvirt.cluster.entitle import memory_demand
from pyvirt.errors import AdmissionError, InvalidValueError, PowerStateError
from pyvirt.machine.paths import Latencies, Site
from pyvirt.machine.profile import load
from pyvirt.machine.scenario.calendar import Calendar
from pyvirt.machine.scenario.demand import DemandFleet
from pyvirt.machine.scenario.exact import ExactFleet
from pyvirt.machine.scenario.fleet import Fleet
from pyvirt.machine.scenario.guests import derived, seeded
from pyvirt.machine.scenario.memory import ClusterMemory
from pyvirt.machine.scenario.meter import Meter
from pyvirt.machine.scenario.result import VM_STATES, Event, Monitor
from pyvirt.machine.vm import VM
from pyvirt.machine.vmm import VMM
from pyvirt.spec import ClusterSpec, PoolSpec, ScenarioSpec, VMSpec
from pyvirt.spec.cluster import STATES

__all__ = ["DOWN", "OFF", "ON", "SUSPENDED", "Follower", "System"]

OFF, ON, SUSPENDED, DOWN = range(len(VM_STATES))
PAGE = 4096
SECOND = 1_000_000_000
#: Memory steps of hosts that divide time are no longer than this.
LONGEST_MEMORY_STEP = 60 * SECOND


class Follower:
    """Who is told of what happens to machines and hosts; each overrides what it has to know."""

    def admit(self, row: int, host: int) -> None:
        """Refuse a machine that is to start on a host, by an `AdmissionError`."""

    def started(self, row: int, host: int) -> None:
        """Know that a machine runs."""

    def stopped(self, row: int, host: int) -> None:
        """Know that a machine does not run any more."""

    def moved(self, row: int, source: int, target: int) -> None:
        """Know that a machine runs elsewhere."""

    def host_changed(self, host: int) -> None:
        """Know that a host does something else."""


class System:
    """Hosts, virtual machines, and what is known of them.

    Attributes
    ----------
    spec : ScenarioSpec
        With the hypervisor that it is run under.
    cluster : Cluster
        As vCenter sees it: who is where, with what demand. Machines that do not run have no host.
    vms : list of VM
        Disks, snapshots and power states, by row.
    fleet : Fleet
        The hosts at work.
    memory : ClusterMemory
        Theirs.
    calendar : Calendar
        What is to happen.
    state : ndarray of uint8, shape (V,)
        Places in `VM_STATES`.
    vmms : dict of int to VMM
        Of machines that run, by row.
    events, monitors : list
        What happened so far.
    followers : list
        Who is told of machines that start, stop and move, and of states of hosts.
    kept : tuple of int
        Hosts that HA keeps free.
    pools : tuple of PoolSpec
        Those of the cluster, as they are now.
    """

    def __init__(
        self,
        spec: ScenarioSpec,
        seed: int,
        threads: int,
        paths: Any = None,
        site: Any = None,
        base: str = "",
    ) -> None:
        self.spec, self.seed, self.now = spec, seed, 0
        described = spec.cluster
        hosts = described.hosts
        self.host_names = tuple(host.name for host in hosts)
        self.vm_names = tuple(vm.name for vm in described.vms)
        self.vms = [VM(seeded(vm, seed, base)) for vm in described.vms]
        # nothing is on yet: who is registered at a host in standby is not refused for it
        awake = [host.replace(state="on") for host in hosts]
        self.cluster = Cluster.from_spec(_kept_apart(described.replace(hosts=awake)))
        self.cluster.hosts.state[:] = [STATES.index(host.state) for host in hosts]
        self._store_numbers, self._reached = store_numbers(described), described.reached
        # where a machine is registered: what it is powered on at, without another word
        self.registered = self.cluster.vms.host.copy()
        self.cluster.vms.on[:] = 0
        self.cluster.vms.host[:] = NONE
        self.pools = described.pools
        pools = _divided(described, described.pools)
        latencies = _latencies(described)
        if spec.mode == "exact":
            self.fleet: Fleet = ExactFleet(
                *(hosts, pools, len(self.vms), seed, paths, threads, site, described.networks),
                latencies,
            )
            memory_step = SECOND
        else:
            inside = [vm.pool for vm in described.vms]
            self.fleet = DemandFleet(
                hosts, pools, self.cluster, seed, spec.step_ns, inside, latencies
            )
            memory_step = min(spec.step_ns, LONGEST_MEMORY_STEP)
        self.memory = ClusterMemory(
            described,
            [load(host) for host in hosts],
            spec.policies.memory,
            seed=derived(seed, "memory"),
            step_ns=memory_step,
        )
        self.meter = Meter(self.cluster, self.fleet.capacity_ns)
        self.calendar = Calendar()
        self.state = np.zeros(len(self.vms), np.uint8)
        self.stuns: dict[int, set[str]] = {}
        self.vmms: dict[int, VMM] = {}
        self.first_on = np.full(len(self.vms), -1, np.int64)
        self.events: list[Event] = []
        self.monitors: list[Monitor] = []
        self.followers: list[Follower] = []
        self.kept: tuple[int, ...] = ()
        self._measured = (0, self.fleet.vm_times(), self.meter.vm["on_ns"].copy())

    # --- time ---

    def advance(self, to_ns: int) -> None:
        """Let time pass in which nothing happens to the cluster."""
        dt = to_ns - self.now
        if dt:
            self.fleet.advance(to_ns)
            self.meter.pass_time(dt, self.state, self._stunned())
            self.now = to_ns

    def step_memory(self) -> None:
        """Let the hosts' memory managers do a step."""
        waits = self.memory.step()
        self.fleet.wait_for_pages(waits, self.memory.step_ns)

    def read_meter(self) -> None:
        """Add the energy up to now."""
        self.meter.read(self.now, self.fleet.host_times()["run_ns"])

    def _stunned(self) -> npt.NDArray[np.bool_]:
        made = np.zeros(len(self.vms), bool)
        made[list(self.stuns)] = True
        return made

    def note(self, what: str, **about: Any) -> None:
        """Write an event down: rows of VM and hosts, text, value."""
        vm, host, to = (about.get(name, NONE) for name in ("vm", "host", "to"))
        self.events.append(
            Event(
                self.now,
                what,
                self.vm_names[vm] if vm != NONE else "",
                self.host_names[host] if host != NONE else "",
                self.host_names[to] if to != NONE else "",
                str(about.get("text", "")),
                float(about.get("value", 0.0)),
            )
        )

    # --- machines ---

    def power_on(self, rows: Sequence[int], what: str = "power-on") -> list[int]:
        """Power machines on where they are registered, or else where they are placed.

        They are placed where that host is not on, does not reach their datastores, or is one that
        HA keeps free (but at the start, where a description means what it says); on such a host
        none is placed. Where the host that was found has not what they reserve, the next is asked.

        Returns
        -------
        list of int
            Those that run now; for the others there is an event ``"refused"``.
        """
        hosts = self.cluster.hosts
        homeless = []
        for row in rows:
            home = int(self.registered[row])
            away = home == NONE or hosts.state[home] != HostState.ON
            away = away or (home in self.kept and self.now > 0)
            if away or self.unreached(row, home):
                homeless.append(row)
        targets = {row: int(self.registered[row]) for row in rows}
        if homeless:
            self.measure()
            chosen = place(self.cluster, homeless, avoid=self.kept)
            for row, host in zip(chosen.vm.tolist(), chosen.host.tolist(), strict=True):
                targets[row] = host
                if host == NONE:
                    self.note("refused", vm=row, text=f"{what}: {self._why_nowhere(chosen, row)}")
        sure, free = [], set(homeless)
        for row in rows:
            if targets[row] != NONE:
                host, vmm = self._prepared(row, targets[row], what, row in free)
                if vmm is not None:
                    sure.append((row, host, vmm))
        together = self.memory.add_many(
            [(row, self.vms[row].spec, host, vmm.memory_overhead) for row, host, vmm in sure]
        )
        started = []
        for row, host, vmm in sure:
            if together or self._has_memory(row, host, vmm, what):
                self._start(row, host, vmm, what)
                started.append(row)
        return started

    def _why_nowhere(self, chosen: Placements, row: int) -> str:
        """Say why no host takes a machine: those that HA keeps free, if one of them could."""
        if self.kept:
            after = self.cluster.copy()
            after.vms.host[chosen.vm] = chosen.host
            able = [one.host for one in choices(after, row) if not one.refusal]
            free = [host for host in self.kept if host in able]
            if free:
                name = self.host_names[free[0]]
                return str(FailoverError(name, 1, 0, self.vm_names[row], "place: a failover host"))
        return chosen.reason(row)

    def start(self, row: int, host: int, what: str = "power-on") -> bool:
        """Power a machine on, or let a suspended one go on, on a host; False: it was refused."""
        _, vmm = self._prepared(row, host, what)
        if vmm is None or not self._has_memory(row, host, vmm, what):
            return False
        self._start(row, host, vmm, what)
        return True

    def _prepared(
        self, row: int, host: int, what: str, others: bool = False
    ) -> tuple[int, VMM | None]:
        """Set aside what a machine needs on a host, or on one of `others`; None: it is refused."""
        avoid = list(self.kept)
        try:
            while True:
                try:
                    return host, self._asked(row, host)
                except FailoverError:  # of the cluster, wherever it is
                    raise
                except AdmissionError:
                    avoid.append(host)
                    following = NONE
                    if others:
                        following = int(place(self.cluster, [row], avoid=avoid).host[0])
                    if following == NONE:
                        raise
                    host = following
        except (AdmissionError, PowerStateError, InvalidValueError) as error:
            self.note("refused", vm=row, host=host, text=f"{what}: {error}")
            return host, None

    def _asked(self, row: int, host: int) -> VMM:
        machine = self.vms[row]
        machine.check("power_on")
        self._check_stores(row, host)
        for one in self.followers:
            one.admit(row, host)
        return self.fleet.prepare(machine, host)

    def _check_stores(self, row: int, host: int) -> None:
        lost = self.unreached(row, host)
        if lost:
            raise InvalidValueError(
                f"host {self.host_names[host]!r:.80} does not reach the datastores of VM "
                f"{self.vm_names[row]!r:.80}: {', '.join(lost)}"
            )

    def unreached(self, row: int, host: int) -> list[str]:
        """Give the datastores that a machine needs, and that a host does not reach now."""
        missing = self.cluster.vms.datastores[row] & ~self.cluster.hosts.datastores[host]
        if not missing.any():
            return []
        return [
            name
            for name, at in self._store_numbers.items()
            if int(missing[at // 64]) >> (at % 64) & 1
        ]

    def reaches(self, host: int, store: str) -> bool:
        """Say whether a host reaches a datastore now; one that no host names they all do."""
        if store not in self._reached:
            return True
        word, bit = divmod(self._store_numbers[store], 64)
        return bool(int(self.cluster.hosts.datastores[host, word]) >> bit & 1)

    def put_disks(self, row: int, names: Collection[str], store: str) -> None:
        """Know that disks of a machine are on another datastore now."""
        machine = self.vms[row]
        disks = [
            one.replace(datastore=store) if one.name in names else one for one in machine.spec.disks
        ]
        machine.spec = machine.spec.replace(disks=disks)
        for disk in machine.disks:
            if disk.name in names:
                disk.datastore = store
        needed = machine.spec.stores(self._reached)
        self.cluster.vms.datastores[row] = masks_of([needed], self._store_numbers)[0]
        work = machine.spec.workload
        if self.state[row] == ON and work is not None and work.disk.think_ns:
            self._begin_anew(row)
        self.fleet.see_paths()

    def _begin_anew(self, row: int) -> None:
        """Let a machine go on where it is, with what is found when one comes to a host."""
        host = int(self.cluster.vms.host[row])
        left = self.fleet.stop(row)
        vmm = self.vmms[row] = self.fleet.prepare(self.vms[row], host)
        self.fleet.start(row, vmm, host, self.now - int(self.first_on[row]), left)
        for reason in sorted(self.stuns.pop(row, set())):
            self.stun(row, reason)

    def _has_memory(self, row: int, host: int, vmm: VMM, what: str) -> bool:
        try:
            self.memory.add(row, self.vms[row].spec, host, vmm.memory_overhead)
        except AdmissionError as error:
            self.fleet.forget(vmm, host)
            self.note("refused", vm=row, host=host, text=f"{what}: {error}")
            return False
        return True

    def _start(self, row: int, host: int, vmm: VMM, what: str) -> None:
        machine = self.vms[row]
        if self.first_on[row] < 0:
            self.first_on[row] = self.now
        machine.move("power_on", self.host_names[host])
        self.fleet.start(row, vmm, host, self.now - int(self.first_on[row]), [])
        self.state[row] = ON
        self.cluster.vms.on[row] = 1
        self._arrived(row, vmm, host)
        self.note(what, vm=row, host=host)
        for one in self.followers:
            one.started(row, host)

    def stop(self, row: int, state: int, action: str, what: str, text: str = "") -> None:
        """Let a machine stop running: for good, suspended, or down."""
        host = int(self.cluster.vms.host[row])
        self.vms[row].check(action)
        self.fleet.stop(row)
        self.memory.remove(row)
        self.vms[row].move(action)
        self.state[row] = state
        self.cluster.vms.on[row] = 0
        self.cluster.vms.host[row] = NONE
        self.stuns.pop(row, None)
        del self.vmms[row]
        self.note(what, vm=row, host=host, text=text)
        for one in self.followers:
            one.stopped(row, host)

    def reconfigure(self, row: int, spec: VMSpec) -> None:
        """Give a machine the shares, reservations and limits of another description.

        Raises
        ------
        AdmissionError, InvalidValueError
            It cannot be; nothing has changed.
        """
        machine, vms, runs = self.vms[row], self.cluster.vms, self.state[row] == ON
        columns = {name: getattr(vms, name) for name in ("shares", "reservation", "limit")}
        before = {name: column[:, row].copy() for name, column in columns.items()}
        old = machine.spec
        try:
            for name, values in claims_of([spec]).items():
                columns[name][:, row] = values[:, 0]
            if runs:
                host, vmm = int(vms.host[row]), self.vmms[row]
                if (columns["reservation"][:, row] > before["reservation"]).any():
                    self._admit_again(row, host)
                self.memory.reclaim(row, spec, host, vmm.memory_overhead)
            try:
                self.fleet.reconfigure(row, spec)
            except BaseException:
                if runs:
                    self.memory.reclaim(row, old, host, vmm.memory_overhead)
                raise
        except BaseException:
            for name, kept in before.items():
                columns[name][:, row] = kept
            raise
        machine.spec = spec

    def _admit_again(self, row: int, host: int) -> None:
        """Ask for a machine that runs as if it came."""
        self.cluster.vms.on[row] = 0
        try:
            for one in self.followers:
                one.admit(row, host)
        finally:
            self.cluster.vms.on[row] = 1

    def set_pool(self, name: str, claims: dict[str, Any]) -> None:
        """Give a resource pool other shares, reservations and limits.

        Raises
        ------
        AdmissionError, InvalidValueError
            It cannot be; nothing has changed.
        """
        at = [one.name for one in self.pools].index(name)
        changed = self.pools[at].replace(**claims)
        pools = (*self.pools[:at], changed, *self.pools[at + 1 :])
        self.fleet.set_pools(_divided(self.spec.cluster, pools))
        self.pools = pools
        for column, values in claims_of([changed]).items():
            getattr(self.cluster.pools, column)[:, at] = values[:, 0]

    def lose(self, row: int, what: str, text: str = "") -> None:
        """Let a machine go down, by what failed."""
        self.stop(row, DOWN, "power_off", what, text)

    def hand_over(self, row: int, vmm: VMM, target: int) -> None:
        """Let a machine that stands still for it go on at a host that was prepared.

        Raises
        ------
        AdmissionError
            Its memory does not fit there; it is where it was.
        """
        source = int(self.cluster.vms.host[row])
        self.memory.move(row, target, vmm.memory_overhead)
        speeds = self.cluster.hosts.core_khz
        faster = int(speeds[source]) / int(speeds[target])
        left = [round(one * faster) for one in self.fleet.stop(row)]
        self.fleet.start(row, vmm, target, self.now - int(self.first_on[row]), left)
        vmm.vm.host = self.host_names[target]
        reasons = self.stuns.get(row, set()) - {"migration"}
        self.stuns.pop(row, None)
        self._arrived(row, vmm, target)
        for reason in sorted(reasons):
            self.stun(row, reason)

    def tell_moved(self, row: int, source: int, target: int) -> None:
        """Tell those who follow that a machine is elsewhere."""
        for one in self.followers:
            one.moved(row, source, target)

    def _arrived(self, row: int, vmm: VMM, host: int) -> None:
        self.vmms[row] = vmm
        self.registered[row] = self.cluster.vms.host[row] = host
        self.cluster.vms.overhead[row] = -(-vmm.memory_overhead // PAGE)
        self.monitors.append(
            Monitor(
                self.now,
                self.vm_names[row],
                self.host_names[host],
                vmm.mode.value,
                vmm.technique,
                vmm.mmu,
                vmm.execution.overhead,
                0.0 if vmm.translation is None else vmm.translation.overhead,
                dict(vmm.execution.cycles),
            )
        )

    def stun(self, row: int, reason: str) -> None:
        """Let a machine stand still, for one more reason."""
        reasons = self.stuns.setdefault(row, set())
        if not reasons:
            self.fleet.stun(row)
        reasons.add(reason)

    def go_on(self, row: int, reason: str) -> None:
        """End a reason to stand still."""
        reasons = self.stuns.get(row)
        if reasons and reason in reasons:
            reasons.discard(reason)
            if not reasons:
                del self.stuns[row]
                self.fleet.go_on(row)

    # --- hosts ---

    def set_host(self, host: int, state: HostState, what: str, text: str = "") -> None:
        """Change what a host is doing; its machines have left."""
        self.read_meter()
        self.cluster.hosts.state[host] = state
        self.fleet.set_state(host, STATES[state])
        self.note(what, host=host, text=text)
        for one in self.followers:
            one.host_changed(host)

    def on_host(self, host: int) -> list[int]:
        """Give the machines that run on a host."""
        return [int(row) for row in self.cluster.vms_on(host)]

    # --- what vCenter sees ---

    def measure(self) -> None:
        """Write the demand since the last time into the cluster: what vCenter goes by.

        CPU is for how long vCPUs ran, or could not although they would: ready, co-stopped, at a
        limit; with the worlds that serve a machine's devices. Memory is what is active and a
        part of what is mapped (`memory_demand`).
        """
        vms, hosts = self.cluster.vms, self.cluster.hosts
        since, before, on_before = self._measured
        if self.now > since:
            times, on = self.fleet.vm_times(), self.meter.vm["on_ns"]
            names = ("run_ns", "ready_ns", "costop_ns", "limited_ns", "device_run_ns")
            took = sum((times[name] - before[name] for name in names), np.zeros(len(on), np.int64))
            lasted = on - on_before
            speed = np.where(vms.host == NONE, 0, hosts.core_khz[vms.host])
            seen = (vms.on == 1) & (lasted > 0)
            share = np.divide(took, lasted, out=np.zeros(len(on)), where=seen)
            vms.demand[0] = np.where(seen, np.rint(share * speed), vms.demand[0])
            self._measured = (self.now, times, on.copy())
        if self.memory.any:
            pages = self.memory.vm_samples(len(vms))
            running = vms.on == 1
            vms.active = np.where(running, pages["active_pages"], vms.active)
            mapped = np.maximum(pages["mapped_pages"], pages["active_pages"])
            vms.consumed = np.where(running, mapped, vms.consumed)
            wanted = memory_demand(vms.active, np.maximum(vms.consumed, vms.active))
            vms.demand[1] = np.where(running, wanted, vms.demand[1])

    def offered(self) -> Cluster:
        """Give the cluster to those who look for places: without empty hosts that HA keeps free."""
        empty = [host for host in self.kept if not self.on_host(host)]
        if not empty:
            return self.cluster
        made = self.cluster.copy()
        on = [host for host in empty if made.hosts.state[host] == HostState.ON]
        made.hosts.state[on] = HostState.MAINTENANCE
        return made

    def finish(self) -> None:
        """Check that all pages are there."""
        self.memory.check()


def _latencies(cluster: ClusterSpec) -> Latencies | None:
    """Give the times of requests with all paths as they are meant, where any machine waits."""
    works = (vm.workload for vm in cluster.vms if vm.workload is not None)
    if not any(work.disk.think_ns for work in works):
        return None
    return Latencies(Site(cluster).engine())


def _kept_apart(cluster: ClusterSpec) -> ClusterSpec:
    """Keep machines at hosts of their own hypervisor, by a feature that no other offers."""
    kinds = {host.name: f"hypervisor {host.hypervisor}" for host in cluster.hosts}
    if len(set(kinds.values())) < 2:
        return cluster
    hosts = [host.replace(features=(*host.features, kinds[host.name])) for host in cluster.hosts]
    vms = [
        vm.replace(features=(*vm.features, kinds[vm.host])) if vm.host else vm for vm in cluster.vms
    ]
    return cluster.replace(hosts=hosts, vms=vms)


def _divided(cluster: ClusterSpec, pools: tuple[PoolSpec, ...]) -> list[tuple[PoolSpec, ...]]:
    """Give each host the cluster's pools.

    Of several hosts each has the part of a pool's reservation and limit that it has of the
    cluster's capacity, and pools that may take what they lack from their parents.
    """
    hosts = cluster.hosts
    if len(hosts) == 1 or not pools:
        return [pools for _ in hosts]
    cpu = sum(host.cores * host.mhz for host in hosts)
    memory = sum(host.memory for host in hosts)
    made = []
    for host in hosts:
        a, b = host.cores * host.mhz / cpu, host.memory / memory if memory else 0.0
        made.append(tuple(_part(pool, a, b) for pool in pools))
    return made


def _part(pool: PoolSpec, cpu: float, memory: float) -> PoolSpec:
    limits = {
        "cpu_limit": None if pool.cpu_limit is None else pool.cpu_limit * cpu,
        "memory_limit": None if pool.memory_limit is None else int(pool.memory_limit * memory),
    }
    return pool.replace(
        cpu_reservation=pool.cpu_reservation * cpu,
        memory_reservation=int(pool.memory_reservation * memory),
        cpu_expandable=True,
        memory_expandable=True,
        **limits,
    )
