"""Boot a kernel as a multiboot loader does: what goes where in memory, and what the registers hold.

References
----------
.. [1] "Multiboot Specification version 0.6.96", sections 3.1 (header), 3.2 (machine state) and 3.3
   (boot information).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pyvirt.errors import ImageFormatError, InvalidValueError

__all__ = [
    "BOOT_MAGIC",
    "Loaded",
    "boot_information",
    "is_multiboot",
    "read_elf_kernel",
    "read_kernel",
]

#: What EAX holds when the kernel begins.
BOOT_MAGIC = 0x2BADB002
_HEADER_MAGIC = 0x1BADB002
_SEARCHED = 8192
_ALIGN_MODULES, _MEMORY_SIZES, _VIDEO = 1, 2, 4
_ADDRESSES = 1 << 16
#: Flags that this loader understands; of the others, those below 16 must be understood.
_KNOWN = _ALIGN_MODULES | _MEMORY_SIZES
_INFORMATION = 0x9000
_LOW = 639 << 10
_HIGH = 1 << 20
_EHDR = struct.Struct("<16sHHIIIIIHHHHHH")
_PHDR = struct.Struct("<8I")
_PT_LOAD = 1
_EM_386 = 3


@dataclass(frozen=True, slots=True)
class Loaded:
    """A kernel, ready to be copied into memory.

    Attributes
    ----------
    entry : int
        Where it begins.
    parts : tuple of (int, bytes, int)
        Physical address, bytes of the file, and bytes in memory, which are zero after those.
    """

    entry: int
    parts: tuple[tuple[int, bytes, int], ...]


def read_kernel(image: bytes, memory: int) -> Loaded:
    """Check a kernel and find its parts.

    Parameters
    ----------
    image : bytes
        A 32-bit ELF file with a multiboot 1 header in its first 8 KiB, or any file whose header
        gives its addresses (flag 16).
    memory : int
        Bytes of RAM.

    Raises
    ------
    ImageFormatError
        If it has no such header, asks for what this loader does not do, is cut, or does not fit.
    """
    at, flags = _header(image)
    if flags & 0xFFFF & ~_KNOWN:
        what = "a video mode" if flags & _VIDEO else f"feature {flags & 0xFFFF & ~_KNOWN:#x}"
        raise ImageFormatError(
            f"the multiboot header at {at:#x} asks for {what}, which is not there"
        )
    return _fitting(_addressed(image, at) if flags & _ADDRESSES else _elf(image), memory)


def read_elf_kernel(image: bytes, memory: int) -> Loaded:
    """Find the parts of a 32-bit ELF file that needs no multiboot header.

    Raises
    ------
    ImageFormatError
        If it is none, is cut, or does not fit.
    """
    return _fitting(_elf(image), memory)


def _fitting(loaded: Loaded, memory: int) -> Loaded:
    for where, _, size in loaded.parts:
        if where < _HIGH or where + size > memory:
            raise ImageFormatError(
                f"a part of the kernel at {where:#x} to {where + size:#x} does not fit between "
                f"{_HIGH:#x} and the end of memory, {memory:#x}"
            )
    return loaded


def is_multiboot(image: bytes) -> bool:
    """Tell whether a file has a multiboot 1 header where one must be."""
    return _find_header(image) is not None


def boot_information(memory: int, command_line: str = "") -> tuple[int, bytes]:
    """Give the address and bytes of the boot information: sizes and map of memory, command line.

    Raises
    ------
    InvalidValueError
        For a command line of more than 1,023 characters, or one that is not ASCII.
    """
    if not command_line.isascii() or len(command_line) > 1023 or "\0" in command_line:
        raise InvalidValueError(
            f"command_line must be up to 1023 ASCII characters, got {command_line!r:.80}"
        )
    areas = [(0, _LOW), (_HIGH, memory - _HIGH)]
    records = b"".join(struct.pack("<IQQI", 20, start, size, 1) for start, size in areas)
    line = _INFORMATION + 128 + len(records)
    head = struct.pack(
        "<11I", 1 | 1 << 2 | 1 << 6, _LOW >> 10, (memory - _HIGH) >> 10, 0, line, 0, 0, 0, 0, 0, 0
    )
    head += struct.pack("<2I", len(records), _INFORMATION + 128)
    return _INFORMATION, head.ljust(128, b"\0") + records + command_line.encode() + b"\0"


def _find_header(image: bytes) -> tuple[int, int] | None:
    for at in range(0, min(len(image), _SEARCHED) - 11, 4):
        magic, flags, checksum = struct.unpack_from("<3I", image, at)
        if magic == _HEADER_MAGIC and (magic + flags + checksum) & 0xFFFFFFFF == 0:
            return at, flags
    return None


def _header(image: bytes) -> tuple[int, int]:
    found = _find_header(image)
    if found is None:
        raise ImageFormatError(
            f"no multiboot 1 header in the first {_SEARCHED} bytes of the file, and no Linux boot "
            f"image"
        )
    return found


def _addressed(image: bytes, at: int) -> Loaded:
    """The header says where all goes."""
    if at + 32 > len(image):
        raise ImageFormatError(f"the multiboot header at {at:#x} is cut")
    header, load, load_end, bss_end, entry = struct.unpack_from("<5I", image, at + 12)
    start = at - (header - load)
    if not load <= header or start < 0:
        raise ImageFormatError(
            f"the multiboot header at {at:#x} puts the file's beginning at {load:#x}, and "
            f"itself at {header:#x}"
        )
    size = load_end - load if load_end else len(image) - start
    if size < 0 or start + size > len(image):
        raise ImageFormatError(
            f"the multiboot header at {at:#x} loads {size} bytes from {start:#x} of a file of "
            f"{len(image)}"
        )
    whole = max(size, bss_end - load) if bss_end else size
    return Loaded(entry, ((load, image[start : start + size], whole),))


def _elf(image: bytes) -> Loaded:
    if len(image) < _EHDR.size or image[:4] != b"\x7fELF":
        raise ImageFormatError("the kernel is no ELF file, and its header gives no addresses")
    ident, _, machine, _, entry, phoff, *_ = fields = _EHDR.unpack_from(image)
    if ident[4] != 1 or ident[5] != 1 or machine != _EM_386:
        raise ImageFormatError(
            f"the kernel must be a 32-bit ELF file for i386 (3), got class {ident[4]} for "
            f"machine {machine}"
        )
    stride, number = fields[9], fields[10]
    if stride < _PHDR.size or phoff + stride * number > len(image):
        raise ImageFormatError(
            f"the table of {number} program headers of {stride} bytes at {phoff:#x} does not lie "
            f"in the file of {len(image)} bytes"
        )
    parts = []
    for i in range(number):
        kind, offset, virtual, where, size, whole, _, _ = _PHDR.unpack_from(
            image, phoff + stride * i
        )
        if kind != _PT_LOAD or not whole:
            continue
        if offset + size > len(image) or size > whole:
            raise ImageFormatError(
                f"segment {i} has {size} bytes at {offset:#x} of a file of {len(image)}, and "
                f"{whole} in memory"
            )
        parts.append((where, image[offset : offset + size], whole))
        if virtual <= fields[4] < virtual + whole:
            # linked for addresses that the kernel maps later: begin where that byte was put
            entry = fields[4] - virtual + where
    if not parts:
        raise ImageFormatError("the kernel has nothing to load")
    return Loaded(entry, tuple(parts))
