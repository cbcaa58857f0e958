"""Demand of VMs over the last minutes, and what is expected from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError

if TYPE_CHECKING:
    from pyvirt.cluster.model import Cluster

__all__ = ["DemandHistory"]

Ints = npt.NDArray[np.int64]


class DemandHistory:
    """Samples of each VM's demand, as many as a time span holds.

    Parameters
    ----------
    vms : int
        How many VMs there are.
    span_ns : int, default 2,400 s
        How far back is asked at most.
    interval_ns : int, default 60 s
        Between samples; a sample stands for the interval that ends with it.
    """

    def __init__(
        self, vms: int, *, span_ns: int = 2400 * 10**9, interval_ns: int = 60 * 10**9
    ) -> None:
        for name, value in (("vms", vms), ("span_ns", span_ns), ("interval_ns", interval_ns)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise InvalidTypeError(f"{name} must be a whole number, not {value!r:.80}")
            if value < (name != "vms"):
                raise InvalidValueError(f"{name} must be positive, got {value}")
        if span_ns < interval_ns:
            raise InvalidValueError(
                f"span_ns must be at least interval_ns of {interval_ns}, got {span_ns}"
            )
        self.interval_ns = int(interval_ns)
        self._samples = np.zeros((-(-int(span_ns) // self.interval_ns), 2, int(vms)))
        self._seen = 0

    def __len__(self) -> int:
        return min(self._seen, self._samples.shape[0])

    def record(self, cluster: Cluster) -> None:
        """Take a sample of a cluster's `VMs.demand`; VMs that are off demand nothing."""
        demand = cluster.vms.demand
        if demand.shape != self._samples.shape[1:]:
            raise InvalidValueError(
                f"the cluster must have {self._samples.shape[2]} VMs, got {demand.shape[1]}"
            )
        self._samples[self._seen % self._samples.shape[0]] = np.where(
            cluster.vms.on == 1, demand, 0
        )
        self._seen += 1

    def covers(self, window_ns: int) -> bool:
        """Say whether there are samples of so long a time."""
        return len(self) * self.interval_ns >= window_ns

    def expected(self, window_ns: int, sigmas: float = 2.0) -> Ints:
        """Give what each VM may demand, going by the last so many nanoseconds.

        Parameters
        ----------
        window_ns : int
            Rounded up to whole samples; where there are fewer, those that there are.
        sigmas : float, default 2
            How many standard deviations above the mean.

        Returns
        -------
        ndarray of int64, shape (2, V)
            Rounded to whole kHz and pages, never more than was seen in the window.

        Raises
        ------
        InvalidValueError
            There is no sample.
        """
        count = min(-(-window_ns // self.interval_ns), len(self))
        if count <= 0:
            raise InvalidValueError("there is no sample of demand yet")
        size = self._samples.shape[0]
        rows = self._samples[(self._seen - 1 - np.arange(count)) % size]
        high = rows.mean(axis=0) + sigmas * rows.std(axis=0)
        return np.rint(np.minimum(high, rows.max(axis=0))).astype(np.int64)
