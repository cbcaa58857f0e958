"""Read traces piece by piece, in memory that does not grow with their length."""

from __future__ import annotations

import operator
import os
from collections.abc import Generator, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, SupportsIndex

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError, TraceFormatError
from pyvirt.traces.arrays import NpyDecoder
from pyvirt.traces.codec import SMALLEST_ROOM, Decoder
from pyvirt.traces.events import EVENT_DTYPE, Events
from pyvirt.traces.formats import decoder_for, detect_format, format_of_name, known
from pyvirt.traces.sources import Piece, Source

__all__ = ["CHUNK", "TraceReader", "open", "read"]

CHUNK = 1 << 18
"""Events that are handed on at a time."""

_MAPPED = ("npy", "champsim", "cloudsuite")  # used where they lie, if not compressed
_LARGEST_CHUNK = 1 << 26
_LONGEST_RECORD = 1 << 21  # bytes without an end of line: the file is something else


class TraceReader:
    """An iterator over the chunks of a trace; see `open`.

    Attributes
    ----------
    path : str
        The file.
    format : str
        Its format.
    compression : {"xz", "gz", "zst", "bz2", None}
        How it is compressed.
    total_bytes : int or None
        Size of the file; None for a pipe.
    events : int
        Events handed on so far.
    """

    def __init__(
        self, source: Source, format: str, decoder: Decoder, members: list[str] | None, chunk: int
    ) -> None:
        self.path = source.name
        self.format = format
        self.compression = source.compression
        self.total_bytes = source.total_bytes
        self.events = 0
        self._source = source
        self._decoder = decoder
        self._members = members
        self._chunk = chunk
        self._is_mapped = False
        self._mapped = 0  # bytes of a mapped file that are done
        self._chunks = self._to_the_end()

    @property
    def position(self) -> int:
        """Bytes of the file that have been read so far."""
        return max(self._source.position, self._mapped)

    @property
    def skipped(self) -> int:
        """Records so far that are no event: markers, prefetches, cache flushes."""
        return self._decoder.skipped

    @property
    def threads(self) -> dict[int, int]:
        """The vCPU of each thread id so far; empty where the format has no threads."""
        return dict(getattr(self._decoder, "threads", {}))

    @property
    def records(self) -> npt.NDArray[Any] | None:
        """The file's own records as a read-only array over it, nothing copied.

        For uncompressed ChampSim and .npy files; otherwise None.
        """
        if self.format not in _MAPPED:
            return None
        mapping = self._source.mapping()
        return None if mapping is None else self._decoder.in_place(mapping)

    def __iter__(self) -> Iterator[Events]:
        return self

    def __next__(self) -> Events:
        chunk = next(self._chunks)
        self.events += len(chunk)
        return chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading and close the file."""
        self._chunks.close()
        self._source.close()

    def _pieces(self) -> Iterator[Piece]:
        """The bytes of the trace: in one piece where they can stay where they are."""
        if self._source.is_zip:
            if self._members is None:
                return self._source.salvage()
            return self._source.members(self._members)
        if self.format in _MAPPED:
            mapping = self._source.mapping()
            if mapping is not None:
                self._is_mapped = True
                return iter((mapping[self._mapped :],))
        return self._source.pieces()

    def _in_place(self) -> Iterator[Events]:
        """Hand on the parts of a mapped file of events; what is left of it is for the decoder."""
        if not isinstance(self._decoder, NpyDecoder) or self.format not in _MAPPED:
            return
        mapping = self._source.mapping()
        whole = None if mapping is None else self._decoder.in_place(mapping)
        if mapping is None or whole is None or whole.dtype != EVENT_DTYPE:
            return
        self._mapped = self._decoder.begin(mapping)
        for at in range(0, len(whole), self._chunk):
            part = whole[at : at + self._chunk]
            self._decoder.records += len(part)
            self._mapped += part.nbytes
            yield part

    def _to_the_end(self) -> Generator[Events, None, None]:
        """Read, and close the file: a reader that is used up needs no with-statement."""
        try:
            yield from self._run()
        finally:
            self._source.close()

    def _run(self) -> Generator[Events, None, None]:
        yield from self._in_place()
        pieces = self._pieces()
        out, made = np.empty(self._chunk, EVENT_DTYPE), 0
        rest = b""
        offset = self._mapped
        failure: TraceFormatError | None = None
        last = False
        while not last and failure is None:
            try:
                piece = next(pieces, None)
            except TraceFormatError as error:
                failure = error  # raised when what came before it has been handed on
                break
            last = piece is None
            block = memoryview(rest if piece is None else rest + piece if rest else piece)
            at = 0
            while True:
                step = self._decoder.decode(block[at:], out[made:], last)
                at += step.used
                made += step.made
                if self._is_mapped:
                    self._mapped = offset + at
                if step.problem is not None:
                    failure = self._error(step.problem, offset + at)
                    break
                if not step.full:
                    break
                yield out[:made]
                out, made = np.empty(self._chunk, EVENT_DTYPE), 0
            offset += at
            if failure is None and len(block) - at > _LONGEST_RECORD:
                failure = self._error("it does not end", offset)
            rest = bytes(block[at:]) if failure is None else b""
        if made:
            yield out[:made]
        if failure is not None:
            raise failure

    def _error(self, problem: str, offset: int) -> TraceFormatError:
        unit = self._decoder.unit
        where = f"{unit} {self._decoder.records + 1:,}"
        if unit != "line":
            where += f" (byte {offset:,}{' of the expanded file' if self.compression else ''})"
        return TraceFormatError(f"{self.path}: {where}: {problem}")


def open(
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    chunk: SupportsIndex = CHUNK,
    user: bool = False,
    threads: Mapping[int, int] | None = None,
) -> TraceReader:
    r"""Open a trace, compressed or not.

    Parameters
    ----------
    path : path
        A file, or a pipe.
    format : str, optional
        One of `FORMATS`; by default what content and name tell.
    chunk : int
        The most events that are handed on at a time, at least 32.
    user : bool
        Whether accesses are at CPL 3; npy files of events and CSV say so themselves.
    threads : mapping of int to int, optional
        For drmemtrace: the vCPU of each thread id. Those that are not in it get the next free
        number when they first appear.

    Returns
    -------
    TraceReader
        Yields arrays of EVENT_DTYPE, each of which may be kept. Those of an uncompressed .npy
        file of events are read-only parts of the file itself.

    Raises
    ------
    OSError
        If the file cannot be opened.
    TraceFormatError
        If nothing tells its format. While reading: if the file is damaged or ends early, after
        all events before that have been handed on.

    Examples
    --------
    >>> import os, pathlib, tempfile
    >>> from pyvirt import traces
    >>> path = os.path.join(tempfile.mkdtemp(), "short.lackey")
    >>> _ = pathlib.Path(path).write_text("I  0401ab70,3\n L 1fff000768,8\n")
    >>> with traces.open(path) as trace:
    ...     print(trace.format, [len(chunk) for chunk in trace])
    lackey [2]
    """
    if format is not None:
        known(format)
    try:
        room = operator.index(chunk)
    except TypeError as error:
        raise InvalidTypeError(f"chunk must be an integer, not {chunk!r:.80}") from error
    if not SMALLEST_ROOM <= room <= _LARGEST_CHUNK:
        raise InvalidValueError(f"chunk must be in [{SMALLEST_ROOM}, {_LARGEST_CHUNK}], got {room}")
    source = Source(path)
    try:
        _check_name(source)
        members = source.member_names() if source.is_zip else None
        if format is None:
            format = detect_format(source, members)
        if source.is_zip:
            members = _chosen(source.name, format, members)
        decoder = decoder_for(format, user=user, threads=threads)
    except BaseException:
        source.close()
        raise
    return TraceReader(source, format, decoder, members, room)


def _check_name(source: Source) -> None:
    """Refuse a file whose name promises a compression that it does not have."""
    promised = format_of_name(source.name)[1]
    if promised is not None and source.compression != promised:
        raise TraceFormatError(
            f"{source.name}: named .{promised}, but begins with 0x{source.head()[:6].hex()}"
        )


def _chosen(name: str, format: str, members: list[str] | None) -> list[str] | None:
    """Choose the members of an archive that are the trace."""
    if format not in ("npz", "drmemtrace"):
        raise TraceFormatError(f"{name}: a zip archive, not a file of format {format}")
    if members is None:
        return None
    if format == "drmemtrace":
        found = sorted(member for member in members if member.startswith("chunk."))
        if not found:
            raise TraceFormatError(f"{name}: the archive has no member chunk.*, as drmemtrace does")
        return found
    found = [member for member in members if member.endswith(".npy")]
    if len(found) > 1:
        found = [member for member in found if member in ("events.npy", "addresses.npy")]
    if len(found) != 1:
        raise TraceFormatError(
            f"{name}: which of its {len(members)} arrays is the trace? Name it events"
        )
    return found


def read(
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    limit: SupportsIndex | None = None,
    user: bool = False,
    threads: Mapping[int, int] | None = None,
) -> Events:
    """Read a whole trace, or its beginning, into one array.

    Parameters
    ----------
    path, format, user, threads
        As for `open`.
    limit : int, optional
        The most events to read.

    Returns
    -------
    ndarray of EVENT_DTYPE
        All events, 24 bytes each.

    Raises
    ------
    OSError, TraceFormatError
        As for `open`; of a damaged file nothing is returned.
    """
    most = None if limit is None else operator.index(limit)
    if most is not None and most < 0:
        raise InvalidValueError(f"limit must not be negative, got {most}")
    parts = [np.empty(0, EVENT_DTYPE)]
    count = 0
    with open(path, format, user=user, threads=threads) as trace:
        while most is None or count < most:
            chunk = next(trace, None)
            if chunk is None:
                break
            parts.append(chunk if most is None else chunk[: most - count])
            count += len(parts[-1])
    return np.concatenate(parts)
