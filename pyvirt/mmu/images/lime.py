"""LiME images, version 1: a 32-byte header before each range of physical memory.

AVML writes the same format when it does not compress. Its compressed records have a magic of
their own and are refused.

References
----------
.. [1] J. Sylve, "LiME - Linux Memory Extractor", documentation, section "LiME format".
.. [2] Microsoft, AVML, README: "Uses LiME output format (when not using compression)".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pyvirt.errors import ImageFormatError
from pyvirt.mmu.images.records import ADDRESS_LIMIT, Record
from pyvirt.mmu.images.streams import Source

__all__ = ["AVML_ADVICE", "AVML_MAGIC", "LIME_MAGIC", "read_records"]

LIME_MAGIC = b"EMiL"  # 0x4C694D45, little-endian
AVML_MAGIC = b"AVML"  # 0x4C4D5641
AVML_ADVICE = "a compressed AVML image: convert it first, with `avml-convert IMAGE OUTPUT.lime`"
_MOST_RECORDS = 1 << 20  # of 60 frames each, as in images of real machines, they are 240 GiB
_HEADER = struct.Struct("<4sIQQ8x")  # magic, version, first address, last address, reserved


def read_records(source: Source) -> Iterator[Record]:
    """Yield the records of a LiME image, checked against each limit that a header can break.

    Parameters
    ----------
    source : Source
        The image. Bytes of a record may be read from it before the next one is asked for.

    Yields
    ------
    Record
        In the order of the file; overlaps are for the caller to find.

    Raises
    ------
    ImageFormatError
        Naming the offset of the header and the value that is wrong.
    """
    offset = count = 0
    while head := source.read_at(offset, _HEADER.size):
        where = f"{source.name}: LiME header at offset {offset:#x}"
        if head[:4] == AVML_MAGIC:
            raise ImageFormatError(f"{where}: {AVML_ADVICE}")
        if len(head) < _HEADER.size:
            raise ImageFormatError(f"{where} is truncated to {len(head)} of {_HEADER.size} bytes")
        magic, version, first, last = _HEADER.unpack(head)
        if magic != LIME_MAGIC:
            raise ImageFormatError(
                f"{where}: magic is 0x{magic[::-1].hex()}, not 0x{LIME_MAGIC[::-1].hex()}"
            )
        if version != 1:
            raise ImageFormatError(f"{where}: version is {version}, only 1 is known")
        if last < first:
            raise ImageFormatError(f"{where}: range is reversed, {first:#x} to {last:#x}")
        if last >= ADDRESS_LIMIT:
            raise ImageFormatError(
                f"{where}: range {first:#x} to {last:#x} leaves the 52-bit physical addresses"
            )
        if (count := count + 1) > _MOST_RECORDS:
            raise ImageFormatError(f"{where}: more than {_MOST_RECORDS} records")
        offset += _HEADER.size
        size = last + 1 - first
        if source.size is not None and size > source.size - offset:
            raise ImageFormatError(
                f"{where}: range {first:#x} to {last:#x} needs {size:#x} bytes, "
                f"the file has {source.size - offset:#x} left"
            )
        yield Record(first, last + 1, offset)
        offset += size
