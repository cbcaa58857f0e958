"""Write traces piece by piece: compressed by their name, and whole or not at all."""

from __future__ import annotations

import builtins
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import IO, Any, Literal, Self

import numpy as np

from pyvirt.errors import InvalidValueError, MissingDependencyError
from pyvirt.traces.arrays import npy_header
from pyvirt.traces.codec import Encoder
from pyvirt.traces.events import KNOWN, Events, as_events
from pyvirt.traces.formats import encoder_for, format_of_name

__all__ = ["OnLoss", "TraceWriter", "create", "write"]

OnLoss = Literal["error", "drop"]
_BLOCK = 1 << 16  # events that are formatted at a time


class TraceWriter:
    """A trace that is being written; see `create`.

    Attributes
    ----------
    path : str
        Where the file will be.
    format : str
        Its format.
    compression : {"xz", "gz", "zst", "bz2", None}
        How it is compressed.
    events : int
        Events written so far.
    dropped : int
        Events left out so far, because the format has no words for them.
    """

    def __init__(
        self, path: str, format: str, encoder: Encoder, compression: str | None, on_loss: OnLoss
    ) -> None:
        self.path = path
        self.format = format
        self.compression = compression
        self.events = 0
        self.dropped = 0
        self._encoder = encoder
        self._on_loss = on_loss
        # Beside the target, so that it can be renamed; a pipe or device is written as it is.
        try:
            in_place = not stat.S_ISREG(os.stat(path).st_mode)
        except FileNotFoundError:
            in_place = False
        self._temporary: list[str] = []
        self._raw: IO[bytes] = builtins.open(path, "wb") if in_place else self._beside()  # noqa: SIM115
        self._packed: IO[bytes] | None = None
        try:
            # The header of .npy has the number of events: it is written last, as a stream of
            # its own that stands before the other; every one of these compressions allows that.
            self._late = format == "npy"
            if self._late and in_place:
                raise InvalidValueError(f"{path}: npy needs a regular file, for its header")
            self._packed = compressed(self._raw, compression)
            if not (self._late and compression):
                self._packed.write(encoder.begin())
        except BaseException:
            self.abort()
            raise

    def write(self, events: Events) -> None:
        """Append events.

        Parameters
        ----------
        events : ndarray
            Of EVENT_DTYPE, or addresses of dtype uint64, which become loads.

        Raises
        ------
        InvalidValueError
            If one does not fit the format and `on_loss` is ``"error"``; or the trace is closed.
        """
        if self._packed is None:
            raise InvalidValueError(f"{self.path}: the trace is closed")
        events = as_events(events)
        for at in range(0, len(events), _BLOCK):
            block = self._fitting(events[at : at + _BLOCK])
            self._packed.write(self._encoder.encode(block).data)
            self.events += len(block)

    def close(self) -> None:
        """Complete the file: from now on it is there, under its name."""
        if self._packed is None:
            return
        try:
            self._packed.write(self._encoder.finish().data)
            self._finish(self._packed)
            if self._temporary:
                os.replace(self._temporary[-1], self.path)
                self._temporary.pop()
        finally:
            self.abort()

    def abort(self) -> None:
        """Give up: no file is left, and one of that name that was there stays."""
        packed, self._packed = self._packed, None
        for file in (packed, self._raw):
            try:
                if file is not None:
                    file.close()
            except OSError:
                pass  # of a file that is removed
        while self._temporary:
            try:
                os.unlink(self._temporary.pop())
            except FileNotFoundError:
                pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _beside(self) -> IO[bytes]:
        """Open a new file in the folder of the target."""
        folder, name = os.path.split(os.path.abspath(self.path))
        handle, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".part", dir=folder)
        self._temporary.append(temporary)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # as open() would have made it
        return os.fdopen(handle, "w+b")

    def _finish(self, packed: IO[bytes]) -> None:
        """Flush what is compressed, and write a late header."""
        header = npy_header(self.events)
        if self._late and not self.compression:
            self._raw.seek(0)
            self._raw.write(header)
        if packed is not self._raw:
            packed.close()
        if self._late and self.compression:
            with self._beside() as whole:
                first = compressed(whole, self.compression)
                first.write(header)
                first.close()
                self._raw.seek(0)
                shutil.copyfileobj(self._raw, whole, 1 << 20)
        self._raw.close()

    def _fitting(self, events: Events) -> Events:
        """Leave out what the format cannot say, or refuse it."""
        unknown = ~KNOWN[events["op"]]
        if unknown.any():
            op = int(events["op"][unknown][0])
            raise InvalidValueError(f"{op} is no operation of pyvirt.traces.Op")
        fits = self._encoder.fits(events)
        strict = self._on_loss == "error"
        if fits is not None and not fits.all():
            if strict:
                first = int(np.argmin(fits))
                raise InvalidValueError(
                    f"event {self.events + first:,} does not fit a trace of format {self.format}: "
                    f'{self._encoder.misfit(events[first])}; on_loss="drop" leaves it out'
                )
            self.dropped += int(len(fits) - np.count_nonzero(fits))
            events = events[fits]
        if strict and not self._encoder.vcpus and events["vcpu"].any():
            first = int(np.argmax(events["vcpu"] != 0))
            raise InvalidValueError(
                f"event {self.events + first:,} is of vCPU {int(events['vcpu'][first])}, which a "
                f'trace of format {self.format} cannot say; on_loss="drop" makes all vCPUs one'
            )
        return events


