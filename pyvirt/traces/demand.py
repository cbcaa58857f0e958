"""Demand over time, read from files: CSV, arrays, and days of many machines in one archive."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.errors import (
    InvalidTypeError,
    InvalidValueError,
    MissingDependencyError,
    TraceFormatError,
)
from pyvirt.traces.demands import DemandTraces

__all__ = ["read_demand", "read_demands"]

#: Headings of columns of times, in seconds.
TIMES = ("time", "time_s", "seconds")

Rows = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]


def _times(count: int, interval_ns: int) -> npt.NDArray[np.int64]:
    return np.arange(count + 1, dtype=np.int64) * interval_ns


def _with_end(
    path: Path, times: npt.NDArray[np.float64], time_unit_ns: int
) -> npt.NDArray[np.int64]:
    """From starts: in ns from 0 on, and the end, as far after the last as that after the others."""
    if len(times) < 2:
        raise TraceFormatError(f"{path}: one time does not say how long its demand lasts")
    starts = np.rint((times - times[0]) * time_unit_ns).astype(np.int64)
    steps = np.diff(starts)
    if (steps <= 0).any():
        row = int(np.flatnonzero(steps <= 0)[0]) + 1
        raise TraceFormatError(f"{path}: times must increase, row {row} has {times[row]:g}")
    return np.append(starts, starts[-1] + steps[-1])


def _checked(path: Path, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    wrong = ~(np.isfinite(values) & (values >= 0))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise TraceFormatError(f"{path}: demands must not be negative, row {row} has {values[row]}")
    return values


def _from_table(
    path: Path, table: npt.NDArray[np.float64], interval_ns: int, time_unit_ns: int
) -> Rows:
    if table.ndim == 1:
        table = table[:, None]
    if table.ndim != 2 or table.shape[1] not in (1, 2) or not len(table):
        raise TraceFormatError(
            f"{path}: a row must be a demand, or a time and a demand, got shape {table.shape}"
        )
    demand = _checked(path, table[:, -1])
    if table.shape[1] == 1:
        return _times(len(demand), interval_ns), demand
    return _with_end(path, table[:, 0], time_unit_ns), demand


def _read_text(path: Path) -> npt.NDArray[np.float64]:
    """Rows of numbers; a first row that is none is a heading."""
    rows: list[list[float]] = []
    with path.open(newline="", encoding="utf-8", errors="backslashreplace") as file:
        for number, cells in enumerate(_lines(path, csv.reader(file))):
            if not cells:
                continue
            try:
                rows.append([float(cell) for cell in cells])
            except ValueError:
                if rows or number:
                    raise TraceFormatError(
                        f"{path}: line {number + 1} is not numbers: {','.join(cells)!r:.60}"
                    ) from None
            if len(rows) > 1 and len(rows[-1]) != len(rows[0]):
                raise TraceFormatError(
                    f"{path}: line {number + 1} has {len(rows[-1])} values, not {len(rows[0])}"
                )
    if not rows:
        raise TraceFormatError(f"{path}: no demands in it")
    return np.array(rows, np.float64)


def _lines(path: Path, reader: Iterator[list[str]]) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise TraceFormatError(f"{path}: {error}") from None


def _load(path: Path) -> npt.NDArray[np.float64]:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise TraceFormatError(f"{path}: not an array of NumPy: {error}") from None
    if array.dtype.kind not in "iuf":
        raise TraceFormatError(f"{path}: demands must be numbers, got {array.dtype}")
    return np.asarray(array, np.float64)


def _interval(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise InvalidTypeError(f"{name} must be an integer, got {value!r:.80}")
    if value < 1:
        raise InvalidValueError(f"{name} must be at least 1, got {value}")
    return int(value)


def headings(path: str | os.PathLike[str]) -> list[str]:
    """Give the headings of a file of text; none if its first line is numbers."""
    where = Path(path)
    with where.open(newline="", encoding="utf-8", errors="backslashreplace") as file:
        cells = next((one for one in _lines(where, csv.reader(file)) if one), [])
    try:
        list(map(float, cells))
    except ValueError:
        return [cell.strip() for cell in cells]
    return []


def _headed(path: Path) -> tuple[list[str], npt.NDArray[np.float64]]:
    heads, table = headings(path), _read_text(path)
    if len(heads) != table.shape[1]:
        raise TraceFormatError(
            f"{path}: {table.shape[1]} columns must have as many headings, got {len(heads)}"
        )
    return heads, table


def _parquet(path: Path) -> tuple[list[str], npt.NDArray[np.float64]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise MissingDependencyError(
            f"{path}: Parquet needs pyarrow: pip install 'pyvirt[frames]'"
        ) from None
    try:
        found: Any = parquet.read_table(str(path))
        columns = [np.asarray(found[name].to_numpy(), np.float64) for name in found.column_names]
    except (ArrowException, ValueError, TypeError) as error:
        raise TraceFormatError(f"{path}: not a table of numbers: {error}") from None
    if not columns or not len(columns[0]):
        raise TraceFormatError(f"{path}: no demands in it")
    return list(found.column_names), np.stack(columns, axis=1)


def _from_columns(
    path: Path, heads: list[str], table: npt.NDArray[np.float64], interval_ns: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], list[str]]:
    timed = [row for row, name in enumerate(heads) if name.lower() in TIMES]
    names = [name for row, name in enumerate(heads) if row not in timed[:1]]
    if not names or len(set(names)) < len(names):
        raise TraceFormatError(f"{path}: each machine must have a heading of its own, got {names}")
    demand = np.delete(table, timed[:1], axis=1)
    _checked(path, demand.ravel())
    times = _times(len(table), interval_ns)
    if timed:
        times = _with_end(path, table[:, timed[0]], 1_000_000_000)
    return times, np.ascontiguousarray(demand.T), names


def read_demand(
    path: str | os.PathLike[str],
    *,
    interval_ns: int = 300_000_000_000,
    time_unit_ns: int = 1_000_000_000,
) -> Rows:
    """Read the demand of one machine.

    Parameters
    ----------
    path : path
        ``.npy``: an array of demands, or with two columns, of times and demands. Anything else is
        text with one or two columns, separated by commas, perhaps with a heading; such is a file of
        PlanetLab's traces, of one number a line.
    interval_ns : int, default 5 minutes
        Time between demands of a file without times.
    time_unit_ns : int, default 1 s
        Unit of the times.

    Returns
    -------
    times_ns : ndarray of int64
        When each demand begins, from 0 on, and last the end: the last demand is taken to last as
        long as the one before.
    demand : ndarray of float64
        In the unit of the file. `pyvirt.sched.Demand` takes CPUs: of percent a hundredth, of MHz
        the part of the CPU's.

    Raises
    ------
    TraceFormatError
        What is not such a file; the message names the row.
    """
    where = Path(path)
    interval = _interval(interval_ns, "interval_ns")
    unit = _interval(time_unit_ns, "time_unit_ns")
    table = _load(where) if where.suffix == ".npy" else _read_text(where)
    return _from_table(where, table, interval, unit)


def read_demands(
    path: str | os.PathLike[str], *, interval_ns: int = 300_000_000_000
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], list[str]]:
    """Read the demands of many machines: an archive of NumPy, or a table.

    Parameters
    ----------
    path : path
        ``.npz`` with ``util``, of one row for each machine and one column for each interval, and
        ``name``, of one for each row: a day of PlanetLab's traces in one file. ``.parquet``
        (needs pyarrow: ``pip install 'pyvirt[frames]'``), and any other file, as CSV: a table with
        a column for each machine, headed by its name, and perhaps one of times in seconds, headed
        ``time``, ``time_s`` or ``seconds``.
    interval_ns : int, default 5 minutes
        Time between demands of a file without times.

    Returns
    -------
    times_ns : ndarray of int64
        When each demand begins, from 0 on, and last the end.
    demand : ndarray of float64
        In the unit of the file, a row for each machine.
    names : list of str
        Of the machines.

    Raises
    ------
    TraceFormatError
        What is not such a file; an array of NumPy (``.npy``), which has no names.
    MissingDependencyError
        Parquet without pyarrow.
    """
    where = Path(path)
    interval = _interval(interval_ns, "interval_ns")
    if where.suffix == ".npy":
        raise TraceFormatError(
            f"{where}: an array (.npy) has no names of machines: "
            "a table (.csv, .parquet) or an archive (.npz) has"
        )
    if where.suffix != ".npz":
        heads, table = _parquet(where) if where.suffix == ".parquet" else _headed(where)
        return _from_columns(where, heads, table, interval)
    traces = DemandTraces.load(where, interval_ns=interval)
    demand = traces.cpu.astype(np.float64)
    _checked(where, demand.ravel())
    return traces.times_ns, demand, list(traces.names)
