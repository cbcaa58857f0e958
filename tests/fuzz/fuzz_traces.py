"""Traces out of bytes: every format with any field wrong, compressed, cut, damaged, converted.

Anything but a `PyvirtError`, an `OSError` or a `MemoryError` is a failure, and so are events that
depend on the size of the chunks, or that change when they are written and read again.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import lzma
import struct
import tempfile
import zipfile
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np

from core.strategies import Tape
from pyvirt import PyvirtError, traces
from pyvirt.errors import TraceFormatError

TRACE = True
_NAMES = ("lackey", "din", "csv", "champsim", "cloudsuite", "drmemtrace", "gem5", "npy")
_ADDRESSES = (0, 1, 0x1000, 0x1FFF, 0x7FFFFFFFF000, (1 << 64) - 1, (1 << 63), 1 << 47)
_SIZES = (0, 1, 8, 16, 255, 256, 512, 4096, 4097, 65535, 65536, (1 << 32) - 1, (1 << 64) - 1)
_JUNK = (
    b"",
    b"\n",
    b"==1== x\n",
    b"# x\n",
    b"\r\n",
    b"SB 1\n",
    b" L",
    b"I  0,",
    b"\0",
    b"\xff\xff",
)


def one_input(data: bytes) -> set[Hashable]:
    """Make a file of the bytes, read it in chunks of two sizes, write it again."""
    tape = Tape(data)
    name = tape.pick(_NAMES)
    content = _content(tape, name)
    packed, suffix = _packed(tape, name, content)
    packed = _damaged(tape, packed)
    path = _folder() / f"trace.{name}{suffix}"
    path.write_bytes(packed)
    given = tape.pick((None, None, None, name, tape.pick((*_NAMES, "npz", "x"))))
    labels: set[Hashable] = {(name, suffix, given is None)}
    events, error = _collect(path, given, tape.pick((32, 33, 1 << 10)))
    again, other = _collect(path, given, 1 << 12)
    assert error == other
    assert np.array_equal(events, again), "the size of chunks must not matter"
    labels.add(("events", min(3, len(events)), _words(error)))
    if len(events):
        _rewritten(tape, events, labels)
    return labels


@functools.cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="pyvirt-fuzz-")
    _FOLDERS.append(folder)  # removed at exit
    return Path(folder.name)


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def _collect(path: Path, name: str | None, chunk: int) -> tuple[traces.Events, str | None]:
    """What can be read, and how it ended."""
    parts = [np.zeros(0, traces.EVENT_DTYPE)]
    try:
        with traces.open(path, name, chunk=chunk) as trace:
            try:
                for part in trace:
                    assert 0 < len(part) <= chunk
                    parts.append(part)
            except TraceFormatError as error:
                return np.concatenate(parts), str(error)
            records = trace.records
            assert records is None or not records.flags.writeable
    except (PyvirtError, OSError, MemoryError) as error:
        return np.concatenate(parts), str(error)
    return np.concatenate(parts), None


def _words(error: str | None) -> tuple[str, ...]:
    return tuple(word for word in (error or "").split() if word.isalpha())


def _rewritten(tape: Tape, events: traces.Events, labels: set[Hashable]) -> None:
    """Into another format and back: the same, or refused."""
    name = tape.pick(_NAMES)
    path = _folder() / f"again.{name}{tape.pick(('', '', '.gz', '.xz', '.bz2'))}"
    on_loss: Any = tape.pick(("error", "drop"))
    try:
        written = traces.write(path, events, on_loss=on_loss)
    except PyvirtError as error:
        labels.add(("refused", name, type(error).__name__))
        assert not path.exists()
        return
    assert written.events + written.dropped == len(events)
    found, error = _collect(path, None, 64)
    # Detection needs an event or two of a file whose name does not count; this one's does.
    assert error is None, error
    labels.add(("written", name, on_loss))
    if name in ("npy", "csv"):
        assert np.array_equal(found, events)
    elif name in ("lackey", "din", "gem5", "drmemtrace"):
        kept = events[traces.is_access(events)]
        twice = (kept["op"] == traces.Op.MODIFY) & (name != "lackey")
        assert np.array_equal(found["addr"], np.repeat(kept["addr"], 1 + twice))
    path.unlink()


# --------------------------------------------------------------------------------- contents


def _address(tape: Tape) -> int:
    if tape.chance(20):
        return tape.number()
    return tape.pick(_ADDRESSES) + tape.below(4) & (1 << 64) - 1


def _content(tape: Tape, name: str) -> bytes:
    parts = []
    count = 1 + tape.below(40)
    for _ in range(count):
        parts.append(tape.pick(_JUNK) if tape.chance(8) else _record(tape, name))
    body = b"".join(parts)
    if name == "gem5":
        return _GEM5 + body
    if name == "drmemtrace" and not tape.chance(10):
        return _entry(25, 0, tape.pick((5, 3, 2, 1, 99, 300))) + body + _entry(26, 0, 0)
    if name == "csv" and tape.chance(50):
        heading = tape.pick((b"op,size,vcpu,arg,addr,value\n", b"addr,op\n", b"addr\n", b"x,y\n"))
        return heading + body
    if name == "npy":
        return _npy(tape)
    return body


_GEM5 = b"gem5" + bytes([8]) + b"\x0a\x01x\x18\x80\x80\x80\x01"


def _entry(kind: int, size: int, addr: int) -> bytes:
    return struct.pack("<HHQ", kind & 0xFFFF, size & 0xFFFF, addr)


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def _record(tape: Tape, name: str) -> bytes:
    addr, size = _address(tape), tape.pick(_SIZES)
    if name == "lackey":
        return b"%s%08x,%d\n" % (tape.pick((b"I  ", b" L ", b" S ", b" M ", b"X  ")), addr, size)
    if name == "din":
        label = tape.pick((b"0", b"1", b"2", b"3", b"4", b"r", b"w", b"i", b"m", b"9"))
        return b"%s %x %x\n" % (label, addr, size)
    if name == "csv":
        op = tape.pick((b"LOAD", b"store", b"3", b"MAP", b"40", b"200", b"x"))
        columns = [op, b"%d" % size, b"%d" % tape.below(300), b"1", b"%#x" % addr, b"%d" % addr]
        return b",".join(columns[: tape.pick((6, 6, 6, 5, 1))]) + b"\n"
    if name == "champsim":
        flags = (tape.chance(50), 0) if not tape.chance(3) else (tape.byte(), tape.byte())
        return struct.pack("<QBB6x6Q", addr, *flags, *(_slot(tape) for _ in range(6)))
    if name == "cloudsuite":
        return struct.pack("<QBB14x8Q8x", addr, 0, 1, *(_slot(tape) for _ in range(8)))
    if name == "drmemtrace":
        kind = tape.pick((10, 0, 1, 22, 28, 47, 30, 17, 24, 2, 48, 23, tape.below(70)))
        return _entry(kind, tape.pick(_SIZES), addr if kind != 22 else tape.below(5))
    fields = [(1, tape.below(200)), (2, tape.pick((1, 4, 7))), (3, addr), (4, size), (5, 0x100)]
    if tape.chance(10):
        del fields[tape.below(5)]
    body = b"".join(_varint(number << 3) + _varint(value) for number, value in fields)
    return _varint(len(body)) + body


def _slot(tape: Tape) -> int:
    return _address(tape) if tape.chance(30) else 0


def _npy(tape: Tape) -> bytes:
    count = tape.below(80)
    if tape.chance(60):
        array = np.zeros(count, traces.EVENT_DTYPE)
        array["op"] = [tape.pick((1, 2, 3, 4, 33, 200)) for _ in range(count)]
    else:
        kind: Any = tape.pick(("<u8", "<i8", "<u4", ">u8", "<f8", "U2", [("addr", "<u8")]))
        array = np.zeros(count, kind)
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


# ------------------------------------------------------------------------------ compression


def _packed(tape: Tape, name: str, content: bytes) -> tuple[bytes, str]:
    kind = tape.pick(("", "", "", "", ".gz", ".xz", ".bz2", ".zip"))
    if kind == ".gz":
        return gzip.compress(content, 1, mtime=0), kind
    if kind == ".xz":
        return lzma.compress(content, preset=0), kind
    if kind == ".bz2":
        return bz2.compress(content, 1), kind
    if kind == ".zip":
        buffer = io.BytesIO()
        method = tape.pick((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED))
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for i in range(1 + (name != "npy" and tape.below(2))):
                archive.writestr("events.npy" if name == "npy" else f"chunk.{i:04}", content)
        return buffer.getvalue(), kind
    return content, kind


def _damaged(tape: Tape, data: bytes) -> bytes:
    if not tape.chance(40):
        return data
    new = bytearray(data)
    for _ in range(1 + tape.below(3)):
        where = tape.number(2) if tape.chance(50) else tape.below(80)
        how = tape.below(3)
        if how == 0 and new:
            new[where % len(new)] = tape.byte()
        elif how == 1:
            del new[where:]
        else:
            new[where:where] = bytes(tape.byte() for _ in range(tape.below(9)))
    return bytes(new)
