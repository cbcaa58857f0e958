"""Raw images: physical memory and nothing else, from address 0 or laid out as the caller says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pyvirt.errors import ImageFormatError
from pyvirt.mmu.images.records import ADDRESS_LIMIT, Record
from pyvirt.mmu.images.streams import Source

__all__ = ["read_records"]


def read_records(
    source: Source, regions: Sequence[tuple[int, int]] | None = None
) -> Iterator[Record]:
    """Yield the content of a raw image.

    Parameters
    ----------
    source : Source
        The image.
    regions : sequence of (int, int), optional
        Start and size of each stretch of physical memory, in the order of the file, which they
        must use up. By default all of the file is one stretch from address 0.

    Yields
    ------
    Record
        One for each region of a mapped file, one for each piece of a stream.

    Raises
    ------
    ImageFormatError
        If the file holds less or more than the regions.
    """
    offset = 0
    for start, size in [(0, ADDRESS_LIMIT)] if regions is None else regions:
        end = start + size
        while start < end and (count := min(source.ready(offset), end - start)):
            yield Record(start, start + count, offset)
            start += count
            offset += count
        if start < end and regions is not None:
            raise ImageFormatError(
                f"{source.name}: the image ends at {offset:#x}, {end - start:#x} bytes short of "
                f"the region that ends at physical address {end:#x}"
            )
    if source.ready(offset):
        limit = "the 52-bit physical addresses" if regions is None else "the given regions"
        raise ImageFormatError(f"{source.name}: the image has more than {offset:#x} bytes, {limit}")
