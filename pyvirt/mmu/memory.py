"""Physical memory that can be opened from an image file."""

from __future__ import annotations

import mmap
import os
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple, Self, SupportsIndex

import numpy as np
import numpy.typing as npt

from pyvirt._core.physmem import PhysMem
from pyvirt.errors import ImageFormatError, InvalidTypeError, InvalidValueError, LimitError
from pyvirt.mmu.images import (
    ADDRESS_LIMIT,
    FORMATS,
    PAGE,
    CpuState,
    Extents,
    Image,
    Progress,
    Record,
    Source,
    open_source,
    read_image,
)
from pyvirt.mmu.vmcb import find_vmcbs
from pyvirt.units import parse_size

__all__ = ["ImageInfo", "PhysicalMemory"]

_Size = str | SupportsIndex
_Ranges = list[tuple[int, int]]


class ImageInfo(NamedTuple):
    """Where the content of a memory came from.

    Attributes
    ----------
    path : str
        The file, absolute.
    format : {"raw", "lime", "elf"}
        Its format.
    compression : {"xz", "gz", "zst", None}
        How it is compressed.
    file_bytes, mtime_ns : int
        Size and time of change when it was opened.
    records : int
        Stretches of memory that it lists.
    cpus : tuple of CpuState
        Processor states that it holds, in QEMU's ELF dumps.
    mapped : tuple of (int, int, int)
        Physical address, file offset and size of the parts that are used in place.
    """

    path: str
    format: str
    compression: str | None
    file_bytes: int
    mtime_ns: int
    records: int
    cpus: tuple[CpuState, ...]
    mapped: tuple[tuple[int, int, int], ...]


