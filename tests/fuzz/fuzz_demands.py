"""Demand traces out of bytes: text tables and archives of any contents, cut and damaged.

Anything but a `PyvirtError`, an `OSError` or a `MemoryError` is a failure, and so are demands that
are negative, that change when they are written and read again, or when the file is compressed.
"""

from __future__ import annotations

import functools
import gzip
import tempfile
from collections.abc import Hashable
from pathlib import Path

import numpy as np

from core.strategies import Tape
from pyvirt import PyvirtError
from pyvirt.traces import DemandTraces, read_bitbrains, read_demand, read_google, read_planetlab

TRACE = True
_NUMBERS = (b"0", b"1", b"300", b"1376314846", b"2.5", b"-1", b"1e3", b"nan", b"", b"1e400")
_NUMBERS += (b"0.1234567890123456789", b"9" * 25, b"x", b'"7"', b" 8\t", b"600000000")
_HEADING = (
    b"Timestamp [ms];\tCPU cores;\tCPU capacity provisioned [MHZ];\tCPU usage [MHZ];\tCPU usage [%]"
    b";\tMemory capacity provisioned [KB];\tMemory usage [KB]\n"
)
_TABLES = (b"start,end,id,cpu,memory\n", b"timestamp,vm,avg_cpu\n", b"", b"a,b\n", b"\xef\xbb\xbf")


def one_input(data: bytes) -> set[Hashable]:
    """Make a file of the bytes, and read it as what its name says."""
    tape = Tape(data)
    kind = tape.pick(("planetlab", "bitbrains", "google", "demand", "npz"))
    content = _content(tape, kind)
    if tape.chance(20) and content:
        content = bytearray(content)
        for _ in range(1 + tape.below(4)):
            content[tape.number(2) % len(content)] = tape.byte()
        content = bytes(content[: len(content) - (tape.number(2) if tape.chance(30) else 0)])
    folder = _folder()
    suffix = {"google": ".csv", "bitbrains": ".csv", "npz": ".npz"}.get(kind, "")
    path = folder / f"1{suffix}"
    path.write_bytes(content)
    labels: set[Hashable] = {kind}
    found = _read(tape, kind, path, labels)
    if found is None:
        return labels
    labels.add((kind, min(3, len(found)), min(3, found.intervals), found.memory is not None))
    for array in (found.cpu, found.memory):
        assert array is None or not (array < 0).any()
        assert array is None or not np.isinf(array).any()
    again = folder / "again.npz"
    found.save(again, compress=tape.chance(50))
    assert DemandTraces.load(again) == found
    again.unlink()
    if kind in ("google", "bitbrains"):
        packed = folder / "1.csv.gz"
        packed.write_bytes(gzip.compress(content, 1))
        assert _read(Tape(data[-1:]), kind, packed, labels) is not None
        packed.unlink()
    return labels


def _read(tape: Tape, kind: str, path: Path, labels: set[Hashable]) -> DemandTraces | None:
    missing = tape.pick(("hold", "zero", "nan"))
    try:
        if kind == "planetlab":
            return read_planetlab(path.parent)
        if kind == "bitbrains":
            return read_bitbrains(path, missing=missing)
        if kind == "google":
            return read_google(path, missing=missing, interval_ns=10**12)
        if kind == "npz":
            return DemandTraces.load(path)
        times, demand = read_demand(path)
        assert (np.diff(times) > 0).all()
        assert (demand >= 0).all()
    except (PyvirtError, OSError, MemoryError) as error:
        failed = error
    else:
        return None
    words = [word for word in str(failed).split() if word.isalpha()]
    labels.add((kind, type(failed).__name__, *words[:6]))
    assert str(path.parent) in str(failed) or isinstance(failed, MemoryError), str(failed)
    return None


def _content(tape: Tape, kind: str) -> bytes:
    if kind == "npz":
        return _archive(tape)
    separator = {"bitbrains": b";\t", "google": b","}.get(kind, b",")
    heading = {"bitbrains": _HEADING, "google": tape.pick(_TABLES)}.get(kind, b"")
    columns = {"bitbrains": 7, "google": tape.pick((5, 3, 20, 19))}.get(kind, 1 + tape.below(2))
    lines = []
    for i in range(1 + tape.below(12)):
        count = columns if not tape.chance(5) else tape.below(9)
        cells = [b"%d" % (300 * i + tape.below(400))]
        cells += [tape.pick(_NUMBERS) if tape.chance(60) else b"%d" % tape.byte() for _ in range(9)]
        cells += [b""] * 10
        if columns != 1 and kind == "google":
            cells[1] = b"%d" % (300 * i + 100 + tape.number(2))
        lines.append(separator.join(cells[:count]))
    return heading + tape.pick((b"\n", b"\r\n", b"\n\n")).join(lines)


def _archive(tape: Tape) -> bytes:
    shape = (tape.below(4), tape.below(5))
    dtype = tape.pick((np.uint8, np.float64, np.float32, np.int64, np.bool_, "U3", "c16"))
    fields = {
        "util": np.full(shape, tape.below(9)).astype(dtype),
        "name": np.array([f"m{i if tape.chance(95) else 0}" for i in range(shape[0])], np.str_),
    }
    for key in ("interval_ns", "start_ns", "memory", "vcpus", "cpu_unit", "other"):
        if tape.chance(30):
            fields[key] = tape.pick(
                (np.array(5), np.array("mhz"), np.ones(shape), np.ones(shape[:1]), np.array(-1.5))
            )
    path = _folder() / "made.npz"
    (np.savez_compressed if tape.chance(50) else np.savez)(path, **fields)
    content = path.read_bytes()
    path.unlink()
    return content


@functools.cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="pyvirt-fuzz-")
    _FOLDERS.append(folder)  # removed at exit
    inner = Path(folder.name) / "in"
    inner.mkdir()
    return inner


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []
