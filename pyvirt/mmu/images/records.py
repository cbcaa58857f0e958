"""What an image lists: stretches of physical memory, and where in the file their bytes are."""

from __future__ import annotations

from typing import NamedTuple

from pyvirt.errors import ImageFormatError

__all__ = ["ADDRESS_LIMIT", "PAGE", "Extents", "Record"]

PAGE = 4096
ADDRESS_LIMIT = 1 << 52
"""The architecture's widest physical address; nothing may end beyond it."""


class Record(NamedTuple):
    """One stretch of physical memory."""

    start: int
    """First physical address."""
    end: int
    """One past the last."""
    offset: int | None
    """Where its bytes begin in the expanded image; None for memory that reads as zeros."""


class Extents:
    """The physical ranges seen so far: refuses overlaps, and tells what RAM they imply.

    Parameters
    ----------
    name : str
        The image, for messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._stored: list[tuple[int, int]] = []
        self._blank: list[tuple[int, int]] = []
        self._ascending = True

    def add(self, record: Record) -> None:
        """Take note of a record, of which only those without bytes may overlap others."""
        if record.offset is None:
            self._blank.append((record.start, record.end))
            return
        start, end = record.start, record.end
        if self._stored:
            before, last = self._stored[-1]
            if start == last:
                self._stored[-1] = (before, end)
                return
            self._ascending &= start > last
        self._stored.append((start, end))

    def check(self) -> None:
        """Raise `ImageFormatError` if two records give bytes for one address."""
        if self._ascending:
            return
        self._stored.sort()
        for (_, end), (start, _) in zip(self._stored, self._stored[1:], strict=False):
            if start < end:
                raise ImageFormatError(
                    f"{self._name}: records overlap at physical address {start:#x}"
                )
        self._ascending = True

    def ram(self) -> list[tuple[int, int]]:
        """All ranges as (start, size), widened to whole frames, sorted and merged."""
        self.check()
        merged: list[list[int]] = []
        for start, end in sorted(self._stored + self._blank):
            start &= -PAGE
            end = (end + PAGE - 1) & -PAGE
            if merged and start <= merged[-1][1]:
                merged[-1][1] = max(end, merged[-1][1])
            else:
                merged.append([start, end])
        return [(start, end - start) for start, end in merged]
