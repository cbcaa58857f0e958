"""The monitor of one virtual machine: its mode, what it costs, what it counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyvirt.errors import InvalidValueError
from pyvirt.machine.modes import MonitorMode, Selection
from pyvirt.machine.techniques import ROUTES, EventCosts, Execution
from pyvirt.machine.vm import VM

if TYPE_CHECKING:
    from pyvirt.cluster import DirtyLog
    from pyvirt.machine.executed import GuestRun
    from pyvirt.machine.pricing import Estimate
    from pyvirt.machine.translation import Translation

__all__ = ["VMM", "Counted"]

SECOND = 1_000_000_000


@dataclass(slots=True)
class Counted:
    """What the worlds of a machine did, in ns: its vCPUs, and those that serve its devices."""

    run: int = 0
    rdy: int = 0
    mlmtd: int = 0
    cstp: int = 0
    wait: int = 0
    idle: int = 0
    swpwt: int = 0
    used: int = 0
    elapsed: int = 0
    device_run: int = 0
    worlds: int = 0


@dataclass(eq=False)
class VMM:
    """One virtual machine's monitor, from its power-on to its power-off.

    Attributes
    ----------
    vm : VM
        The machine.
    selection : Selection
        How its mode was chosen.
    execution : Execution
        What events cost, by rates and a table.
    translation : Translation or None
        What translation costs, by the MMU; None: no address stream is known.
    mhz : float
        Of the host.
    worlds : tuple of int
        Of the vCPUs, in the host's scheduler.
    device_worlds : dict of str to int
        Those of the VMkernel that serve its devices.
    cpu_reservation : float
        MHz that admission control set aside for it.
    memory_reserved : int
        The same in bytes, with the monitor's own memory.
    memory_overhead : int
        Bytes that the monitor itself takes.
    swap_wait_ns : int
        Time that the host made its vCPUs wait for pages.
    seed : int
        Of its stream, where that has none of its own.
    costs : EventCosts or None
        What events cost here; None: the default of its mode.
    program : GuestRun or None
        Its workload, as this monitor executed it once; None: it is described by demand and rates.
    program_cycles : float
        The guest's own cycles for one run of it: its instructions without a monitor.
    """

    vm: VM
    selection: Selection
    execution: Execution
    translation: Translation | None
    mhz: float
    worlds: tuple[int, ...] = ()
    device_worlds: dict[str, int] = field(default_factory=dict)
    cpu_reservation: float = 0.0
    memory_reserved: int = 0
    memory_overhead: int = 0
    swap_wait_ns: int = 0
    seed: int = 0
    costs: EventCosts | None = None
    program: GuestRun | None = None
    program_cycles: float = 0.0
    _host: Any = None
    _since: int = 0  # when its worlds began
    _claim: Any = None  # arguments of the scheduler
    _works: tuple[Any, ...] = ()  # what its vCPUs do, with the monitor's part
    _brought: tuple[int, ...] = ()  # work that was left over when it came, likewise
    _last: Counted | None = None

    @property
    def name(self) -> str:
        """The machine's."""
        return self.vm.name

    @property
    def mode(self) -> MonitorMode:
        """Its monitor mode."""
        return self.selection.mode

    @property
    def technique(self) -> str:
        """``binary-translation``, ``paravirtual`` or ``hardware``."""
        return self.mode.technique

    @property
    def mmu(self) -> str:
        """``shadow``, ``nested``, ``agile`` or ``direct``."""
        return self.mode.mmu if self.translation is None else self.translation.mmu

    @property
    def overhead(self) -> float:
        """Cycles of the monitor for each cycle of the guest."""
        translation = 0.0 if self.translation is None else self.translation.overhead
        return self.execution.overhead + translation

    @property
    def running(self) -> bool:
        """Whether it has worlds on a host."""
        return self._host is not None

    def counted(self) -> Counted:
        """Give what its worlds did; after power-off, what they had done then."""
        if self._host is not None:
            return self._host.count(self)
        return self._last if self._last is not None else Counted()

    @property
    def counters(self) -> dict[str, Any]:
        """What its vCPUs did, and of that the monitor.

        Returns
        -------
        dict
            ``run_ns`` of the vCPUs; ``guest_ns``, what of it the guest had, and ``overhead_ns``,
            what the monitor had, with the same as ``overhead_cycles``; ``events`` by name;
            ``routes``: events by who dealt with them (``direct``, ``translated``, ``monitor``,
            ``vmkernel``, ``console``); ``swap_wait_ns``. Where a program is executed, also
            ``program_runs``, how often it has run, and ``booked``: instructions by who executed
            them.

        Notes
        -----
        The guest's part is the CPU time over 1 and the overhead; events are rates times it.
        """
        run = self.counted().run
        guest = run / (1.0 + self.overhead)
        events = {event: rate * guest / SECOND for event, rate in self.execution.rates.items()}
        made = {
            "run_ns": run,
            "guest_ns": guest,
            "overhead_ns": run - guest,
            "overhead_cycles": (run - guest) * self.mhz / 1000,
            "events": events,
            "routes": self._routes(events),
            "swap_wait_ns": self.swap_wait_ns,
        }
        if self.program is not None:
            runs = guest * self.mhz / 1000 / self.program_cycles
            made["program_runs"] = runs
            made["booked"] = {who: runs * count for who, count in self.program.booked.items()}
        return made

    def dirty_log(self, *, fetches: int = 16) -> DirtyLog:
        """Give what a migration would have to send again: its stream under a dirty log.

        The guest's accesses are as fast as the CPU time that it has had so far, without its
        monitor's part, allows.

        Parameters
        ----------
        fetches : int, default 16
            See `pyvirt.machine.log_writes`.

        Raises
        ------
        InvalidValueError
            It has no address stream, or has had no CPU time.
        """
        from pyvirt.machine.dirtying import log_writes
        from pyvirt.machine.streams import described

        counted = self.counted()
        elapsed = counted.elapsed / max(1, len(self.worlds))
        if not counted.run:
            raise InvalidValueError(f"VM {self.name!r:.80} must have run, and has had no CPU time")
        stream = described(self.vm.spec, self.seed)
        assert self.vm.spec.workload is not None
        assert self.vm.spec.workload.addresses is not None
        return log_writes(
            stream,
            accesses_per_s=self.vm.spec.workload.addresses.accesses_per_s,
            cpus=counted.run / (1.0 + self.overhead) / elapsed,
            fetches=fetches,
        )

    def estimate(self, rates: Mapping[str, Any]) -> Estimate:
        """Estimate what guests of some rates would cost under this monitor.

        Parameters
        ----------
        rates : mapping of str to float or array
            Events in a second of guest CPU time; see `pyvirt.machine.estimate`.

        Returns
        -------
        Estimate
            Of this mode, its cost table and this host's processor.

        Warns
        -----
        EstimateWarning
            Where memory events dominate, which rates cannot tell.
        """
        from pyvirt.machine.pricing import estimate

        given = None if self.costs is None else {self.mode: self.costs}
        return estimate(rates, self.mode, self.mhz, costs=given, tools=self.vm.spec.tools)

    def _routes(self, events: dict[str, float]) -> dict[str, float]:
        made = dict.fromkeys((*ROUTES, "console"), 0.0)
        name = self.execution.table
        table = EventCosts(name).routes() if name in EventCosts.names() else {}
        for event, count in events.items():
            made[table.get(event, "monitor")] += count
        if self._host is not None and self._host.console is not None:
            served = self._host.console.requests.items()
            made["console"] = sum(count for (vm, _), count in served if vm == self.name)
        return made

    def __repr__(self) -> str:
        return f"<VMM {self.name} {self.mode.value}, overhead {self.overhead:.1%}>"
