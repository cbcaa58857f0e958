"""What operators do in a scenario, and guests that fail."""

from __future__ import annotations

from typing import Any

from pyvirt.cluster import NONE, HostState
from pyvirt.errors import AdmissionError, InvalidValueError, PowerStateError
from pyvirt.machine.scenario.balancer import Balancer
from pyvirt.machine.scenario.migrations import Migrations
from pyvirt.machine.scenario.storage import Storage
from pyvirt.machine.scenario.system import OFF, ON, SUSPENDED, System
from pyvirt.spec import ClaimSpec, EventSpec, FaultSpec
from pyvirt.spec.events import ACTIONS, CLAIMS

__all__ = ["Operations"]


class Operations:
    """Carries out the events of a scenario, and its faults of guests.

    What is asked for and cannot be is an event ``"refused"``, and the scenario goes on.

    Parameters
    ----------
    system, migrations, balancer, storage
        What it asks.
    """

    def __init__(
        self, system: System, migrations: Migrations, balancer: Balancer, storage: Storage
    ) -> None:
        self._system, self._migrations = system, migrations
        self._balancer, self._storage = balancer, storage
        for event in system.spec.events:
            system.calendar.enter(event.at_ns, self._do, event)
        for fault in system.spec.faults:
            if fault.what == "guest":
                system.calendar.enter(fault.at_ns, self._hang, fault)

    def _do(self, event: EventSpec) -> None:
        name = event.what.replace("-", "_")
        given = event.claim if event.what in CLAIMS else event.to
        try:
            getattr(self, f"_{name}")(event.target, given)
        except (PowerStateError, InvalidValueError, AdmissionError) as error:
            of_vm = ACTIONS[event.what][0] == "vm"
            row = self._system.vm_names.index(event.target) if of_vm else NONE
            self._system.note("refused", vm=row, text=f"{event.what}: {error}")

    def _row(self, vm: str) -> int:
        return self._system.vm_names.index(vm)

    def _host(self, host: str) -> int:
        return self._system.host_names.index(host)

    # --- virtual machines ---

    def _power_on(self, vm: str, to: str) -> None:
        self._start(vm, to, "power-on")

    def _resume(self, vm: str, to: str) -> None:
        machine = self._system.vms[self._row(vm)]
        if machine.state != "suspended":
            raise PowerStateError(f"VM {vm!r:.80} is {machine.state} and does not resume")
        self._start(vm, to, "resume")

    def _start(self, vm: str, to: str, what: str) -> None:
        row = self._row(vm)
        self._system.vms[row].check("power_on")
        if to:
            self._system.start(row, self._host(to), what)
        else:
            self._system.power_on([row], what)

    def _power_off(self, vm: str, to: str) -> None:
        row, machine = self._row(vm), self._system.vms[self._row(vm)]
        machine.check("power_off")
        if self._system.state[row] == ON:
            self._system.stop(row, OFF, "power_off", "power-off")
        else:
            machine.move("power_off")
            self._system.state[row] = OFF
            self._system.note("power-off", vm=row)

    def _reset(self, vm: str, to: str) -> None:
        row = self._row(vm)
        self._system.vms[row].check("reset")
        host = int(self._system.cluster.vms.host[row])
        self._system.stop(row, OFF, "power_off", "reset")
        self._system.start(row, host)

    def _suspend(self, vm: str, to: str) -> None:
        self._system.stop(self._row(vm), SUSPENDED, "suspend", "suspend")

    def _snapshot(self, vm: str, to: str) -> None:
        row = self._row(vm)
        machine = self._system.vms[row]
        machine.take_snapshot(to, memory=machine.state != "off", now_ns=self._system.now)
        self._system.note("snapshot", vm=row, text=to)

    def _revert(self, vm: str, to: str) -> None:
        row = self._row(vm)
        machine = self._system.vms[row]
        machine.snapshots.find(to)
        host = int(self._system.cluster.vms.host[row])
        if self._system.state[row] == ON:
            self._system.stop(row, OFF, "power_off", "power-off", "to revert")
        machine.revert(to)
        self._system.state[row] = SUSPENDED if machine.state == "suspended" else OFF
        self._system.note("revert", vm=row, text=to)
        if machine.state == "suspended" and host != NONE:
            self._system.start(row, host, "resume")

    def _consolidate(self, vm: str, to: str) -> None:
        row = self._row(vm)
        blocks = self._system.vms[row].consolidate()
        self._system.note("consolidate", vm=row, value=blocks)

    def _migrate(self, vm: str, to: str) -> None:
        self._migrations.ask(self._row(vm), self._host(to), "by an operator")

    def _migrate_storage(self, vm: str, to: str) -> None:
        self._storage.move(self._row(vm), to)

    # --- shares and bounds ---

    def _reconfigure(self, vm: str, claim: ClaimSpec) -> None:
        row = self._row(vm)
        if self._migrations.target(row) != NONE:
            raise PowerStateError(f"VM {vm!r:.80} is on its way and is not reconfigured")
        changes = claim.changes()
        self._system.reconfigure(row, self._system.vms[row].spec.replace(**changes))
        self._system.note("reconfigured", vm=row, text=_words(changes))

    def _reconfigure_pool(self, pool: str, claim: ClaimSpec) -> None:
        changes = claim.changes()
        self._system.set_pool(pool, changes)
        self._system.note("reconfigured", text=f"pool {pool}: {_words(changes)}")

    # --- hosts ---

    def _enter_maintenance(self, host: str, to: str) -> None:
        self._balancer.leave(self._host(host), HostState.MAINTENANCE, "maintenance")

    def _exit_maintenance(self, host: str, to: str) -> None:
        self._balancer.wake(self._host(host), "end of maintenance")

    def _enter_standby(self, host: str, to: str) -> None:
        self._balancer.leave(self._host(host), HostState.STANDBY, "by an operator")

    def _exit_standby(self, host: str, to: str) -> None:
        self._balancer.wake(self._host(host), "by an operator")

    # --- guests that fail ---

    def _hang(self, fault: FaultSpec) -> None:
        row = self._row(fault.target)
        if self._system.state[row] != ON:
            self._system.note("fault-ignored", vm=row, text="guest: the machine does not run")
            return
        self._system.stun(row, "guest")
        self._system.note("guest-failed", vm=row)
        if fault.recover_after_ns is not None:
            when = self._system.now + fault.recover_after_ns
            self._system.calendar.enter(when, self._recover, row)

    def _recover(self, row: int) -> None:
        if "guest" in self._system.stuns.get(row, ()):
            host = int(self._system.cluster.vms.host[row])
            self._system.stop(row, OFF, "power_off", "reset", "its guest had failed")
            self._system.start(row, host)


def _words(changes: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in changes.items())
