"""Demand over time, as a workload."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError

__all__ = ["Demand"]

#: Demand is kept in parts of a CPU: ns of work in a second.
PARTS = 1_000_000_000
MOST_CPUS = 4096


def as_parts(values: npt.ArrayLike, name: str) -> npt.NDArray[np.int64]:
    """Give demands in CPUs as integers of `PARTS`."""
    array = np.asarray(values)
    if array.dtype.kind not in "iuf" or array.ndim != 1 or not array.size:
        raise InvalidTypeError(f"{name} must be a row of numbers, got {values!r:.80}")
    if not ((array >= 0) & (array <= MOST_CPUS)).all():
        wrong = array[~((array >= 0) & (array <= MOST_CPUS))][0]
        raise InvalidValueError(f"{name} must be 0 to {MOST_CPUS} CPUs, got {wrong}")
    return np.rint(array.astype(np.float64) * PARTS).astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """Work that comes at a rate which changes over time: a step function.

    The work of each `grain_ns` of time comes as a job at its beginning, and is exact: up to any
    time at which work comes next, what came is the integral of the demand, rounded down to ns.

    Attributes
    ----------
    times_ns : array of int
        When each demand begins, from 0 on, and last the end: one more than demands.
    cpus : array of float
        Demands in CPUs, kept to 10**-9. More than 1 cannot be served by one world; at most 4 for
        each.
    grain_ns : int
        Time whose work comes at once. Parts are counted from the beginning of each demand.
    unserved : {"queue", "drop"}
        What becomes of work that is not done when the next part comes (or the end): it waits,
        or is dropped.
    repeat : bool
        Whether it begins again at its end.
    start_ns : int
        Time from the world's addition to its beginning.

    Notes
    -----
    Given to `Scheduler.add_vm` it is the demand of the whole VM, of which each world has an equal
    part.
    """

    times_ns: npt.ArrayLike
    cpus: npt.ArrayLike
    grain_ns: int = 10_000_000
    unserved: Literal["queue", "drop"] = "queue"
    repeat: bool = False
    start_ns: int = 0
    parts: npt.NDArray[np.int64] | None = field(default=None, repr=False)

    @classmethod
    def sampled(
        cls,
        cpus: npt.ArrayLike,
        interval_ns: int,
        *,
        grain_ns: int = 10_000_000,
        unserved: Literal["queue", "drop"] = "queue",
        repeat: bool = False,
        start_ns: int = 0,
    ) -> Self:
        """Make one from samples at equal intervals, each of which holds until the next.

        Parameters
        ----------
        cpus : array of float
            Demands in CPUs: of percent a hundredth, of MHz the part of the CPU's.
        interval_ns : int
            Time between samples.
        grain_ns, unserved, repeat, start_ns
            See the attributes.
        """
        if isinstance(interval_ns, bool) or not isinstance(interval_ns, (int, np.integer)):
            raise InvalidTypeError(f"interval_ns must be an integer, got {interval_ns!r:.80}")
        if interval_ns < 1:
            raise InvalidValueError(f"interval_ns must be at least 1, got {interval_ns}")
        times = np.arange(np.size(np.asarray(cpus)) + 1, dtype=np.int64) * int(interval_ns)
        return cls(times, cpus, grain_ns, unserved, repeat, start_ns)

    def split(self, worlds: int) -> list[Demand]:
        """Give the demands of so many worlds, whose sum is this one to 10**-9 CPUs."""
        whole = self.integers()
        bounds = [whole * i // worlds for i in range(worlds + 1)]
        return [replace(self, parts=after - before) for before, after in pairwise(bounds)]

    def integers(self) -> npt.NDArray[np.int64]:
        """Give demands in 10**-9 CPUs."""
        return as_parts(self.cpus, "cpus") if self.parts is None else self.parts
