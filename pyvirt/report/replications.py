"""Several runs together: means with confidence intervals, and hypervisors side by side."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.machine.scenario.result import Result
from pyvirt.report.mmu import Cell, Table
from pyvirt.report.run_tables import MIGRATED, SECOND, check_result, kept_events, warmup_end_ns
from pyvirt.report.student import t_quantile

__all__ = ["FIGURES", "replication_table", "run_figures", "side_by_side"]

#: Times over which figures are means: of the vCPUs together while their VMs were on.
SHARES = {
    "%RUN": ("run_ns",),
    "%RDY": ("ready_ns", "limited_ns"),
    "%CSTP": ("costop_ns",),
    "%SWPWT": ("swap_wait_ns",),
}


def _kwh(result: Result) -> float:
    return float(result.hosts["joules"][:, result.after_warmup()].sum()) / 3.6e6


def _utilisation(result: Result) -> float:
    kept = result.after_warmup()
    on = (result.hosts["on_ns"][:, kept] * (result.capacity_ns[:, None] / SECOND)).sum()
    return 100.0 * float(result.hosts["run_ns"][:, kept].sum() / on) if on else 0.0


def _hosts_on(result: Result) -> float:
    length = result.duration_ns - warmup_end_ns(result)
    on = int(result.hosts["on_ns"][:, result.after_warmup()].sum())
    return on / length if length else 0.0


def _share(result: Result, column: str) -> float:
    kept = result.after_warmup()
    vcpus = {vm.name: vm.vcpus for vm in result.spec.cluster.vms}
    counts = np.array([vcpus.get(name, 1) for name in result.vm_names], np.int64)
    on = int((result.vms["on_ns"][:, kept] * counts[:, None]).sum())
    time = sum(int(result.vms[part][:, kept].sum()) for part in SHARES[column])
    return 100.0 * time / on if on else 0.0


def _overhead(result: Result) -> float:
    kept = result.after_warmup()
    run = int(result.vms["run_ns"][:, kept].sum())
    return 100.0 * int(result.vms["overhead_ns"][:, kept].sum()) / run if run else 0.0


def _seconds(result: Result, column: str) -> float:
    return int(result.vms[column][:, result.after_warmup()].sum()) / SECOND


#: The figures of a run, all after its warm-up, by name.
FIGURES: dict[str, Callable[[Result], float]] = {
    "energy (kWh)": _kwh,
    "utilisation (%)": _utilisation,
    "hosts on": _hosts_on,
    "%RUN of a vCPU": lambda result: _share(result, "%RUN"),
    "%RDY of a vCPU": lambda result: _share(result, "%RDY"),
    "%CSTP of a vCPU": lambda result: _share(result, "%CSTP"),
    "%SWPWT of a vCPU": lambda result: _share(result, "%SWPWT"),
    "overhead (%)": _overhead,
    "migrations": lambda result: float(sum(e.what == MIGRATED for e in kept_events(result))),
    "stunned (s)": lambda result: _seconds(result, "stunned_ns"),
    "down (s)": lambda result: _seconds(result, "down_ns"),
}


def run_figures(result: Result) -> dict[str, float]:
    """Give the figures of a run that runs are compared by.

    Parameters
    ----------
    result : Result
        Of a run; its warm-up is left out.

    Returns
    -------
    dict of str to float
        ``energy (kWh)`` of all hosts; ``utilisation (%)`` of their CPU time while on; ``hosts on``,
        the mean number; ``%RUN``, ``%RDY`` (with limits), ``%CSTP`` and ``%SWPWT`` ``of a vCPU``:
        the mean over all vCPUs while their VMs are on; ``overhead (%)``, the part of vCPUs' CPU
        time that monitors took; ``migrations``; ``stunned (s)``, standing still while on, and
        ``down (s)``, to be on and not so, of all VMs.
    """
    check_result(result)
    return {name: figure(result) for name, figure in FIGURES.items()}


def replication_table(results: Sequence[Result], *, confidence: float = 0.95) -> Table:
    """Give means of several runs of one scenario, with confidence intervals.

    Parameters
    ----------
    results : sequence of Result
        Runs with seeds of their own; at least one. An interval needs two.
    confidence : float, default 0.95
        The probability that an interval holds the mean.

    Returns
    -------
    Table
        A row for each of `run_figures`: ``figure``, ``mean``, ``half``, half the width of the
        interval around it (NaN for a single run), ``least`` and ``most``.

    Raises
    ------
    InvalidValueError
        No run, or a confidence that is not above 0 and below 1.

    Notes
    -----
    The interval is Student's: the runs are independent, and their means about normal. Its half
    width is t with n - 1 degrees of freedom times the standard deviation over the root of n.
    """
    runs = _figures_of(results)
    if not 0 < confidence < 1:
        raise InvalidValueError(f"confidence must be above 0 and below 1, got {confidence!r}")
    count = len(runs)
    factor = math.nan
    if count > 1:
        factor = t_quantile((1 + confidence) / 2, count - 1) / math.sqrt(count)
    rows: list[tuple[Cell, ...]] = []
    for name in FIGURES:
        values = [run[name] for run in runs]
        spread = statistics.stdev(values) if count > 1 else math.nan
        rows.append((name, statistics.fmean(values), factor * spread, min(values), max(values)))
    return Table(("figure", "mean", "half", "least", "most"), tuple(rows))


def side_by_side(results: Mapping[str, Result | Sequence[Result]]) -> Table:
    """Give the figures of one scenario under several hypervisors, a column for each.

    Parameters
    ----------
    results : mapping of str to Result or sequence of Result
        By the name of the hypervisor; of several runs means are shown.

    Returns
    -------
    Table
        ``figure`` and the names; the rows are those of `run_figures`.

    Raises
    ------
    InvalidValueError
        No name, or a name without a run.
    """
    if not isinstance(results, Mapping):
        raise InvalidTypeError(f"results must be a mapping of names to runs, got {results!r:.80}")
    if not results:
        raise InvalidValueError("results is empty: there is nothing to compare")
    columns = []
    for one in results.values():
        runs = _figures_of([one] if isinstance(one, Result) else one)
        columns.append({name: statistics.fmean(run[name] for run in runs) for name in FIGURES})
    rows: list[tuple[Cell, ...]] = [
        (name, *(column[name] for column in columns)) for name in FIGURES
    ]
    return Table(("figure", *results), tuple(rows))


def _figures_of(results: Sequence[Result]) -> list[dict[str, float]]:
    if isinstance(results, (str, Result)) or not isinstance(results, Sequence):
        raise InvalidTypeError(f"results must be a sequence of Result, got {results!r:.80}")
    if not results:
        raise InvalidValueError("results is empty: at least one run is needed")
    return [run_figures(result) for result in results]
