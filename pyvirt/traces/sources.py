"""Where the bytes of a trace come from: a mapped file, a stream, or the members of an archive."""

from __future__ import annotations

import builtins
import lzma
import mmap
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing
from io import BufferedReader
from typing import IO

from pyvirt.compression import detect_compression, expand
from pyvirt.errors import TraceFormatError

__all__ = ["Piece", "Source"]

Piece = bytes | memoryview
_PIECE = 1 << 18  # bytes handed on at a time
_HEAD = 1 << 12  # of which the format is told
_ZIP_MAGIC = b"PK\x03\x04"
_LOCAL_HEADER = 30
# What zipfile makes of damaged archives, and of encrypted ones.
_ZIP_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, KeyError, RuntimeError, ValueError),
)


class Source:
    """The expanded bytes of a trace file, once, in order.

    Parameters
    ----------
    path : path
        A file, or a pipe.

    Attributes
    ----------
    name : str
        The path, for messages.
    compression : {"xz", "gz", "zst", "bz2", None}
        By the first bytes.
    total_bytes : int or None
        Size of the file; None for a pipe.
    position : int
        Bytes of the file that have been read.
    is_zip : bool
        Whether it is a zip archive: then `members` gives its bytes.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fspath(path)
        self._file: BufferedReader = builtins.open(path, "rb")  # noqa: SIM115 - see `close`
        self._pieces: Generator[Piece, None, None] | None = None
        self._drawn: list[Piece] = []
        self._map: mmap.mmap | None = None
        self._failure: TraceFormatError | None = None
        self.position = 0
        try:
            status = os.fstat(self._file.fileno())
            regular = stat.S_ISREG(status.st_mode)
            self.total_bytes = status.st_size if regular else None
            start = self._file.peek(8)
            self.compression = detect_compression(start)
            self.is_zip = regular and start.startswith(_ZIP_MAGIC)
            self._plain = regular and self.compression is None
            if not self._plain:
                self._pieces = self._expanded()
        except BaseException:
            self._file.close()
            raise

    def head(self) -> bytes:
        """Give the first few thousand bytes, or fewer if there are no more."""
        if self._plain:
            head = self._file.read(_HEAD)
            self._file.seek(0)
            return head
        while sum(map(len, self._drawn)) < _HEAD:
            assert self._pieces is not None  # as it is not plain
            try:
                piece = next(self._pieces, None)
            except TraceFormatError as error:
                self._failure = error  # told when the bytes before it have been used
                break
            if piece is None:
                break
            self._drawn.append(bytes(piece))
        return b"".join(self._drawn)[:_HEAD]

    def mapping(self) -> memoryview | None:
        """Map the whole file read-only, if it is a plain one that is not empty."""
        if not self._plain or not self.total_bytes:
            return None
        if self._map is None:
            try:
                self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError as error:
                raise TraceFormatError(f"{self.name}: the file has shrunk") from error
        return memoryview(self._map)

    def pieces(self) -> Iterator[Piece]:
        """Hand on the bytes; each piece is valid until the next one is asked for."""
        if self._plain:
            while piece := self._file.read1(_PIECE):
                self.position += len(piece)
                yield piece
            return
        drawn, self._drawn = self._drawn, []
        yield from drawn
        if self._failure is not None:
            raise self._failure
        assert self._pieces is not None  # as it is not plain
        yield from self._pieces

    def members(self, names: list[str]) -> Iterator[Piece]:
        """Hand on the bytes of some members of an archive, one after the other."""
        try:
            with zipfile.ZipFile(self._file) as archive:
                for name in names:
                    with archive.open(name) as member:
                        yield from self._read(member)
        except _ZIP_DAMAGE as error:
            raise TraceFormatError(f"{self.name}: damaged archive: {error}") from error

    def member_names(self) -> list[str] | None:
        """List the members of an archive; None where its directory is lost."""
        try:
            with zipfile.ZipFile(self._file) as archive:
                return archive.namelist()
        except _ZIP_DAMAGE:
            return None

    def salvage(self) -> Iterator[Piece]:
        """Hand on what can be read of an archive that is cut, then raise."""
        self._file.seek(0)
        data = b""
        while True:
            while len(data) < _LOCAL_HEADER and (more := self._file.read(_PIECE)):
                data += more
            if not data.startswith(_ZIP_MAGIC) or data[8:10] != b"\x08\0":  # deflate only
                break
            start = _LOCAL_HEADER + sum(
                int.from_bytes(data[at : at + 2], "little") for at in (26, 28)
            )
            while len(data) < start and (more := self._file.read(_PIECE)):
                data += more
            inner = zlib.decompressobj(wbits=-15)
            data = data[start:]
            try:
                while not inner.eof and (data or (data := self._file.read(_PIECE))):
                    if piece := inner.decompress(data, _PIECE):
                        yield piece
                    data = inner.unconsumed_tail
            except zlib.error:
                break
            data = inner.unused_data + self._file.read(64)
            _, magic, rest = data.partition(_ZIP_MAGIC)  # after a data descriptor, perhaps
            data = magic + rest
            self.position = self._file.tell()
        raise TraceFormatError(f"{self.name}: the archive is cut: its directory is missing")

    def close(self) -> None:
        """Stop expanding and close the file; arrays over its mapping stay usable."""
        if self._pieces is not None:
            self._pieces.close()
        self._file.close()

    def _read(self, member: IO[bytes]) -> Iterator[bytes]:
        while piece := member.read1(_PIECE):  # type: ignore[attr-defined] # zipfile's has it
            self.position = self._file.tell() if not self._file.closed else self.position
            yield piece

    def _expanded(self) -> Generator[Piece, None, None]:
        expanded = expand(self._file, self.compression, self.name, _PIECE, error=TraceFormatError)
        with closing(expanded) as pieces:
            for piece, done in pieces:
                self.position = done
                yield piece
