"""PlanetLab's CPU traces: a day in one archive, or a folder of files with a number a line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pyvirt.errors import TraceFormatError
from pyvirt.traces.demands import FIVE_MINUTES_NS, DemandTraces
from pyvirt.traces.tables import NUMBER, line_of_row, parse, text_of

__all__ = ["read_planetlab"]


def read_planetlab(
    path: str | os.PathLike[str], *, interval_ns: int = FIVE_MINUTES_NS
) -> DemandTraces:
    """Read a day of PlanetLab's CPU traces, in per cent of each machine's CPU.

    Parameters
    ----------
    path : path
        A folder of the original text files, one for each machine with a number on each line; or an
        archive ``.npz`` with ``util`` and ``name``. Files are in the order of their names' bytes,
        since a machine's number fixes its type in the experiments on these traces. Hidden files
        are passed over.
    interval_ns : int, default 5 minutes
        Time between samples.

    Returns
    -------
    DemandTraces
        ``cpu`` is of type uint8 where all values are whole and below 256, else float64.

    Raises
    ------
    TraceFormatError
        A file that is not such a trace or is longer or shorter than the first one; the message
        names file and line.

    Notes
    -----
    The traces are of the CoMon project (K. Park and V. Pai, ACM SIGOPS Operating Systems Review
    40(1), 2006), as selected by A. Beloglazov and R. Buyya, Concurrency and Computation: Practice
    and Experience 24(13), 2012.
    """
    where = Path(path)
    if not where.is_dir():
        return DemandTraces.load(where, interval_ns=interval_ns)
    files = sorted(
        (one for one in where.iterdir() if one.is_file() and not one.name.startswith(".")),
        key=lambda one: os.fsencode(one.name),
    )
    if not files:
        raise TraceFormatError(f"{where}: no files in this folder")
    rows: list[npt.NDArray[np.float64]] = []
    for file in files:
        text = text_of(file)
        values = parse(file, text, ",", [NUMBER]).numbers[0]
        if not len(values):
            raise TraceFormatError(f"{file}: no demands in it")
        if rows and len(values) != len(rows[0]):
            raise TraceFormatError(
                f"{file}: has {len(values)} numbers, and {files[0].name} has {len(rows[0])}"
            )
        if (values < 0).any():
            row = int(np.argmax(values < 0))
            line = line_of_row(text, 0, row)
            raise TraceFormatError(f"{file}: line {line}: {values[row]:g} is negative")
        rows.append(values)
    cpu = np.stack(rows)
    if cpu.max() < 256 and (cpu == np.floor(cpu)).all():
        cpu = cpu.astype(np.uint8)
    names = [os.fsencode(file.name).decode("utf-8", "backslashreplace") for file in files]
    return DemandTraces(names, cpu, interval_ns, cpu_unit="percent")