def create(
    path: str | os.PathLike[str], format: str | None = None, *, on_loss: OnLoss = "error"
) -> TraceWriter:
    """Begin to write a trace.

    Parameters
    ----------
    path : path
        Its ending tells the compression (.xz, .gz, .zst, .bz2 or none) and, before that, the
        format.
    format : str, optional
        One of `FORMATS` but npz, instead of the ending.
    on_loss : {"error", "drop"}
        What to do with an event that the format has no words for: refuse it, or leave it out
        and count it. With ``"drop"`` formats without vCPUs make all of them one. Sizes and
        privilege are lost without a word where a format has no place for them.

    Returns
    -------
    TraceWriter
        To be used in a with-statement: the file appears at its end, unless that is an
        exception.

    Raises
    ------
    OSError
        If the file cannot be created.
    InvalidValueError
        For an unknown format.
    MissingDependencyError
        If no library for the compression is installed.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from pyvirt import traces
    >>> path = os.path.join(tempfile.mkdtemp(), "few.npy.xz")
    >>> with traces.create(path) as trace:
    ...     trace.write(np.arange(0, 1 << 20, 4096, dtype=np.uint64))
    >>> len(traces.read(path))
    256
    """
    if on_loss not in ("error", "drop"):
        raise InvalidValueError(f'on_loss must be "error" or "drop", got {on_loss!r:.80}')
    named, compression = format_of_name(path)
    format = format or named
    if format is None:
        raise InvalidValueError(
            f"{os.fspath(path)!r}: the ending tells no format: give it, or end in .npy, .csv, "
            ".lackey, .din, .champsim, .drmemtrace or .gem5, and then .xz, .gz, .zst or .bz2"
        )
    return TraceWriter(os.fspath(path), format, encoder_for(format), compression, on_loss)


def write(
    path: str | os.PathLike[str],
    events: Events | Iterable[Events],
    format: str | None = None,
    *,
    on_loss: OnLoss = "error",
) -> TraceWriter:
    """Write a trace at once, or from any iterable of arrays, such as a reader.

    Parameters
    ----------
    path, format, on_loss
        As for `create`.
    events : ndarray or iterable of ndarray
        As for `TraceWriter.write`.

    Returns
    -------
    TraceWriter
        Closed; its `events` and `dropped` tell what was written.
    """
    with create(path, format, on_loss=on_loss) as trace:
        for block in (events,) if isinstance(events, np.ndarray) else events:
            trace.write(block)
    return trace


def compressed(file: IO[bytes], compression: str | None) -> IO[bytes]:
    """Give a file that compresses what is written to it into another.

    Parameters
    ----------
    file : binary file
        Stays open when the result is closed.
    compression : {"xz", "gz", "zst", "bz2", None}
        None gives the file itself.

    Returns
    -------
    binary file
        To be closed.

    Raises
    ------
    MissingDependencyError
        If no library for it is installed.
    """
    if compression is None:
        return file
    openers: dict[str, Callable[[IO[bytes]], Any]] = {
        "xz": _xz,
        "gz": _gz,
        "zst": _zst,
        "bz2": _bz2,
    }
    result: IO[bytes] = openers[compression](file)
    return result


def _xz(file: IO[bytes]) -> Any:
    import lzma

    return lzma.open(file, "wb", preset=3)


def _gz(file: IO[bytes]) -> Any:
    import gzip

    # neither name nor time, so that equal traces are equal files
    return gzip.GzipFile("", "wb", 6, file, 0)


def _bz2(file: IO[bytes]) -> Any:
    import bz2

    return bz2.open(file, "wb")


def _zst(file: IO[bytes]) -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd

        return zstd.open(file, "wb", options={zstd.CompressionParameter.checksum_flag: 1})
    try:
        import zstandard
    except ImportError as error:
        raise MissingDependencyError(
            "writing .zst needs Python 3.14 or the zstandard package: "
            "pip install 'pyvirt[zstd]', or write .xz or .gz"
        ) from error
    return zstandard.ZstdCompressor(level=6, write_checksum=True).stream_writer(file, closefd=False)
