"""What a run of a scenario gives: samples of hosts and virtual machines, events, provenance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidValueError
from pyvirt.spec import ScenarioSpec

__all__ = ["HOST_COLUMNS", "VM_COLUMNS", "VM_STATES", "Event", "Monitor", "Result"]

Ints = npt.NDArray[np.int64]

#: Samples of a host, and their dtype. Times and joules are of the interval that ends with the
#: sample, all others of its end.
HOST_COLUMNS = {
    "state": "u1",
    "vms": "i8",
    "on_ns": "i8",
    "run_ns": "i8",
    "migration_ns": "i8",
    "console_ns": "i8",
    "total_pages": "i8",
    "free_pages": "i8",
    "memory_state": "i1",
    "joules": "f8",
}
#: Samples of a virtual machine, likewise.
VM_COLUMNS = {
    "state": "u1",
    "host": "i8",
    "on_ns": "i8",
    "down_ns": "i8",
    "stunned_ns": "i8",
    "run_ns": "i8",
    "ready_ns": "i8",
    "costop_ns": "i8",
    "limited_ns": "i8",
    "wait_ns": "i8",
    "idle_ns": "i8",
    "swap_wait_ns": "i8",
    "device_run_ns": "i8",
    "overhead_ns": "i8",
    "active_pages": "i8",
    "granted_pages": "i8",
    "mapped_pages": "i8",
    "shared_pages": "i8",
    "balloon_pages": "i8",
    "compressed_pages": "i8",
    "swapped_pages": "i8",
}
#: What a virtual machine is doing, by the number in ``state``.
VM_STATES = ("off", "on", "suspended", "down")


class Event(NamedTuple):
    """Something that happened.

    Attributes
    ----------
    time_ns : int
        When.
    what : str
        Such as ``"power-on"``, ``"migrated"``, ``"host-failed"``.
    vm, host, to : str
        Names, or empty: the virtual machine; where it was, or the host itself; where it went.
    text : str
        More, in words.
    value : float
        A number that belongs to it, such as the downtime of a migration in ns; else 0.
    """

    time_ns: int
    what: str
    vm: str = ""
    host: str = ""
    to: str = ""
    text: str = ""
    value: float = 0.0


class Monitor(NamedTuple):
    """How a virtual machine was executed, from one of its power-ons or moves on.

    Attributes
    ----------
    time_ns : int
        From when on.
    vm, host : str
        Names.
    mode, technique, mmu : str
        As `VMM` has them.
    execution, translation : float
        Cycles of the monitor for each cycle of the guest: for its events, and for its addresses.
    events : dict of str to float
        Cycles of the monitor a second of guest CPU time, by event.
    """

    time_ns: int
    vm: str
    host: str
    mode: str
    technique: str
    mmu: str
    execution: float
    translation: float
    events: dict[str, float]


@dataclass(frozen=True, eq=False)
class Result:
    """What happened.

    Attributes
    ----------
    spec : ScenarioSpec
        What was run.
    times_ns : ndarray of int64, shape (T,)
        The end of each sample; the first begins at 0.
    host_names, vm_names : tuple of str
        The rows of the arrays.
    hosts : dict of str to ndarray, shape (H, T)
        ``state``, a number of `pyvirt.cluster.HostState`; ``vms`` that are on; ``on_ns``, for how
        long it was on; ``run_ns``, CPU time in all, over its CPUs, and of that ``migration_ns``
        and ``console_ns``; ``total_pages`` and ``free_pages`` of 4 KiB, and ``memory_state``, a
        number of `pyvirt.hostmem.MemoryState` (-1: it has no memory manager); ``joules``.
    vms : dict of str to ndarray, shape (V, T)
        ``state``, a place in `VM_STATES`; ``host``, a row, or -1; ``on_ns``, for how long it was
        on, ``down_ns``, for how long it was to be and was not, and ``stunned_ns``, how much of
        ``on_ns`` it stood still for a migration or a full datastore; then times of its vCPUs, added
        up: ``run_ns``, ``ready_ns`` (without limits), ``costop_ns``, ``limited_ns``, ``wait_ns``,
        and of that ``idle_ns`` and ``swap_wait_ns``; ``device_run_ns`` of the worlds that serve its
        devices; ``overhead_ns``, what of ``run_ns`` its monitor took; and pages.
    monitors : tuple of Monitor
        In the order of time.
    events : tuple of Event
        Likewise.
    power_watts : ndarray of float64, shape (H, 11)
        Watts of each host at 0, 10, ... 100 % of its CPU.
    capacity_ns : ndarray of int64, shape (H,)
        CPU time that a host has in a second, in ns.
    provenance : dict
        ``version``, ``seed``, ``until_ns``, ``mode``, ``presets`` (the SHA-256 of each file of
        figures that was used) and ``scenario``, the description as a dictionary.
    """

    spec: ScenarioSpec
    times_ns: Ints
    host_names: tuple[str, ...]
    vm_names: tuple[str, ...]
    hosts: dict[str, npt.NDArray[Any]] = field(repr=False)
    vms: dict[str, npt.NDArray[Any]] = field(repr=False)
    monitors: tuple[Monitor, ...] = field(repr=False)
    events: tuple[Event, ...] = field(repr=False)
    power_watts: npt.NDArray[np.float64] = field(repr=False)
    capacity_ns: Ints = field(repr=False)
    provenance: dict[str, Any] = field(repr=False)

    @property
    def intervals_ns(self) -> Ints:
        """The length of each sample, shape (T,)."""
        return np.diff(self.times_ns, prepend=0)

    @property
    def duration_ns(self) -> int:
        """How long it was."""
        return int(self.times_ns[-1])

    @property
    def energy_kwh(self) -> float:
        """Of all hosts."""
        return float(self.hosts["joules"].sum()) / 3.6e6

    @property
    def utilisation(self) -> npt.NDArray[np.float64]:
        """Part of each host's CPU time that was used, shape (H, T); 0 while it is not on."""
        on = self.hosts["on_ns"] * (self.capacity_ns[:, None] / 1e9)
        return np.divide(self.hosts["run_ns"], on, out=np.zeros(on.shape), where=on > 0)

    def after_warmup(self) -> npt.NDArray[np.bool_]:
        """Say which samples begin after the scenario's ``warmup_ns``."""
        return np.asarray(self.times_ns - self.intervals_ns >= self.spec.warmup_ns)

    def vm(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """Give the samples of one virtual machine."""
        row = _row(self.vm_names, name, "VM")
        return {column: values[row] for column, values in self.vms.items()}

    def host(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """Give the samples of one host."""
        row = _row(self.host_names, name, "host")
        return {column: values[row] for column, values in self.hosts.items()}

    def of(self, what: str) -> list[Event]:
        """Give the events of one kind."""
        return [event for event in self.events if event.what == what]

    def percent(self, vm: str, column: str) -> float:
        """Give a column of esxtop over the whole run: percent of the time in which the VM was on.

        Parameters
        ----------
        vm : str
            Name.
        column : {"%RUN", "%RDY", "%CSTP", "%MLMTD", "%WAIT", "%IDLE", "%SWPWT", "%SYS", "%USED"}
            As in `HostStats`: vCPUs added up, and %RDY with %MLMTD.
        """
        if column not in _PERCENT:
            raise InvalidValueError(f"column must be one of {', '.join(_PERCENT)}, got {column!r}")
        mine = self.vm(vm)
        kept = self.after_warmup()
        on = int(mine["on_ns"][kept].sum())
        total = sum(int(mine[part][kept].sum()) for part in _PERCENT[column])
        return 100.0 * total / on if on else 0.0


_PERCENT = {
    "%USED": ("run_ns", "device_run_ns"),
    "%RUN": ("run_ns",),
    "%SYS": ("device_run_ns",),
    "%WAIT": ("wait_ns",),
    "%RDY": ("ready_ns", "limited_ns"),
    "%IDLE": ("idle_ns",),
    "%CSTP": ("costop_ns",),
    "%MLMTD": ("limited_ns",),
    "%SWPWT": ("swap_wait_ns",),
}


def _row(names: tuple[str, ...], name: str, kind: str) -> int:
    if name not in names:
        there = ", ".join(names) or "none"
        raise InvalidValueError(f"no {kind} is called {name!r:.80}; there are {there:.200}")
    return names.index(name)
