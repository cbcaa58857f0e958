"""What a monitor's work costs: counts of an executed guest, and estimates from rates."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyvirt.errors import EstimateWarning, InvalidTypeError, InvalidValueError
from pyvirt.machine.modes import MonitorMode
from pyvirt.machine.techniques import (
    DRIVER_BATCH,
    EVENTS,
    GROUPS,
    MOST_RATE,
    EventCosts,
    MonitorExitCosts,
    cost_table,
)
from pyvirt.mmu.exits import ExitCosts
from pyvirt.mmu.prices import known

if TYPE_CHECKING:
    from pyvirt.x86.monitor import MonitorCounts

__all__ = ["Estimate", "Priced", "estimate", "exit_cost_table", "price"]

#: Tables of exits of the same processor and monitor as a table of events.
EXITS_OF = {
    "bt-pentium4": "bt-pentium4",
    "hv-pentium4": "pentium4-672",
    "hv-skylake-sp": "skylake-sp",
    "hwmmu-nehalem": "nehalem",
    "hwmmu-skylake-sp": "skylake-sp",
}
#: Counters of the tables that have an event of their own, or cost the same without a monitor.
ELSEWHERE = ("guest_faults", "x_cr0", "x_cr4", "x_io", "x_other")
#: Events that a paravirtual guest asks for by a hypercall.
CALLED = (
    *("io", "halt", "cpuid", "msr", "emulated"),
    *("page_table_update", "context_switch", "invlpg"),
)


@dataclass(frozen=True, slots=True)
class Priced:
    """What a guest cost its monitor.

    Attributes
    ----------
    table : str
        The name of the table of events.
    exits : str
        The name of the table that priced the work on page tables; empty: none did.
    cycles : dict of str to float
        The monitor's cycles by event, those left out that cost nothing: events of
        `pyvirt.machine.EventCosts`, and classes of `pyvirt.ExitCosts`.
    instructions : int
        The guest's.
    guest_cycles : float
        What the guest's instructions take themselves: their number times `cpi`.
    """

    table: str
    exits: str
    cycles: dict[str, float]
    instructions: int
    guest_cycles: float

    @property
    def total(self) -> float:
        """The monitor's cycles."""
        return sum(self.cycles.values())

    @property
    def overhead(self) -> float:
        """The monitor's cycles for a cycle of the guest; see the caveat of `price`."""
        return self.total / self.guest_cycles if self.guest_cycles else 0.0


def exit_cost_table(name: str) -> ExitCosts | None:
    """Give the table of exits that goes with a table of events; None: there is none.

    Parameters
    ----------
    name : str
        Of a table of `EventCosts`.
    """
    found = EXITS_OF.get(name)
    if found is None:
        return None
    return MonitorExitCosts(found) if found in MonitorExitCosts.names() else ExitCosts(found)


