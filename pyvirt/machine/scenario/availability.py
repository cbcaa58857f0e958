"""Failures of hosts and guests, and HA, which starts again what stops."""

from __future__ import annotations

from typing import Any

from pyvirt.cluster import (
    NONE,
    FailoverHosts,
    HAEvent,
    HARules,
    HostFailure,
    HostState,
    Isolation,
    Percentage,
    Slots,
    admit,
)
from pyvirt.cluster.ha_engine import Engine
from pyvirt.cluster.ha_rules import Incident
from pyvirt.cluster.ha_state import DOWN as HA_DOWN
from pyvirt.cluster.ha_state import OFF as HA_OFF
from pyvirt.cluster.ha_state import RUNNING, STARTING
from pyvirt.machine.scenario.calendar import NEVER
from pyvirt.machine.scenario.system import DOWN, ON, Follower, System
from pyvirt.spec import FaultSpec, HASpec

__all__ = ["Availability"]

#: What HA's events are called in a scenario's.
WORDS = {
    HAEvent.HOST_DECLARED_DEAD: "host-declared-dead",
    HAEvent.HOST_ISOLATED: "host-isolated",
    HAEvent.ISOLATION_DECLARED: "isolation-declared",
    HAEvent.STORAGE_LOST: "storage-lost",
    HAEvent.STORAGE_TIMED_OUT: "storage-timed-out",
    HAEvent.STORAGE_BACK: "storage-back",
    HAEvent.PLACED: "restart-placed",
    HAEvent.HEARTBEAT: "heartbeat",
    HAEvent.REFUSED: "refused",
    HAEvent.GIVEN_UP: "restart-given-up",
    HAEvent.IGNORED: "fault-ignored",
}


#: How hosts that are not on are described, whose faults come to nothing.
WHILE = {state: f"in {state.name.lower()}" for state in HostState} | {
    HostState.FAILED: "failed already",
}


class Watch(Engine):
    """HA's engine over a cluster that others change meanwhile.

    Attributes
    ----------
    quiet : bool
        Whether it starts nothing again: without HA.
    """

    quiet = False

    def _queue(self, vm: int) -> None:
        if self.quiet:
            self.status[vm] = HA_OFF
        else:
            super()._queue(vm)

    def _begin(self, one: Incident) -> None:
        if isinstance(one, HostFailure):
            self._at(one.at_ns, self._fails, one)
        else:
            super()._begin(one)

    def _fails(self, one: HostFailure) -> None:
        """Let a host that is on fail, and come back; of another it is noted that it does not."""
        if self._heeds(one.host, "host"):
            self._host_fails(one.host)
            if one.back_ns is not None:
                self._at(one.back_ns, self._host_back, one.host)

    def _isolated(self, one: Isolation) -> None:
        if self._heeds(one.host, "isolation"):
            super()._isolated(one)

    def _heeds(self, host: int, what: str) -> bool:
        state = HostState(self.cluster.hosts.state[host])
        if state != HostState.ON:
            self._note(HAEvent.IGNORED, host=host, text=f"{what}: it is {WHILE[state]}")
        return state == HostState.ON

    @property
    def due(self) -> int:
        """When it does something next, or `NEVER`."""
        return self.plan[0][0] if self.plan else NEVER

    def runs(self, vm: int, host: int) -> None:
        """A machine was started by others."""
        if self.status[vm] == STARTING:
            before = int(self.where[vm])
            self._leave_line(vm, before)
            self.free[:, before] += self.reach.arrays.need[:, vm]
        self.token[vm] += 1
        self.waiting.discard(vm)
        self.opened.discard(vm)
        self.status[vm], self.where[vm] = RUNNING, host
        self.free[:, host] -= self.reach.arrays.need[:, vm]

    def rests(self, vm: int) -> None:
        """A machine was stopped by others, on purpose."""
        host = int(self.where[vm])
        if self.status[vm] != RUNNING or host == NONE:
            return
        self.token[vm] += 1
        self.free[:, host] += self.reach.arrays.need[:, vm]
        self.status[vm], self.where[vm] = HA_OFF, NONE

    def goes(self, vm: int, source: int, target: int) -> None:
        """A machine was moved by others."""
        need = self.reach.arrays.need[:, vm]
        self.free[:, source] += need
        self.free[:, target] -= need
        self.where[vm] = target

    def look(self) -> None:
        """Read anew what machines need, and what hosts have free."""
        self._reach()

    def sees(self, host: int) -> None:
        """A host's state was changed by others."""
        self._hinder(host, 0)

    def fails(self, vm: int) -> None:
        """A machine that was powered on here could not start after all."""
        host = int(self.where[vm])
        self.token[vm] += 1
        if host != NONE:
            self.free[:, host] += self.reach.arrays.need[:, vm]
        self.where[vm], self.status[vm] = NONE, HA_DOWN
        self._queue(vm)
        self.next_try[vm] = self.now + self.rules.retry(1)
        self._at(self.next_try[vm], self._wake)


