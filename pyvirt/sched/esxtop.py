r"""Series in the form of esxtop's batch mode, written and read.

The form is that of Windows' performance logs: a line of names like
``\\host\Group Cpu(7:web)\% Run``, then a line for each interval, all fields between quotes. Names
and their order are those of files that esxtop wrote, as public tools that read them show.
"""

from __future__ import annotations

import csv
import datetime
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TextIO

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError, TraceFormatError
from pyvirt.sched.series import Series

__all__ = [
    *("EsxtopColumn", "EsxtopTable", "read_esxtop", "write_esxtop"),
    *("esxtop_name", "write_columns"),
]

FIRST = "(PDH-CSV 4.0) (UTC)(0)"
START = datetime.datetime(2000, 1, 1)
#: esxtop's counters of a group or vCPU, in its order, and the column of `Series` that has them.
COUNTERS = {
    "% Used": "%USED",
    "% Run": "%RUN",
    "% System": None,
    "% Wait": "%WAIT",
    "% VmWait": "%VMWAIT",
    "% Ready": "%RDY",
    "% Idle": "%IDLE",
    "% Overlap": None,
    "% CoStop": "%CSTP",
    "% Max Limited": "%MLMTD",
    "% Swap Wait": "%SWPWT",
}
#: What is zero where the scheduler does not count it: it does not occur there.
ZERO = ("% System", "% Overlap", "% CoStop", "% Swap Wait")
HEADING = re.compile(r"\\\\([^\\]*)\\(.*)\\([^\\]*)", re.DOTALL)
OBJECT = re.compile(r"([^(]*)\((.*)\)", re.DOTALL)
TIME = re.compile(r"(\d\d)/(\d\d)/(\d{4})\s(\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?", re.ASCII)
UNFIT = re.compile(r'[\\",\x00-\x1f]')


class EsxtopColumn(NamedTuple):
    """The name of a column, in its parts."""

    object: str
    """For example ``Group Cpu``, ``Vcpu`` or ``Physical Cpu``."""
    instance: str
    """For example ``7:web``; empty for an object of which there is one."""
    counter: str
    """For example ``% Ready``."""


@dataclass(frozen=True, slots=True)
class EsxtopTable:
    """What a file of esxtop's batch mode holds.

    Attributes
    ----------
    host : str
        The host's name.
    times : ndarray of datetime64[us], shape (rows,)
        When each row was taken, in UTC.
    columns : tuple of EsxtopColumn
        Without the first, which is the time.
    values : ndarray of float64, shape (rows, columns)
        NaN where the file has none.
    """

    host: str
    times: npt.NDArray[np.datetime64]
    columns: tuple[EsxtopColumn, ...]
    values: npt.NDArray[np.float64]

    def group(self, name: str) -> dict[str, npt.NDArray[np.float64]]:
        """Give the counters of the virtual machine, or other group, of this name.

        Raises
        ------
        InvalidValueError
            If there is none.
        """
        found = {}
        for i, column in enumerate(self.columns):
            if column.object == "Group Cpu" and column.instance.partition(":")[2] == name:
                found[column.counter] = self.values[:, i]
        if not found:
            raise InvalidValueError(f"no group is named {name!r:.80}; there are {self.groups()}")
        return found

    def groups(self) -> tuple[str, ...]:
        """Give the names of the groups with CPU counters."""
        named = (c.instance.partition(":")[2] for c in self.columns if c.object == "Group Cpu")
        return tuple(dict.fromkeys(named))


