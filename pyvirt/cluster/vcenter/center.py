"""A vCenter in the process: a cluster that runs through simulated time, asked and told as one is.

Everything happens at whole nanoseconds and in a fixed order, so that a run can be repeated.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.dpm import DPMOptions, dpm
from pyvirt.cluster.ha import recover
from pyvirt.cluster.ha_rules import HAEvent, HARules, HostFailure
from pyvirt.cluster.history import DemandHistory
from pyvirt.cluster.placement import place
from pyvirt.cluster.power import host_watts
from pyvirt.cluster.reach import Reach
from pyvirt.cluster.repair import evacuate
from pyvirt.cluster.shares import GIVEN, HostShares
from pyvirt.cluster.tables import CPU, MEMORY, NONE, HostState
from pyvirt.cluster.vcenter.alarms import DEFAULT_ALARMS, AlarmRule, Alarms
from pyvirt.cluster.vcenter.inventory import Inventory
from pyvirt.cluster.vcenter.migrations import Moves
from pyvirt.cluster.vcenter.performance import INTERVALS, Performance
from pyvirt.cluster.vcenter.records import Log, Task
from pyvirt.errors import InvalidTypeError, InvalidValueError

if TYPE_CHECKING:
    from pyvirt.cluster.model import Cluster

__all__ = ["Balancer", "VCenter"]

SECOND = 10**9
EVERY = INTERVALS[0].every_ns


class Balancer(Protocol):
    """What decides on moves: `pyvirt.cluster.drs` with its options bound, or a function like it."""

    def __call__(self, cluster: Cluster) -> Any:
        """Give a `Balancing`, or objects with `vm` and `target` (rows or names), in order."""


class VCenter:
    """A cluster that is run.

    Parameters
    ----------
    cluster : Cluster
        Is changed as time passes.
    datacenter : str, default "datacenter"
        The root of the inventory.
    balance : Balancer, optional
        Asked each `balance_ns`, such as `pyvirt.cluster.drs`; its moves are made. None: VMs stay.
    balance_ns : int, default 300 s
        How often.
    power : DPMOptions, optional
        Hosts go to standby and come back by `dpm`, asked each five minutes. None: they do not.
    ha : HARules, optional
        VMs of a host that fails are started again. None: they are not.
    alarms : sequence of AlarmRule
        By default vCenter's for CPU and memory of hosts.

    Attributes
    ----------
    cluster : Cluster
    now_ns : int
        Simulated time.
    inventory : Inventory
    tasks : list of Task
    events : Log
    performance : Performance
    alarms : Alarms

    Examples
    --------
    >>> from pyvirt.cluster import Cluster
    >>> from pyvirt.cluster.vcenter import VCenter
    >>> center = VCenter(Cluster.from_tables(
    ...     {"name": ["a", "b"], "cpu_mhz": [9000] * 2, "memory_bytes": [8 << 30] * 2},
    ...     {"name": ["web"], "host": [0], "memory_bytes": [1 << 30], "demand_cpu_mhz": [500]},
    ... ))
    >>> task = center.migrate("web", "b")
    >>> center.run(60 * 10**9)
    >>> task.state, task.completed_ns
    ('success', 858993460)
    >>> [event.kind for event in center.events]
    ['VmBeingMigratedEvent', 'VmMigratedEvent']
    >>> center.performance.query("cpu.usagemhz")[1].tolist()
    [[0.0, 500.0], [0.0, 500.0], [0.0, 500.0]]
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        datacenter: str = "datacenter",
        balance: Balancer | None = None,
        balance_ns: int = 300 * SECOND,
        power: DPMOptions | None = None,
        ha: HARules | None = None,
        alarms: Sequence[AlarmRule] = DEFAULT_ALARMS,
    ) -> None:
        cluster.validate()
        if not datacenter:
            raise InvalidValueError("datacenter must be a name, got an empty one")
        if balance_ns < 1:
            raise InvalidValueError(f"balance_ns must be positive, got {balance_ns}")
        self.cluster = cluster
        self.now_ns = 0
        self.inventory = Inventory(cluster, datacenter)
        self.tasks: list[Task] = []
        self.events = Log()
        self.performance = Performance(len(cluster.hosts), len(cluster.vms))
        self.alarms = Alarms(tuple(alarms), self.performance.rows)
        self._balance, self._power, self._ha = balance, power, ha
        self._history = DemandHistory(
            len(cluster.vms), span_ns=2400 * SECOND if power is None else power.off_window_ns
        )
        self._moves = Moves(cluster)
        self._queue: list[tuple[int, int, int, Callable[[], None]]] = []
        self._sequence = 0
        self._entering: dict[int, tuple[Task, HostState]] = {}
        self._shares: HostShares | None = None
        # A sample stands for the time that ends with it: it comes before all else at its time.
        self._every(EVERY, self._sample, 0)
        self._every(60 * SECOND, lambda: self._history.record(self.cluster), 0)
        if balance is not None:
            self._every(int(balance_ns), self._run_balance)
        if power is not None:
            self._every(300 * SECOND, self._run_power)

    # -- time

    def next_event_time(self) -> int:
        """Give when something happens next, in ns."""
        moves = self._moves.next_ns()
        return self._queue[0][0] if moves is None else min(moves, self._queue[0][0])

    def advance(self, to_ns: int) -> None:
        """Let time pass, as `run`."""
        self.run(to_ns)

    def run(self, until_ns: int) -> None:
        """Let time pass up to and with `until_ns`."""
        if until_ns < self.now_ns:
            raise InvalidValueError(f"until_ns must be at least {self.now_ns}, got {until_ns}")
        while (when := self.next_event_time()) <= until_ns:
            self.now_ns = max(when, self.now_ns)
            if self._step_migration():
                continue
            action = heapq.heappop(self._queue)[-1]
            action()
        self.now_ns = int(until_ns)

    def at(self, time_ns: int, action: Callable[[VCenter], object]) -> None:
        """Have something done at a time: a call with this object."""
        if time_ns < self.now_ns:
            raise InvalidValueError(f"time_ns must be at least {self.now_ns}, got {time_ns}")

        def act() -> None:
            action(self)

        self._push(time_ns, act)

    def follow(self, demand: npt.ArrayLike, interval_ns: int) -> None:
        """Let CPU demand follow rows of a table, from now on.

        Parameters
        ----------
        demand : array_like of int, shape (T, V)
            kHz; the last row stays.
        interval_ns : int
            How long each row holds.
        """
        rows = np.asarray(demand)
        if rows.ndim != 2 or rows.shape[1] != len(self.cluster.vms) or rows.dtype.kind not in "iu":
            raise InvalidTypeError(
                f"demand must be integers of shape (T, {len(self.cluster.vms)}), not {rows.shape}"
            )
        if rows.size and int(rows.min()) < 0:
            raise InvalidValueError(f"demand must not be negative, got {rows.min()}")
        if interval_ns < 1:
            raise InvalidValueError(f"interval_ns must be positive, got {interval_ns}")

        def take(row: npt.NDArray[Any]) -> Callable[[], None]:
            def action() -> None:
                self.cluster.vms.demand[CPU] = row

            return action

        for step, row in enumerate(rows):
            self._push(self.now_ns + step * interval_ns, take(row))

    # -- what is asked for

    def power_on(self, vm: str | int) -> Task:
        """Start a VM; one without a host is placed."""
        row = self._vm(vm)
        task = self._task("VirtualMachine.powerOn", self.inventory.vm(row))
        vms = self.cluster.vms
        if vms.on[row]:
            return self._fail(task, "it is on already")
        if vms.host[row] == NONE:
            placed = place(self.cluster, [row])
            if placed.host[0] == NONE:
                self._event("NotEnoughResourcesToStartVmEvent", task.entity, placed.reason(row))
                return self._fail(task, placed.reason(row))
            placed.apply()
        else:
            refusal = Reach(self.cluster).refusal(row, int(vms.host[row]))
            if refusal:
                return self._fail(task, refusal)
        vms.on[row] = 1
        self._changed()
        self._event("VmPoweredOnEvent", task.entity, f"on {self._host_name(vms.host[row])}")
        return self._succeed(task)

    def power_off(self, vm: str | int) -> Task:
        """Stop a VM; it stays registered where it is."""
        row = self._vm(vm)
        task = self._task("VirtualMachine.powerOff", self.inventory.vm(row))
        if not self.cluster.vms.on[row]:
            return self._fail(task, "it is off already")
        if row in self._moves:
            return self._fail(task, "it is being migrated")
        self.cluster.vms.on[row] = 0
        self._changed()
        host = self._host_name(self.cluster.vms.host[row])
        self._event("VmPoweredOffEvent", task.entity, f"on {host}")
        return self._succeed(task)

    def migrate(self, vm: str | int, host: str | int) -> Task:
        """Move a running VM to another host by vMotion."""
        return self._migrate(self._vm(vm), self._host(host), "VirtualMachine.migrate")

    def enter_maintenance(self, host: str | int) -> Task:
        """Empty a host; the task ends when no VM runs there, and fails if some cannot leave."""
        return self._empty(self._host(host), HostState.MAINTENANCE)

    def exit_maintenance(self, host: str | int) -> Task:
        """Let a host take VMs again."""
        row = self._host(host)
        task = self._task("HostSystem.exitMaintenanceMode", self.inventory.host(row))
        if self.cluster.hosts.state[row] != HostState.MAINTENANCE:
            return self._fail(task, "it is not in maintenance mode")
        self.cluster.hosts.state[row] = HostState.ON
        self._changed()
        self._event("ExitMaintenanceModeEvent", task.entity, "")
        return self._succeed(task)

    def standby(self, host: str | int) -> Task:
        """Empty a host and power it off."""
        return self._empty(self._host(host), HostState.STANDBY)

    def wake(self, host: str | int) -> Task:
        """Power a host on; it takes as long as `Hosts.standby_ns` says."""
        row = self._host(host)
        task = self._task("HostSystem.powerUpFromStandBy", self.inventory.host(row))
        if self.cluster.hosts.state[row] != HostState.STANDBY:
            return self._fail(task, "it is not in standby")
        task.state, task.started_ns = "running", self.now_ns
        self._event("DrsExitingStandbyModeEvent", task.entity, "")

        def up() -> None:
            if self.cluster.hosts.state[row] != HostState.STANDBY:
                self._fail(task, "it failed")
                return
            self.cluster.hosts.state[row] = HostState.ON
            self._changed()
            self._event("DrsExitedStandbyModeEvent", task.entity, "")
            self._succeed(task)

        self._push(self.now_ns + int(self.cluster.hosts.standby_ns[row]), up)
        return task

    def fail_host(self, host: str | int) -> None:
        """Let a host fail; with HA its VMs are started again elsewhere, in their order."""
        row = self._host(host)
        if self.cluster.hosts.state[row] == HostState.FAILED:
            raise InvalidValueError(f"{self.cluster.hosts.where(row)} has failed already")
        vms = self.cluster.vms
        before = self.cluster.copy()
        struck = np.flatnonzero((vms.host == row) & (vms.on == 1))
        self.cluster.hosts.state[row] = HostState.FAILED
        vms.on[struck] = 0
        vms.host[struck] = NONE
        self._changed()
        self._event("HostConnectionLostEvent", self.inventory.host(row), "")
        if self._ha is None or before.hosts.state[row] != HostState.ON:
            return
        recovery = recover(before, [HostFailure(row, self.now_ns)], self._ha)
        for record in recovery.events:
            what, vm = HAEvent(record["what"]), int(record["vm"])
            if what == HAEvent.HOST_DECLARED_DEAD:
                self._push(int(record["time_ns"]), self._dead(row))
            elif what == HAEvent.POWERED_ON:
                self._push(int(record["time_ns"]), self._restart(vm, int(record["host"])))
            elif what == HAEvent.GIVEN_UP:
                self._push(int(record["time_ns"]), self._given_up(vm))

    def repair_host(self, host: str | int) -> None:
        """Let a host that failed come back, empty."""
        row = self._host(host)
        if self.cluster.hosts.state[row] != HostState.FAILED:
            raise InvalidValueError(f"{self.cluster.hosts.where(row)} has not failed")
        self.cluster.hosts.state[row] = HostState.ON
        self._changed()
        self._event("HostConnectedEvent", self.inventory.host(row), "")

    # -- what happens by itself

    def _sample(self) -> None:
        c = self.cluster
        if self._shares is None:
            self._shares = HostShares(c, 0.0)
        self._shares.new_demand(c.vms.demand[CPU] * c.vms.on, self.now_ns // 10**6)
        given = np.where((c.vms.on == 1) & (c.vms.host != NONE), self._shares.vm[GIVEN], 0)
        used = c.sum_on_hosts(np.stack([given, c.vms.demand[MEMORY] + c.vms.overhead]))
        whole = np.maximum(c.hosts.capacity, 1)
        on = np.isin(c.hosts.state, (HostState.ON, HostState.MAINTENANCE))
        wanted = c.vms.demand[CPU] * c.vms.on
        share = np.divide(given, wanted, out=np.ones(given.size), where=wanted > 0)
        values = {
            "cpu.usagemhz": used[CPU] / 1000,
            "cpu.usage": 100 * used[CPU] / whole[CPU],
            "mem.usage": 100 * used[MEMORY] / whole[MEMORY],
            "power.power": host_watts(c.power_tables, c.hosts.power, used[CPU] / whole[CPU], on=on),
            "vm.cpu.demand": wanted / 1000,
            "vm.cpu.usagemhz": given / 1000,
            "vm.cpu.contention": 100 * (1 - share),
        }
        self.performance.add(self.now_ns, values)
        for rule, row, before, after in self.alarms.look(self.now_ns, EVERY, values):
            entity = self.inventory.host(row) if rule.counter[:3] != "vm." else ""
            entity = entity or self.inventory.vm(row)
            text = f"{rule.name}: {before} to {after}"
            self._event("AlarmStatusChangedEvent", entity, text)

    def _run_balance(self) -> None:
        assert self._balance is not None
        made = self._balance(self.cluster)
        for move in getattr(made, "recommendations", made):
            vm, target = self._vm(move.vm), self._host(move.target)
            wanted = getattr(move, "applied", True)  # the others wait for an administrator
            if wanted and vm not in self._moves and self.cluster.vms.host[vm] != target:
                self._migrate(vm, target, "ClusterComputeResource.applyRecommendation")

    def _run_power(self) -> None:
        if self._entering or any(
            task.state == "running" and task.operation == "HostSystem.powerUpFromStandBy"
            for task in self.tasks[-len(self.cluster.hosts) :]
        ):
            return
        for action in dpm(self.cluster, self._history, self._power).actions:
            if action.action == "on":
                self.wake(action.host)
            else:
                self.standby(action.host)
                return  # the next is judged when this one is empty

    def _step_migration(self) -> bool:
        if self._moves.next_ns() is None or self._moves.next_ns() > self.now_ns:  # type: ignore[operator]
            return False
        step = self._moves.pop(self.now_ns)
        if step is None:
            return False
        what, number, vm, source, target, downtime = step
        task, vms = self.tasks[number], self.cluster.vms
        names = f"from {self._host_name(source)} to {self._host_name(target)}"
        if what == "begin":
            task.state, task.started_ns = "running", self.now_ns
            self._event("VmBeingMigratedEvent", task.entity, names)
        elif not vms.on[vm] or vms.host[vm] != source:
            self._event("VmFailedMigrateEvent", task.entity, "its host failed")
            self._fail(task, "its host failed")
        elif self.cluster.hosts.state[target] != HostState.ON:
            self._event("VmFailedMigrateEvent", task.entity, f"{self._host_name(target)} is not on")
            self._fail(task, f"{self._host_name(target)} is not on")
        else:
            vms.host[vm] = target
            self._changed()
            by_drs = task.operation != "VirtualMachine.migrate"
            kind = "DrsVmMigratedEvent" if by_drs else "VmMigratedEvent"
            self._event(kind, task.entity, f"{names}, {downtime / 1e6:.3f} ms of downtime")
            self._succeed(task)
        self._emptied()
        return True

    def _emptied(self) -> None:
        for row, (task, state) in list(self._entering.items()):
            if self.cluster.hosts.state[row] == HostState.FAILED:
                self._fail(task, "it failed")
                del self._entering[row]
                continue
            inside = (self.cluster.vms.host == row) & (self.cluster.vms.on == 1)
            if self._moves.busy(row):
                continue
            if inside.any():
                vm = int(np.flatnonzero(inside)[0])
                self._fail(task, f"{self.cluster.vms.name[vm]!r} cannot leave it")
                self.cluster.hosts.state[row] = HostState.ON
            else:
                self.cluster.vms.host[self.cluster.vms.host == row] = NONE
                self.cluster.hosts.state[row] = state
                kind = "EnteredMaintenanceModeEvent"
                if state == HostState.STANDBY:
                    kind = "DrsEnteredStandbyModeEvent"
                self._event(kind, task.entity, "")
                self._succeed(task)
            self._changed()
            del self._entering[row]

    def _empty(self, row: int, state: HostState) -> Task:
        standby = state == HostState.STANDBY
        operation = "powerDownToStandBy" if standby else "enterMaintenanceMode"
        task = self._task(f"HostSystem.{operation}", self.inventory.host(row))
        if self.cluster.hosts.state[row] != HostState.ON or row in self._entering:
            return self._fail(task, "it is not on")
        moves = evacuate(self.cluster, [row])
        if moves.left.size:
            names = ", ".join(repr(self.cluster.vms.name[vm]) for vm in moves.left[:5])
            return self._fail(task, f"these VMs cannot leave it: {names}")
        task.state, task.started_ns = "running", self.now_ns
        kind = "DrsEnteringStandbyModeEvent" if standby else "EnteringMaintenanceModeEvent"
        self._event(kind, task.entity, "")
        # A host that is being emptied takes no VM any more.
        self.cluster.hosts.state[row] = HostState.MAINTENANCE
        self._entering[row] = (task, state)
        for vm, target in zip(moves.vm.tolist(), moves.target.tolist(), strict=True):
            if vm not in self._moves:
                self._migrate(vm, target, "HostSystem.evacuate")
        self._emptied()
        return task

    def _migrate(self, vm: int, target: int, operation: str) -> Task:
        task = self._task(operation, self.inventory.vm(vm))
        vms = self.cluster.vms
        source = int(vms.host[vm])
        if not vms.on[vm] or source == NONE:
            return self._fail(task, "it is not running")
        if vm in self._moves:
            return self._fail(task, "it is being migrated already")
        if source == target:
            return self._fail(task, f"it is on {self._host_name(target)} already")
        refusal = Reach(self.cluster).refusal(vm, target)
        # The rules that DRS keeps do not bind the administrator, what the host lacks does.
        if refusal:
            return self._fail(task, refusal)
        self._moves.ask(vm, source, target, self.now_ns, task.number)
        return task

    def _dead(self, row: int) -> Callable[[], None]:
        return lambda: self._event("DasHostFailedEvent", self.inventory.host(row), "declared dead")

    def _restart(self, vm: int, host: int) -> Callable[[], None]:
        def action() -> None:
            vms = self.cluster.vms
            if vms.on[vm] or vms.host[vm] != NONE:
                return  # somebody started it meanwhile
            target = host
            if Reach(self.cluster).refusal(vm, host):
                # The cluster is not as it was when HA decided: it looks again.
                target = int(place(self.cluster, [vm]).host[0])
            if target == NONE:
                self._given_up(vm)()
                return
            vms.host[vm], vms.on[vm] = target, 1
            self._changed()
            text = f"on {self._host_name(target)}"
            self._event("VmRestartedOnAlternateHostEvent", self.inventory.vm(vm), text)

        return action

    def _given_up(self, vm: int) -> Callable[[], None]:
        return lambda: self._event(
            "NotEnoughResourcesToStartVmEvent", self.inventory.vm(vm), "no host takes it"
        )

    # -- small things

    def _every(self, interval: int, action: Callable[[], None], rank: int = 1) -> None:
        def again() -> None:
            action()
            self._push(self.now_ns + interval, again, rank)

        self._push(interval, again, rank)

    def _push(self, time_ns: int, action: Callable[[], None], rank: int = 1) -> None:
        heapq.heappush(self._queue, (int(time_ns), rank, self._sequence, action))
        self._sequence += 1

    def _changed(self) -> None:
        self._shares = None

    def _event(self, kind: str, entity: str, message: str) -> None:
        self.events.add(self.now_ns, kind, entity, message)

    def _task(self, operation: str, entity: str) -> Task:
        task = Task(len(self.tasks), operation, entity, queued_ns=self.now_ns)
        self.tasks.append(task)
        return task

    def _succeed(self, task: Task) -> Task:
        task.state, task.completed_ns = "success", self.now_ns
        task.started_ns = self.now_ns if task.started_ns < 0 else task.started_ns
        return task

    def _fail(self, task: Task, why: str) -> Task:
        task.state, task.completed_ns, task.error = "error", self.now_ns, why
        return task

    def _host_name(self, row: int) -> str:
        return self.cluster.hosts.name[row]

    def _vm(self, vm: str | int) -> int:
        return _row(vm, self.cluster.vms.name, "vm")

    def _host(self, host: str | int) -> int:
        return _row(host, self.cluster.hosts.name, "host")


def _row(which: str | int, names: list[str], what: str) -> int:
    if isinstance(which, str):
        if which not in names:
            raise InvalidValueError(f"{what} must be the name of one, got {which!r:.80}")
        return names.index(which)
    if isinstance(which, bool) or not isinstance(which, (int, np.integer)):
        raise InvalidTypeError(f"{what} must be a name or a row, not {which!r:.80}")
    if not 0 <= which < len(names):
        raise InvalidValueError(f"{what} must be one of {len(names)}, got {which}")
    return int(which)
