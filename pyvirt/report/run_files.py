"""A run as files in a directory: tables, esxtop's series, a trace, a report to look at."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from pyvirt.errors import InvalidValueError, MissingDependencyError, OutputError
from pyvirt.machine.scenario.result import Result
from pyvirt.report.plots import require
from pyvirt.report.run_chrome import write_run_chrome
from pyvirt.report.run_columns import Column, run_columns, sample_rows
from pyvirt.report.run_esxtop import write_run_esxtop
from pyvirt.report.run_html import run_html
from pyvirt.report.run_tables import check_result
from pyvirt.report.staging import Staging

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["esxtop_names", "save"]

UNFIT = re.compile(r"[^\w.-]", re.ASCII)
LONGEST = 80


def save(
    result: Result,
    directory: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    parquet: bool = False,
    html: bool = True,
) -> list[Path]:
    """Write a run into a directory.

    All files are written beside their final names first, and then renamed: what cannot be written
    leaves none of them, and files that were there stay as they were.

    Parameters
    ----------
    result : Result
        Of a run.
    directory : path
        Where to; made if it is not there.
    overwrite : bool, default False
        Whether files of these names may be replaced. Others are left alone.
    parquet : bool, default False
        Samples, events and monitors as ``.parquet`` and not as ``.csv``; needs PyArrow.
    html : bool, default True
        Write ``report.html``, too; needs Matplotlib.

    Returns
    -------
    list of Path
        What was written: ``hosts``, ``vms``, ``events`` and ``monitors``, columns as `run_columns`
        has them; ``provenance.json``; ``esxtop-HOST.csv`` for each host, with ``_`` for what no
        letter, digit, ``.`` or ``-`` is; ``trace.json``, Chrome's trace; ``report.html``.

    Raises
    ------
    InvalidValueError
        A file is there already, without `overwrite`.
    MissingDependencyError
        PyArrow or Matplotlib is needed and not there.
    OutputError
        A file or the directory cannot be written.
    """
    check_result(result)
    arrow = _arrow() if parquet else None
    if html:
        require()
    ending = "parquet" if parquet else "csv"
    esxtop = dict(zip(result.host_names, esxtop_names(result.host_names), strict=True))
    names = [f"{kind}.{ending}" for kind in ("hosts", "vms", "events", "monitors")]
    names += ["provenance.json", *esxtop.values(), "trace.json"]
    names += ["report.html"] if html else []
    there = [name for name in names if os.path.exists(Path(directory) / name)]
    if there and not overwrite:
        raise InvalidValueError(
            f"{Path(directory) / there[0]} is there already; overwrite=True replaces it"
        )
    # before anything is written: the drawing takes longest, and may fail
    page = run_html(result) if html else ""
    with Staging(directory, overwrite=overwrite) as stage:
        if arrow is not None:
            _write_parquet(stage, arrow, run_columns(result))
        else:
            _write_tables(stage, result)
        with stage.text("provenance.json") as file:
            json.dump(result.provenance, file, indent=1, ensure_ascii=False)
            file.write("\n")
        for host, name in esxtop.items():
            with stage.text(name) as file:
                write_run_esxtop(file, result, host)
        with stage.text("trace.json") as file:
            write_run_chrome(file, result)
        if html:
            with stage.text("report.html") as file:
                file.write(page)
    return [Path(directory) / name for name in names]


def esxtop_names(hosts: Iterable[str]) -> list[str]:
    """Give a file name for each host; they differ even where upper and lower case do not."""
    made: dict[str, None] = {}
    names = []
    for host in hosts:
        plain = UNFIT.sub("_", host)[:LONGEST]
        name, number = plain, 1
        while name.casefold() in made:
            number += 1
            name = f"{plain}_{number}"
        made[name.casefold()] = None
        names.append(f"esxtop-{name}.csv")
    return names


def _write_tables(stage: Staging, result: Result) -> None:
    for kind in ("hosts", "vms"):
        with stage.text(f"{kind}.csv") as file:
            _write_csv(file, sample_rows(result, kind))
    columns = run_columns(result)
    for kind in ("events", "monitors"):
        with stage.text(f"{kind}.csv") as file:
            _write_csv(file, [columns[kind]])


def _write_csv(file: TextIO, pieces: Iterable[Mapping[str, Column]]) -> None:
    out = csv.writer(file, lineterminator="\n")
    for number, columns in enumerate(pieces):
        if not number:
            out.writerow(columns)
        plain = [
            column.tolist() if isinstance(column, np.ndarray) else column
            for column in columns.values()
        ]
        out.writerows(zip(*plain, strict=True))


def _write_parquet(
    stage: Staging, arrow: tuple[ModuleType, ModuleType], tables: Mapping[str, Mapping[str, Any]]
) -> None:
    pyarrow, written = arrow
    for kind, columns in tables.items():
        name = f"{kind}.parquet"
        table = pyarrow.table({key: pyarrow.array(column) for key, column in columns.items()})
        try:
            written.write_table(table, stage.path(name))
        except OSError as error:
            raise OutputError.of(stage.directory / name, error) from error


def _arrow() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingDependencyError(
            "Parquet needs PyArrow; install the extra: pip install 'pyvirt[frames]'"
        ) from error
    return pyarrow, parquet
