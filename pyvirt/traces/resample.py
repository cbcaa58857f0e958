"""Samples at any times, and rates over any spans, on a grid of equal intervals."""

from __future__ import annotations

import os
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pyvirt.errors import TraceFormatError
from pyvirt.traces.demands import fill

__all__ = ["MISSING", "Missing", "check_size", "filled", "mean_of_samples", "spans_on_grid"]

Missing = Literal["hold", "zero", "nan", "error"]
MISSING = ("hold", "zero", "nan", "error")

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def mean_of_samples(cell: Ints, values: Floats, count: int) -> Floats:
    """Average the samples in each interval.

    Parameters
    ----------
    cell : ndarray of int64, shape (N,)
        The interval that each sample is in.
    values : ndarray, shape (K, N)
        Several quantities of each sample.
    count : int
        How many intervals there are.

    Returns
    -------
    ndarray of float64, shape (K, count)
        NaN where an interval has no sample.
    """
    samples = np.bincount(cell, minlength=count)
    result = np.full((len(values), count), np.nan)
    for row, of_row in zip(result, values, strict=True):
        total = np.bincount(cell, weights=of_row, minlength=count)
        np.divide(total, samples, out=row, where=samples > 0)
    return result


def spans_on_grid(
    row: Ints, start: Ints, end: Ints, values: Floats, shape: tuple[int, int], interval: int
) -> tuple[Floats, Floats]:
    """Lay rates over spans of time on the grid.

    Parameters
    ----------
    row : ndarray of int64, shape (N,)
        The machine of each span.
    start, end : ndarray of int64, shape (N,)
        From the begin of the grid on.
    values : ndarray, shape (K, N)
        Rates; NaN is not known.
    shape : (int, int)
        Machines and intervals.
    interval : int
        Length of an interval.

    Returns
    -------
    totals : ndarray, shape (K, machines, intervals)
        Rate times time.
    covered : ndarray, shape (K, machines, intervals)
        Time for which the rate is known.
    """
    machines, count = shape
    first = start // interval
    steps = (end - 1) // interval - first  # further intervals that a span reaches into
    which, at, step = np.arange(len(row)), first, 0
    parts = []
    while len(which):
        low = np.maximum(start[which], at * interval)
        time = np.minimum(end[which], (at + 1) * interval) - low
        parts.append((which, row[which] * count + at, time.astype(np.float64)))
        step += 1
        which = which[steps[which] >= step]
        at = first[which] + step
    pieces, cell, time = (
        np.concatenate(part) if len(parts) > 1 else part[0] for part in zip(*parts, strict=True)
    )
    totals = np.empty((len(values), machines * count))
    covered = np.empty_like(totals)
    full: npt.NDArray[Any] | None = None
    for k, of_row in enumerate(values):
        rate = of_row[pieces]
        known = ~np.isnan(rate)
        if known.all():
            full = np.bincount(cell, time, machines * count) if full is None else full
            covered[k] = full
            totals[k] = np.bincount(cell, rate * time, machines * count)
        else:
            covered[k] = np.bincount(cell[known], time[known], machines * count)
            totals[k] = np.bincount(cell[known], (rate * time)[known], machines * count)
    return totals.reshape(-1, *shape), covered.reshape(-1, *shape)


def filled(grid: Floats, missing: str) -> Floats:
    """Give intervals of which nothing is known what ``missing`` says.

    Parameters
    ----------
    grid : ndarray, shape (N, intervals)
        NaN where nothing is known.
    missing : {"hold", "zero", "nan", "error"}
        ``"hold"``: the value before, but 0 before the first and after the last known one.

    Returns
    -------
    ndarray
    """
    if missing in ("nan", "error"):
        return grid
    if missing == "zero":
        return fill(grid, "zero")
    known = ~np.isnan(grid)
    last = grid.shape[1] - 1 - np.argmax(known[:, ::-1], axis=1)
    held = fill(grid, "hold")
    return np.where(np.arange(grid.shape[1]) <= last[:, None], held, 0)


def check_size(
    where: str | os.PathLike[str], machines: int, intervals: int, interval_ns: int
) -> None:
    """Refuse a grid that no memory holds, as of a file with a time that is wrong."""
    if machines * intervals > 1 << 32:
        raise TraceFormatError(
            f"{os.fspath(where)}: {machines} machines over {intervals} intervals of "
            f"{interval_ns} ns are too many"
        )
