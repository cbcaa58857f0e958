"""The formats by name, and how to tell them from a file's name and its first bytes."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping

import numpy as np

from pyvirt.compression import SUFFIXES
from pyvirt.errors import InvalidValueError, TraceFormatError
from pyvirt.traces import arrays, champsim, drmemtrace, gem5, text
from pyvirt.traces.codec import Decoder, Encoder
from pyvirt.traces.sources import Source

__all__ = ["FORMATS", "decoder_for", "detect_format", "encoder_for", "format_of_name"]

FORMATS = ("npy", "npz", "csv", "lackey", "din", "champsim", "cloudsuite", "drmemtrace", "gem5")
"""What can be read; all but npz can be written."""

_ENCODERS: dict[str, Callable[[], Encoder]] = {
    "npy": arrays.NpyEncoder,
    "csv": text.CsvEncoder,
    "lackey": text.LackeyEncoder,
    "din": text.DinEncoder,
    "champsim": champsim.ChampSimEncoder,
    "cloudsuite": lambda: champsim.ChampSimEncoder(wide=True),
    "drmemtrace": drmemtrace.DrmemtraceEncoder,
    "gem5": gem5.Gem5Encoder,
}

_NAMED = {f".{name}": name for name in FORMATS}
_NAMED |= {".champsimtrace": "champsim", ".lk": "lackey", ".ptrc": "gem5"}

_LACKEY_LINE = re.compile(rb"(?:I | [LSM]) [0-9a-fA-F]+,\d+\s*$")
_VALGRIND_LINE = re.compile(rb"(==|--|\*\*)\d+\1 ")
_DIN_LINE = re.compile(rb"\s*(?:[0-4]\s+(?:0x)?[0-9a-fA-F]+(?:\s|$)|[rwimcv]\s+\S+\s+[0-9a-fA-F]+)")
_CSV_LINE = re.compile(rb"\s*(?:0x[0-9a-fA-F]+|\d+|[A-Za-z_0-9]+\s*(?:,\s*\w+\s*){5})\s*$")
_TEXT = bytes(range(32, 127)) + b"\t\r\n"


def decoder_for(
    format: str, *, user: bool = False, threads: Mapping[int, int] | None = None
) -> Decoder:
    """Make the decoder of a format.

    Parameters
    ----------
    format : str
        One of `FORMATS`.
    user : bool
        Whether accesses are at CPL 3, where the format does not say.
    threads : mapping of int to int, optional
        vCPU of thread ids; for drmemtrace only.

    Returns
    -------
    Decoder
        At the beginning of a file.

    Raises
    ------
    InvalidValueError
        If there is no such format, or it has no threads.
    """
    known(format)
    arg = int(user)
    if threads is not None and format != "drmemtrace":
        raise InvalidValueError(f"threads are for drmemtrace, the format is {format}")
    if format in ("npy", "npz"):
        return arrays.NpyDecoder(arg)
    if format == "csv":
        return text.CsvDecoder()
    if format == "lackey":
        return text.LackeyDecoder(arg)
    if format == "din":
        return text.DinDecoder(arg)
    if format == "drmemtrace":
        return drmemtrace.DrmemtraceDecoder(arg, threads)
    if format == "gem5":
        return gem5.Gem5Decoder(arg)
    return champsim.ChampSimDecoder(format == "cloudsuite", arg)


def encoder_for(format: str) -> Encoder:
    """Make the encoder of a format; see `decoder_for`."""
    known(format)
    if format not in _ENCODERS:
        raise InvalidValueError(f"{format} files are only read: write .npy")
    return _ENCODERS[format]()


def known(format: str) -> None:
    """Raise `InvalidValueError` unless there is such a format."""
    if format in FORMATS:
        return
    near = difflib.get_close_matches(str(format), FORMATS, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise InvalidValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r:.80}{hint}")


def format_of_name(path: str | os.PathLike[str]) -> tuple[str | None, str | None]:
    """Tell format and compression that the ending of a name promises.

    Parameters
    ----------
    path : path
        For example ``sort.lackey.xz``.

    Returns
    -------
    (str or None, str or None)
        ``("lackey", "xz")``; None where the name does not say.
    """
    stem, suffix = os.path.splitext(os.path.basename(os.fspath(path)).lower())
    compression = SUFFIXES.get(suffix)
    if compression is not None:
        suffix = os.path.splitext(stem)[1]
    return _NAMED.get(suffix), compression


def detect_format(source: Source, members: list[str] | None) -> str:
    """Tell the format of a file, by what is in it and then by its name.

    Parameters
    ----------
    source : Source
        The file.
    members : list of str, optional
        What it holds, where it is an archive whose directory could be read.

    Returns
    -------
    str
        One of `FORMATS`.

    Raises
    ------
    TraceFormatError
        If neither tells.
    """
    named = format_of_name(source.name)[0]
    if source.is_zip:
        if members is None:
            return named or "drmemtrace"
        return "npz" if any(name.endswith(".npy") for name in members) else "drmemtrace"
    head = source.head()
    if not head and named is None:
        raise TraceFormatError(f"{source.name}: the file is empty, and its name tells no format")
    if head.startswith(arrays.MAGIC):
        return "npy"
    if head.startswith(gem5.MAGIC):
        return "gem5"
    if drmemtrace.looks_like_drmemtrace(head) and named not in ("champsim", "cloudsuite"):
        return "drmemtrace"
    if named is not None:
        return named
    found = _text_format(head) if not head.translate(None, _TEXT) else _champsim_format(head)
    if found is None:
        raise TraceFormatError(
            f"{source.name}: neither name nor content (0x{head[:8].hex()} ...) tells the format: "
            f"give one of {', '.join(FORMATS)}"
        )
    return found


def _text_format(head: bytes) -> str | None:
    """Judge by the first line that says something."""
    for line in head.split(b"\n"):
        if _VALGRIND_LINE.match(line) or _LACKEY_LINE.match(line):
            return "lackey"
        line = line.strip()
        if not line or line.startswith(b"#"):
            continue
        if _DIN_LINE.match(line):
            return "din"
        if text.csv_columns(line) or _CSV_LINE.match(line):
            return "csv"
        return None
    return None


def _champsim_format(head: bytes) -> str | None:
    """Judge by the bytes that must be 0 or 1, or padding, in each record."""
    for name, dtype in (
        ("champsim", champsim.CHAMPSIM_DTYPE),
        ("cloudsuite", champsim.CLOUDSUITE_DTYPE),
    ):
        count = len(head) // dtype.itemsize
        if not count:
            continue
        records = np.frombuffer(head, dtype, count)
        flags = records["is_branch"] | records["branch_taken"]
        raw = np.frombuffer(head, np.uint8, count * dtype.itemsize).reshape(count, -1)
        padded = name == "champsim" or not (raw[:, 18:24].any() or raw[:, 90:].any())
        if flags.max() <= 1 and padded and records["ip"].all():
            return name
    return None
