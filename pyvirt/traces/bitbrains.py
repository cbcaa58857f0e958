"""Bitbrains' traces GWA-T-12: a file for each machine, with a row about every five minutes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pyvirt.errors import TraceFormatError
from pyvirt.traces.demands import FIVE_MINUTES_NS, DemandTraces, one_of, whole
from pyvirt.traces.folders import files_of, names_of
from pyvirt.traces.resample import MISSING, Missing, check_size, filled, mean_of_samples
from pyvirt.traces.tables import NUMBER, SKIP, first_line, line_of_row, parse, text_of

__all__ = ["read_bitbrains"]

_TIME = "timestamp [ms]"
_WANTED = (
    *(_TIME, "cpu cores", "cpu capacity provisioned [mhz]", "cpu usage [mhz]"),
    *("memory capacity provisioned [kb]", "memory usage [kb]"),
)
# The heading says milliseconds, but the published files count seconds since 1970: 1376314846 is
# 12 August 2013. Seconds stay below this until the year 5138, milliseconds were above it in 1973.
_LEAST_MS = 100_000_000_000


class _Machine(NamedTuple):
    path: Path
    time_ns: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    """MHz used, memory in bytes."""
    cores: float
    capacity_mhz: float
    memory_bytes: float


def read_bitbrains(
    path: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    interval_ns: int = FIVE_MINUTES_NS,
    missing: Missing = "hold",
) -> DemandTraces:
    """Read machines of Bitbrains' data centre: CPU in MHz, memory in bytes.

    Parameters
    ----------
    path : path, or several
        A folder of ``.csv`` files, or such files; a machine's name is that of its file without the
        ending. Of a folder, names that are numbers come in the order of the numbers.
    interval_ns : int, default 5 minutes
        The traces have no regular times: rows come late, are left out, or come twice. An interval
        gets the mean of the rows in it. The first interval begins at a multiple of `interval_ns`.
    missing : {"hold", "zero", "nan", "error"}
        What intervals without a row get. ``"hold"``: between a machine's first and last row the
        value before, outside of them 0; ``"zero"``: 0; ``"nan"``: NaN; ``"error"``: they raise.

    Returns
    -------
    DemandTraces
        With `vcpus`, `cpu_capacity_mhz` and `memory_capacity_bytes`: the largest of each file.

    Raises
    ------
    TraceFormatError
        A file that is not of this format, goes back in time, or has no row where `missing` is
        ``"error"``; the message names file and line.

    Notes
    -----
    Format: http://gwa.ewi.tudelft.nl/datasets/gwa-t-12-bitbrains; S. Shen, V. van Beek, A. Iosup,
    *Statistical Characterization of Business-Critical Workloads Hosted in Cloud Datacenters*,
    CCGrid 2015. Columns stand between ``;`` and a tab; KB is taken as 1024 bytes. Times of ten
    digits are taken as seconds, whatever the heading says.
    """
    one_of(missing, "missing", MISSING)
    interval_ns = whole(interval_ns, "interval_ns", 1)
    machines = [_read(file) for file in files_of(path, r"\.csv(\.\w+)?$")]
    names = names_of([one.path for one in machines])
    start = min(int(one.time_ns[0]) for one in machines) // interval_ns * interval_ns
    end = max(int(one.time_ns[-1]) for one in machines)
    count = (end - start) // interval_ns + 1
    check_size(machines[0].path.parent, len(machines), count, interval_ns)
    cpu = np.empty((len(machines), count))
    memory = np.empty_like(cpu)
    for i, one in enumerate(machines):
        grid = mean_of_samples((one.time_ns - start) // interval_ns, one.values, count)
        if missing == "error" and np.isnan(grid).any():
            step = int(np.argmax(np.isnan(grid[0])))
            at = (start + step * interval_ns) / 1e9
            raise TraceFormatError(
                f"{one.path}: no row in interval {step}, which begins at {at:g} s"
            )
        cpu[i], memory[i] = filled(grid, missing)
    return DemandTraces(
        names,
        *(cpu, interval_ns, start, "mhz", memory, "bytes"),
        vcpus=np.array([one.cores for one in machines]).astype(np.int64),
        cpu_capacity_mhz=np.array([one.capacity_mhz for one in machines]),
        memory_capacity_bytes=np.array([one.memory_bytes for one in machines]),
    )


def _read(path: Path) -> _Machine:
    text = text_of(path)
    line, start = first_line(text)
    columns = [name.strip().strip('"').lower() for name in line.split(";")]
    lacking = [name for name in _WANTED if columns.count(name) != 1]
    if lacking:
        raise TraceFormatError(f"{path}: not of Bitbrains: the heading has no {lacking[0]!r}")
    kinds = [NUMBER if name in _WANTED else SKIP for name in columns]
    table = parse(path, text, ";", kinds, start=start, columns=columns)
    order = [sorted(_WANTED, key=columns.index).index(name) for name in _WANTED]
    rows = table.numbers[order]
    if not rows.shape[1]:
        raise TraceFormatError(f"{path}: no rows in it")

    def refuse(bad: npt.NDArray[np.bool_], column: int, why: str) -> None:
        if bad.any():
            row = int(np.argmax(bad))
            value = rows[column, row]
            at = line_of_row(text, start, row)
            raise TraceFormatError(f"{path}: line {at}, {_WANTED[column]}: {value:.17g} {why}")

    for column in range(len(_WANTED)):
        refuse(rows[column] < 0, column, "is negative")
        refuse(rows[column] > 1e15, column, "is too large")
    scale = 1_000_000 if rows[0, 0] >= _LEAST_MS else 1_000_000_000
    refuse(rows[0] > 9e18 / scale, 0, "is too large")
    time = np.rint(rows[0] * scale).astype(np.int64)
    refuse(np.diff(time, prepend=time[0]) < 0, 0, "goes back in time")
    values = np.stack([rows[3], rows[5] * 1024])
    return _Machine(path, time, values, rows[1].max(), rows[2].max(), rows[4].max() * 1024)
