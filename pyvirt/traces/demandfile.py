"""Demand traces in one archive of NumPy, whose arrays are mapped where they are not compressed."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from tokenize import TokenError
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError, TraceFormatError

__all__ = ["load", "read", "write"]

Result = TypeVar("Result")

_ALIGN = 64  # of the arrays in the file, so that mapped ones are as good as any
_EPOCH = (1980, 1, 1, 0, 0, 0)  # of all members: the bytes depend on the contents alone
_EXTRA = struct.Struct("<HH")
_PADDING = 0xD935  # the header of an extra field of zip that holds nothing (as of Android's)
_LOCAL = 30  # bytes of a member's header, before its name
# What zipfile and NumPy make of damage.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, KeyError),
    *(RuntimeError, TypeError, ValueError, SyntaxError, AttributeError, OverflowError),
    TokenError,
)


def write(path: Path, arrays: Mapping[str, npt.NDArray[Any]], compress: bool) -> None:
    """Write arrays; the file appears under its name when it is complete."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    try:
        with part.open("wb") as file, zipfile.ZipFile(file, "w", kind) as archive:
            for key, array in arrays.items():
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, np.asarray(array, order="C"), allow_pickle=False)
                info = zipfile.ZipInfo(f"{key}.npy", _EPOCH)
                info.compress_type = kind
                start = file.tell() + _LOCAL + len(info.filename)
                pad = -(start + _EXTRA.size) % _ALIGN
                info.extra = _EXTRA.pack(_PADDING, pad) + bytes(pad)
                archive.writestr(info, buffer.getbuffer())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read all arrays of an archive; those that are not compressed become parts of a mapping."""
    with path.open("rb") as file:
        try:
            archive = zipfile.ZipFile(file)
            return {
                info.filename.removesuffix(".npy"): _member(path, archive, info)
                for info in archive.infolist()
            }
        except (*_DAMAGE, OSError) as error:  # OSError: sought where no file can be
            why = error
    raise TraceFormatError(f"{path}: not an archive with util and name: {why}") from None


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> npt.NDArray[Any]:
    with archive.open(info) as file:
        if info.compress_type != zipfile.ZIP_STORED:
            return np.lib.format.read_array(file, allow_pickle=False)
        version = np.lib.format.read_magic(file)
        header = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
        shape, fortran, dtype = header(file)
        skip = file.tell()
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if dtype.hasobject or info.file_size != skip + size or not size:
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
    with path.open("rb") as raw:
        raw.seek(info.header_offset)
        head = raw.read(_LOCAL)
        name, extra = struct.unpack_from("<HH", head, 26)
        if not head.startswith(b"PK\x03\x04"):
            raise zipfile.BadZipFile("a member is not where the directory says")
        at = info.header_offset + _LOCAL + name + extra + skip
    order: Any = "F" if fortran else "C"
    array = np.memmap(path, dtype, "r", at, shape, order)
    return np.array(array) if at % dtype.alignment else array.view(np.ndarray)


def load(
    path: Path,
    make: Callable[..., Result],
    defaults: Mapping[str, Any],
    known: tuple[str, ...],
) -> Result:
    """Make traces of an archive, with defaults for what it does not say."""
    arrays = read(path)
    if not {"util", "name"} <= arrays.keys():
        raise TraceFormatError(f"{path}: not an archive with util and name: it has {[*arrays]}")
    parts: dict[str, Any] = dict(defaults)
    parts |= {"cpu": arrays.pop("util"), "names": arrays.pop("name")}
    if parts["names"].dtype.kind != "U" or parts["names"].ndim != 1:
        raise TraceFormatError(f"{path}: name must be strings, got {parts['names'].dtype}")
    parts["names"] = parts["names"].tolist()
    if parts["cpu"].ndim != 2 or len(parts["cpu"]) != len(parts["names"]):
        raise TraceFormatError(
            f"{path}: util must be rows of numbers, one for each name, "
            f"got shape {parts['cpu'].shape} and {len(parts['names'])} names"
        )
    for key, array in arrays.items():
        if key in known:
            parts[key] = array if array.ndim else array.item()
    try:
        return make(**parts)
    except (InvalidTypeError, InvalidValueError) as error:
        raise TraceFormatError(f"{path}: {error}") from None