class Availability(Follower):
    """Carries out failures of hosts, and what HA does about them and about lost storage.

    Without HA in the scenario's policies what stopped stays down, and its host comes back empty.

    Parameters
    ----------
    system : System
    incidents : list
        All failures of hosts, isolations and losses of storage.
    """

    def __init__(self, system: System, incidents: list[Any]) -> None:
        self._system = system
        policy = system.spec.policies.ha
        self._admission = None if policy is None else _admission(policy, system)
        rules = HARules(pdl_response="events") if policy is None else _rules(policy)
        kept = self._admission if isinstance(self._admission, FailoverHosts) else None
        system.kept = () if kept is None else kept.hosts
        self.watch = Watch(system.cluster, incidents, rules, kept, {}, None)
        self.watch.quiet = policy is None
        self._told = 0
        self._acting = False
        self._starting = False
        system.followers.append(self)

    @property
    def due(self) -> int:
        """When something happens next."""
        return self.watch.due

    def happen(self, now: int) -> None:
        """Let happen what is due, and carry it out."""
        watch = self.watch
        # one moment after the other, for what is carried out may change what follows
        while watch.due <= now:
            watch.look()
            # up to here hosts drew what they did in the states that are changed now
            self._system.read_meter()
            watch.run(watch.due)
            while self._told < len(watch.record):
                _, what, vm, host = watch.record[self._told]
                text = watch.texts[self._told]
                self._told += 1
                self._acting = True
                try:
                    self._carry_out(HAEvent(what), vm, host, text)
                finally:
                    self._acting = False

    def _carry_out(self, what: HAEvent, vm: int, host: int, text: str) -> None:
        system = self._system
        if what in (HAEvent.VM_STOPPED, HAEvent.VM_POWERED_OFF, HAEvent.VM_SHUT_DOWN):
            if system.state[vm] == ON:
                words = {HAEvent.VM_STOPPED: "vm-failed", HAEvent.VM_SHUT_DOWN: "vm-shut-down"}
                system.lose(vm, words.get(what, "vm-powered-off"), text)
        elif what == HAEvent.HOST_FAILED:
            for row in system.on_host(host):
                system.lose(row, "vm-failed")
            system.set_host(host, HostState.FAILED, "host-failed")
        elif what == HAEvent.HOST_BACK:
            system.set_host(host, HostState.ON, "host-back")
        elif what == HAEvent.POWERED_ON:
            self._starting = True
            started = system.start(vm, host, "restarted")
            self._starting = False
            if not started:
                self.watch.fails(vm)
        elif what in WORDS and not (self.watch.quiet and what == HAEvent.HOST_DECLARED_DEAD):
            system.note(WORDS[what], vm=vm, host=host, text=text)

    # --- what System tells ---

    def admit(self, row: int, host: int) -> None:
        """Refuse a machine for which too little would be left for failures.

        Those that are to run from the start are not asked.
        """
        if self._admission is not None and not self._starting and self._system.now:
            admit(self._system.cluster, self._admission, row, host=host)

    def started(self, row: int, host: int) -> None:
        """Watch over it from now on."""
        if not self._starting:
            self.watch.runs(row, host)

    def stopped(self, row: int, host: int) -> None:
        """Do not start again what was stopped on purpose."""
        if not self._acting and self._system.state[row] != DOWN:
            self.watch.rests(row)

    def moved(self, row: int, source: int, target: int) -> None:
        """Know where it is."""
        self.watch.goes(row, source, target)

    def host_changed(self, host: int) -> None:
        """Know what takes machines."""
        self.watch.sees(host)


def failures(system: System, faults: tuple[FaultSpec, ...]) -> list[Any]:
    """Give the faults of hosts as incidents."""
    kinds: dict[str, Any] = {"host": HostFailure, "isolation": Isolation}
    made = []
    for fault in faults:
        if fault.what in kinds:
            back = None if fault.recover_after_ns is None else fault.at_ns + fault.recover_after_ns
            row = system.host_names.index(fault.target)
            made.append(kinds[fault.what](row, fault.at_ns, back))
    return made


def _admission(policy: HASpec, system: System) -> Slots | Percentage | FailoverHosts | None:
    if policy.admission == "slots":
        return Slots(policy.tolerate) if policy.tolerate else None
    if policy.admission == "percentage":
        return Percentage(policy.cpu * 100.0, policy.memory * 100.0)
    if policy.admission == "hosts":
        rows = tuple(system.host_names.index(name) for name in policy.failover_hosts)
        return FailoverHosts(rows)
    return None


def _rules(policy: HASpec) -> HARules:
    given: dict[str, Any] = {
        name: getattr(policy, name)
        for name in ("isolation_response", "apd_response", "pdl_response")
    }
    return HARules(**given)
