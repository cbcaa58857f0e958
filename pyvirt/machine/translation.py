"""What the translation of addresses costs a guest, measured on its own stream by the MMU."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.machine.modes import MonitorMode
from pyvirt.machine.streams import Stream
from pyvirt.machine.techniques import EventCosts, MonitorExitCosts, cost_table
from pyvirt.mmu.compare import Comparison, Run, compare
from pyvirt.mmu.exits import ExitCosts
from pyvirt.mmu.shadow import ShadowRules

__all__ = ["Translation", "forget", "measure"]

#: Exits that are no matter of memory: they are priced by rates.
OTHER = "other exits"
#: What the hypervisor counts in write-protected tables, by the call that a paravirtual guest makes.
CALLS = {
    "page_fault": "guest_faults",
    "page_table_update": "mmu_pte_write",
    "context_switch": "x_cr3_write",
    "invlpg": "x_invlpg",
}


@dataclass(frozen=True, slots=True)
class Translation:
    """What a guest's translations cost beside those without a hypervisor.

    Attributes
    ----------
    mmu : str
        ``shadow``, ``nested``, ``agile`` or ``direct``.
    accesses : int
        Accesses of the sample.
    native, cycles : float
        Cycles of translation and faults in the sample, without a hypervisor and with one.
    per_access : float
        What the hypervisor adds to an access, in cycles; negative where shadow tables map by larger
        steps than the guest's.
    overhead : float
        The same per cycle of the guest: ``per_access * accesses_per_s / (mhz * 10**6)``, at least
        0.
    groups : dict of str to float
        What is added by group of events, in cycles of the sample.
    counters : dict of str to int
        Exits, faults, TLB misses, walks and references of the sample, with a hypervisor.
    """

    mmu: str
    accesses: int
    native: float
    cycles: float
    per_access: float
    overhead: float
    groups: dict[str, float]
    counters: dict[str, int]


def measure(
    stream: Stream,
    mode: MonitorMode,
    mhz: float,
    *,
    accesses_per_s: float = 1e9,
    agile: bool = False,
    tlb: str = "skylake-sp",
    backing: str = "4K",
    policy: str = "trace",
    costs: str = "sagepte",
    exit_costs: str | ExitCosts | None = None,
    event_costs: str | EventCosts | None = None,
) -> Translation:
    """Run a sample of a stream with and without a hypervisor, and price the difference.

    Parameters
    ----------
    stream : Stream
        The guest's own.
    mode : MonitorMode
        How the guest is executed. ``BT`` and ``HV`` have shadow tables, ``HWMMU`` nested ones;
        ``PV`` has the processor's own, and calls the hypervisor to change them.
    mhz : float
        Of the processor.
    accesses_per_s : float, default 10**9
        Accesses in a second of guest CPU time.
    agile : bool, default False
        With ``HWMMU``: agile paging.
    tlb : str, default "skylake-sp"
        A preset of `pyvirt.Geometry`.
    backing : {"4K", "2M"}, default "4K"
        In what pages the host keeps the guest's memory.
    policy : {"unsync", "write_protect", "trace", "xen"}, default "trace"
        What shadow tables do (`pyvirt.ShadowRules.policy`); ``trace`` is VMware's.
    costs : str, default "sagepte"
        A table of `pyvirt.CostModel`: what walks cost.
    exit_costs : str or ExitCosts, optional
        What faults and exits cost. None: for ``BT`` those of VMware's software VMM, for others
        those of Skylake-SP.
    event_costs : str or EventCosts, optional
        For ``PV``: what its calls cost (`EventCosts`).

    Returns
    -------
    Translation

    Notes
    -----
    Counts are kept: the same stream in the same mode, geometry and backing is run once in a
    process, whatever it is priced at. Port accesses and other exits that are no matter of memory
    are left out; they are priced by rates (`execution`).
    """
    if not isinstance(stream, Stream):
        raise InvalidTypeError(f"stream must be a Stream, got {stream!r:.80}")
    rate = _positive(accesses_per_s, "accesses_per_s", zero=True)
    speed = _positive(mhz, "mhz")
    tables = _tables(mode, agile)
    found = _counted(
        stream, tables, tlb, backing, "write_protect" if mode is MonitorMode.PV else policy
    )
    priced = found.priced(costs=costs, exit_costs=_exits(mode, exit_costs), work=0)
    native, there = priced["native"], priced[tables]
    base, groups = _total(native), _added(native, there)
    if mode is MonitorMode.PV:
        groups = _calls(there, cost_table(mode, event_costs))
    added = sum(groups.values())
    per_access = added / found.accesses
    return Translation(
        "direct" if mode is MonitorMode.PV else tables,
        found.accesses,
        base,
        base + added,
        per_access,
        max(0.0, per_access * rate / (speed * 1e6)),
        groups,
        _counters(native if mode is MonitorMode.PV else there),
    )


def forget() -> None:
    """Forget what was counted, for instance after a trace has been written anew."""
    _counted.cache_clear()


@functools.lru_cache(maxsize=256)
def _counted(stream: Stream, tables: str, tlb: str, backing: str, policy: str) -> Comparison:
    """Run a sample natively and in one mode side by side."""
    sample = stream.make()
    rules = ShadowRules.policy(policy) if tables == "shadow" else None  # type: ignore[arg-type]
    found = compare(
        sample.events,
        sample.memory,
        modes=("native", tables),
        tlb=tlb,
        backing=backing,
        before=sample.before,
        rules=rules,
        **sample.initial,
    )
    if not found.accesses:
        raise InvalidValueError(f"stream must have accesses, got none from {stream!r:.80}")
    return found


def _tables(mode: MonitorMode, agile: bool) -> str:
    if not isinstance(mode, MonitorMode):
        raise InvalidTypeError(f"mode must be a MonitorMode, got {mode!r:.80}")
    if agile and mode is not MonitorMode.HWMMU:
        raise InvalidValueError(f"agile must be False in mode {mode.value}, got True")
    if mode is MonitorMode.HWMMU:
        return "agile" if agile else "nested"
    return "shadow"


def _exits(mode: MonitorMode, given: str | ExitCosts | None) -> ExitCosts:
    if isinstance(given, ExitCosts):
        return given
    if given is None:
        if mode is MonitorMode.BT:
            return MonitorExitCosts("bt-pentium4")
        return ExitCosts("skylake-sp")
    if given in MonitorExitCosts.names():
        return MonitorExitCosts(given)
    return ExitCosts.joined(given)


def _total(run: Run) -> float:
    return run.cycles.total - float(run.cycles.groups[OTHER])


def _added(native: Run, there: Run) -> dict[str, float]:
    """Give by group what a mode costs more than native."""
    before, after = native.cycles.groups, there.cycles.groups
    return {
        name: float(cycles - before[name])
        for name, cycles in after.items()
        if name != OTHER and cycles != before[name]
    }


def _calls(there: Run, costs: EventCosts) -> dict[str, float]:
    """Price what a guest on tables of its own has to ask the hypervisor for."""
    counted: Mapping[str, Any] = {event: there.counters[name] for event, name in CALLS.items()}
    made = {event: float(counted[event]) * costs.table.get(event, 0.0) for event in CALLS}
    return {event: cycles for event, cycles in made.items() if cycles}


def _counters(run: Run) -> dict[str, int]:
    return {
        "exits": run.exits,
        "guest_faults": run.guest_faults,
        "hidden_faults": run.hidden_faults,
        "tlb_misses": run.tlb_misses,
        "walks": run.walks,
        "references": run.references,
    }


def _positive(value: Any, name: str, *, zero: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidTypeError(f"{name} must be a number, got {value!r:.80}")
    if not (math.isfinite(value) and (value > 0 or (zero and value == 0))):
        raise InvalidValueError(f"{name} must be positive and finite, got {value!r:.80}")
    return float(value)