def price(
    counts: MonitorCounts,
    costs: str | EventCosts,
    *,
    paging: Iterable[npt.NDArray[np.void]] | None = None,
    exit_costs: ExitCosts | None = None,
    cpi: float = 1.0,
) -> Priced:
    """Price what a monitor counted: each event times its cost.

    Parameters
    ----------
    counts : MonitorCounts
        Of `pyvirt.x86.monitor.Monitor`.
    costs : str or EventCosts
        A table of events, or the name of one.
    paging : iterable of structured arrays, optional
        ``Monitor.paging_counts``: what was done about page tables is then priced by it and
        `exit_costs`, not by events. Those differ: one exit may emulate a string instruction that
        writes hundreds of entries, and what fills a table is not what reflects a fault.
    exit_costs : ExitCosts, optional
        None: the table that goes with `costs`; without one, events are priced.
    cpi : float, default 1
        Cycles of an instruction of the guest.

    Returns
    -------
    Priced

    Raises
    ------
    InvalidValueError, InvalidTypeError
        For what does not fit.

    Notes
    -----
    The guest's own cycles are its instructions times `cpi`. A bare processor takes more than one
    cycle for many of them, above all where caches and TLBs miss: the interpreter does not time
    instructions. So an overhead compares techniques on one guest; it is not that of a machine.
    Longer walks of nested tables are not in it either (`pyvirt.compare` has them).

    Where hypercalls were counted and cost something, each costs that, and the events that a guest
    asks for by a hypercall what they cost beyond it: one call may make many changes.

    Examples
    --------
    >>> from pyvirt.machine import price
    >>> from pyvirt.x86.machine import Machine
    >>> from pyvirt.x86.monitor import Monitor
    >>> machine = Machine(1 << 21)
    >>> machine.load(bytes.fromhex("0fa2 f4"), 0x7C00)  # CPUID, HLT
    >>> machine.set(cs=(0, 0, 0xFFFF, 0x93), eip=0x7C00)
    >>> monitor = Monitor(machine, "hardware")
    >>> _ = monitor.run(100)
    >>> price(monitor.counts, "hwmmu-skylake-sp").cycles
    {'halt': 1539.0, 'cpuid': 1539.0, 'hidden_fault': 3039.0}
    """
    model = EventCosts(costs) if isinstance(costs, str) else costs
    if not isinstance(model, EventCosts):
        raise InvalidTypeError(f"costs must be an EventCosts or a name, got {costs!r:.80}")
    if isinstance(cpi, bool) or not isinstance(cpi, (int, float)):
        raise InvalidTypeError(f"cpi must be a number, got {cpi!r:.80}")
    if not (math.isfinite(cpi) and cpi > 0):
        raise InvalidValueError(f"cpi must be positive and finite, got {cpi!r:.80}")
    if exit_costs is not None and not isinstance(exit_costs, ExitCosts):
        raise InvalidTypeError(f"exit_costs must be an ExitCosts, got {exit_costs!r:.80}")
    tables = tuple(paging or ())
    exits = (exit_costs or exit_cost_table(model.name)) if tables else None
    cycles: dict[str, float] = {}
    call = model.table.get("hypercall", 0.0) if counts.events.get("hypercall") else 0.0
    for event in EVENTS:
        if exits is not None and event in GROUPS["memory"]:
            continue
        cost = float(model.table.get(event, 0.0))
        if event in CALLED:
            cost = max(0.0, cost - call)
        if cost and counts.events.get(event, 0):
            cycles[event] = cost * counts.events[event]
    if exits is not None:
        for event, part in _tables(tables, exits).items():
            cycles[event] = cycles.get(event, 0.0) + part
    return Priced(
        model.name,
        "" if exits is None else exits.name,
        cycles,
        counts.instructions,
        counts.instructions * float(cpi),
    )


def _tables(counters: Iterable[npt.NDArray[np.void]], exits: ExitCosts) -> dict[str, float]:
    """Price counters of shadow or nested tables, all formats together."""
    found: dict[str, int] = {}
    for one in counters:
        for name in one.dtype.names or ():
            if name not in ELSEWHERE and one[name].ndim == 1:
                found[name] = found.get(name, 0) + int(one[name].sum())
    return {name: float(part) for name, part in exits.cycles(found).breakdown.items()}


# --- estimates ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Estimate:
    """What techniques would cost guests of which rates are known.

    Attributes
    ----------
    modes : tuple of MonitorMode
        The techniques.
    tables : tuple of str
        Their cost tables.
    overhead : ndarray of float64, shape (modes, ...)
        The monitor's cycles for a cycle of the guest; the other axes are those of the rates.
    memory : ndarray of float64, same shape
        What part of it memory events have, 0 to 1.
    cycles : dict of str to ndarray, same shape
        The monitor's cycles in a second of guest CPU time, by event.
    """

    modes: tuple[MonitorMode, ...]
    tables: tuple[str, ...]
    overhead: npt.NDArray[np.float64]
    memory: npt.NDArray[np.float64]
    cycles: dict[str, npt.NDArray[np.float64]]

    @property
    def best(self) -> npt.NDArray[np.intp]:
        """The index of the cheapest mode for each guest, the first of equal ones."""
        return np.argmin(self.overhead, axis=0)


