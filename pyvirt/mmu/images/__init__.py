"""Readers of physical memory images: what a file lists, checked, and where its bytes are.

Nothing here knows how memory is held: `read_image` yields records, and whoever holds the memory
maps or copies their bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pyvirt.errors import ImageFormatError, InvalidValueError
from pyvirt.mmu.images import elfcore, lime, raw
from pyvirt.mmu.images.elfcore import CpuState
from pyvirt.mmu.images.records import ADDRESS_LIMIT, PAGE, Extents, Record
from pyvirt.mmu.images.streams import SUFFIXES, MappedFile, Progress, Source, Stream, open_source

__all__ = [
    "ADDRESS_LIMIT",
    "FORMATS",
    "PAGE",
    "CpuState",
    "Extents",
    "Image",
    "MappedFile",
    "Progress",
    "Record",
    "Source",
    "Stream",
    "detect_format",
    "open_source",
    "read_image",
]

FORMATS = ("raw", "lime", "elf")

# What is known by its first bytes and cannot be read, with what to do instead.
_DUMP_AGAIN = "write the dump as ELF (`dump-guest-memory` without -z, -l, -s) or convert it"
_FOREIGN = (
    (lime.AVML_MAGIC, lime.AVML_ADVICE),
    (b"KDUMP   ", f"a kdump-compressed dump: {_DUMP_AGAIN} with `makedumpfile -E`"),
    (b"DISKDUMP", f"a diskdump: {_DUMP_AGAIN} with `makedumpfile -E`"),
    (b"makedumpfile\0", f"a flattened makedumpfile dump: {_DUMP_AGAIN} with `makedumpfile -R`"),
    (b"PAGEDU64", "a 64-bit Windows crash dump: convert it to a raw image"),
    (b"PAGEDUMP", "a 32-bit Windows crash dump: convert it to a raw image"),
    (b"HPAK", "an HPAK archive: extract the raw image"),
    (b"QEVM", "a QEMU migration stream: use `dump-guest-memory` or `pmemsave` instead"),
    (b"QFI\xfb", "a qcow2 disk image, not a memory image"),
    (b"\xd0\xbe\xd2\xbe", "a VMware suspend file: use the .vmem file beside it"),
    (b"\xd2\xbe\xd2\xbe", "a VMware suspend file: use the .vmem file beside it"),
    (b"\xd3\xbe\xd3\xbe", "a VMware suspend file: use the .vmem file beside it"),
    (b"\xfd7zXZ\0", "compressed twice: expand it once"),
    (b"\x1f\x8b\x08", "compressed twice: expand it once"),
    (b"\x28\xb5\x2f\xfd", "compressed twice: expand it once"),
    (b"BZh", "compressed with bzip2: expand it, or use xz, gzip or zstd"),
    (b"\x04\x22\x4d\x18", "compressed with lz4: expand it, or use xz, gzip or zstd"),
    (b"PK\x03\x04", "a zip archive: expand it, or use xz, gzip or zstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive: expand it, or use xz, gzip or zstd"),
)
# A name that says what is inside makes another beginning an error, not a raw image.
_NAMED = {".lime": "lime", ".avml": "lime", ".elf": "elf"}


class Image(NamedTuple):
    """What an image file holds.

    Attributes
    ----------
    format : {"raw", "lime", "elf"}
        Detected or given.
    records : iterable of Record
        For a stream to be used in order, the bytes of each before the next.
    repeats : list of Record
        Ranges that must turn out equal to what `records` gave.
    cpus : tuple of CpuState
        Processor states in the image.
    """

    format: str
    records: Iterable[Record]
    repeats: list[Record]
    cpus: tuple[CpuState, ...]


def detect_format(source: Source) -> str:
    """Tell the format of an image by its first bytes.

    Parameters
    ----------
    source : Source
        The image, expanded.

    Returns
    -------
    {"raw", "lime", "elf"}
        ``"raw"`` for what has no known magic, unless its name promises another format.

    Raises
    ------
    ImageFormatError
        If it is of a kind that is known and cannot be read.
    """
    head = source.read_at(0, 16)
    if head.startswith(lime.LIME_MAGIC):
        return "lime"
    if head.startswith(elfcore.ELF_MAGIC):
        return "elf"
    for magic, what in _FOREIGN:
        if head.startswith(magic):
            raise ImageFormatError(f"{source.name}: this is {what}")
    stem, suffix = os.path.splitext(os.fspath(source.name).lower())
    if suffix in SUFFIXES and source.compression != SUFFIXES[suffix]:
        raise ImageFormatError(
            f"{source.name}: named {suffix}, but begins with 0x{head[:6].hex()}; "
            'format="raw" reads it as it is'
        )
    if suffix in SUFFIXES:
        suffix = os.path.splitext(stem)[1]
    if suffix in _NAMED:
        raise ImageFormatError(
            f"{source.name}: named {suffix}, but begins with 0x{head[:4].hex()}; "
            'format="raw" reads it as it is'
        )
    return "raw"


def read_image(
    source: Source,
    format: str | None = None,
    regions: Sequence[tuple[int, int]] | None = None,
) -> Image:
    """Read what an image lists.

    Parameters
    ----------
    source : Source
        The image.
    format : {"raw", "lime", "elf"}, optional
        Detected by default.
    regions : sequence of (int, int), optional
        Where the content of a raw image belongs; other formats say so themselves.

    Returns
    -------
    Image
        Its records are checked as they are taken.

    Raises
    ------
    InvalidValueError
        For an unknown format.
    ImageFormatError
        If the image is not what its headers say, or nothing that is known.
    """
    if format is None:
        format = detect_format(source)
    if format == "lime":
        return Image(format, lime.read_records(source), [], ())
    if format == "elf":
        return Image(format, *elfcore.read_core(source))
    if format == "raw":
        return Image(format, raw.read_records(source, regions), [], ())
    raise InvalidValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r:.80}")
