"""Streaming decompression: bounded memory, every kind of damage named, what came before it kept."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator
from io import BufferedReader
from itertools import cycle
from typing import Any, Protocol

from pyvirt.errors import MissingDependencyError, PyvirtError

__all__ = ["SUFFIXES", "detect_compression", "expand"]

SUFFIXES = {".xz": "xz", ".gz": "gz", ".zst": "zst", ".bz2": "bz2"}
"""Compression by the ending of a file name; its magic bytes decide."""

_Piece = bytes | memoryview
_Errors = tuple[type[Exception], ...]
_INPUT = 1 << 18  # bytes read at a time
_AHEAD = 3  # pieces that wait to be asked for
_WINDOW = 1 << 29  # what a stream may make its decoder remember; `xz -9` needs 64 MiB
_ZST_MAGIC = 0xFD2FB528
_ZST_SKIPPABLE = 0x184D2A50  # low four bits are free (RFC 8878, 3.1.2)


class _Counted:
    """A file, with the bytes read so far: pipes cannot tell."""

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self.done = 0

    def read(self, n: int) -> bytes:
        data = self._file.read(n)
        self.done += len(data)
        return data


class _Decompressor(Protocol):
    """The interface of `lzma.LZMADecompressor`, which other libraries share."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def detect_compression(head: bytes) -> str | None:
    """Name the compression that the first bytes of a file announce.

    Parameters
    ----------
    head : bytes
        At least the first six bytes, if the file has them.

    Returns
    -------
    str or None
        ``"xz"``, ``"gz"``, ``"zst"``, ``"bz2"``, or None.
    """
    if head.startswith(b"\xfd7zXZ\0"):
        return "xz"
    if head.startswith(b"\x1f\x8b\x08"):
        return "gz"
    if head.startswith(b"BZh"):
        return "bz2"
    word = int.from_bytes(head[:4], "little")
    if len(head) >= 4 and (word == _ZST_MAGIC or word & ~15 == _ZST_SKIPPABLE):
        return "zst"
    return None


def expand(
    file: BufferedReader,
    compression: str | None,
    name: str,
    size: int,
    *,
    error: type[PyvirtError],
) -> Generator[tuple[_Piece, int], None, None]:
    """Yield the expanded content of a file, once, in order.

    The decompressor works in a thread of its own, one step ahead of the caller: both spend
    their time outside the interpreter lock.

    Parameters
    ----------
    file : binary file
        Positioned at its beginning.
    compression : {"xz", "gz", "zst", "bz2", None}
        None hands the bytes on as they are.
    name : str
        For messages.
    size : int
        The most bytes in one piece.
    error : exception class
        What damage is raised as.

    Yields
    ------
    piece : bytes or memoryview
        Not empty; valid until the next one is asked for.
    done : int
        Bytes of the file read so far.

    Raises
    ------
    error
        If the stream is damaged, ends early, or is followed by something else. All pieces that
        could be expanded have been handed on then.
    MissingDependencyError
        If no library for it is installed.
    """
    if compression is None:
        done = 0
        while piece := file.read1(size):
            done += len(piece)
            yield piece, done
        return
    counted = _Counted(file)
    pieces, damage = _KINDS[compression](counted, size)
    try:
        yield from _ahead(pieces, counted)
    except damage as found:
        raise error(f"{name}: damaged .{compression} stream: {found}") from found


def _ahead(pieces: Iterator[_Piece], file: _Counted) -> Generator[tuple[_Piece, int], None, None]:
    """Draw pieces in a thread, at most `_AHEAD` before they are asked for."""
    from queue import SimpleQueue
    from threading import Semaphore, Thread

    ready: SimpleQueue[tuple[_Piece, int] | BaseException | None] = SimpleQueue()
    room = Semaphore(_AHEAD)
    stopped = False

    def work() -> None:
        try:
            for piece in pieces:
                room.acquire()
                if stopped:
                    return
                ready.put((piece, file.done))
            ready.put(None)
        except BaseException as error:  # raised again by the caller
            ready.put(error)

    worker = Thread(target=work, name="pyvirt-expand", daemon=True)
    worker.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
            room.release()
    finally:
        stopped = True
        room.release()
        worker.join()


_Kind = tuple[Iterator[_Piece], _Errors]


def _xz(file: _Counted, size: int) -> _Kind:
    import lzma

    def new() -> _Decompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_WINDOW)

    return _concatenated(file, size, new), (lzma.LZMAError, EOFError)


def _bz2(file: _Counted, size: int) -> _Kind:
    import bz2

    class Stream:
        """A bzip2 stream whose damage is told apart from errors of the disk."""

        def __init__(self) -> None:
            self._inner = bz2.BZ2Decompressor()

        @property
        def eof(self) -> bool:
            return self._inner.eof

        @property
        def needs_input(self) -> bool:
            return self._inner.needs_input

        @property
        def unused_data(self) -> bytes:
            return self._inner.unused_data

        def decompress(self, data: bytes, max_length: int) -> bytes:
            try:
                return self._inner.decompress(data, max_length)
            except OSError as error:
                raise EOFError(str(error)) from error

    return _concatenated(file, size, Stream), (EOFError,)


