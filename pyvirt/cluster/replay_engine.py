"""The engine of replays: demands, migrations, failures and power, in the order of time."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.checks import whole
from pyvirt.cluster.migration import migrate_many
from pyvirt.cluster.migration_link import Link
from pyvirt.cluster.model import Cluster
from pyvirt.cluster.placement import place
from pyvirt.cluster.replay_records import (
    MS,
    REPLAY_EVENT,
    REPLAY_HOST_STEP,
    REPLAY_STEP,
    Refusal,
    Replayed,
    ReplayEvent,
    ReplayOptions,
    ReplayPolicy,
    check_failures,
)
from pyvirt.cluster.replay_setup import (
    actions_of,
    busy_khz,
    demand_of,
    hosts_of,
    moves_of,
    reserved,
)
from pyvirt.cluster.shares import (
    BUSY,
    DELIVERED,
    HEAD,
    IDLE,
    MISSED,
    ON,
    RUNS,
    STILL,
    SUM_DELIVERED,
    SUM_JOULES,
    SUM_ON,
    SUM_SHORT,
    SUM_WANTED,
    WANTED,
    HostShares,
)
from pyvirt.cluster.tables import CPU, MEMORY, NONE, PAGE, HostState
from pyvirt.errors import InvalidTypeError

__all__ = ["Demand", "Replay"]

Ints = npt.NDArray[np.int64]


class Demand(Protocol):
    """What `pyvirt.traces.DemandTraces` offers."""

    interval_ns: int
    memory: npt.NDArray[Any] | None

    def khz(self, capacity_khz: npt.ArrayLike | None = None) -> Ints:
        """Give the demand for CPU, shape (V, T)."""

    def pages(self, whole_bytes: float | None = None) -> Ints:
        """Give the memory, shape (V, T)."""


class Replay:
    """A replay that can be run in parts; `pyvirt.cluster.replay` describes the parameters.

    Attributes
    ----------
    cluster : Cluster
        Its own, in its present state.
    step : int
        Intervals that are done.
    steps : int
        All of them.
    """

    def __init__(
        self,
        cluster: Cluster,
        traces: Demand | npt.ArrayLike,
        policy: ReplayPolicy | None = None,
        *,
        capacity_khz: npt.ArrayLike | None = None,
        interval_ns: int | None = None,
        failures: Iterable[Any] = (),
        options: ReplayOptions | None = None,
        records: bool = False,
        host_records: bool = False,
    ) -> None:
        self.options = ReplayOptions() if options is None else options
        if not isinstance(self.options, ReplayOptions):
            raise InvalidTypeError(f"options must be ReplayOptions, got {options!r:.80}")
        if not isinstance(cluster, Cluster):
            raise InvalidTypeError(f"cluster must be a Cluster, got {cluster!r:.80}")
        if policy is not None and not callable(getattr(policy, "step", None)):
            raise InvalidTypeError(f"policy must have a method step, got {policy!r:.80}")
        self.cluster = cluster.copy()
        self.policy = policy
        self._demand, self._memory, self._interval = demand_of(
            cluster, traces, capacity_khz, interval_ns
        )
        self.step = 0
        self.steps = self._demand.shape[0]
        count = len(cluster.hosts)
        self._shares = HostShares(self.cluster, self.options.standby_watts)
        self._reserved = reserved(self.cluster)
        self._busy = busy_khz(self.cluster, self.options)
        self._heap: list[tuple[int, int, int, int]] = []
        self._moving: dict[int, tuple[int, int, int, bool]] = {}  # VM: target, begin, stop, begun
        self._waiting: deque[int] = deque()
        self._slots = np.zeros(count, np.int64)
        self._inbound = np.zeros(count, np.int64)
        self._leaving: set[int] = set()
        self._before = self.cluster.hosts.state.copy()  # states before hosts failed
        self._since = np.zeros(count, np.int64)  # which failure, or start from standby, is meant
        on = (self.cluster.vms.on == 1) & (self.cluster.vms.host == NONE)
        self._down = {int(vm): 0 for vm in np.flatnonzero(on)}  # from when on it may start
        self._times: dict[int, npt.NDArray[Any]] = {}
        for i, (when, host, _) in enumerate(schedule := check_failures(failures, count).tolist()):
            self._push(when // MS, ReplayEvent.FAIL, host, i)
        self._repairs = [max(1, repair // MS) for _, _, repair in schedule]
        self._total = dict.fromkeys(
            (
                *("wanted", "delivered", "migrations", "cancelled", "refused", "migration_ms"),
                *("downtime_ms", "failures", "restarts", "on", "short"),
            ),
            0,
        )
        self._joules = np.zeros(count)
        self._events: list[tuple[int, int, int, int, int, int]] | None = [] if records else None
        self._steps: list[tuple[Any, ...]] | None = [] if records else None
        self._hosts = np.zeros((self.steps, count), REPLAY_HOST_STEP) if host_records else None

    def run(self, steps: int | None = None) -> Replay:
        """Run so many intervals, or all that are left; parts of any size come to the same.

        Returns
        -------
        Replay
            Itself.
        """
        left = self.steps - self.step
        for _ in range(left if steps is None else min(left, whole(steps, "steps"))):
            self._interval_of(self.step)
            self.step += 1
        return self

    def result(self) -> Replayed:
        """Give the figures of what is done so far."""
        total = self._total
        return Replayed(
            duration_ns=self.step * self._interval * MS,
            energy_kwh=float(self._joules.sum()) / 3.6e6 * self.options.pue,
            wanted_khz_ms=total["wanted"],
            delivered_khz_ms=total["delivered"],
            migrations=total["migrations"],
            cancelled=total["cancelled"],
            refused=total["refused"],
            migration_ns=total["migration_ms"] * MS,
            downtime_ns=total["downtime_ms"] * MS,
            failures=total["failures"],
            restarts=total["restarts"],
            host_on_ms=total["on"],
            host_short_ms=total["short"],
            vm_missed_khz_ms=self._shares.vm[MISSED].copy(),
            host_joules=self._joules.copy(),
            steps=None if self._steps is None else np.array(self._steps, REPLAY_STEP),
            events=None if self._events is None else np.array(self._events, REPLAY_EVENT),
            hosts=None if self._hosts is None else self._hosts[: self.step].copy(),
        )

    # ------------------------------------------------------------------------------ an interval

    def _interval_of(self, step: int) -> None:
        s, vms, now = self._shares, self.cluster.vms, step * self._interval
        vms.demand[CPU] = self._demand[step]
        if self._memory is not None:
            vms.demand[MEMORY] = self._memory[step]
        s.new_demand(self._demand[step], now)
        self._until(now)
        counted = {key: self._total[key] for key in ("migrations", "refused")}
        self._started = 0
        self._restart(now)
        if self.policy is not None:
            self._act(self.policy.step(self.cluster, now * MS), now)
        on = s.host[ON] == 1
        short = int((on & (s.host[DELIVERED] < s.host[WANTED])).sum())
        row = (now * MS, int(on.sum()), short, len(self._down))
        end = now + self._interval
        self._until(end)
        s.settle(end, *range(s.nowhere + 1))
        self._flush(step, row, counted)

    def _flush(self, step: int, row: tuple[int, ...], counted: dict[str, int]) -> None:
        """Take the sums of an interval over, and clear them."""
        s, total = self._shares, self._total
        wanted, delivered = int(s.host[SUM_WANTED].sum()), int(s.host[SUM_DELIVERED].sum())
        total["wanted"] += wanted
        total["delivered"] += delivered
        total["on"] += int(s.host[SUM_ON].sum())
        total["short"] += int(s.host[SUM_SHORT].sum())
        self._joules += s.real[SUM_JOULES, :-1]
        if self._steps is not None:
            when, on, short, down = row
            finished = total["migrations"] - counted["migrations"]
            refused = total["refused"] - counted["refused"]
            joules = float(s.real[SUM_JOULES].sum())
            figures = (wanted, delivered, joules, on, short, down)
            self._steps.append((when, *figures, self._started, finished, refused))
        if self._hosts is not None:
            for name, sums in (
                *(("wanted", s.host[SUM_WANTED]), ("delivered", s.host[SUM_DELIVERED])),
                *(("on_ms", s.host[SUM_ON]), ("short_ms", s.host[SUM_SHORT])),
                ("joules", s.real[SUM_JOULES]),
            ):
                self._hosts[name][step] = sums[:-1]
        s.clear()

    def _until(self, end: int) -> None:
        """Let happen what is to happen up to a time."""
        while self._heap and self._heap[0][0] <= end:
            now, kind, row, mark = heapq.heappop(self._heap)
            if kind in (ReplayEvent.STOP, ReplayEvent.END):
                self._migrated(now, kind, row, mark)
            elif kind == ReplayEvent.FAIL:
                self._fail(now, row, self._repairs[mark])
            elif kind == ReplayEvent.RESTART:
                self._restart(now)
            elif mark == self._since[row]:
                self._back(now, row, ReplayEvent(kind))

    def _push(self, when: int, kind: ReplayEvent, row: int, mark: int) -> None:
        heapq.heappush(self._heap, (when, int(kind), row, mark))

    def _note(
        self, now: int, kind: ReplayEvent, vm: int, source: int, target: int, why: int = 0
    ) -> None:
        if self._events is not None:
            self._events.append((now * MS, kind, why, vm, source, target))

    # --------------------------------------------------------------------------- what is wanted

    def _act(self, wanted: Any, now: int) -> None:
        actions = actions_of(wanted)
        for host in hosts_of(actions.power_on, len(self.cluster.hosts), "power_on"):
            self._power_on(now, host)
        for vm, target in moves_of(actions.moves, self.cluster):
            self._move(now, vm, target)
        for host in hosts_of(actions.power_off, len(self.cluster.hosts), "power_off"):
            if self.cluster.hosts.state[host] != HostState.ON:
                self._refuse(now, Refusal.NOT_ON, NONE, host, NONE)
                continue
            self._leaving.add(host)
            self._power_off(now, host)

    def _refuse(self, now: int, why: Refusal, vm: int, source: int, target: int) -> None:
        self._total["refused"] += 1
        self._note(now, ReplayEvent.REFUSED, vm, source, target, why)

    def _move(self, now: int, vm: int, target: int) -> None:
        vms, hosts = self.cluster.vms, self.cluster.hosts
        source = int(vms.host[vm])
        if vms.on[vm] != 1 or source == NONE:
            why = Refusal.OFF
        elif vm in self._moving:
            why = Refusal.MIGRATING
        elif source == target:
            why = Refusal.HERE
        elif hosts.state[target] != HostState.ON or target in self._leaving:
            why = Refusal.HOST
        elif not self._fits(vm, target):
            why = Refusal.RESERVATION
        else:
            why = Refusal.NONE
        if why:
            self._refuse(now, why, vm, source, target)
            return
        self._reserved[:, target] += self._needs(vm)
        self._inbound[target] += 1
        self._moving[vm] = (target, now, 0, False)
        self._waiting.append(vm)
        self._begin_waiting(now)

    def _needs(self, vm: int) -> Ints:
        vms = self.cluster.vms
        need = vms.reservation[:, vm].copy()
        need[MEMORY] += vms.overhead[vm]
        return need

    def _fits(self, vm: int, host: int) -> bool:
        free = self.cluster.hosts.capacity[:, host] - self._reserved[:, host]
        return bool((self._needs(vm) <= free).all())

    def _power_on(self, now: int, host: int) -> None:
        hosts = self.cluster.hosts
        if host in self._leaving:
            self._leaving.discard(host)
        elif hosts.state[host] != HostState.STANDBY or self._shares.host[ON, host] == 2:
            self._refuse(now, Refusal.NOT_STANDBY, NONE, NONE, host)
        else:
            self._shares.settle(now, host)
            self._shares.host[ON, host] = 2
            self._shares.refresh(host)
            self._since[host] += 1
            ready = now + -(-int(hosts.standby_ns[host]) // MS)
            self._push(ready, ReplayEvent.READY, host, int(self._since[host]))
            self._note(now, ReplayEvent.POWER_ON, NONE, NONE, host)

    def _power_off(self, now: int, host: int) -> None:
        """Let a host that is to go to standby do so, if it is empty."""
        if host in self._leaving and self._shares.host[HEAD, host] < 0 and not self._inbound[host]:
            self._leaving.discard(host)
            self._shares.settle(now, host)
            self.cluster.hosts.state[host] = HostState.STANDBY
            self._shares.host[ON, host] = 0
            self._shares.real[IDLE, host] = self.options.standby_watts
            self._shares.refresh(host)
            self._note(now, ReplayEvent.POWER_OFF, NONE, host, NONE)

    # ------------------------------------------------------------------------------- migrations

    def _begin_waiting(self, now: int) -> None:
        """Begin migrations, in the order in which they were wanted, as far as hosts may."""
        most = self.options.concurrent
        for _ in range(len(self._waiting)):
            vm = self._waiting.popleft()
            source, target = int(self.cluster.vms.host[vm]), self._moving[vm][0]
            if self._slots[source] >= most or self._slots[target] >= most:
                self._waiting.append(vm)
                continue
            figures = self._figures(source, target)[vm]
            total = max(1, -(-int(figures["total_ns"]) // MS))
            still = min(total, -(-int(figures["downtime_ns"]) // MS))
            self._moving[vm] = (target, now, now + total - still, True)
            kind = ReplayEvent.STOP if figures["moved"] and still < total else ReplayEvent.END
            self._push(now + (total - still if kind == ReplayEvent.STOP else total), kind, vm, now)
            self._started += 1
            self._note(now, ReplayEvent.START, vm, source, target)
            self._shares.settle(now, source, target)
            for host in (source, target):
                self._slots[host] += 1
                self._shares.host[BUSY, host] += self._busy[host]
            if figures["moved"] and still == total:
                self._shares.vm[STILL, vm] = 1
            self._shares.refresh(source, target)

    def _figures(self, source: int, target: int) -> npt.NDArray[Any]:
        """Give what the migrations of all VMs take, over the link of two hosts."""
        vms, links = self.cluster.vms, self.cluster.hosts.link_mbps
        speed = int(min(links[source], links[target]))
        if speed not in self._times:
            memory = np.maximum(vms.memory, 1)
            self._times[speed] = migrate_many(
                memory * PAGE,
                vms.dirty_pages_s,
                Link(speed, efficiency=self.options.efficiency),
                self.options.precopy,
                working_set=np.minimum(vms.working_set, memory),
            )
        return self._times[speed]

    def _migrated(self, now: int, kind: int, vm: int, begin: int) -> None:
        """Go on with a migration, if it is still the same one."""
        moving = self._moving.get(vm)
        if moving is None or not moving[3] or moving[1] != begin:
            return
        target, _, stop, _ = moving
        source = int(self.cluster.vms.host[vm])
        if kind == ReplayEvent.STOP:
            figures = self._figures(source, target)[vm]
            self._shares.settle(now, source)
            self._shares.vm[STILL, vm] = 1
            self._shares.refresh(source)
            self._push(now + -(-int(figures["downtime_ns"]) // MS), ReplayEvent.END, vm, begin)
            self._note(now, ReplayEvent.STOP, vm, source, target)
            return
        if not self._figures(source, target)[vm]["moved"]:
            self._cancel(now, vm)
            self._begin_waiting(now)
            return
        self._shares.settle(now, source, target)
        self._shares.shift(vm, source, target)
        self._shares.vm[STILL, vm] = 0
        self.cluster.vms.host[vm] = target
        self._reserved[:, source] -= self._needs(vm)
        self._inbound[target] -= 1
        del self._moving[vm]
        self._free(source, target)
        self._shares.refresh(source, target)
        self._total["migrations"] += 1
        self._total["migration_ms"] += now - begin
        self._total["downtime_ms"] += now - stop
        self._note(now, ReplayEvent.END, vm, source, target)
        self._power_off(now, source)
        self._begin_waiting(now)

    def _free(self, *hosts: int) -> None:
        for host in hosts:
            self._slots[host] -= 1
            self._shares.host[BUSY, host] -= self._busy[host]

    def _cancel(self, now: int, vm: int) -> None:
        """End a migration, begun or not, without a move."""
        target, _, _, begun = self._moving.pop(vm)
        source = int(self.cluster.vms.host[vm])
        self._reserved[:, target] -= self._needs(vm)
        self._inbound[target] -= 1
        if begun:
            self._shares.settle(now, source, target)
            self._shares.vm[STILL, vm] = 0
            self._free(source, target)
            self._shares.refresh(source, target)
            self._total["cancelled"] += 1
            self._note(now, ReplayEvent.CANCEL, vm, source, target)
        else:
            self._waiting.remove(vm)
        self._power_off(now, target)

    # --------------------------------------------------------------------------------- failures

    def _fail(self, now: int, host: int, repair: int) -> None:
        hosts, vms, s = self.cluster.hosts, self.cluster.vms, self._shares
        if hosts.state[host] == HostState.FAILED:
            return
        self._leaving.discard(host)
        for vm in sorted(self._moving):
            if host in (int(vms.host[vm]), self._moving[vm][0]):
                self._cancel(now, vm)
        nowhere = len(hosts)
        self._shares.settle(now, host, nowhere)
        self._before[host] = hosts.state[host]
        hosts.state[host] = HostState.FAILED
        s.host[ON, host], s.real[IDLE, host] = 0, 0.0
        self._total["failures"] += 1
        self._note(now, ReplayEvent.FAIL, NONE, host, NONE)
        lost = self.cluster.vms_on(host).tolist()
        for vm in lost:
            self._shares.shift(vm, host, nowhere)
            vms.host[vm] = NONE
            self._down[vm] = now + self.options.restart_ns // MS
            self._reserved[:, host] -= self._needs(vm)
            self._note(now, ReplayEvent.DOWN, vm, host, NONE)
        self._shares.refresh(host, nowhere)
        self._since[host] += 1
        self._push(now + repair, ReplayEvent.REPAIR, host, int(self._since[host]))
        if lost:
            self._push(now + self.options.restart_ns // MS, ReplayEvent.RESTART, host, 0)
        self._begin_waiting(now)

    def _back(self, now: int, host: int, kind: ReplayEvent) -> None:
        """A host is repaired, or out of standby."""
        hosts, s = self.cluster.hosts, self._shares
        state = self._before[host] if kind == ReplayEvent.REPAIR else HostState.ON
        self._shares.settle(now, host)
        hosts.state[host] = state
        s.host[ON, host] = state in RUNS
        s.real[IDLE, host] = self.options.standby_watts if state == HostState.STANDBY else 0.0
        self._shares.refresh(host)
        self._note(now, kind, NONE, NONE, host)
        self._restart(now)

    def _restart(self, now: int) -> None:
        """Start VMs that have no host where there is one, by priority."""
        ready = [vm for vm, when in self._down.items() if when <= now]
        if not ready:
            return
        vms, nowhere = self.cluster.vms, len(self.cluster.hosts)
        for priority in sorted({int(vms.restart[vm]) for vm in ready}, reverse=True):
            rows = sorted(vm for vm in ready if vms.restart[vm] == priority)
            placed = place(self.cluster, rows)
            for vm, host in zip(placed.vm.tolist(), placed.host.tolist(), strict=True):
                # What is on its way to a host is not there yet, but has its reservation.
                if host == NONE or not self._fits(vm, host):
                    continue
                self._shares.settle(now, host, nowhere)
                self._shares.shift(vm, nowhere, host)
                vms.host[vm] = host
                self._reserved[:, host] += self._needs(vm)
                self._leaving.discard(host)
                del self._down[vm]
                self._shares.refresh(host, nowhere)
                self._total["restarts"] += 1
                self._note(now, ReplayEvent.RESTART, vm, NONE, host)
