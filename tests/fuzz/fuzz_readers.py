"""Image files out of bytes: plain, LiME and ELF with any field wrong, compressed, cut, damaged.

Anything but a `PyvirtError`, an `OSError` or a `MemoryError` is a failure, and so is a memory
whose parts contradict each other, or an image that reads otherwise when it is compressed.
"""

from __future__ import annotations

import copy
import functools
import gzip
import itertools
import lzma
import os
import pickle
import shutil
import struct
import tempfile
import zlib
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np

from core.strategies import Tape
from pyvirt import PhysicalMemory, PyvirtError
from pyvirt.errors import OutsideMemoryError

try:
    import zstandard
except ImportError:
    zstandard = None  # type: ignore[assignment]

TRACE = True
PAGE = 4096
_ADDRESSES = (0, PAGE, 2 * PAGE, 3 * PAGE, 1 << 20, 1 << 32, (1 << 32) - PAGE, 1 << 40)
_EDGES = ((1 << 52) - PAGE, (1 << 52) - 1, 1 << 52, (1 << 63), (1 << 64) - 1, (1 << 64) - PAGE)
_SIZES = (PAGE, 2 * PAGE, 1, 0, 100, PAGE - 1, PAGE + 1, 3 * PAGE)
_MAGICS = (b"", b"EMiL", b"\x7fELF", b"AVML", b"KDUMP   ", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
_MAGICS += (b"\x1f\x8b\x08", b"PAGEDU64", b"QEVM", b"BZh", b"PK\x03\x04")
# A VMCB that VMRUN accepts, with field offsets as in tables B-1 and B-2 of APM vol. 2.
_VMCB = ((0x10, 1), (0x58, 1), (0x90, 1), (0xB0, 0x1000), (0x4D0, 0x1D01), (0x548, 0xB0))
_VMCB += ((0x550, 0x1000), (0x558, 0x80010033), (0x668, 0x0007040600070406))


def one_input(data: bytes) -> set[Hashable]:
    """Make an image of the bytes, open it in one or two ways, use what comes out."""
    tape = Tape(data)
    content = _content(tape)
    packed, kind = _packed(tape, content)
    packed = _damaged(tape, packed)
    options = _options(tape, len(content))
    labels: set[Hashable] = {kind}
    folder = _folder()
    memory = _opened(folder / "image", packed, options, labels, pipe=tape.chance(8))
    if memory is not None:
        _use(tape, memory)
        if packed == content and len(content) < 1 << 16 and tape.chance(40):
            streamed = _opened(folder / "again", gzip.compress(content, 1), options, labels, False)
            if streamed is not None:
                assert streamed.regions == memory.regions
                assert _stored(streamed) == _stored(memory)
        assert (folder / "image").read_bytes() == packed, "the file itself must stay as it is"
        if tape.chance(20):
            _change_file(tape, folder / "image", memory)
    return labels


@functools.cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="pyvirt-fuzz-")
    _FOLDERS.append(folder)  # removed at exit
    return Path(folder.name)


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def _opened(
    path: Path, data: bytes, options: dict[str, Any], labels: set[Hashable], pipe: bool
) -> PhysicalMemory | None:
    """The memory, or None where the image was refused by an exception of the allowed kinds."""
    path.unlink(missing_ok=True)  # never change a file that an earlier memory maps
    path.write_bytes(data)
    name = os.fspath(path)
    reading = None
    if pipe and len(data) < 1 << 15 and os.path.exists("/dev/fd"):
        reading, writing = os.pipe()
        os.write(writing, data)
        os.close(writing)
        name = f"/dev/fd/{reading}"
    try:
        memory = PhysicalMemory.open(name, **options)
    except (PyvirtError, OSError, MemoryError) as error:
        words = [word for word in str(error).split() if word.isalpha()]
        labels.add((type(error).__name__, *words[:8]))
        return None
    finally:
        if reading is not None:
            os.close(reading)
    assert memory.image is not None
    labels.add(("opened", memory.image.format, memory.image.compression, len(memory.image.cpus)))
    labels.add(("shape", min(3, len(memory.regions)), min(3, len(memory.image.mapped))))
    return memory