def _gz(file: _Counted, size: int) -> _Kind:
    import zlib

    class Member:
        """A gzip member; zlib checks its CRC and length."""

        def __init__(self) -> None:
            self._inner = zlib.decompressobj(wbits=31)
            self._full = False  # the last piece was as long as asked: more may be waiting

        @property
        def eof(self) -> bool:
            return self._inner.eof

        @property
        def needs_input(self) -> bool:
            return not (self._full or self._inner.unconsumed_tail)

        @property
        def unused_data(self) -> bytes:
            return self._inner.unused_data

        def decompress(self, data: bytes, max_length: int) -> bytes:
            piece = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
            self._full = len(piece) == max_length
            return piece

    return _concatenated(file, size, Member), (zlib.error, EOFError)


def _zst(file: _Counted, size: int) -> _Kind:
    if sys.version_info >= (3, 14):
        from compression import zstd

        options = {zstd.DecompressionParameter.window_log_max: _WINDOW.bit_length() - 1}

        def new() -> _Decompressor:
            return zstd.ZstdDecompressor(options=options)

        return _concatenated(file, size, new), (zstd.ZstdError, EOFError)
    try:
        import zstandard
    except ImportError as error:
        raise MissingDependencyError(
            "reading .zst needs Python 3.14 or the zstandard package: "
            "pip install 'pyvirt[zstd]', or expand the file first"
        ) from error
    frames = _ZstFrames(file)
    source: Any = frames  # all that is asked of it is to read
    reader = zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(
        source, read_size=_INPUT, read_across_frames=True
    )

    def pieces() -> Iterator[memoryview]:
        yield from _refilled(reader.readinto, size)
        if frames.cut:
            raise EOFError("it ends early")

    return pieces(), (zstandard.ZstdError, EOFError)


def _concatenated(file: _Counted, size: int, new: Callable[[], _Decompressor]) -> Iterator[bytes]:
    """Expand streams that follow one another, as `cat a.xz b.xz` makes, and zero padding."""
    stream = new()
    data = b""
    while True:
        if stream.eof:
            data = stream.unused_data.lstrip(b"\0")
            while not data:
                if not (data := file.read(_INPUT)):
                    return
                data = data.lstrip(b"\0")
            stream = new()
        elif stream.needs_input and not (data := file.read(_INPUT)):
            raise EOFError("it ends early")
        if piece := stream.decompress(data, size):
            yield piece
        data = b""


def _refilled(fill: Callable[[bytearray], int], size: int) -> Iterator[memoryview]:
    """Pieces in buffers that are used again: new memory would cost as much as zstd itself."""
    # `_AHEAD` wait, one is with the caller, one is being filled
    for buffer in cycle([bytearray(size) for _ in range(_AHEAD + 2)]):
        if not (count := fill(buffer)):
            return
        yield memoryview(buffer)[:count]


class _ZstFrames:
    """A .zst file that notices when it ends within a frame, which the zstandard package does not.

    It follows the headers of frames and blocks in what is read through it (RFC 8878, 3.1.1).
    """

    def __init__(self, file: _Counted) -> None:
        self._file = file
        self._headers = self._follow()
        self._wanted = next(self._headers)  # bytes of the next header, which begins ...
        self._ahead = 0  # ... this many bytes after what is known
        self._known = b""
        self._inside = False
        self.cut = False

    def read(self, n: int) -> bytes:
        data = self._file.read(n)
        if not data and (self._inside or self._known or self._ahead):
            self.cut = True  # told after what the last read gave has been expanded
        known = self._known + data
        at = self._ahead
        while at + self._wanted <= len(known):
            header = known[at : at + self._wanted]
            at += self._wanted
            skip, self._wanted = self._headers.send(header), next(self._headers)
            at += skip
        self._ahead = max(0, at - len(known))
        self._known = known[at:]
        return data

    def _follow(self) -> Generator[int, bytes, None]:
        """Yield, in turn, the size of a header to be sent and the bytes to skip after it."""
        while True:
            magic = int.from_bytes((yield 4), "little")
            self._inside = True
            if magic & ~15 == _ZST_SKIPPABLE:
                yield 0
                yield int.from_bytes((yield 4), "little")
            elif magic == _ZST_MAGIC:
                yield 0
                descriptor = (yield 1)[0]
                single = descriptor >> 5 & 1
                window = 1 - single
                dictionary = (0, 1, 2, 4)[descriptor & 3]
                content = (single, 2, 4, 8)[descriptor >> 6]
                yield window + dictionary + content
                last = 0
                while not last:
                    block = int.from_bytes((yield 3), "little")
                    last = block & 1
                    checksum = 4 if last and descriptor & 4 else 0
                    # a run-length block is one byte, whatever its size
                    yield (1 if block >> 1 & 3 == 1 else block >> 3) + checksum
            else:
                raise EOFError(f"no frame begins with {magic:#010x}")
            self._inside = False


_KINDS: dict[str, Callable[[_Counted, int], _Kind]] = {
    "xz": _xz,
    "gz": _gz,
    "zst": _zst,
    "bz2": _bz2,
}
