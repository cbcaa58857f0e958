"""x86 code out of bytes, and files that hold it.

Code stands in a buffer of its own length, so that a sanitizer sees each read beyond it. A sweep and
the decoding of one instruction must agree; no instruction may depend on what follows it; of a file
nothing but a `PyvirtError` may come.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import lzma
import struct
import tempfile
from collections.abc import Hashable
from pathlib import Path

import numpy as np

from core.strategies import Tape
from pyvirt import PyvirtError
from pyvirt._core.decode.sweep import count, decode_one, sweep_arrays
from pyvirt.x86.scan import scan
from x86.elves import boot_image, elf

TRACE = True
_NOTHING = 144


def one_input(data: bytes) -> set[Hashable]:
    """Decode the bytes, or make a file of them and scan it."""
    tape = Tape(data)
    if tape.chance(75):
        return _code(tape.pick((64, 32, 16)), data[3:])
    return _file(tape, data)


def _code(mode: int, code: bytes) -> set[Hashable]:
    exact = np.frombuffer(code, dtype=np.uint8).copy()
    lengths, kinds, end = sweep_arrays(exact, mode)
    assert end == len(code) == int(lengths.sum())
    labels: set[Hashable] = set()
    at = 0
    for length, kind in zip(lengths.tolist(), kinds.tolist(), strict=True):
        status, fields = decode_one(exact, mode, at)
        if status == 0:
            assert fields is not None
            assert fields[0] == length <= 15
            assert kind == (fields[19] * 18 + fields[20]) * 2 + fields[18]
            alone = exact[at : at + length].copy()
            assert decode_one(alone, mode) == (0, fields)
            assert decode_one(alone[:-1].copy(), mode)[0] == 1
            labels.add((mode, fields[7], fields[8], fields[2] & 0xE0))
        else:
            assert (length, kind) == (1, _NOTHING)
            labels.add((mode, status))
        at += length
    half = len(code) // 2
    first = count(exact, mode, 0, half)
    rest = count(exact, mode, first[3])
    whole = count(exact, mode)
    assert (first[0] + rest[0] == whole[0]).all()
    assert (first[1] + rest[1] == whole[1]).all()
    assert int(whole[1].sum()) == len(code)
    return labels


def _file(tape: Tape, data: bytes) -> set[Hashable]:
    bits = tape.pick((64, 32))
    code = data[-60:]
    sites = [struct.pack("<QBB6x" if bits == 64 else "<IBBxx", 0x1000, 1 + n, 2) for n in range(3)]
    parts = [(".text", 6, 0x1000, code), (".parainstructions", 2, 0x9000, b"".join(sites))]
    kind = tape.pick(("sections", "segments", "boot"))
    made = elf(parts if kind != "segments" else [], bits=bits, segments=[(5, 0x1000, code)])
    if kind == "boot":
        pack = tape.pick((gzip.compress, lzma.compress, bz2.compress, bytes))
        made = boot_image(pack(made), sectors=tape.below(5))
    made = bytearray(made)
    for _ in range(tape.below(6)):
        at = tape.number(2)
        # most of what there is to get wrong is in the headers, at both ends
        made[at % len(made) if tape.chance(50) else -1 - at % min(len(made), 400)] = tape.byte()
    if tape.chance(20):
        made = made[: tape.number(2)]
    path = _folder() / "file"
    path.write_bytes(made)
    try:
        found = scan(path)
    except PyvirtError as error:
        return {(kind, str(error).partition(": ")[2][:24])}
    total = found.total
    assert int(total.kind_bytes.sum()) == total.size
    assert 0 <= total.unchanged <= total.instructions
    return {(kind, found.kind, found.mode, len(found.sections), found.sites is None)}


@functools.cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="pyvirt-fuzz-")
    _FOLDERS.append(folder)
    return Path(folder.name)


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []
