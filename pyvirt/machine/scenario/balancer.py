"""DRS and DPM: what they recommend, and that it is done."""

from __future__ import annotations

import numpy as np

from pyvirt.cluster import NONE, DPMOptions, DPMPolicy, HostState, drs, evacuate
from pyvirt.machine.scenario.calendar import BEFORE
from pyvirt.machine.scenario.migrations import Migrations
from pyvirt.machine.scenario.system import Follower, System

__all__ = ["Balancer"]


class Balancer(Follower):
    """Runs the cluster's policies at their intervals, and puts hosts into standby and maintenance.

    Parameters
    ----------
    system : System
    migrations : Migrations
    """

    def __init__(self, system: System, migrations: Migrations) -> None:
        self._system, self._migrations = system, migrations
        self._leaving: dict[int, HostState] = {}
        system.followers.append(self)
        policies = system.spec.policies
        if policies.drs is not None:
            system.calendar.enter(policies.drs.interval_ns, self._balance, rank=BEFORE)
        self._power: DPMPolicy | None = None
        if policies.dpm is not None:
            given = policies.dpm
            spare = 0 if policies.ha is None else policies.ha.tolerate
            options = DPMOptions(
                given.target,
                given.tolerance,
                given.on_window_ns,
                given.off_window_ns,
                least_on=given.least_on,
                spare=spare,
            )
            self._power = DPMPolicy(options, interval_ns=given.interval_ns)
            system.calendar.enter(given.interval_ns, self._manage_power, rank=BEFORE)

    # --- the policies ---

    def _balance(self) -> None:
        system, policy = self._system, self._system.spec.policies.drs
        assert policy is not None
        system.measure()
        made = drs(system.offered(), level=policy.level)
        applied = made.applied if policy.automation == "full" else np.zeros(len(made.vm), bool)
        goals = {int(made.vm[i]): int(made.target[i]) for i in np.flatnonzero(applied)}
        for at, (vm, target) in enumerate(zip(made.vm.tolist(), made.target.tolist(), strict=True)):
            if not applied[at] and target not in system.kept:
                source = int(made.source[at])
                text = f"priority {int(made.priority[at])}"
                system.note("recommended", vm=vm, host=source, to=target, text=text)
        for vm, target in goals.items():
            # what is on its way already is seen where it was
            free = target not in self._leaving and target not in system.kept
            if self._migrations.target(vm) == NONE and free:
                self._migrations.ask(vm, target, "DRS")
        system.calendar.enter(system.now + policy.interval_ns, self._balance, rank=BEFORE)

    def _manage_power(self) -> None:
        system, policy = self._system, self._system.spec.policies.dpm
        assert policy is not None
        assert self._power is not None
        system.measure()
        actions = self._power.step(system.offered(), system.now)
        if actions is not None:
            for host in actions.power_on:
                self.wake(int(host), "DPM")
            for vm, target in np.asarray(actions.moves, np.int64).reshape(-1, 2).tolist():
                free = target != system.cluster.vms.host[vm] and target not in system.kept
                if self._migrations.target(vm) == NONE and free:
                    self._migrations.ask(vm, target, "DPM")
            for host in actions.power_off:
                if int(host) not in system.kept:
                    self.leave(int(host), HostState.STANDBY, "DPM", moves=False)
        system.calendar.enter(system.now + policy.interval_ns, self._manage_power, rank=BEFORE)

    # --- hosts ---

    def leave(self, host: int, state: HostState, why: str, *, moves: bool = True) -> None:
        """Let a host go to standby or maintenance, once its machines have left."""
        system = self._system
        if system.cluster.hosts.state[host] != HostState.ON:
            system.note("refused", host=host, text=f"{why}: the host is not on")
            return
        self._leaving[host] = state
        system.note("host-leaving", host=host, text=why)
        if moves:
            system.measure()
            plan = evacuate(system.offered(), [host])
            for vm, target in zip(plan.vm.tolist(), plan.target.tolist(), strict=True):
                if self._migrations.target(vm) == NONE:
                    self._migrations.ask(vm, target, why)
            for vm in plan.left.tolist():
                system.note("refused", vm=int(vm), host=host, text=f"{why}: no host takes it")
        self._try(host)

    def wake(self, host: int, why: str) -> None:
        """Let a host come out of standby, or out of maintenance, or stay on."""
        system = self._system
        state = system.cluster.hosts.state[host]
        if host in self._leaving:
            del self._leaving[host]
            system.note("host-stays", host=host, text=why)
        elif state == HostState.MAINTENANCE:
            system.set_host(host, HostState.ON, "host-on", why)
        elif state == HostState.STANDBY and host not in system.meter.coming:
            system.read_meter()
            system.meter.coming.add(host)
            system.note("host-coming", host=host, text=why)
            ready = system.now + int(system.cluster.hosts.standby_ns[host])
            system.calendar.enter(ready, self._on, host)
        else:
            system.note("refused", host=host, text=f"{why}: the host is not in standby")

    def _on(self, host: int) -> None:
        system = self._system
        if host in system.meter.coming:
            system.read_meter()
            system.meter.coming.discard(host)
            system.set_host(host, HostState.ON, "host-on")

    def _try(self, host: int) -> None:
        """Let a host that is empty go where it is to go."""
        system = self._system
        if (
            host not in self._leaving
            or system.cluster.hosts.state[host] != HostState.ON
            or self._migrations.inbound(host)
            or system.on_host(host)
        ):
            return
        state = self._leaving.pop(host)
        words = {HostState.STANDBY: "host-standby", HostState.MAINTENANCE: "host-maintenance"}
        system.set_host(host, state, words[state])

    # --- what System tells ---

    def started(self, row: int, host: int) -> None:
        """Let a host stay on for what starts there."""
        if host in self._leaving:
            self.wake(host, "a machine starts there")

    def stopped(self, row: int, host: int) -> None:
        """Look whether the host is empty now."""
        self._try(host)

    def moved(self, row: int, source: int, target: int) -> None:
        """Look whether the host is empty now."""
        self._try(source)

    def host_changed(self, host: int) -> None:
        """Forget a host that failed."""
        if self._system.cluster.hosts.state[host] == HostState.FAILED:
            self._leaving.pop(host, None)
