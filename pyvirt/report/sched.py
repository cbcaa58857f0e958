"""What worlds and virtual machines did on one host's CPUs, as tables of plain rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.report.homes import numa_table
from pyvirt.report.mmu import Cell, Table
from pyvirt.sched.latency import latency_percentiles
from pyvirt.sched.responses import percentiles
from pyvirt.sched.scenario import ScenarioRun
from pyvirt.sched.series import COLUMNS, TIMES
from pyvirt.sched.workloads import Always

__all__ = [
    "PERCENTILES",
    "PERCENTILE_ERROR",
    "latency_table",
    "sched_document",
    "sched_table",
    "wake_latency",
]

#: Of the times from a wake-up to the run, and of response times.
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
#: How far the percentiles of `latency_table` are off at most, as a part of them.
PERCENTILE_ERROR = 1 / 64
#: What every table has; the others where the scheduler counts them.
ALWAYS = ("%RUN", "%RDY", "%CSTP", "%MLMTD", "%WAIT")


def sched_table(run: ScenarioRun, *, by: str = "vm") -> Table:
    """Give what each virtual machine, or each of its vCPUs, did over the whole run.

    Parameters
    ----------
    run : ScenarioRun
        What `pyvirt.sched.Scenario.run` gave.
    by : {"vm", "world"}, default "vm"
        A row for each VM, whose vCPUs are added up, or for each vCPU.

    Returns
    -------
    Table
        Name, vCPUs and shares; esxtop's columns in percent of one CPU, ``%RDY`` with ``%MLMTD`` in
        it; the share of all CPU time that was used; switches, migrations; wake-ups that led to a
        run, and how long they waited for a CPU on average and at most, in ns.
    """
    if not isinstance(run, ScenarioRun):
        raise InvalidTypeError(f"run must be a ScenarioRun, got {run!r:.80}")
    if by not in ("vm", "world"):
        raise InvalidValueError(f"by must be 'vm' or 'world', got {by!r:.80}")
    counters = run.host.counters()
    shown = tuple(c for c in COLUMNS if c in ALWAYS or _counted(counters, c))
    total = int(counters["run"].sum())
    rows = []
    for vm in run.scenario.vms:
        worlds = run.groups[vm.name]
        for name, part in _parts(vm.name, worlds, by).items():
            mine = counters[list(part)]
            cells: list[Cell] = [name, len(part), vm.shares * len(part) // vm.vcpus]
            cells += [_percent(mine, column, run.host.now_ns) for column in shown]
            cells.append(100.0 * int(mine["run"].sum()) / total if total else 0.0)
            cells += [int(mine[column].sum()) for column in ("switches", "migrations", "wakes")]
            wakes = int(mine["wakes"].sum())
            cells.append(int(mine["wake_time"].sum()) / wakes if wakes else 0.0)
            cells.append(int(mine["wake_most"].max(initial=0)))
            rows.append(tuple(cells))
    heading = ("vm" if by == "vm" else "vcpu", "vcpus", "shares", *shown, "share", "switches")
    return Table((*heading, "migrations", "wakes", "wake_mean_ns", "wake_most_ns"), tuple(rows))


def latency_table(run: ScenarioRun, *, by: str = "vm") -> Table:
    """Give percentiles of wake-ups and response times, of those VMs that have them recorded.

    Parameters
    ----------
    run : ScenarioRun
        What `pyvirt.sched.Scenario.run` gave.
    by : {"vm", "world"}, default "vm"
        Of each VM, whose vCPUs are taken together, or of each vCPU.

    Returns
    -------
    Table
        Up to two rows for each: of ``wake``, the time from a wake-up to the run, and of
        ``response``, from a job's arrival to its end. How many there were; ``p50_ns``, ``p90_ns``,
        ``p99_ns`` and ``p99.9_ns``, each at most 1/64 (1.6 %) off, in whole ns; ``most_ns``, which
        is exact. What did not happen has no row.
    """
    if not isinstance(run, ScenarioRun):
        raise InvalidTypeError(f"run must be a ScenarioRun, got {run!r:.80}")
    if by not in ("vm", "world"):
        raise InvalidValueError(f"by must be 'vm' or 'world', got {by!r:.80}")
    host = run.host
    wake_most = host.counters()["wake_most"]
    response_most = host.work_counters()["response_most"]
    rows: list[tuple[Cell, ...]] = []
    for vm in run.scenario.vms:
        if not vm.percentiles:
            continue
        for name, part in _parts(vm.name, run.groups[vm.name], by).items():
            kinds = [("wake", host.wake_counts(part), wake_most)]
            if not isinstance(vm.workload, Always):
                kinds.append(("response", host.response_counts(part), response_most))
            for kind, counts, most in kinds:
                if counts.any():
                    rows.append((name, kind, *_percentiles(counts, int(most[list(part)].max()))))
    named = (f"p{p:g}_ns" for p in PERCENTILES)
    return Table(("vm" if by == "vm" else "vcpu", "time", "count", *named, "most_ns"), tuple(rows))


def _parts(name: str, worlds: tuple[int, ...], by: str) -> dict[str, tuple[int, ...]]:
    """Give the worlds of each row of a table: those of a VM together, or one by one."""
    if by == "vm":
        return {name: worlds}
    return {f"{name}/{i}": (world,) for i, world in enumerate(worlds)}


def _percentiles(counts: npt.NDArray[np.uint64], most: int) -> list[int]:
    """Give how many there were, percentiles in whole ns, and the longest time."""
    found = [min(round(ns), most) for ns in percentiles(counts, PERCENTILES).tolist()]
    return [int(counts.sum()), *found, most]


def wake_latency(run: ScenarioRun) -> dict[str, int | None]:
    """Give percentiles of the time from a wake-up to the run, over all worlds, in ns.

    Returns
    -------
    dict of str to int or None
        ``p50``, ``p90``, ``p99`` and ``p99.9``, each up to one part in eight too long; and
        ``most``, which is exact. None where nothing woke up.
    """
    found = latency_percentiles(run.host.latency_counts(), PERCENTILES).tolist()
    most = int(run.host.counters()["wake_most"].max(initial=0))
    named = {f"p{p:g}": min(ns, most) for p, ns in zip(PERCENTILES, found, strict=True)}
    return {n: None if found[0] < 0 else ns for n, ns in {**named, "most": most}.items()}


def sched_document(run: ScenarioRun) -> dict[str, Any]:
    """Give all of a run's figures as plain data, for JSON.

    Returns
    -------
    dict
        The scenario's name, policy and sizes; ``vms`` and ``worlds``, the rows of `sched_table`
        with exact times in ns beside the percentages; ``cpus``; ``wake_latency_ns``;
        ``latencies``, if some VM has them recorded: the rows of `latency_table` of ``vms`` and of
        ``worlds``, and ``relative_error`` of their percentiles; ``numa``, if some VM has a home
        node: the rows of `numa_table` likewise; and ``series``, the columns of each VM at the end
        of each interval, if the scenario has more than one, with NHN, NMIG (within the interval)
        and N%L of those that have a home.
    """
    host = run.host
    counters = host.counters()
    worlds = list(sched_table(run, by="world"))
    numbers = [world for vm in run.scenario.vms for world in run.groups[vm.name]]
    known = [name for name in TIMES if name in (counters.dtype.names or ())]
    for row, world in zip(worlds, numbers, strict=True):
        row["world"] = world
        row.update({f"{name}_ns": int(counters[name][world]) for name in known})
    cpus = [
        {
            "cpu": i,
            "run_ns": int(c["run"]),
            "idle_ns": int(c["idle"]),
            "switches": int(c["switches"]),
        }
        for i, c in enumerate(host.cpu_counters())
    ]
    document: dict[str, Any] = {
        "scenario": run.scenario.name,
        "policy": run.policy,
        "duration_ns": host.now_ns,
        "events": host.events,
        "vms": list(sched_table(run)),
        "worlds": worlds,
        "cpus": cpus,
        "wake_latency_ns": wake_latency(run),
    }
    if any(vm.percentiles for vm in run.scenario.vms):
        document["latencies"] = {
            "relative_error": PERCENTILE_ERROR,
            "vms": list(latency_table(run)),
            "worlds": list(latency_table(run, by="world")),
        }
    homes = list(numa_table(run))
    if homes:
        document["numa"] = {"vms": homes, "worlds": list(numa_table(run, by="world"))}
    series = run.series
    if len(series.times_ns) > 2:
        columns = {c: series.percent(c, by="vm").round(6).T.tolist() for c in series.columns}
        document["series"] = {
            "times_ns": series.times_ns[1:].tolist(),
            "vms": {
                name: {column: values[i] for column, values in columns.items()}
                for i, name in enumerate(series.groups)
            },
        }
        for row in homes:
            vm = str(row["vm"])
            document["series"]["vms"][vm].update(_homes_of(run, vm))
    return document


def _homes_of(run: ScenarioRun, vm: str) -> dict[str, list[Any]]:
    """Give home nodes, migrations and locality of each interval; None before it has a home."""
    assert run.series.homes is not None
    nodes, moves, local = run.series.homes.of_vm(run.groups[vm])
    percent = [round(p, 6) if node else None for node, p in zip(nodes, local.tolist(), strict=True)]
    return {"NHN": nodes, "NMIG": moves.tolist(), "N%L": percent}


def _counted(counters: npt.NDArray[np.void], column: str) -> bool:
    plus, minus = COLUMNS[column]
    return all(name in (counters.dtype.names or ()) for name in plus + minus)


def _percent(rows: npt.NDArray[np.void], column: str, elapsed: int) -> float:
    """Add up a column of esxtop; 0 for a state that the scheduler does not have."""
    if not _counted(rows, column):
        return 0.0
    plus, minus = COLUMNS[column]
    total = sum(int(rows[n].sum()) for n in plus) - sum(int(rows[n].sum()) for n in minus)
    return 100.0 * total / elapsed
