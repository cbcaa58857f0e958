"""Usage tables of clusters, as Google's: rows of a task's CPU and memory over a span of time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from pyvirt._core.cells import Keys
from pyvirt.errors import (
    InvalidTypeError,
    InvalidValueError,
    MissingDependencyError,
    TraceFormatError,
)
from pyvirt.traces.demands import FIVE_MINUTES_NS, DemandTraces, one_of, whole
from pyvirt.traces.folders import files_of
from pyvirt.traces.resample import MISSING, Missing, check_size, filled, spans_on_grid
from pyvirt.traces.tables import KEY, OPTIONAL, SKIP, first_line, line_of_row, parse, text_of

__all__ = ["read_google"]

# task_usage of clusterdata-2011-2, whose files have no heading (format and schema, version 2.1).
_LAYOUT_2011 = (
    *("start_time", "end_time", "job_id", "task_index", "machine_id", "cpu_rate"),
    *("canonical_memory_usage", "assigned_memory_usage", "unmapped_page_cache"),
    *("total_page_cache", "maximum_memory_usage", "disk_io_time", "local_disk_space_usage"),
    *("maximum_cpu_rate", "maximum_disk_io_time", "cycles_per_instruction"),
    *("memory_accesses_per_instruction", "sample_portion", "aggregation_type"),
    "sampled_cpu_usage",
)
# Under a heading: what columns are called in the traces of 2011 and 2019, and in usual exports.
_ALIASES = {
    "start": ("start_time", "start", "timestamp", "time"),
    "end": ("end_time", "end"),
    "cpu": (
        *("cpu_rate", "mean_cpu_usage_rate", "average_usage.cpus", "average_usage_cpus"),
        *("avg_cpu", "cpu_usage", "cpu"),
    ),
    "memory": (
        *("canonical_memory_usage", "average_usage.memory", "average_usage_memory"),
        *("avg_memory", "memory_usage", "memory"),
    ),
}
_KEYS = (
    *(("job_id", "task_index"), ("collection_id", "instance_index")),
    *(("machine_id",), ("vm_id",), ("vmid",), ("vm",), ("id",), ("name",)),
)
_NAMES = ("key", *_ALIASES)


class _Rows(NamedTuple):
    """A file's."""

    keys: list[tuple[list[str], npt.NDArray[np.int64]]]
    """For each column of keys the different ones, and which of them a row has."""
    numbers: dict[str, npt.NDArray[np.float64]]


