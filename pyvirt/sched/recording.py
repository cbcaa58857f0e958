"""Runs whose timeline is passed on a part at a time, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidValueError
from pyvirt.sched.scheduler import Scheduler
from pyvirt.sched.timeline import SEGMENT_DTYPE, Timeline

__all__ = ["Collected", "Sink", "run_recorded"]

#: Events of a part.
PART = 20_000


class Sink(Protocol):
    """What takes the parts of a timeline, in order."""

    def add(self, timeline: Timeline) -> None:
        """Take a part."""


class Collected:
    """The segments of a stretch of time, up to a number of them.

    Parameters
    ----------
    from_ns, to_ns : int
        The stretch; segments are cut to it.
    most : int
        Refuse more.
    """

    def __init__(self, from_ns: int, to_ns: int, most: int) -> None:
        self._from, self._to, self._most = from_ns, to_ns, most
        self._parts: list[npt.NDArray[np.void]] = []
        self._count = 0

    def add(self, timeline: Timeline) -> None:
        """Take a part.

        Raises
        ------
        InvalidValueError
            For more segments than asked for.
        """
        rows = timeline.segments()
        rows["begin_ns"] = np.maximum(rows["begin_ns"], self._from)
        rows["end_ns"] = np.minimum(rows["end_ns"], self._to)
        rows = rows[rows["begin_ns"] < rows["end_ns"]]
        self._count += len(rows)
        if self._count > self._most:
            raise InvalidValueError(
                f"from {self._from:,} to {self._to:,} ns there are more than {self._most:,} "
                "stretches of running time: choose a shorter time"
            )
        self._parts.append(rows)

    def segments(self) -> npt.NDArray[np.void]:
        """Give all, as `Timeline.segments` does; one that spans parts is cut there."""
        return np.concatenate([np.zeros(0, SEGMENT_DTYPE), *self._parts])


def run_recorded(host: Scheduler, until_ns: int, sinks: Iterable[Sink]) -> None:
    """Let time pass, and pass on what is recorded. `Scheduler.record` was called before."""
    takers = list(sinks)
    while True:
        happened = host.run(until_ns, events=PART)
        part = host.timeline(clear=True)
        for taker in takers:
            taker.add(part)
        if happened < PART:
            return