# --------------------------------------------------------------------------------- contents


def _payload(tape: Tape, size: int) -> bytes:
    """Bytes of memory: zeros, a pattern, words like entries, or a VMCB in each frame."""
    size = min(size, 16 * PAGE)
    how = tape.below(5)
    if how == 0:
        return bytes(size)
    if how == 1:
        return (bytes([tape.byte()]) * size)[:size]
    if how == 2:
        word = struct.pack("<Q", tape.number())
        return (word * (size // 8 + 1))[:size]
    if how == 3:
        return (bytes(range(256)) * (size // 256 + 1))[:size]
    frame = bytearray(PAGE)
    for at, value in _VMCB:
        struct.pack_into("<Q", frame, at, value)
    if tape.chance(50):
        frame[tape.pick([at for at, _ in _VMCB]) + tape.below(8)] = tape.byte()
    return (bytes(frame) * (size // PAGE + 1))[:size]


def _address(tape: Tape) -> int:
    how = tape.below(16)
    if how == 15:
        return tape.number()
    if how >= 13:
        return tape.pick(_EDGES)
    return tape.pick(_ADDRESSES) + (tape.below(4096) if how >= 11 else 0)


def _size(tape: Tape) -> int:
    if tape.chance(90):
        return tape.pick(_SIZES)
    return tape.number() if tape.chance(30) else tape.pick((*_EDGES, 1 << 32, 5 * PAGE))


def _content(tape: Tape) -> bytes:
    how = tape.below(8)
    if how < 3:
        return _lime(tape)
    if how < 6:
        return _elf(tape)
    if how == 6:
        return tape.pick(_MAGICS) + tape.data[tape.at :]
    return _payload(tape, tape.pick((PAGE, 0, 1, 100, 3 * PAGE, PAGE + 1, 12 * PAGE)))


def _lime(tape: Tape) -> bytes:
    parts = []
    start = 0
    for _ in range(tape.below(5)):
        if tape.chance(35):
            start = _address(tape)
        size = tape.pick(_SIZES) if tape.chance(85) else _size(tape)
        last = start + size - 1
        magic, version, listed = b"EMiL", 1, last
        if tape.chance(6):
            magic = tape.pick((b"AVML", b"LiME", b"\0\0\0\0", b"EMiX"))
        if tape.chance(4):
            version = tape.number(4)
        if tape.chance(8):
            listed = _address(tape)
        mask = (1 << 64) - 1
        parts.append(struct.pack("<4sIQQ8x", magic, version, start & mask, listed & mask))
        parts.append(_payload(tape, max(0, size)))
        start = (last + 1) & mask
    return b"".join(parts)


def _note(tape: Tape) -> bytes:
    size = 440
    version, listed = 1, size
    if tape.chance(20):
        version, listed = tape.number(4), tape.pick((0, 1, size - 1, 0xFFFFFFFF, 0xFFFFFFFC))
    state = struct.pack("<II128xQQI236x5Q", version, size, 7, 2, 16, *range(5))
    state += bytes(size - len(state))
    name = tape.pick((b"QEMU\0\0\0\0", b"CORE\0\0\0\0", b"\0\0\0\0\0\0\0\0"))
    name_size = 5 if tape.chance(90) else tape.pick((0, 8, 0xFFFFFFFF, 0xFFFFFFFD))
    return struct.pack("<III", name_size, listed, tape.pick((0, 1))) + name + state


def _elf(tape: Tape) -> bytes:
    wide = not tape.chance(25)
    header = struct.Struct("<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH")
    program = struct.Struct("<II6Q" if wide else "<8I")
    count = tape.below(6)
    table = 16 + header.size
    body = table + count * program.size
    most = (1 << 64) - 1 if wide else (1 << 32) - 1
    headers, blocks, offset, start = [], [], body, 0
    for _ in range(count):
        kind = 4 if tape.chance(20) else 1
        if tape.chance(5):
            kind = tape.number(4)
        if tape.chance(40):
            start = _address(tape)
        size = tape.pick(_SIZES)
        block = _note(tape) * tape.pick((1, 2)) if kind == 4 else _payload(tape, size)
        at, stored, length = offset, len(block), max(size, len(block))
        if tape.chance(20):
            length += tape.pick((0, PAGE, 1, 4 * PAGE, 1 << 30, 1 << 45))
        if tape.chance(12):  # a second listing of bytes that are there already
            at, start = tape.pick((body, offset, 0, most, most - 1)), tape.pick((0, PAGE, start))
        if tape.chance(6):
            stored = tape.pick((0, 1, stored + 1, most, 1 << 31))
        if tape.chance(6):
            length = _size(tape)
        fields = [at, 0, start, stored, length]
        fields = [value & most for value in fields]
        if wide:
            headers.append(program.pack(kind & 0xFFFFFFFF, 0, *fields, 0))
        else:
            headers.append(program.pack(kind & 0xFFFFFFFF, *fields, 0, 0))
        blocks.append(block)
        offset += len(block)
        start = (start + size) & most
    ident = bytearray(b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9))
    if tape.chance(5):
        ident[4 + tape.below(3)] = tape.byte()
    values = [4, 62, 1, 0, table, 0, 0, 16 + header.size, program.size, count, 0, 0, 0]
    if tape.chance(12):
        which = tape.pick((0, 4, 8, 9, 5, 10, 11, 12))
        values[which] = tape.pick((0, 1, 0xFFFF, 0xFFFE, 56, 32, 64))
        if which in (4, 5):
            values[which] = _address(tape) & most
    return bytes(ident) + header.pack(*values) + b"".join(headers + blocks)


# ------------------------------------------------------------------------------ compression


def _packed(tape: Tape, content: bytes) -> tuple[bytes, str]:
    """The content as it lies on the disk."""
    kind = tape.pick(("none", "none", "none", "xz", "gz", "zst", "lzma parts", "gz parts"))
    half = len(content) // 2
    if kind == "xz":
        check = tape.pick((lzma.CHECK_CRC32, lzma.CHECK_NONE, lzma.CHECK_CRC64, lzma.CHECK_SHA256))
        return lzma.compress(content, check=check, preset=0), kind
    if kind == "gz":
        return gzip.compress(content, 1, mtime=0), kind
    if kind == "zst" and zstandard is not None:
        packer = zstandard.ZstdCompressor(
            level=1, write_checksum=tape.chance(50), write_content_size=tape.chance(50)
        )
        data = packer.compress(content)
        if tape.chance(30):
            skipped = struct.pack("<II", 0x184D2A50 + tape.below(16), tape.below(20))
            data = skipped + bytes(skipped[4]) + data
        return data + (packer.compress(content[:half]) if tape.chance(20) else b""), kind
    if kind == "lzma parts":
        pad = bytes(tape.pick((0, 4, 3)))
        first, second = (lzma.compress(part, preset=0) for part in (content[:half], content[half:]))
        return first + pad + second, kind
    if kind == "gz parts":
        extra = tape.pick((b"", b"\0\0", b"garbage", b"\x1f\x8b"))
        parts = [gzip.compress(part, 1, mtime=0) for part in (content[:half], content[half:])]
        return b"".join(parts) + extra, kind
    return content, "none"


def _damaged(tape: Tape, data: bytes) -> bytes:
    if not tape.chance(30):
        return data
    new = bytearray(data)
    for _ in range(1 + tape.below(3)):
        where = tape.number(2) if tape.chance(50) else tape.below(80)
        how = tape.below(4)
        if how == 0 and new:
            new[where % len(new)] = tape.byte()
        elif how == 1:
            del new[where:]
        elif how == 2:
            new += bytes(tape.byte() for _ in range(tape.below(9)))
        else:
            del new[where : where + tape.below(9)]
    return bytes(new)


def _options(tape: Tape, size: int) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if tape.chance(25):
        options["format"] = tape.pick(("raw", "lime", "elf", "", "LIME", 7, None))
    if tape.chance(30):
        sizes = ("1MiB", "4PiB", PAGE, 0, -1, "", "x", size, 1 << 52, (1 << 52) + 1, 1.5)
        options["size"] = tape.pick((*sizes, "64KiB", "5GiB"))
    if tape.chance(25):
        options["regions"] = [
            (_address(tape), tape.pick((*_SIZES, size, 1 << 30, -1))) for _ in range(tape.below(4))
        ]
        if tape.chance(10):
            options["regions"] = tape.pick((5, "ab", [(1, 2, 3)], [("a", "b")], [None], b"abcd"))
    if tape.chance(10):
        options["max_bytes"] = tape.pick((0, 1, PAGE, "1MiB", -1, "many"))
    if tape.chance(15):
        options["progress"] = lambda done, total: (done, total)
    return options


# -------------------------------------------------------------------------------------- use


def _use(tape: Tape, memory: PhysicalMemory) -> None:
    """Everything that a memory offers to readers of it."""
    regions = memory.regions
    for (start, size), (following, _) in itertools.pairwise([*regions, (1 << 53, 0)]):
        assert size > 0
        assert start + size < following or following == 1 << 53
        assert start + size <= 1 << 52
        assert len(memory.read(start, min(size, 3 * PAGE))) == min(size, 3 * PAGE)
        memory.read_u64(start + size - 8)
        _refused(memory, start + size - 4)
    frames = memory.frames()
    assert memory.frames_held * PAGE + memory.mapped_bytes >= len(frames) * PAGE
    assert all(memory.is_ram(int(frame)) for frame in frames[:64])
    assert np.array_equal(frames, np.unique(frames))
    found = memory.find_vmcbs()
    assert np.isin(found["pa"], frames).all()
    stored = _stored(memory)
    twin = copy.copy(memory)
    assert twin.regions == regions
    assert _stored(twin) == stored
    image = memory.image
    assert image is not None
    try:
        restored = pickle.loads(pickle.dumps(memory))
    except (PyvirtError, OSError):
        assert image.mapped, "only a mapped file may be gone"
    else:
        assert restored.regions == regions
        assert _stored(restored) == stored
    if len(frames):
        pa = int(tape.pick(frames[:256].tolist())) + tape.below(4096 - 8)
        before = memory.read(pa, 8)
        twin.write_u64(pa, ~int.from_bytes(before, "little") & (1 << 64) - 1)
        assert memory.read(pa, 8) == before
        assert twin.read(pa, 8) != before


def _refused(memory: PhysicalMemory, pa: int) -> None:
    try:
        memory.read(pa, 8)
    except OutsideMemoryError:
        return
    raise AssertionError(f"a read beyond RAM at {pa:#x}")


def _stored(memory: PhysicalMemory) -> dict[int, bytes]:
    """The frames that are not zero (of the first few)."""
    frames = memory.frames()[:512]
    blocks = memory.read_blocks(frames, PAGE)
    return {
        int(pa): block.tobytes() for pa, block in zip(frames, blocks, strict=True) if block.any()
    }


def _change_file(tape: Tape, path: Path, memory: PhysicalMemory) -> None:
    """A pickle of a memory whose file is another now is refused, or has what it had."""
    state = pickle.dumps(memory)
    before = _stored(memory)
    replacement = path.with_name("other")
    replacement.write_bytes(path.read_bytes()[: tape.number(2)] + b"more")
    shutil.move(replacement, path)  # the mapped file itself stays
    try:
        restored = pickle.loads(state)
    except (PyvirtError, OSError):
        return
    assert _stored(restored) == before


# zlib is what gzip files contain; a module that is missing would make each of them an OSError.
assert zlib.ZLIB_VERSION
