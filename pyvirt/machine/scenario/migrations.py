"""Migrations of running machines: who may begin, how long each takes, what it costs."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyvirt.cluster import (
    NONE,
    Budgets,
    ConstantRate,
    DirtyLog,
    HostState,
    Link,
    WorkingSet,
)
from pyvirt.errors import AdmissionError, InvalidValueError, PowerStateError
from pyvirt.machine.scenario.course import Course
from pyvirt.machine.scenario.system import ON, Follower, System
from pyvirt.machine.vmm import VMM
from pyvirt.units import format_size

__all__ = ["Migrations"]

PAGE = 4096
#: From so many Mbit/s on a network bears what those of 10 Gbit/s do.
FAST_MBPS = 10_000


@dataclass(eq=False)
class Moving:
    """A migration that was asked for, and what became of it."""

    row: int
    target: int
    why: str
    vmm: VMM
    source: int = NONE
    begun: bool = False
    burdens: tuple[int, int] = (0, 0)
    course: Course | None = None
    begin_ns: int = 0
    stopped_ns: int = -1
    mbps: float = 0.0
    share: int = 0


class Migrations(Follower):
    """All migrations of a scenario.

    Parameters
    ----------
    system : System

    Notes
    -----
    A target sets aside at once what a machine reserves, and those that exceed what hosts bear at a
    time wait in turn. Those under way have equal parts of their hosts' links at each moment: of the
    two the smaller (ours); who begins or ends changes those of the others. How fast the guest
    writes is known from the first of: its own address stream under a page-modification log
    (`log_writes`), at the speed at which it has run; the ``dirty_rate`` of its workload's memory;
    that of the machine.
    """

    def __init__(self, system: System) -> None:
        self._system = system
        self._moving: dict[int, Moving] = {}
        self._waiting: deque[Moving] = deque()
        self._logs: dict[tuple[int, float], DirtyLog] = {}
        system.followers.append(self)

    def target(self, row: int) -> int:
        """Say where a machine is to go; NONE: it stays."""
        found = self._moving.get(row)
        return NONE if found is None else found.target

    def inbound(self, host: int) -> bool:
        """Say whether a machine is on its way to a host."""
        return any(one.target == host for one in self._moving.values())

    def ask(self, row: int, target: int, why: str) -> bool:
        """Let a machine move to a host, as soon as it may; False: it cannot, an event says why."""
        system = self._system
        source = int(system.cluster.vms.host[row])
        words = self._obstacle(row, source, target)
        if words:
            system.note("refused", vm=row, to=target, text=f"migration ({why}): {words}")
            return False
        try:
            vmm = system.fleet.prepare(system.vms[row], target)
        except (AdmissionError, PowerStateError, InvalidValueError) as error:
            system.note("refused", vm=row, host=source, to=target, text=f"migration: {error}")
            return False
        moving = Moving(row, target, why, vmm, source)
        self._moving[row] = moving
        self._waiting.append(moving)
        # others that are asked for at the same time share the links
        system.calendar.enter(system.now, self._begin)
        return True

    def _obstacle(self, row: int, source: int, target: int) -> str:
        system = self._system
        if system.state[row] != ON:
            return "it does not run"
        if row in self._moving:
            return "it is on its way"
        if source == target:
            return "it is there"
        ours, theirs = (system.spec.cluster.hosts[host].hypervisor for host in (source, target))
        if ours != theirs:
            return f"it runs under {ours}, not {theirs}"
        if target in system.kept:
            return "the host is kept for failures"
        lost = system.unreached(row, target)
        return f"the host does not reach its datastores {', '.join(lost)}" if lost else ""

    def cancel(self, row: int, text: str) -> None:
        """End a migration, begun or not, without a move."""
        moving = self._moving.pop(row, None)
        if moving is None:
            return
        system = self._system
        system.fleet.forget(moving.vmm, moving.target)
        if moving.begun:
            self._relieve(moving)
            system.go_on(row, "migration")
        else:
            self._waiting.remove(moving)
        still = system.now - moving.stopped_ns if moving.stopped_ns >= 0 else 0
        system.note(
            "migration-cancelled",
            vm=row,
            host=moving.source,
            to=moving.target,
            text=text,
            value=still,
        )
        system.calendar.enter(system.now, self._begin)

    # --- what System tells ---

    def stopped(self, row: int, host: int) -> None:
        """Let a machine that stops no longer move."""
        self.cancel(row, "the machine stopped")

    def host_changed(self, host: int) -> None:
        """Let nothing move to a host that is not on any more."""
        if self._system.cluster.hosts.state[host] != HostState.ON:
            for row in [one.row for one in self._moving.values() if one.target == host]:
                self.cancel(row, "the target is not on any more")

    # --- the course of one ---

    def _begin(self) -> None:
        """Begin as many as hosts bear, in the order in which they were asked for."""
        hosts = self._system.cluster.hosts
        busy = np.zeros(len(hosts), np.int64)
        for one in self._moving.values():
            if one.begun:
                busy[[one.source, one.target]] += 1
        starting = []
        for moving in list(self._waiting):
            ends = (moving.source, moving.target)
            if all(busy[h] < _most(int(hosts.link_mbps[h])) for h in ends):
                busy[list(ends)] += 1
                starting.append(moving)
                self._waiting.remove(moving)
        for moving in list(self._moving.values()):
            if not moving.begun and moving not in starting:
                continue
            both = [moving.source, moving.target]
            mbps = float((hosts.link_mbps[both] / busy[both]).min())
            if moving.begun and mbps != moving.mbps:
                self._change(moving, mbps)
            elif not moving.begun:
                self._start(moving, mbps)

    def _start(self, moving: Moving, mbps: float) -> None:
        system, row = self._system, moving.row
        link = Link(mbps)
        table = system.cluster.vms
        memory = max(1, int(table.memory[row] + table.overhead[row])) * PAGE
        moving.course = Course(memory, self.dirty(row), link.bytes_s)
        moving.begun, moving.begin_ns = True, system.now
        text = f"{moving.why}; {format_size(memory)} at {mbps:g} Mbit/s"
        system.note("migration", vm=row, host=moving.source, to=moving.target, text=text)
        self._bear(moving, link)

    def _change(self, moving: Moving, mbps: float) -> None:
        """Go on with another part of the links."""
        course, link = moving.course, Link(mbps)
        assert course is not None
        course.change(self._system.now - moving.begin_ns, link.bytes_s)
        self._relieve(moving)
        self._bear(moving, link)

    def _bear(self, moving: Moving, link: Link) -> None:
        """Let hosts work for it at its speed, and foresee its end."""
        system, course = self._system, moving.course
        assert course is not None
        moving.mbps, moving.share = link.mbps, moving.share + 1
        first, second = (
            system.fleet.burden(host, link.cores) for host in (moving.source, moving.target)
        )
        moving.burdens = (first, second)
        stop, end = (moving.begin_ns + max(1, one) for one in course.times())
        end = max(end, system.now)
        if moving.stopped_ns < 0:
            stop = max(system.now, min(stop, end - 1))
            system.calendar.enter(stop, self._stop, moving, moving.share)
        system.calendar.enter(end, self._end, moving, moving.share)

    def _stop(self, moving: Moving, share: int) -> None:
        if self._moving.get(moving.row) is moving and moving.share == share:
            moving.stopped_ns = self._system.now
            self._system.stun(moving.row, "migration")

    def _end(self, moving: Moving, share: int) -> None:
        system, row = self._system, moving.row
        if self._moving.get(row) is not moving or moving.share != share:
            return
        course, begin = moving.course, moving.begin_ns
        assert course is not None
        plan = course.outcome(moving.stopped_ns - begin, system.now - begin)
        try:
            system.hand_over(row, moving.vmm, moving.target)
        except AdmissionError as error:
            self.cancel(row, str(error))
            return
        del self._moving[row]
        self._relieve(moving)
        system.note(
            "migrated",
            vm=row,
            host=moving.source,
            to=moving.target,
            text=plan.reason,
            value=plan.downtime_ns,
        )
        system.tell_moved(row, moving.source, moving.target)
        self._begin()

    def _relieve(self, moving: Moving) -> None:
        for host, burden in zip((moving.source, moving.target), moving.burdens, strict=True):
            self._system.fleet.relieve(host, burden)

    def dirty(self, row: int) -> Any:
        """Say how fast a machine writes its memory."""
        system = self._system
        spec = system.vms[row].spec
        work = spec.workload
        if work is not None and work.addresses is not None and work.addresses.stores:
            log = self._log(row)
            if log is not None:
                return log
        rate = spec.dirty_rate
        if work is not None and work.memory.dirty_rate:
            rate = work.memory.dirty_rate
        pages = spec.memory // PAGE
        some = min(spec.working_set // PAGE, pages)
        return WorkingSet(some, rate / PAGE) if some and rate else ConstantRate(rate / PAGE)

    def _log(self, row: int) -> DirtyLog | None:
        from pyvirt.machine.dirtying import log_writes
        from pyvirt.machine.streams import described

        system = self._system
        spec = system.vms[row].spec
        assert spec.workload is not None
        assert spec.workload.addresses is not None
        on = int(system.meter.vm["on_ns"][row])
        times = system.fleet.vm_times()
        ran = int(times["run_ns"][row] - times["overhead_ns"][row])
        if not on or not ran:
            return None
        # two digits: a log is measured once for about the same speed
        cpus = float(f"{ran / on:.1e}")
        key = (row, cpus)
        if key not in self._logs:
            self._logs[key] = log_writes(
                described(spec, system.seed),
                accesses_per_s=spec.workload.addresses.accesses_per_s,
                cpus=cpus,
            )
        log = self._logs[key]
        pages = spec.memory // PAGE
        return log if not log.frames.size or int(log.frames.max()) < pages else None


def _most(link_mbps: int) -> int:
    """Say how many vMotions a host with such a link takes part in at a time (`Budgets`)."""
    budgets = Budgets()
    network = budgets.network_10g if link_mbps >= FAST_MBPS else budgets.network_1g
    return min(budgets.host, network)