def write_esxtop(
    target: str | os.PathLike[str] | TextIO,
    series: Series,
    *,
    host: str = "pyvirt",
    start: datetime.datetime | None = None,
    worlds: bool = True,
) -> None:
    r"""Write a series as esxtop's batch mode does.

    Parameters
    ----------
    target : path or text file
        Where to.
    series : Series
        What to write: per group ``Group Cpu(number:name)``, per CPU ``Physical Cpu(number)``.
    host : str, default "pyvirt"
        The host's name.
    start : datetime, optional
        When the scheduler's time was 0; default: the year 2000 begins.
    worlds : bool, default True
        Also write each world, as ``Vcpu(number:name:world:vmx-vcpu-0)``.

    Notes
    -----
    A row stands at the end of its interval; the time has a fraction, down to microseconds, only if
    some interval ends within a second. Percentages have two decimals, as esxtop's. ``% System`` and
    ``% Overlap`` are 0, and so are ``% CoStop`` and ``% Swap Wait`` where the scheduler has no
    such thing; ``% Idle`` and ``% VmWait`` are left out where it does not tell them apart.
    Characters that would end a field or name become ``_``.
    """
    if not isinstance(series, Series):
        raise InvalidTypeError(f"series must be a Series, got {series!r:.80}")
    if isinstance(target, (str, os.PathLike)):
        with open(target, "w", encoding="utf-8", newline="") as file:
            _write(file, series, host, start or START, worlds)
    else:
        _write(target, series, host, start or START, worlds)


def _write(file: TextIO, series: Series, host: str, start: datetime.datetime, worlds: bool) -> None:
    write_columns(file, _columns(series, worlds), series.times_ns[1:], host=host, start=start)


