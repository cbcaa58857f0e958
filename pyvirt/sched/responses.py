"""Histograms of response times and of wake-ups: their buckets, and percentiles from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidValueError

__all__ = ["percentiles", "response_bounds"]


def response_bounds() -> npt.NDArray[np.int64]:
    """Give where each bucket of `Scheduler.response_counts` and `wake_counts` begins, in ns.

    Returns
    -------
    ndarray of int64, shape (1376,)
        Up to 64 ns one bucket a nanosecond, then 32 for each power of two. The last bucket, from
        39 hours on, is open.
    """
    first = list(range(64))
    later = [(32 + i) << shift for shift in range(1, 42) for i in range(32)]
    return np.array(first + later, np.int64)


def percentiles(
    counts: npt.ArrayLike, q: float | Sequence[float] = (50, 95, 99, 99.9)
) -> npt.NDArray[np.float64]:
    """Give percentiles of times from a histogram.

    Parameters
    ----------
    counts : array of int, shape (1376,)
        From `Scheduler.response_counts` or `wake_counts`, or a sum of such.
    q : float or sequence of float, default (50, 95, 99, 99.9)
        In percent, more than 0 and up to 100.

    Returns
    -------
    ndarray of float64
        For each the middle of the bucket with the least time that at least `q` percent of the
        times do not exceed: at most 1/64 (1.6 %) away from that time, and exact below 64 ns. NaN
        without counts. The last bucket is open: there it is where that begins.
    """
    wanted = np.atleast_1d(np.asarray(q, np.float64))
    if not ((wanted > 0) & (wanted <= 100)).all():
        raise InvalidValueError(f"q must be more than 0 and at most 100, got {q!r:.80}")
    table = np.asarray(counts)
    bounds = response_bounds()
    if table.shape != bounds.shape:
        raise InvalidValueError(f"counts must have {len(bounds)} buckets, got {table.shape}")
    total = int(table.sum())
    if not total:
        return np.full(wanted.shape, np.nan)
    below = np.cumsum(table.astype(np.int64))
    # the rank is an integer: 99.9 % of 1,000 is the 999th, which no rounding may move
    ranks = np.maximum(1, np.ceil(np.round(wanted * total / 100, 9)).astype(np.int64))
    at = np.searchsorted(below, ranks)
    widths = np.append(np.diff(bounds), 1)
    return bounds[at] + (widths[at] - 1) / 2
