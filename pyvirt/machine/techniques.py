"""What a monitor's work costs by execution technique: rates of events times cycles of each."""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.machine.modes import MonitorMode
from pyvirt.mmu.exits import ExitCosts
from pyvirt.mmu.prices import Groups, Prices, known

__all__ = [
    "EVENTS",
    "GROUPS",
    "ROUTES",
    "EventCosts",
    "Execution",
    "MonitorExitCosts",
    "cost_table",
    "execution",
]

#: The events of a guest, by the group that a plot shows.
GROUPS: Groups = {
    "execution": (
        *("syscall", "interrupt_flag", "call_return", "exception", "io", "interrupt"),
        *("halt", "cpuid", "msr", "translation_unit", "emulated", "hypercall"),
    ),
    "memory": ("page_fault", "page_table_update", "context_switch", "invlpg", "hidden_fault"),
}
#: Every event that can have a cost.
EVENTS = tuple(name for group in GROUPS.values() for name in group)
#: Who deals with an event: nobody (it runs as on the machine itself), translated code, the monitor,
#: the VMkernel.
ROUTES = ("direct", "translated", "monitor", "vmkernel")

DEFAULTS = {
    MonitorMode.BT: "bt-pentium4",
    MonitorMode.HV: "hv-skylake-sp",
    MonitorMode.HWMMU: "hwmmu-skylake-sp",
    MonitorMode.PV: "pv-xen-2003",
}
#: Tables by the mode that they are for: the beginning of their names.
PREFIXES = {
    MonitorMode.BT: "bt-",
    MonitorMode.HV: "hv-",
    MonitorMode.HWMMU: "hwmmu-",
    MonitorMode.PV: "pv-",
}
#: With paravirtual drivers, which VMtools bring, a device is told of so many requests at a time. A
#: choice: virtio and vmxnet notify once for what has piled up.
DRIVER_BATCH = 16
MOST_RATE = 1e12


@dataclass(frozen=True, slots=True)
class EventCosts(Prices):
    """Cycles of a monitor for each event of its guest.

    Parameters
    ----------
    name : str
        A table (`EventCosts.names`), or with `costs` any name.
    costs : mapping of str to float, optional
        Cycles by event, one of `EVENTS`, beside those that the event takes without a monitor; an
        event that is missing costs nothing. None: those of the table with that name.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        For a name that no table has, an unknown event, or a cost that is negative or not a finite
        number.

    Notes
    -----
    Tables begin with the mode that they are for: ``bt-``, ``hv-``, ``hwmmu-``, ``pv-``. Where an
    address stream of the guest is known, its memory events are counted by the MMU and priced by
    `pyvirt.ExitCosts`, since rates times costs cannot tell hidden faults.

    Examples
    --------
    >>> from pyvirt.machine import EventCosts
    >>> EventCosts("bt-pentium4").per_second({"syscall": 1000, "io": 100})
    2021400.0
    """

    _folder: ClassVar[Path] = Path(__file__).with_name("technique_data")
    _noun: ClassVar[str] = "an event cost"
    _groups: ClassVar[Groups] = GROUPS
    _classes: ClassVar[tuple[str, ...]] = EVENTS

    def per_second(self, rates: Mapping[str, float], *, memory: bool = True) -> float:
        """Give the monitor's cycles for a second of guest CPU time.

        Parameters
        ----------
        rates : mapping of str to float
            Events per second of guest CPU time.
        memory : bool, default True
            Whether the events of the group ``memory`` count.

        Returns
        -------
        float

        Raises
        ------
        InvalidValueError, InvalidTypeError
            For an unknown event, or a rate that is negative or above 10**12.
        """
        return sum(self.by_event(rates, memory=memory).values())

    def by_event(self, rates: Mapping[str, float], *, memory: bool = True) -> dict[str, float]:
        """Give the same by event, those left out that cost nothing."""
        left_out = () if memory else GROUPS["memory"]
        made = {}
        for event, rate in check_rates(rates).items():
            cost = self.table.get(event, 0.0)
            if event not in left_out and rate * cost > 0:
                made[event] = rate * cost
        return made

    def routes(self) -> dict[str, str]:
        """Give who deals with each event, one of `ROUTES`, by the table with this name.

        Raises
        ------
        InvalidValueError
            For a model of another name.
        """
        known(self.name, self.names(), "no event cost table is named")
        return dict(_routes(self._folder / f"{self.name}.toml"))


