"""Timelines as Chrome's trace events, which Perfetto and chrome://tracing open.

The form is the JSON object format of the Trace Event Format: complete events (``X``) with times in
microseconds, and metadata events (``M``) for names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, TextIO

import numpy as np
import numpy.typing as npt

from pyvirt._core.sched.engine import STATES
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.sched.recording import run_recorded
from pyvirt.sched.scheduler import Scheduler
from pyvirt.sched.timeline import RUN, Timeline

__all__ = ["ChromeTrace", "write_chrome_trace"]

HOST, WORLDS = 1, 2
WAITING = {"wait": "waits", "limited": "limited", "costop": "co-stopped", "ready": "ready"}


class ChromeTrace:
    """Writes timelines, one part after the other, into one trace.

    It has a track for each CPU, with who ran there, and if asked for one for each world, with what
    it did. Only what runs at the end of a part is kept in memory.

    Parameters
    ----------
    target : path or text file
        Where to.
    names : mapping of int to str, optional
        Of worlds; default: ``world 7``.
    worlds : bool, default False
        Also write a track for each world: when it ran and was ready, and whether it waited, was
        limited or co-stopped in between.

    Examples
    --------
    >>> import io
    >>> from pyvirt.sched import ChromeTrace, Scheduler
    >>> host = Scheduler(cpus=1)
    >>> _ = host.add(), host.add()
    >>> host.record()
    >>> with ChromeTrace(io.StringIO()) as trace:
    ...     for end in range(10**9, 10**10, 10**9):
    ...         _ = host.run(end)
    ...         trace.add(host.timeline(clear=True))
    >>> trace.segments
    900
    """

    def __init__(
        self,
        target: str | os.PathLike[str] | TextIO,
        *,
        names: Mapping[int, str] | None = None,
        worlds: bool = False,
    ) -> None:
        self._names = dict(names or {})
        self._worlds = worlds
        self._open: dict[int, Any] = {}
        self._end = 0
        self._closed = False
        self._tracks: dict[int, tuple[int, int]] = {}
        #: Stretches of running time that were written.
        self.segments = 0
        self._own = isinstance(target, (str, os.PathLike))
        self._file: TextIO
        if isinstance(target, (str, os.PathLike)):
            self._file = open(target, "w", encoding="utf-8")  # noqa: SIM115
        else:
            self._file = target
        self._file.write('{"displayTimeUnit": "ns", "traceEvents": [\n')
        self._file.write(_named("process_name", HOST, 0, "CPUs"))
        if worlds:
            self._file.write(",\n" + _named("process_name", WORLDS, 0, "worlds"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def add(self, timeline: Timeline) -> None:
        """Write what ended in a part of the timeline.

        Parameters
        ----------
        timeline : Timeline
            The first part, or the one that follows the last: `Scheduler.timeline` with `clear`.

        Raises
        ------
        InvalidValueError
            If it does not begin where the last one ended.
        """
        if not isinstance(timeline, Timeline):
            raise InvalidTypeError(f"timeline must be a Timeline, got {timeline!r:.80}")
        rows = timeline.segments(clip=not self._open)
        if not self._open:
            for cpu in range(len(timeline.before)):
                self._file.write(",\n" + _named("thread_name", HOST, cpu, f"CPU {cpu}"))
                self._open[cpu] = None
        elif timeline.start_ns != self._end:
            raise InvalidValueError(
                f"the timeline begins at {timeline.start_ns:,} ns, the last one ended at "
                f"{self._end:,} ns"
            )
        self._end = timeline.end_ns
        # The last of each CPU that still runs is written when it has ended.
        running = (rows["state"] == RUN) & (rows["end_ns"] == timeline.end_ns)
        self._open = dict.fromkeys(self._open)
        for row in rows[running]:
            self._open[int(row["cpu"])] = row
        self._write(rows[~running])

    def close(self) -> None:
        """Write what still runs, and end the file."""
        if self._closed:
            return
        self._closed = True
        left = [row for row in self._open.values() if row is not None]
        if left:
            self._write(np.array(left))
        self._file.write("\n]}\n")
        if self._own:
            self._file.close()

    def _write(self, rows: npt.NDArray[np.void]) -> None:
        if self._worlds:
            # The tracks of worlds need their segments by time, whatever the CPU.
            rows = rows[np.argsort(rows["begin_ns"], kind="stable")]
        text = []
        columns = [rows[name].tolist() for name in rows.dtype.names or ()]
        for begin, end, ready, world, cpu, state in zip(*columns, strict=True):
            name = json.dumps(self._names.get(world, f"world {world}"))
            then = json.dumps(STATES[state])
            times = f'"ts": {_us(begin)}, "dur": {_us(end - begin)}'
            text.append(
                f',\n{{"ph": "X", "pid": {HOST}, "tid": {cpu}, "name": {name}, "cat": "run", '
                f'{times}, "args": {{"world": {world}, "ready_us": {_us(ready)}, '
                f'"then": {then}}}}}'
            )
            if self._worlds:
                text.append(self._before(world, begin, ready))
                text.append(_span(world, f"CPU {cpu}", "run", begin, end))
                self._tracks[world] = (end, state)
        self.segments += len(rows)
        self._file.write("".join(text))

    def _before(self, world: int, begin: int, ready: int) -> str:
        """Give what a world did between its last segment and this one."""
        text = ""
        if world not in self._tracks:
            name = self._names.get(world, f"world {world}")
            text = ",\n" + _named("thread_name", WORLDS, world, name)
        elif self._tracks[world][1] != RUN:
            last, state = self._tracks[world]
            waited = WAITING.get(STATES[state])
            if waited and waited != "ready" and begin - ready > last:
                text = _span(world, waited, STATES[state], last, begin - ready)
        return text + (_span(world, "ready", "ready", begin - ready, begin) if ready else "")


def _us(ns: int) -> str:
    """Give microseconds with the nanoseconds as decimals."""
    return f"{ns // 1000}.{ns % 1000:03}"


def _named(what: str, process: int, thread: int, name: str) -> str:
    return json.dumps(
        {"ph": "M", "pid": process, "tid": thread, "name": what, "args": {"name": name}}
    )


def _span(world: int, name: str, category: str, begin: int, end: int) -> str:
    return (
        f',\n{{"ph": "X", "pid": {WORLDS}, "tid": {world}, "name": "{name}", "cat": "{category}", '
        f'"ts": {_us(begin)}, "dur": {_us(end - begin)}}}'
    )


def write_chrome_trace(
    target: str | os.PathLike[str] | TextIO,
    host: Scheduler,
    until_ns: int,
    *,
    names: Mapping[int, str] | None = None,
    worlds: bool = False,
) -> int:
    """Run a scheduler, and write what happens as a trace, in bounded memory.

    Parameters
    ----------
    target : path or text file
        Where to.
    host : Scheduler
        It runs from its present time; what it recorded so far is forgotten, and it does not record
        afterwards.
    until_ns : int
        Up to this time.
    names, worlds
        As for `ChromeTrace`.

    Returns
    -------
    int
        Stretches of running time that were written.
    """
    if not isinstance(host, Scheduler):
        raise InvalidTypeError(f"host must be a Scheduler, got {host!r:.80}")
    host.record()
    try:
        with ChromeTrace(target, names=names, worlds=worlds) as trace:
            run_recorded(host, until_ns, [trace])
    finally:
        host.stop_recording()
    return trace.segments
