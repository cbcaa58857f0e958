"""Where virtual machines are at home on a NUMA host, and how much of their memory is there."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.report.mmu import Cell, Table
from pyvirt.sched.scenario import ScenarioRun

__all__ = ["numa_table"]


def numa_table(run: ScenarioRun, *, by: str = "vm") -> Table:
    """Give the home nodes of virtual machines at the end of a run, as esxtop shows them.

    Parameters
    ----------
    run : ScenarioRun
        What `pyvirt.sched.Scenario.run` gave.
    by : {"vm", "world"}, default "vm"
        A row for each VM, or for each vCPU.

    Returns
    -------
    Table
        For each that has a home, with the names of esxtop's screen of memory (recalled, from
        VMware's "Interpreting esxtop Statistics"): ``NHN``, its home node, or nodes like ``0,1``;
        ``NMIG``, how often it, or a part of it, got another one since it was powered on; memory
        in MB that is on other nodes (``NRMEM``) and at home (``NLMEM``), of a vCPU that of
        its part of the VM; ``N%L``, the percentage that is at home. And ``mean N%L``, the mean of
        that over the run. Percentages are known to 0.002.
    """
    if not isinstance(run, ScenarioRun):
        raise InvalidTypeError(f"run must be a ScenarioRun, got {run!r:.80}")
    if by not in ("vm", "world"):
        raise InvalidValueError(f"by must be 'vm' or 'world', got {by!r:.80}")
    speeds, elapsed = run.host.speed_counters(), run.host.counters()["elapsed"]
    rows: list[tuple[Cell, ...]] = []
    for vm in run.scenario.vms:
        worlds = list(run.groups[vm.name])
        # parts of a VM have different homes, and equal parts of its memory
        homes, first = np.unique(speeds["home"][worlds], return_index=True)
        if homes[0] < 0:
            continue
        part_mb = vm.params.get("memory_mb", 0) / len(homes)
        if by == "vm":
            rows.append((vm.name, *_cells(speeds, elapsed, [worlds[i] for i in first], part_mb)))
        else:
            for i, world in enumerate(worlds):
                rows.append((f"{vm.name}/{i}", *_cells(speeds, elapsed, [world], part_mb)))
    columns = ("NHN", "NMIG", "NRMEM", "NLMEM", "N%L", "mean N%L")
    return Table(("vm" if by == "vm" else "vcpu", *columns), tuple(rows))


def _cells(
    speeds: npt.NDArray[np.void], elapsed: npt.NDArray[Any], parts: list[int], part_mb: float
) -> tuple[Cell, ...]:
    """Add up parts, each of which one world stands for."""
    mine = speeds[parts]
    remote = float(mine["remote"].mean())
    over = int(elapsed[parts].sum())
    away = float(mine["remote_time"].sum()) / over if over else remote
    total = part_mb * len(parts)
    nodes = ",".join(str(home) for home in sorted(mine["home"].tolist()))
    moves = int(mine["home_moves"].sum())
    return nodes, moves, total * remote, total * (1 - remote), 100 * (1 - remote), 100 * (1 - away)