@functools.cache
def _routes(path: Path) -> dict[str, str]:
    return {str(k): str(v) for k, v in tomllib.loads(path.read_text("utf-8"))["routes"].items()}


class MonitorExitCosts(ExitCosts):
    """Costs of faults and table writes for monitors that are not entered by a processor's exit."""

    __slots__ = ()
    _folder: ClassVar[Path] = Path(__file__).with_name("exit_data")


@dataclass(frozen=True, slots=True)
class Execution:
    """What executing a guest by a technique costs.

    Attributes
    ----------
    table : str
        The name of the cost table.
    rates : dict of str to float
        Events per second of guest CPU time, as the monitor sees them.
    cycles : dict of str to float
        The monitor's cycles per second of guest CPU time, by event.
    overhead : float
        The monitor's cycles per cycle of the guest.
    """

    table: str
    rates: dict[str, float]
    cycles: dict[str, float]
    overhead: float


def check_rates(rates: Mapping[str, float]) -> dict[str, float]:
    """Give rates as numbers, after a look at each."""
    if not isinstance(rates, Mapping):
        raise InvalidTypeError(f"rates must map events to rates, got {rates!r:.80}")
    made = {}
    for event, rate in rates.items():
        known(event, EVENTS, "rates has an unknown event")
        if isinstance(rate, bool) or not isinstance(rate, (int, float)):
            raise InvalidTypeError(f"rates[{event!r}] must be a number, got {rate!r:.80}")
        if not (math.isfinite(rate) and 0 <= rate <= MOST_RATE):
            raise InvalidValueError(
                f"rates[{event!r}] must be in [0, {MOST_RATE:g}], got {rate!r:.80}"
            )
        made[event] = float(rate)
    return made


def cost_table(mode: MonitorMode, costs: str | EventCosts | None = None) -> EventCosts:
    """Give the cost table of a mode.

    Parameters
    ----------
    mode : MonitorMode
        How the guest is executed.
    costs : str or EventCosts, optional
        A table, or the name of one; None: the default of the mode.

    Raises
    ------
    InvalidValueError
        For the name of a table that is for another mode.
    InvalidTypeError
        For anything else.
    """
    if costs is None:
        costs = DEFAULTS[mode]
    if isinstance(costs, str):
        if costs in EventCosts.names() and not costs.startswith(PREFIXES[mode]):
            fit = [name for name in EventCosts.names() if name.startswith(PREFIXES[mode])]
            raise InvalidValueError(
                f"costs of mode {mode.value} must be one of {', '.join(fit)}, got {costs!r:.80}"
            )
        return EventCosts(costs)
    if not isinstance(costs, EventCosts):
        raise InvalidTypeError(f"costs must be an EventCosts or a name, got {costs!r:.80}")
    return costs


def execution(
    rates: Mapping[str, float],
    mode: MonitorMode,
    mhz: float,
    *,
    costs: str | EventCosts | None = None,
    memory: bool = True,
    tools: bool = False,
) -> Execution:
    """Price the execution of a guest.

    Parameters
    ----------
    rates : mapping of str to float
        Events per second of guest CPU time.
    mode : MonitorMode
        How it is executed.
    mhz : float
        Of the processor: cycles of a second of guest CPU time.
    costs : str or EventCosts, optional
        See `cost_table`.
    memory : bool, default True
        Whether memory events are priced here; False where the MMU counts them.
    tools : bool, default False
        Whether VMtools run in the guest: their drivers tell a device of 16 requests at a time.

    Returns
    -------
    Execution
        Its overhead is ``sum(rate * cost) / (mhz * 10**6)``.
    """
    model = cost_table(mode, costs)
    seen = check_rates(rates)
    if tools and "io" in seen:
        seen["io"] /= DRIVER_BATCH
    cycles = model.by_event(seen, memory=memory)
    return Execution(model.name, seen, cycles, _share(cycles, mhz))


def _share(cycles: Mapping[str, float], mhz: Any) -> float:
    if isinstance(mhz, bool) or not isinstance(mhz, (int, float)):
        raise InvalidTypeError(f"mhz must be a number, got {mhz!r:.80}")
    if not (math.isfinite(mhz) and mhz > 0):
        raise InvalidValueError(f"mhz must be positive and finite, got {mhz!r:.80}")
    return sum(cycles.values()) / (mhz * 1e6)
