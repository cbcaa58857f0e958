"""The engine of scenarios: the order in which hosts, policies, faults and operators have turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyvirt.machine.scenario.availability import Availability, failures
from pyvirt.machine.scenario.balancer import Balancer
from pyvirt.machine.scenario.calendar import AFTER, BEFORE, NEVER
from pyvirt.machine.scenario.migrations import Migrations
from pyvirt.machine.scenario.operations import Operations
from pyvirt.machine.scenario.record import Record
from pyvirt.machine.scenario.storage import Storage, path_engine
from pyvirt.machine.scenario.system import System
from pyvirt.spec import ScenarioSpec

__all__ = ["Engine"]


class Engine:
    """One run of a scenario, which can be stopped at any time, kept, and gone on with.

    Hosts run up to the next time at which anything happens to the cluster, each by itself; then
    what is due happens, in this order: steps of memory, changes of paths, failures and HA, and the
    calendar, in which samples and policies come first.

    Parameters
    ----------
    spec : ScenarioSpec
    seed : int
    until_ns : int
        The end.
    threads : int
        In which hosts run; the result does not depend on it.
    base : str
        The folder to which files of the description are relative.
    """

    def __init__(
        self, spec: ScenarioSpec, seed: int, until_ns: int, threads: int, base: str = ""
    ) -> None:
        if spec.hypervisor is not None:
            spec = spec.under(spec.hypervisor)
        self.until = until_ns
        site, paths, losses = path_engine(spec)
        self.system = system = System(spec, seed, threads, paths, site, base)
        self.migrations = Migrations(system)
        self.storage = Storage(system, paths)
        self.availability = Availability(system, [*failures(system, spec.faults), *losses])
        self.balancer = Balancer(system, self.migrations)
        self.operations = Operations(system, self.migrations, self.balancer, self.storage)
        self.record = Record(system)
        calendar = system.calendar
        starts: dict[int, list[int]] = {}
        for row, vm in enumerate(spec.cluster.vms):
            if vm.power_on:
                starts.setdefault(vm.start_ns, []).append(row)
        for time, rows in starts.items():
            calendar.enter(time, system.power_on, rows)
        calendar.enter(0, self._begin_step, rank=AFTER)
        self._sample_next(0)
        self._happen()

    @property
    def now(self) -> int:
        """The present time."""
        return self.system.now

    def run(self, to_ns: int, tell: Callable[[int], Any] | None = None) -> None:
        """Run up to a time; `tell` is called with the present time, now and then."""
        system = self.system
        while system.now < to_ns:
            due = min(
                to_ns,
                system.calendar.due,
                self.availability.due,
                self.storage.due,
                system.memory.now_ns + system.memory.step_ns if system.memory.any else NEVER,
            )
            system.advance(max(due, system.now))
            self._happen()
            if tell is not None:
                tell(system.now)

    def _happen(self) -> None:
        system = self.system
        now = system.now
        if system.memory.any and now == system.memory.now_ns + system.memory.step_ns:
            system.step_memory()
        if self.storage.due <= now:
            self.storage.happen(now)
        # what HA starts may be due at once, and what operators do may be HA's business
        while self.availability.due <= now or system.calendar.due <= now:
            if self.availability.due <= now:
                self.availability.happen(now)
            system.calendar.happen(now)

    def _begin_step(self) -> None:
        system, step = self.system, self.system.spec.step_ns
        if system.now:
            self.storage.grow(step)
            system.read_meter()
        end = system.now + step
        system.fleet.begin_step(system.now, end)
        if system.now < self.until:
            system.calendar.enter(end, self._begin_step, rank=AFTER)

    def _sample_next(self, now: int) -> None:
        every = self.system.spec.sample_ns or self.system.spec.step_ns
        if now < self.until:
            due = min(now + every, self.until)
            self.system.calendar.enter(due, self._sample, rank=BEFORE)

    def _sample(self) -> None:
        self.record.take()
        self._sample_next(self.system.now)
