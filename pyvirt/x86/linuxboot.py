"""Boot a Linux boot image (bzImage) by the 32-bit boot protocol, which other programs use, too.

References
----------
.. [1] Linux, Documentation/arch/x86/boot.rst: the real-mode header, "Loading the rest of the
   kernel", and "32-bit boot protocol"; Documentation/arch/x86/zero-page.rst: what the boot
   parameters hold.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pyvirt.errors import ImageFormatError, InvalidValueError
from pyvirt.x86.bzimage import extract_kernel, is_bzimage
from pyvirt.x86.multiboot import Loaded, read_elf_kernel

__all__ = ["BOOT_CODE", "BOOT_DATA", "LinuxBoot", "read_linux"]

#: The selectors that the protocol wants, and a GDT that has them: 4 GiB from 0, 32 bit, CPL 0.
BOOT_CODE, BOOT_DATA = 0x10, 0x18
_GDT = struct.pack("<4Q", 0, 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF)
_GDT_AT, _PARAMETERS, _LINE = 0x8000, 0x9000, 0xA000
_LOW = 639 << 10
_HIGH = 1 << 20
_HEADER = 0x1F1
_LEAST = 0x0202  # what says where a command line goes
_LOADED_HIGH = 1
_RAM, _RESERVED = 1, 2


@dataclass(frozen=True, slots=True)
class LinuxBoot:
    """A boot image, ready to be copied into memory.

    Attributes
    ----------
    loaded : Loaded
        Entry and parts: the protected-mode code, boot parameters, command line and a GDT.
    parameters : int
        Address of the boot parameters, for ESI.
    gdt, gdt_limit : int
        Where the GDT is.
    """

    loaded: Loaded
    parameters: int
    gdt: int
    gdt_limit: int


def read_linux(
    image: bytes,
    memory: int,
    command_line: str = "",
    ramdisk: bytes = b"",
    *,
    unpack: bool = False,
) -> LinuxBoot:
    """Check a boot image and lay it out.

    The screen is in VGA's colour text mode, 80 by 25, with the cursor at its top.

    Parameters
    ----------
    image : bytes
        All of the file. Its real-mode code is not run.
    memory : int
        Bytes of RAM.
    command_line : str
        ASCII, as long as the image takes.
    ramdisk : bytes
        An initial RAM disk, which goes to the end of memory.
    unpack : bool
        Decompress the kernel here, so that the guest has not to: it begins at the kernel's own
        entry, which expects the same. Nothing is relocated.

    Raises
    ------
    ImageFormatError
        If it is no boot image with protected-mode code at 1 MiB, is cut, or does not fit; or, to
        unpack, if it does not hold a kernel that can be.
    InvalidValueError
        For a command line that is too long, or not ASCII.
    """
    if not is_bzimage(image) or len(image) < 0x264:
        raise ImageFormatError("the kernel has no header of a Linux boot image")
    protocol, flags = struct.unpack_from("<H", image, 0x206)[0], image[0x211]
    if protocol < _LEAST or not flags & _LOADED_HIGH:
        raise ImageFormatError(
            f"the boot image has protocol {protocol >> 8}.{protocol & 0xFF:02}, load flags "
            f"{flags:#x}; 2.02 or later and code at 1 MiB are needed"
        )
    start = ((image[_HEADER] or 4) + 1) * 512
    code = image[start:]
    (entry,) = struct.unpack_from("<I", image, 0x214)
    # what it wants to have to itself until it has moved or decompressed itself
    (whole,) = struct.unpack_from("<I", image, 0x260) if protocol >= 0x020A else (0,)
    if not code:
        raise ImageFormatError(f"the boot image of {len(image)} bytes ends before {start:#x}")
    if _HIGH + max(len(code), whole) > memory:
        raise ImageFormatError(
            f"the boot image needs {max(len(code), whole):#x} bytes from {_HIGH:#x} on; memory "
            f"ends at {memory:#x}"
        )
    if not _HIGH <= entry < _HIGH + len(code):
        raise ImageFormatError(f"the boot image begins at {entry:#x}, outside of its code")
    # before 2.06 a header does not say how long a line may be
    most = struct.unpack_from("<I", image, 0x238)[0] if protocol >= 0x0206 else 255
    most = min(most, 0x1000)
    if not command_line.isascii() or "\0" in command_line or len(command_line) > most:
        raise InvalidValueError(
            f"command_line must be up to {most} ASCII characters, got {command_line!r:.80}"
        )
    disk_at = _place(image, protocol, memory, len(ramdisk), _HIGH + max(len(code), whole))
    parts = [(_HIGH, code, len(code))]
    if unpack:
        kernel = read_elf_kernel(extract_kernel(image), memory)
        entry, parts = kernel.entry, [*kernel.parts]
        if ramdisk and max(where + size for where, _, size in parts) > disk_at:
            raise ImageFormatError(f"the kernel reaches beyond {disk_at:#x}, where its RAM disk is")
    parts += [
        (_GDT_AT, _GDT, len(_GDT)),
        (_PARAMETERS, _parameters(image, memory, disk_at, len(ramdisk)), 4096),
        (_LINE, command_line.encode() + b"\0", len(command_line) + 1),
    ]
    if ramdisk:
        parts.append((disk_at, ramdisk, len(ramdisk)))
    return LinuxBoot(Loaded(entry, tuple(parts)), _PARAMETERS, _GDT_AT, len(_GDT) - 1)


def _place(image: bytes, protocol: int, memory: int, size: int, least: int) -> int:
    """Find the highest page at which a RAM disk may begin."""
    if not size:
        return 0
    # before 2.03 the header does not say how high it may reach
    (highest,) = struct.unpack_from("<I", image, 0x22C) if protocol >= 0x0203 else (0x37FFFFFF,)
    where = (min(memory, highest + 1) - size) & ~0xFFF
    if where < least:
        raise ImageFormatError(
            f"a RAM disk of {size} bytes does not fit between the kernel's end at {least:#x} and "
            f"{min(memory, highest + 1):#x}"
        )
    return where


def _parameters(image: bytes, memory: int, disk_at: int, disk_size: int) -> bytes:
    """Fill the 4,096 bytes of `struct boot_params`: screen, header, map of memory."""
    page = bytearray(4096)
    beyond = memory - _HIGH
    # orig_x, orig_y, ext_mem_k; page, mode 3, columns; lines, VGA, points
    struct.pack_into("<BBH", page, 0x00, 0, 0, min(beyond >> 10, 0xFFFF))
    struct.pack_into("<HBB", page, 0x04, 0, 3, 80)
    struct.pack_into("<BBH", page, 0x0E, 25, 1, 16)
    struct.pack_into("<I", page, 0x1E0, min(beyond >> 10, 0xFFFFFFFF))
    end = min(0x202 + image[0x201], 0x290)
    page[_HEADER:end] = image[_HEADER:end]
    page[0x210] = 0xFF  # a loader without a number
    struct.pack_into("<II", page, 0x218, disk_at, disk_size)
    struct.pack_into("<I", page, 0x228, _LINE)
    areas = [(0, _LOW, _RAM), (_LOW, _HIGH - _LOW, _RESERVED), (_HIGH, beyond, _RAM)]
    page[0x1E8] = len(areas)
    for i, area in enumerate(areas):
        struct.pack_into("<QQI", page, 0x2D0 + 20 * i, *area)
    return bytes(page)