def read_google(
    path: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    columns: Mapping[str, str | Sequence[str] | None] | None = None,
    interval_ns: int = FIVE_MINUTES_NS,
    time_unit_ns: int = 1000,
    cpu_unit: Literal["percent", "fraction", "mhz"] = "fraction",
    memory_unit: Literal["bytes", "fraction"] = "fraction",
    missing: Missing = "zero",
) -> DemandTraces:
    """Read usage tables of clusters, from CSV or Parquet.

    Parameters
    ----------
    path : path, or several
        A folder of files ``.csv`` or ``.parquet``, or such files; CSV may be compressed. A CSV file
        without a heading has the 19 or 20 columns of ``task_usage`` in Google's trace of 2011.
    columns : mapping, optional
        Which column is ``"key"`` (one or several, that name a machine together), ``"start"``,
        ``"end"``, ``"cpu"`` and ``"memory"``, where names are others than those of Google's traces
        of 2011 and 2019. None: there is none.
    interval_ns : int, default 5 minutes
        Length of an interval; the first one begins at a multiple of it.
    time_unit_ns : int, default 1000
        Unit of the times; microseconds in Google's traces.
    cpu_unit, memory_unit
        What the numbers are. Google's are parts of the largest host's.
    missing : {"zero", "hold", "nan", "error"}
        What intervals get of which no row says anything, see `read_bitbrains`.

    Returns
    -------
    DemandTraces
        Machines in the order in which they appear, their keys joined by ``/``. A row's CPU counts
        for the part of an interval that it covers, so that work is conserved; memory is the mean
        over the time that is covered. Rows of one machine that overlap add up.

    Raises
    ------
    TraceFormatError
        A file that is no such table, or a row that ends before it begins or is negative.
    MissingDependencyError
        Parquet needs pyarrow: ``pip install 'pyvirt[frames]'``.

    Notes
    -----
    Rows without an end last for `interval_ns`, as in Azure's traces. Formats: C. Reiss, J. Wilkes,
    J. Hellerstein, *Google cluster-usage traces: format + schema*, version 2.1; J. Wilkes, *Google
    cluster-usage traces v3*.
    """
    interval_ns = whole(interval_ns, "interval_ns", 1)
    time_unit_ns = whole(time_unit_ns, "time_unit_ns", 1)
    one_of(missing, "missing", MISSING)
    given = _given(columns)
    numbering: list[dict[str, int]] = []
    codes: list[npt.NDArray[np.int64]] = []
    parts: list[dict[str, npt.NDArray[np.float64]]] = []
    files = files_of(path, r"\.(csv(\.\w+)?|parquet)$")
    for file in files:
        read = _read_parquet if file.suffix == ".parquet" else _read_csv
        rows = read(file, given)
        numbering = numbering or [{} for _ in rows.keys]
        if len(rows.keys) != len(numbering) or (parts and rows.numbers.keys() != parts[0].keys()):
            raise TraceFormatError(f"{file}: has other columns than {files[0]}")
        codes.append(_renumbered(rows.keys, numbering))
        parts.append(_times(file, rows.numbers, interval_ns, time_unit_ns))
    row, names = _machines(np.concatenate(codes, axis=1), numbering)
    table = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    if not len(row):
        raise TraceFormatError(f"{files[0]}: no rows in it")
    start, end = table["start"].astype(np.int64), table["end"].astype(np.int64)
    origin = int(start.min()) // interval_ns * interval_ns
    count = -((origin - int(end.max())) // interval_ns)
    check_size(files[0], len(names), count, interval_ns)
    values = np.stack([table[key] for key in ("cpu", "memory") if key in table])
    totals, covered = spans_on_grid(
        *(row, start - origin, end - origin, values), (len(names), count), interval_ns
    )
    unknown = covered == 0
    if missing == "error" and unknown[0].any():
        one, step = np.argwhere(unknown[0])[0]
        raise TraceFormatError(f"{files[0]}: no row of {names[one]!r:.80} in interval {step}")
    totals[0] /= interval_ns
    np.divide(totals[1:], covered[1:], out=totals[1:], where=~unknown[1:])
    totals[unknown] = np.nan
    cpu, *memory = [filled(part, missing) for part in totals]
    return DemandTraces(
        names,
        *(cpu, interval_ns, origin, cpu_unit),
        *(memory[0] if memory else None, memory_unit),
    )


def _given(columns: Any) -> dict[str, list[str]]:
    """Give the columns that the user names, in lists; an empty one says that there is none."""
    if columns is None:
        return {}
    if not isinstance(columns, Mapping):
        raise InvalidTypeError(f"columns must be a mapping, got {columns!r:.80}")
    made = {}
    for key, value in columns.items():
        if key not in _NAMES:
            raise InvalidValueError(f"columns may name {', '.join(_NAMES)}, got {key!r:.80}")
        made[key] = [] if value is None else [value] if isinstance(value, str) else list(value)
        if len(made[key]) != 1 and (key in ("start", "cpu") or (made[key] and key != "key")):
            raise InvalidValueError(f"columns[{key!r}] must be one name, got {value!r:.80}")
    if "key" in made and not 1 <= len(made["key"]) <= 16:
        raise InvalidValueError("columns['key'] must be 1 to 16 names")
    return made


def _chosen(
    file: Path, have: Sequence[str], given: Mapping[str, list[str]]
) -> dict[str, list[int]]:
    """Find the columns of a file, by the names that the user gave or that are usual."""
    low = [name.strip().strip('"').lower() for name in have]
    found: dict[str, list[int]] = {}
    for what in _NAMES:
        if what in given:
            wanted = given[what]
            lacking = [name for name in wanted if name.lower() not in low]
            if lacking:
                raise TraceFormatError(f"{file}: no column {lacking[0]!r:.80} among {have!r:.200}")
        elif what == "key":
            wanted = next(([*keys] for keys in _KEYS if set(keys) <= set(low)), [])
        else:
            wanted = [name for name in _ALIASES[what] if name in low][:1]
        found[what] = [low.index(name.lower()) for name in wanted]
    for what in ("key", "start", "cpu"):
        if not found[what]:
            raise TraceFormatError(
                f"{file}: which column is the {what}? There are {', '.join(have):.200}: say so "
                f"with columns={{{what!r}: ...}}"
            )
    used = [at for what in _NAMES for at in found[what]]
    if len(set(used)) != len(used):
        raise TraceFormatError(
            f"{file}: one column of {', '.join(have):.200} would mean two things"
        )
    return found


def _read_csv(file: Path, given: Mapping[str, list[str]]) -> _Rows:
    text = text_of(file)
    line, start = first_line(text)
    have = line.split(",")
    if have[0].strip().lstrip("-").isdigit():
        start = 0
        if len(have) not in (19, 20):
            raise TraceFormatError(
                f"{file}: no heading, and {len(have)} columns where task_usage has 19 or 20"
            )
        have = [*_LAYOUT_2011[: len(have)]]
    found = _chosen(file, have, given)
    kinds = [SKIP] * len(have)
    for what, places in found.items():
        for at in places:
            kinds[at] = KEY if what == "key" else OPTIONAL
    keys = [Keys() for _ in found["key"]]
    table = parse(file, text, ",", kinds, keys, start=start, columns=have)
    in_order = sorted(at for what in _ALIASES for at in found[what])
    numbers = {
        what: table.numbers[in_order.index(found[what][0])] for what in _ALIASES if found[what]
    }
    for what, values in numbers.items():
        bad = (values < 0) | (values > 2**53)
        if what in ("start", "end"):
            bad |= np.isnan(values)
        if bad.any():
            row = int(np.argmax(bad))
            at = line_of_row(text, start, row)
            raise TraceFormatError(
                f"{file}: line {at}, {have[found[what][0]]}: {values[row]:g} must be a number "
                "from 0 to 2**53"
            )
    by_column = sorted(found["key"])
    return _Rows(
        [
            (keys[by_column.index(at)].names(), table.codes[by_column.index(at)])
            for at in found["key"]
        ],
        numbers,
    )


def _read_parquet(file: Path, given: Mapping[str, list[str]]) -> _Rows:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise MissingDependencyError(
            f"{file}: Parquet needs pyarrow: pip install 'pyvirt[frames]'"
        ) from None
    try:
        source = parquet.ParquetFile(file)
        have = [source.schema.column(i).path for i in range(len(source.schema))]
        found = _chosen(file, have, given)
        names = {what: [have[at] for at in places] for what, places in found.items()}
        table = source.read(columns=[name for some in names.values() for name in some])
        while any(pa.types.is_struct(field.type) for field in table.schema):
            table = table.flatten()
        keys = []
        for name in names["key"]:
            column = table.column(name).cast(pa.string()).combine_chunks()
            if column.null_count:
                raise TraceFormatError(f"{file}: {name} is empty in a row")
            coded = column.dictionary_encode()
            keys.append((coded.dictionary.to_pylist(), coded.indices.to_numpy().astype(np.int64)))
        numbers = {}
        for what in _ALIASES:
            for name in names[what]:
                values = table.column(name).cast(pa.float64(), safe=False).to_numpy()
                bad = (values < 0) | (values > 2**53)
                if what in ("start", "end"):
                    bad |= np.isnan(values)
                if bad.any():
                    row = int(np.argmax(bad))
                    raise TraceFormatError(
                        f"{file}: row {row}, {name}: {values[row]:g} must be a number "
                        "from 0 to 2**53"
                    )
                numbers[what] = values
    except (pa.ArrowException, KeyError) as error:
        raise TraceFormatError(f"{file}: {error}") from None
    return _Rows(keys, numbers)


def _renumbered(
    keys: list[tuple[list[str], npt.NDArray[np.int64]]], numbering: list[dict[str, int]]
) -> npt.NDArray[np.int64]:
    """Give the numbers that keys have in all files, by those that they have in one."""
    made = []
    for (names, codes), known in zip(keys, numbering, strict=True):
        table = np.array([known.setdefault(name, len(known)) for name in names], np.int64)
        made.append(table[codes] if len(table) else codes)
    return np.array(made)


def _machines(
    codes: npt.NDArray[np.int64], numbering: list[dict[str, int]]
) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Number machines in the order in which they appear, and name them."""
    joint = np.zeros(codes.shape[1], np.int64)
    size = 1
    for column, known in zip(codes, numbering, strict=True):
        if size * (len(known) + 1) >= 1 << 62:
            _, joint = np.unique(joint, return_inverse=True)
            size = len(joint)
        joint = joint * max(1, len(known)) + column
        size *= max(1, len(known))
    _, first, row = np.unique(joint, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    texts = [list(known) for known in numbering]
    names = ["/".join(text[c] for text, c in zip(texts, codes[:, at], strict=True)) for at in first]
    return rank[row], [names[i] for i in order]


def _times(
    file: Path, numbers: dict[str, npt.NDArray[np.float64]], interval_ns: int, time_unit_ns: int
) -> dict[str, npt.NDArray[np.float64]]:
    """Turn times into nanoseconds, and give rows without an end one."""
    if (
        len(numbers["start"])
        and max(numbers["start"].max(), numbers.get("end", numbers["start"]).max())
        > (2**62) / time_unit_ns
    ):
        raise TraceFormatError(f"{file}: a time of more than 2**62 ns; is time_unit_ns right?")
    made: dict[str, Any] = dict(numbers)
    made["start"] = np.rint(numbers["start"]).astype(np.int64) * time_unit_ns
    if "end" not in numbers:
        made["end"] = made["start"] + interval_ns
        return made
    made["end"] = np.rint(numbers["end"]).astype(np.int64) * time_unit_ns
    bad = made["end"] <= made["start"]
    if bad.any():
        row = int(np.argmax(bad))
        raise TraceFormatError(
            f"{file}: row {row} (from 0 on) ends at {numbers['end'][row]:.17g}, "
            f"and begins at {numbers['start'][row]:.17g}"
        )
    return made