def write_columns(
    file: TextIO,
    columns: Iterable[tuple[str, npt.NDArray[np.float64]]],
    ends_ns: npt.NDArray[np.int64],
    *,
    host: str,
    start: datetime.datetime = START,
) -> None:
    r"""Write columns in the form of esxtop's batch mode.

    Parameters
    ----------
    file : text file
        Where to.
    columns : iterable of (str, ndarray)
        Names without the host's, such as ``Physical Cpu(_Total)\% Util Time``, whose parts went
        through `esxtop_name` if they may hold anything; a value for each row. NaN becomes an empty
        field.
    ends_ns : ndarray of int64
        The time of each row.
    host : str
        The host's name.
    start : datetime
        When time was 0.
    """
    names, values = [], []
    for name, column in columns:
        names.append(f"\\\\{esxtop_name(host)}\\{name}")
        values.append(column)
    fraction = bool((ends_ns % 10**9).any() or start.microsecond)
    csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow([FIRST, *names])
    rows = np.stack(values, axis=1) if values else np.zeros((len(ends_ns), 0))
    # numbers need no quoting that depends on them: a whole line is formatted at once
    form = '"%s"' + ',"%.2f"' * len(values) + "\n"
    for end, row in zip(ends_ns.tolist(), rows, strict=True):
        when = start + datetime.timedelta(microseconds=end // 1000)
        written = when.strftime("%m/%d/%Y %H:%M:%S") + (f".{when:%f}" if fraction else "")
        file.write((form % (written, *row.tolist())).replace('"nan"', '""'))


def esxtop_name(name: str) -> str:
    """Give a name without what would end a field or a name there; ``_`` stands for it."""
    return UNFIT.sub("_", name)


def _columns(series: Series, worlds: bool) -> Iterator[tuple[str, npt.NDArray[np.float64]]]:
    """Give names without the host's, and the values of each."""
    lengths = np.diff(series.times_ns)
    none = np.zeros(len(lengths))
    busy = 100.0 * series.cpu_run_ns / lengths[:, None]
    for cpu in range(busy.shape[1]):
        yield f"Physical Cpu({cpu})\\% Util Time", busy[:, cpu]
    yield "Physical Cpu(_Total)\\% Util Time", busy.mean(axis=1)
    known = series.columns
    for by in ("vm", "world")[: 1 + worlds]:
        shown = {
            counter: series.percent(column, by=by) if column in known else None
            for counter, column in COUNTERS.items()
            if column in known or counter in ZERO
        }
        for i, (instance, members) in enumerate(_instances(series, by)):
            if by == "vm":
                yield f"{instance}\\Members", none + members
            for counter, column in shown.items():
                yield f"{instance}\\{counter}", none if column is None else column[:, i]


def _instances(series: Series, by: str) -> list[tuple[str, int]]:
    """Give the names of groups or worlds, and how many worlds are in each."""
    named = [esxtop_name(name) for name in series.groups]
    members = list(series.groups.values())
    if by == "vm":
        return [
            (f"Group Cpu({vm}:{name})", len(each))
            for vm, (name, each) in enumerate(zip(named, members, strict=True), 1)
        ]
    whose = {}
    for vm, (name, each) in enumerate(zip(named, members, strict=True), 1):
        for vcpu, world in enumerate(each):
            whose[world] = f"Vcpu({vm}:{name}:{world}:vmx-vcpu-{vcpu})"
    return [(whose.get(w, f"Vcpu(0:none:{w}:world)"), 1) for w in series.worlds.tolist()]


def read_esxtop(
    source: str | os.PathLike[str] | TextIO, *, objects: Sequence[str] | None = None
) -> EsxtopTable:
    """Read a file of esxtop's batch mode: of `write_esxtop`, or of esxtop itself.

    Parameters
    ----------
    source : path or text file
        Where from.
    objects : sequence of str, optional
        Keep only columns of these objects, such as ``["Group Cpu"]``; esxtop's own files can
        have tens of thousands of columns.

    Returns
    -------
    EsxtopTable

    Raises
    ------
    TraceFormatError
        For what is no such file, or is cut off; the message names the line.
    """
    if isinstance(source, (str, os.PathLike)):
        with open(source, encoding="utf-8", newline="") as file:
            return _read(file, objects)
    return _read(source, objects)


def _read(file: TextIO, objects: Sequence[str] | None) -> EsxtopTable:
    lines = csv.reader(file)
    try:
        heading = next(lines, [])
        if not heading or not heading[0].lstrip("\ufeff").startswith("(PDH-CSV"):
            raise TraceFormatError(
                f"line 1 must begin with {FIRST!r}, got {(heading or [''])[0]!r:.80}"
            )
        end = len(heading) - (heading[-1] == "")
        host, columns, kept = "", [], []
        for place in range(1, end):
            name, column = _column(heading[place])
            host = host or name
            if objects is None or column.object in objects:
                columns.append(column)
                kept.append(place)
        times, rows = [], []
        for row in lines:
            if not row:
                continue
            if len(row) not in (end, len(heading)):
                raise TraceFormatError(
                    f"line {lines.line_num} has {len(row)} fields and line 1 has {len(heading)}"
                )
            times.append(_time(row[0], lines.line_num))
            rows.append(_numbers([row[place] for place in kept], lines.line_num))
    except (csv.Error, UnicodeDecodeError) as error:
        raise TraceFormatError(f"line {lines.line_num}: {error}") from None
    values = np.array(rows, np.float64).reshape(len(rows), len(kept))
    return EsxtopTable(host, np.array(times, "datetime64[us]"), tuple(columns), values)


def _column(heading: str) -> tuple[str, EsxtopColumn]:
    found = HEADING.fullmatch(heading)
    if found is None:
        raise TraceFormatError(f"line 1: {heading!r:.80} is not \\\\host\\object\\counter")
    host, thing, counter = found.groups()
    parts = OBJECT.fullmatch(thing)
    name, instance = parts.groups() if parts else (thing, "")
    return host, EsxtopColumn(name, instance, counter)


def _time(text: str, line: int) -> datetime.datetime:
    found = TIME.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        month, day, year, hour, minute, second = map(int, found.groups()[:6])
        part = int((found[7] or "0").ljust(6, "0"))
        return datetime.datetime(year, month, day, hour, minute, second, part)
    except ValueError:
        raise TraceFormatError(
            f"line {line}: the time must be MM/DD/YYYY HH:MM:SS, got {text!r:.80}"
        ) from None


def _numbers(fields: list[str], line: int) -> npt.NDArray[np.float64]:
    try:
        return np.array([float(field) if field.strip() else np.nan for field in fields])
    except ValueError as error:
        raise TraceFormatError(f"line {line}: {error}") from None