class PhysicalMemory(PhysMem):
    """Sparse physical memory of a simulated machine.

    Parameters
    ----------
    size : int or str, optional
        RAM from address 0, such as ``"4GiB"`` or a number of bytes.
    regions : sequence of (start, size), optional
        Instead of `size`: each stretch of RAM, in the same notations.
    huge_pages : bool, default True
        Whether large memories may ask the system for huge pages.

    Attributes
    ----------
    image : ImageInfo or None
        The file that `open` read.

    Examples
    --------
    >>> import pyvirt as pv
    >>> memory = pv.PhysicalMemory("64MiB")
    >>> memory.write_u64(0x1000, 0x2003)
    >>> memory.read_u64(0x1000), memory.frames_held
    (8195, 1)
    """

    image: ImageInfo | None = None

    def __init__(
        self,
        size: _Size | None = None,
        *,
        regions: Sequence[tuple[_Size, _Size]] | None = None,
        huge_pages: bool = True,
    ) -> None:
        super().__init__(
            None if size is None else parse_size(size),
            regions=None if regions is None else _parse_regions(regions),
            huge_pages=huge_pages,
        )

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        format: str | None = None,
        size: _Size | None = None,
        regions: Sequence[tuple[_Size, _Size]] | None = None,
        max_bytes: _Size | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Open a memory image.

        Raw files, LiME records and ELF segments are mapped and read where they are used; what
        is compressed (.xz, .gz, .zst, by its first bytes) is expanded as a stream, of which
        only frames that are not zero are held.

        Parameters
        ----------
        path : path
            The file.
        format : {"raw", "lime", "elf"}, optional
            Detected by default: LiME and ELF by their magic, anything else is raw.
        size : int or str, optional
            RAM is flat from 0 to here, such as ``"256MiB"``; frames that the file does not
            list are zero. By default RAM is what the file lists.
        regions : sequence of (start, size), optional
            Stretches of RAM. A raw file holds them one after the other; the records of other
            files must lie within them.
        max_bytes : int or str, optional
            The most memory to fill with frames that are not zero.
        progress : callable, optional
            Called now and then with the bytes of the file that are done and its size, or None
            if that is not known.

        Returns
        -------
        PhysicalMemory
            Writing to it does not change the file.

        Raises
        ------
        ImageFormatError
            If the file is empty, damaged, or contradicts itself or `size` or `regions`.
        OSError
            If it cannot be opened or read.
        LimitError
            If it holds more than `max_bytes`.
        MissingDependencyError
            If a library is needed to expand it.
        InvalidValueError, InvalidTypeError
            For unknown formats and impossible sizes.

        Notes
        -----
        A file that is mapped must stay as it is for as long as the memory is used: cutting it
        short ends the process, as with any mapped file.
        """
        if format is not None and format not in FORMATS:
            raise InvalidValueError(
                f"format must be one of {', '.join(FORMATS)}, got {format!r:.80}"
            )
        if size is not None and regions is not None:
            raise InvalidTypeError("give either size or regions")
        layout = None if regions is None else _parse_regions(regions)
        limit = None if max_bytes is None else parse_size(max_bytes, "max_bytes")
        memory = None if size is None and layout is None else cls(size, regions=layout)
        with open_source(path, progress) as source:
            return cls._filled(memory, source, read_image(source, format, layout), limit)

    @classmethod
    def _filled(
        cls, memory: Self | None, source: Source, image: Image, max_bytes: int | None
    ) -> Self:
        """Put an image into an empty memory; None for one with the RAM that the image lists."""
        extents = Extents(source.name)
        records = image.records
        if source.mapping is not None:
            # All headers are at hand: nothing is mapped before they are known to be sound.
            records = list(records)
            for record in records:
                extents.add(record)
            if memory is None:
                memory = cls(regions=extents.ram())
        if narrow := memory is None:
            # Of a stream, only the end tells what RAM there was.
            memory = cls(ADDRESS_LIMIT)
        inside = _Inside(memory.regions)
        mapped = []
        count = 0
        for record in records:
            count += 1
            if record not in inside:
                raise ImageFormatError(
                    f"{source.name}: it lists physical memory from {record.start:#x} to "
                    f"{record.end - 1:#x}, outside the given RAM"
                )
            if source.mapping is None:
                extents.add(record)
            if (place := memory._place(source, record, max_bytes)) is not None:
                mapped.append(place)
        for record in image.repeats:
            memory._compare(source, record)
        source.finish()
        listed = extents.ram()
        if narrow:
            memory._narrow(listed)
        memory.image = ImageInfo(
            path=os.path.abspath(source.name),
            format=image.format,
            compression=source.compression,
            file_bytes=source.status.st_size,
            mtime_ns=source.status.st_mtime_ns,
            # the records of a raw stream are pieces that nobody listed
            records=len(listed) if image.format == "raw" else count,
            cpus=image.cpus,
            mapped=tuple(mapped),
        )
        return memory

    def _place(
        self, source: Source, record: Record, max_bytes: int | None
    ) -> tuple[int, int, int] | None:
        """Map the whole frames of a record if they can be, copy the rest; tell what is mapped."""
        start, end, offset = record
        if offset is None:
            return None
        low, high = (start + PAGE - 1) & -PAGE, end & -PAGE
        if source.mapping is None or low >= high:
            self._copy(source, start, end, offset, max_bytes)
            return None
        place = low, offset + low - start, high - low
        self._copy(source, start, low, offset, max_bytes)
        self.attach(place[0], source.mapping, place[1], place[2])
        self._copy(source, high, end, offset + high - start, max_bytes)
        return place

    def _copy(
        self, source: Source, start: int, end: int, offset: int, max_bytes: int | None
    ) -> None:
        for chunk in source.chunks(offset, end - start):
            self.load(start, chunk)
            start += len(chunk)
            if max_bytes is not None and self.frames_held * PAGE > max_bytes:
                raise LimitError(
                    f"{source.name}: its frames that are not zero take more than "
                    f"max_bytes={max_bytes}"
                )

    def _compare(self, source: Source, record: Record) -> None:
        """Check that an image which gives a range twice gives the same bytes."""
        start, end, offset = record
        assert offset is not None
        for chunk in source.chunks(offset, end - start):
            if self.read(start, len(chunk)) != chunk:
                raise ImageFormatError(
                    f"{source.name}: it gives two contents for physical addresses "
                    f"{record.start:#x} to {record.end - 1:#x}"
                )
            start += len(chunk)

    def find_vmcbs(self) -> npt.NDArray[np.void]:
        """Find the virtual machine control blocks of AMD-V: the roots of nested guests.

        Returns
        -------
        ndarray
            One element for each frame that VMRUN would accept, by address, with the fields
            ``pa`` (the frame), ``n_cr3`` (nested root), ``np_enable`` (whether that is in
            use), ``guest_cr3`` (with nested paging, an address in the guest; without, the
            shadow root), ``cr0``, ``cr4``, ``efer``, ``rip``, ``cpl`` and ``asid``.

        See Also
        --------
        pyvirt.mmu.vmcb.find_vmcbs : The rules, with their sources.
        """
        return find_vmcbs(self)

    # --- state as a value: a mapped file is named, not stored ---

    def __getstate__(self) -> dict[str, Any]:
        image = self.image
        if image is None or self.mapped_bytes != sum(size for _, _, size in image.mapped):
            return super().__getstate__()  # refuses buffers that no file stands for
        return {
            "owned": self._get_owned(),
            "version": self.version,
            "attributes": self.__dict__,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        image: ImageInfo | None = state["attributes"].get("image")
        if image is not None and image.mapped:
            mapping = _map_again(image)
            for start, offset, size in image.mapped:
                self.attach(start, mapping, offset, size)
        super().__setstate__(state)


class _Inside:
    """Whether RAM contains all of a record."""

    def __init__(self, regions: _Ranges) -> None:
        self._starts = [start for start, _ in regions]
        self._ends = [start + size for start, size in regions]

    def __contains__(self, record: Record) -> bool:
        i = bisect_right(self._starts, record.start) - 1
        return i >= 0 and record.end <= self._ends[i]


def _parse_regions(regions: Sequence[tuple[_Size, _Size]]) -> _Ranges:
    try:
        pairs = [(start, size) for start, size in regions]
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(
            f"regions must be (start, size) pairs, got {regions!r:.80}"
        ) from error
    return [
        (parse_size(start, "region start"), parse_size(size, "region size"))
        for start, size in pairs
    ]


def _map_again(image: ImageInfo) -> mmap.mmap:
    """Map the file of a memory that was pickled, if it is still the same."""
    with open(image.path, "rb") as file:
        status = os.fstat(file.fileno())
        if (status.st_size, status.st_mtime_ns) != (image.file_bytes, image.mtime_ns):
            raise ImageFormatError(
                f"{image.path}: the file has changed since the memory was pickled: "
                f"{status.st_size} bytes of {status.st_mtime_ns} ns, "
                f"not {image.file_bytes} of {image.mtime_ns}"
            )
        return mmap.mmap(file.fileno(), image.file_bytes, access=mmap.ACCESS_READ)
