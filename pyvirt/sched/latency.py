"""Percentiles of the histogram of times from a wake-up to the run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidValueError
from pyvirt.sched.scheduler import latency_bounds

__all__ = ["latency_percentiles"]


def latency_percentiles(counts: npt.ArrayLike, percents: Sequence[float]) -> npt.NDArray[np.int64]:
    """Give times that so many percent of the latencies do not exceed.

    Parameters
    ----------
    counts : array_like of int, shape (512,)
        From `Scheduler.latency_counts`, or a sum or difference of such.
    percents : sequence of float
        Above 0 and up to 100.

    Returns
    -------
    ndarray of int64
        The last nanosecond of the bucket in which each percentile lies, which is up to one part
        in eight more than the percentile; -1 where there are no counts.

    Examples
    --------
    >>> import numpy as np
    >>> from pyvirt.sched import latency_percentiles
    >>> counts = np.zeros(512, int)
    >>> counts[[3, 100]] = 90, 10
    >>> latency_percentiles(counts, [50, 90, 99]).tolist()
    [3, 3, 26623]
    """
    table = np.asarray(counts, np.int64)
    bounds = latency_bounds()
    if table.shape != bounds.shape or (table < 0).any():
        raise InvalidValueError("counts must be 512 numbers that are not negative")
    for percent in percents:
        if not 0 < percent <= 100:
            raise InvalidValueError(f"a percentile must be above 0 and up to 100, got {percent}")
    total = int(table.sum())
    if not total:
        return np.full(len(percents), -1, np.int64)
    reached = np.cumsum(table)
    need = np.ceil(np.array(percents, np.float64) * total / 100 - 1e-9)
    bucket = np.searchsorted(reached, need, side="left")
    ends = np.append(bounds[1:], np.iinfo(np.int64).max) - 1
    return np.asarray(ends[bucket])
