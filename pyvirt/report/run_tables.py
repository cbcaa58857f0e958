"""What happened in a run of a scenario, as tables of plain rows: hosts, VMs, monitors, events.

Samples that begin before the scenario's warm-up has ended are left out, as
`Result.after_warmup` says; so are events before that time, unless asked for.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.hostmem import MemoryState
from pyvirt.machine.scenario.result import Event, Monitor, Result
from pyvirt.report.mmu import Cell, Table

__all__ = [
    "check_result",
    "kept_events",
    "last_monitors",
    "run_event_counts",
    "run_event_table",
    "run_host_table",
    "run_monitor_table",
    "run_vm_table",
    "warmup_end_ns",
]

#: Columns of esxtop that the table of VMs has, and the times of `Result.vms` that they add up.
PERCENT = {
    "%RUN": ("run_ns",),
    "%RDY": ("ready_ns", "limited_ns"),
    "%CSTP": ("costop_ns",),
    "%MLMTD": ("limited_ns",),
    "%SWPWT": ("swap_wait_ns",),
    "%SYS": ("device_run_ns",),
}
#: The event of a migration that has ended: its ``value`` is the downtime in ns.
MIGRATED = "migrated"
PAGES_OF_MIB = 256
SECOND = 10**9


def run_host_table(result: Result) -> Table:
    """Give what each host did.

    Parameters
    ----------
    result : Result
        Of a run.

    Returns
    -------
    Table
        ``host``; ``util_%`` and ``max_util_%`` in percent of its CPU time, over the time that it
        was on and over samples; ``on_s``; ``joules`` and ``kwh``; ``mean_vms``; ``migration_%``
        and ``console_%``, parts of its CPU time, likewise; ``least_free_mib`` and
        ``worst_memory``, the name of a `pyvirt.hostmem.MemoryState`, while it was on (``-`` for
        both: it has no memory manager).
    """
    check_result(result)
    kept = result.after_warmup()
    hosts = {column: values[:, kept] for column, values in result.hosts.items()}
    used = result.utilisation[:, kept]
    rows: list[tuple[Cell, ...]] = []
    for h, name in enumerate(result.host_names):
        on_ns = int(hosts["on_ns"][h].sum())
        capacity = on_ns / SECOND * int(result.capacity_ns[h])
        joules = float(hosts["joules"][h].sum())
        managed = (hosts["on_ns"][h] > 0) & (hosts["memory_state"][h] >= 0)
        worst = int(hosts["memory_state"][h][managed].max(initial=-1))
        free: Cell = "-"
        if managed.any():
            free = int(hosts["free_pages"][h][managed].min()) / PAGES_OF_MIB
        rows.append(
            (
                name,
                _percent(hosts["run_ns"][h], capacity),
                100.0 * float(used[h].max(initial=0.0)),
                on_ns / SECOND,
                joules,
                joules / 3.6e6,
                _mean_vms(hosts["vms"][h], result.intervals_ns[kept]),
                _percent(hosts["migration_ns"][h], capacity),
                _percent(hosts["console_ns"][h], capacity),
                free,
                "-" if worst < 0 else MemoryState(worst).name.lower(),
            )
        )
    columns = ("host", "util_%", "max_util_%", "on_s", "joules", "kwh", "mean_vms")
    more = ("migration_%", "console_%", "least_free_mib", "worst_memory")
    return Table((*columns, *more), tuple(rows))


def run_vm_table(result: Result) -> Table:
    """Give what each virtual machine did.

    Parameters
    ----------
    result : Result
        Of a run.

    Returns
    -------
    Table
        ``vm``, ``vcpus``, ``mode`` (monitor and MMU, of its last monitor; ``-``: it never was on);
        ``on_s``; columns of esxtop, in percent of the time in which it was on, vCPUs added up,
        %RDY with %MLMTD; ``overhead_%``, the part of its vCPUs' CPU time that its monitor took;
        ``migrations``; ``stunned_ms``, for how long it stood still while on, and ``down_s``, for
        how long it was to be on and was not.
    """
    check_result(result)
    kept = result.after_warmup()
    sums = {
        column: values[:, kept].sum(axis=1, dtype=np.int64)
        for column, values in result.vms.items()
        if column.endswith("_ns")
    }
    vcpus = {vm.name: vm.vcpus for vm in result.spec.cluster.vms}
    modes = last_monitors(result)
    moves = Counter(event.vm for event in kept_events(result) if event.what == MIGRATED)
    rows: list[tuple[Cell, ...]] = []
    for v, name in enumerate(result.vm_names):
        on_ns = int(sums["on_ns"][v])
        mode = f"{modes[name].mode} {modes[name].mmu}" if name in modes else "-"
        times = [sum(int(sums[part][v]) for part in parts) for parts in PERCENT.values()]
        rows.append(
            (
                name,
                vcpus.get(name, 0),
                mode,
                on_ns / SECOND,
                *(100.0 * time / on_ns if on_ns else 0.0 for time in times),
                _percent(sums["overhead_ns"][v], int(sums["run_ns"][v])),
                moves[name],
                int(sums["stunned_ns"][v]) / 1e6,
                int(sums["down_ns"][v]) / SECOND,
            )
        )
    columns = ("vm", "vcpus", "mode", "on_s", *PERCENT, "overhead_%")
    return Table((*columns, "migrations", "stunned_ms", "down_s"), tuple(rows))


def run_monitor_table(result: Result) -> Table:
    """Give how each virtual machine was executed, one row for each power-on or move.

    Returns
    -------
    Table
        ``time_s``, ``vm``, ``host``, ``mode``, ``technique``, ``mmu``; ``execution_%`` and
        ``translation_%``, cycles of the monitor for each 100 of the guest; ``dearest``, the event
        that costs most, and ``cycles_per_s``, what that costs a second of guest CPU time.
    """
    check_result(result)
    rows: list[tuple[Cell, ...]] = []
    for one in result.monitors:
        dearest = max(one.events, key=lambda event: one.events[event], default="-")
        rows.append(
            (
                one.time_ns / SECOND,
                *(one.vm, one.host, one.mode, one.technique, one.mmu),
                *(100.0 * one.execution, 100.0 * one.translation),
                *(dearest, float(one.events.get(dearest, 0.0))),
            )
        )
    columns = ("time_s", "vm", "host", "mode", "technique", "mmu")
    more = ("execution_%", "translation_%", "dearest", "cycles_per_s")
    return Table((*columns, *more), tuple(rows))


def run_event_counts(result: Result, *, warmup: bool = False) -> Table:
    """Give how often each kind of event happened, the most frequent first.

    Parameters
    ----------
    result : Result
        Of a run.
    warmup : bool, default False
        Count those within the warm-up, too.

    Returns
    -------
    Table
        ``event``, ``count``, ``first_s`` and ``last_s``.
    """
    check_result(result)
    counts: dict[str, list[int]] = {}
    for event in result.events if warmup else kept_events(result):
        counts.setdefault(event.what, []).append(event.time_ns)
    order = sorted(counts, key=lambda what: (-len(counts[what]), what))
    rows = [
        (what, len(counts[what]), min(counts[what]) / SECOND, max(counts[what]) / SECOND)
        for what in order
    ]
    return Table(("event", "count", "first_s", "last_s"), tuple(rows))


def run_event_table(
    result: Result, *, first: int | None = None, last: int | None = None, warmup: bool = False
) -> Table:
    """Give events in the order of time.

    Parameters
    ----------
    result : Result
        Of a run.
    first, last : int, optional
        Only so many, from the beginning or from the end; one of the two. Default: all.
    warmup : bool, default False
        Those within the warm-up, too.

    Returns
    -------
    Table
        ``time_s``, ``event``, ``vm``, ``host``, ``to``, ``text``, ``value``.

    Raises
    ------
    InvalidValueError
        Both `first` and `last`, or a number below 0.
    """
    check_result(result)
    if first is not None and last is not None:
        raise InvalidValueError(f"give first or last, not both, got {first} and {last}")
    for name, number in (("first", first), ("last", last)):
        if number is not None and number < 0:
            raise InvalidValueError(f"{name} must not be negative, got {number}")
    events = list(result.events) if warmup else kept_events(result)
    if first is not None:
        events = events[:first]
    if last is not None:
        events = events[max(0, len(events) - last) :]
    rows = [
        (one.time_ns / SECOND, one.what, one.vm, one.host, one.to, one.text, float(one.value))
        for one in events
    ]
    return Table(("time_s", "event", "vm", "host", "to", "text", "value"), tuple(rows))


def check_result(result: object) -> None:
    """See that something is a `Result`.

    Raises
    ------
    InvalidTypeError
        If it is not.
    """
    if not isinstance(result, Result):
        raise InvalidTypeError(f"result must be a Result, got {result!r:.80}")


def warmup_end_ns(result: Result) -> int:
    """Give when the first sample begins that counts; the end of the run, if none does."""
    kept = result.after_warmup()
    starts = result.times_ns - result.intervals_ns
    return int(starts[kept][0]) if kept.any() else result.duration_ns


def kept_events(result: Result) -> list[Event]:
    """Give the events since the first sample that counts."""
    begin = warmup_end_ns(result)
    return [event for event in result.events if event.time_ns >= begin]


def last_monitors(result: Result) -> dict[str, Monitor]:
    """Give the last monitor of each virtual machine that had one."""
    return {one.vm: one for one in result.monitors}


def _percent(part: npt.NDArray[Any], whole: float) -> float:
    return 100.0 * float(np.asarray(part).sum()) / whole if whole else 0.0


def _mean_vms(vms: npt.NDArray[Any], lengths: npt.NDArray[Any]) -> float:
    total = int(lengths.sum())
    return float((vms * lengths).sum()) / total if total else 0.0