def estimate(
    rates: Mapping[str, Any],
    modes: MonitorMode | Sequence[MonitorMode],
    mhz: float,
    *,
    costs: Mapping[MonitorMode, str | EventCosts] | None = None,
    tools: bool = False,
) -> Estimate:
    """Estimate overheads from rates, for many guests and techniques at once.

    Parameters
    ----------
    rates : mapping of str to float or array
        Events in a second of guest CPU time, of `pyvirt.machine.techniques.EVENTS`; arrays are
        broadcast together, a value for each guest.
    modes : MonitorMode or sequence
        The techniques.
    mhz : float
        Of the processor.
    costs : mapping of MonitorMode to str or EventCosts, optional
        Tables in place of the defaults.
    tools : bool, default False
        Whether VMtools run in the guests: their drivers tell a device of 16 requests at a time.

    Returns
    -------
    Estimate

    Warns
    -----
    EstimateWarning
        Where memory events are more than half of what some guest costs. How many faults a monitor
        takes that the guest does not see depends on addresses and tables, not on rates: rates
        times the nanobenchmarks of Adams and Agesen (ASPLOS 2006) would need a negative number of
        page-table writes to explain the forks of the same paper. Such guests need counts of an
        executed guest (`pyvirt.machine.price`) or of the MMU (`pyvirt.machine.measure`).

    Raises
    ------
    InvalidValueError, InvalidTypeError
        For an unknown event, rates that do not fit together, are negative or above 10**12.

    Examples
    --------
    >>> import numpy as np
    >>> from pyvirt.machine import MonitorMode, estimate
    >>> found = estimate(
    ...     {"syscall": np.array([100.0, 50_000.0]), "io": 2000.0},
    ...     (MonitorMode.BT, MonitorMode.HV),
    ...     2000,
    ... )
    >>> found.overhead.round(4).tolist()
    [[0.0003, 0.0502], [0.004, 0.004]]
    >>> found.best.tolist()
    [0, 1]
    """
    chosen = (modes,) if isinstance(modes, MonitorMode) else tuple(modes)
    if not chosen or not all(isinstance(mode, MonitorMode) for mode in chosen):
        raise InvalidTypeError(f"modes must be one or more MonitorMode, got {modes!r:.80}")
    if isinstance(mhz, bool) or not isinstance(mhz, (int, float)):
        raise InvalidTypeError(f"mhz must be a number, got {mhz!r:.80}")
    if not (math.isfinite(mhz) and mhz > 0):
        raise InvalidValueError(f"mhz must be positive and finite, got {mhz!r:.80}")
    tables = [cost_table(mode, (costs or {}).get(mode)) for mode in chosen]
    seen = _rates(rates)
    if tools and "io" in seen:
        seen["io"] = seen["io"] / DRIVER_BATCH
    shape = np.broadcast_shapes(*(rate.shape for rate in seen.values()))
    zero = np.zeros((len(chosen), *shape))
    cycles = {}
    for event, rate in seen.items():
        each = np.array([float(table.table.get(event, 0.0)) for table in tables])
        part = zero + each.reshape(-1, *[1] * len(shape)) * rate
        if part.any():
            cycles[event] = part
    total = sum(cycles.values(), start=zero)
    memory = sum((part for event, part in cycles.items() if event in GROUPS["memory"]), start=zero)
    share = np.divide(memory, total, out=np.zeros_like(total), where=total > 0)
    if (share > 0.5).any():
        mode = chosen[int(np.argmax(share.reshape(len(chosen), -1).max(axis=1)))]
        warnings.warn(
            f"memory events are {share.max():.0%} of what mode {mode.value} costs: faults that the "
            "guest does not see do not follow from rates; execute the guest (pyvirt.machine.price) "
            "or give its address stream (pyvirt.machine.measure)",
            EstimateWarning,
            stacklevel=2,
        )
    return Estimate(chosen, tuple(one.name for one in tables), total / (mhz * 1e6), share, cycles)


def _rates(rates: Mapping[str, Any]) -> dict[str, npt.NDArray[np.float64]]:
    """Give rates as arrays that fit together."""
    if not isinstance(rates, Mapping):
        raise InvalidTypeError(f"rates must map events to rates, got {rates!r:.80}")
    made = {}
    for event, rate in rates.items():
        known(event, EVENTS, "rates has an unknown event")
        found = np.asarray(rate)
        if found.dtype.kind not in "iuf":
            raise InvalidTypeError(f"rates[{event!r}] must be numbers, got {rate!r:.80}")
        found = found.astype(np.float64)
        right = (found >= 0) & (found <= MOST_RATE)
        if not right.all():
            wrong = found[~right].ravel()[0]
            raise InvalidValueError(f"rates[{event!r}] must be in [0, {MOST_RATE:g}], got {wrong}")
        made[event] = found
    try:
        np.broadcast_shapes(*(one.shape for one in made.values()))
    except ValueError:
        shapes = ", ".join(f"{event} {one.shape}" for event, one in made.items())
        raise InvalidValueError(f"shapes of rates must fit together, got {shapes}") from None
    return made
