"""Where the bytes of an image come from: a file to map, or a stream that is read once, forwards."""

from __future__ import annotations

import mmap
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from io import BufferedReader
from types import TracebackType
from typing import Self

from pyvirt import compression as packing
from pyvirt.errors import ImageFormatError

__all__ = ["CHUNK", "SUFFIXES", "MappedFile", "Progress", "Source", "Stream", "open_source"]

CHUNK = 1 << 20
"""Bytes that are handed on at a time, and the part of a stream's beginning that is kept."""

SUFFIXES = {suffix: kind for suffix, kind in packing.SUFFIXES.items() if kind != "bz2"}
"""Compressions in which images are read; a file of bzip2 is refused by name."""

Progress = Callable[[int, int | None], object]
"""Called with the bytes of the file that are done, and its size where that is known."""


class Source(ABC):
    """What a format reader needs: bytes by their offset in the expanded image.

    Attributes
    ----------
    name : str
        The path, for messages.
    compression : {"xz", "gz", "zst", None}
        How the file is compressed.
    size : int or None
        Bytes of the expanded image; None where only the end of the stream will tell.
    mapping : mmap or None
        The whole file, where it can be used in place.
    status : os.stat_result
        Of the open file.
    """

    name: str
    compression: str | None = None
    size: int | None = None
    mapping: mmap.mmap | None = None
    status: os.stat_result

    @abstractmethod
    def read_at(self, offset: int, n: int) -> bytes:
        """Up to `n` bytes; fewer only at the end of the image."""

    @abstractmethod
    def ready(self, offset: int) -> int:
        """How many bytes are at hand from `offset` on; 0 only at the end of the image."""

    @abstractmethod
    def chunks(self, offset: int, n: int) -> Iterator[bytes | memoryview]:
        """Exactly `n` bytes, in pieces; `ImageFormatError` if the image ends before."""

    @abstractmethod
    def finish(self) -> None:
        """Read what is left, so that damage at the very end is found, too."""

    @abstractmethod
    def close(self) -> None:
        """Close the file. A mapping stays for those that use it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class MappedFile(Source):
    """An uncompressed regular file, mapped read-only.

    Its headers are read, not looked up in the mapping: a file that has shrunk then gives an
    error, where touching the mapping would end the process.
    """

    size: int

    def __init__(self, file: BufferedReader, name: str, progress: Progress | None) -> None:
        self.name = name
        self.status = os.fstat(file.fileno())
        self.size = self.status.st_size
        self._file = file
        self._progress = progress
        try:
            self.mapping = mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise self._shrunk() from error

    def read_at(self, offset: int, n: int) -> bytes:
        """Read from the file."""
        if offset >= self.size:
            return b""
        self._file.seek(offset)
        data = self._file.read(min(n, self.size - offset))
        if len(data) < min(n, self.size - offset):
            raise self._shrunk()
        return data

    def ready(self, offset: int) -> int:
        """Give what is left of the file."""
        return max(0, self.size - offset)

    def chunks(self, offset: int, n: int) -> Iterator[bytes]:
        """Read from the file, piece by piece."""
        if offset + n > self.size:
            raise _truncated(self.name, self.size, offset + n)
        for start in range(offset, offset + n, CHUNK):
            yield self.read_at(start, min(CHUNK, offset + n - start))

    def finish(self) -> None:
        """Report the whole file as done: nothing was to be read."""
        if self._progress is not None:
            self._progress(self.size, self.size)

    def close(self) -> None:
        """Close the file; the mapping lives on."""
        self._file.close()

    def _shrunk(self) -> ImageFormatError:
        return ImageFormatError(f"{self.name}: the file has shrunk below {self.size} bytes")


class Stream(Source):
    """A compressed file or a pipe: the image passes once, in chunks, and is never held whole."""

    def __init__(
        self,
        file: BufferedReader,
        name: str,
        compression: str | None,
        progress: Progress | None,
    ) -> None:
        self.name = name
        self.compression = compression
        self.status = os.fstat(file.fileno())
        self._file = file
        self._file_size = self.status.st_size if stat.S_ISREG(self.status.st_mode) else None
        self._progress = progress
        self._done = 0
        self._pieces = packing.expand(file, compression, name, CHUNK, error=ImageFormatError)
        self._piece = memoryview(b"")
        self._start = 0  # offset of the piece in the image
        self._head = b""  # the beginning of the image, which readers may return to
        self._advance()
        self._head = bytes(self._piece[:CHUNK])

    def read_at(self, offset: int, n: int) -> bytes:
        """Copy from the beginning, or from where the stream is, or ahead of that."""
        if offset + n <= len(self._head):
            return self._head[offset : offset + n]
        parts = []
        while n and (count := min(n, self.ready(offset))):
            at = offset - self._start
            parts.append(bytes(self._piece[at : at + count]))
            offset += count
            n -= count
        return b"".join(parts)

    def ready(self, offset: int) -> int:
        """Go forward to `offset`, and tell what is left of the piece there."""
        if offset < self._start:
            raise ImageFormatError(
                f"{self.name}: the image refers back from {self._start:#x} to {offset:#x}, which "
                "cannot be read from a stream: expand the file first"
            )
        while offset >= self._start + len(self._piece):
            if not self._advance():
                return 0
        return self._start + len(self._piece) - offset

    def chunks(self, offset: int, n: int) -> Iterator[memoryview]:
        """Hand on the pieces, which stay valid until the next one."""
        while n:
            count = min(n, self.ready(offset))
            if not count:
                raise _truncated(self.name, self._start + len(self._piece), offset + n)
            at = offset - self._start
            yield self._piece[at : at + count]
            offset += count
            n -= count

    def finish(self) -> None:
        """Expand the rest."""
        while self._advance():
            pass
        if self._progress is not None:
            self._progress(self._file_size or self._done, self._file_size or self._done)

    def close(self) -> None:
        """Stop expanding and close the file."""
        self._pieces.close()
        self._file.close()

    def _advance(self) -> bool:
        """Fetch the next piece; False at the end, where the last one is kept."""
        piece, done = next(self._pieces, (None, self._done))
        if piece is None:
            self.size = self._start + len(self._piece)
            return False
        self._start += len(self._piece)
        self._piece = memoryview(piece)
        if self._progress is not None and done != self._done:
            self._progress(done, self._file_size)
        self._done = done
        return True


def open_source(path: str | os.PathLike[str], progress: Progress | None = None) -> Source:
    """Open an image file, whatever its name, compressed or not.

    Parameters
    ----------
    path : path
        A regular file; a pipe or device is read as a stream.
    progress : callable, optional
        Called now and then with the bytes done and the size of the file, or None.

    Returns
    -------
    Source
        To be closed by the caller.

    Raises
    ------
    OSError
        If the file cannot be opened or read.
    ImageFormatError
        If it is empty or its compression is damaged.
    """
    name = os.fspath(path)
    file = open(path, "rb")  # noqa: SIM115 - the source closes it
    try:
        status = os.fstat(file.fileno())
        regular = stat.S_ISREG(status.st_mode)
        if regular and status.st_size == 0:
            raise ImageFormatError(f"{name}: the file is empty")
        compression = packing.detect_compression(file.peek(8))
        if compression not in SUFFIXES.values():
            compression = None
        if regular and compression is None:
            return MappedFile(file, name, progress)
        source = Stream(file, name, compression, progress)
        if source.ready(0) == 0:
            raise ImageFormatError(f"{name}: the image is empty")
    except BaseException:
        file.close()
        raise
    return source


def _truncated(name: str, end: int, needed: int) -> ImageFormatError:
    return ImageFormatError(
        f"{name}: the image ends at {end:#x}, {needed - end:#x} bytes before what its headers list"
    )
