"""Counters over simulated time: 20-second samples, and what they are rolled up to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidValueError

__all__ = ["COUNTERS", "INTERVALS", "Interval", "Performance"]

SECOND = 10**9


@dataclass(frozen=True, slots=True)
class Interval:
    """How far apart samples are, and how many are kept (vSphere's collection levels).

    Attributes
    ----------
    name : str
        As ``"day"``.
    every_ns : int
        The sampling period.
    kept : int
        Samples that are kept.
    """

    name: str
    every_ns: int
    kept: int


#: vSphere Monitoring and Performance, "Data Collection Intervals".
INTERVALS = (
    Interval("realtime", 20 * SECOND, 180),
    Interval("day", 300 * SECOND, 288),
    Interval("week", 1800 * SECOND, 336),
    Interval("month", 7200 * SECOND, 360),
    Interval("year", 86400 * SECOND, 365),
)

#: Name, table, and unit; all are averages over the period.
COUNTERS = {
    "cpu.usagemhz": ("host", "MHz"),
    "cpu.usage": ("host", "%"),
    "mem.usage": ("host", "%"),
    "power.power": ("host", "W"),
    "vm.cpu.demand": ("vm", "MHz"),
    "vm.cpu.usagemhz": ("vm", "MHz"),
    "vm.cpu.contention": ("vm", "%"),
}


class _Ring:
    """The last samples of one counter for all rows of a table."""

    def __init__(self, kept: int, rows: int) -> None:
        self.values = np.zeros((kept, rows))
        self.times = np.zeros(kept, dtype=np.int64)
        self.seen = 0

    def add(self, time_ns: int, values: npt.NDArray[np.float64]) -> None:
        at = self.seen % self.times.size
        self.values[at] = values
        self.times[at] = time_ns
        self.seen += 1

    def read(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        count = min(self.seen, self.times.size)
        order = (self.seen - count + np.arange(count)) % self.times.size
        return self.times[order], self.values[order]


class Performance:
    """The counters of a cluster's hosts and VMs.

    Parameters
    ----------
    hosts, vms : int
        How many rows there are of each.
    """

    def __init__(self, hosts: int, vms: int) -> None:
        self.rows = {"host": hosts, "vm": vms}
        self._rings = {
            (name, interval.name): _Ring(interval.kept, self.rows[table])
            for name, (table, _) in COUNTERS.items()
            for interval in INTERVALS
        }
        # What has come in since a roll-up last took a sample: sums and how many.
        self._sums = {key: np.zeros(self.rows[COUNTERS[key[0]][0]]) for key in self._rings}
        self._counts = dict.fromkeys(self._rings, 0)

    def add(self, time_ns: int, values: dict[str, npt.NDArray[np.float64]]) -> None:
        """Take the samples that end at a time, a multiple of 20 seconds."""
        for name, row in values.items():
            for interval in INTERVALS:
                key = (name, interval.name)
                self._sums[key] += row
                self._counts[key] += 1
                if time_ns % interval.every_ns == 0:
                    self._rings[key].add(time_ns, self._sums[key] / self._counts[key])
                    self._sums[key][:] = 0
                    self._counts[key] = 0

    def query(
        self, counter: str, interval: str = "realtime"
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Give the samples of a counter that are kept.

        Parameters
        ----------
        counter : str
            One of `COUNTERS`.
        interval : {"realtime", "day", "week", "month", "year"}
            Which samples.

        Returns
        -------
        times_ns : ndarray of int64, shape (n,)
            When each period ended.
        values : ndarray of float64, shape (n, rows)
            Averages over the periods, for each host or VM.
        """
        if (counter, interval) not in self._rings:
            raise InvalidValueError(
                f"there is no counter {counter!r:.80} of interval {interval!r:.80}; counters are "
                f"{', '.join(COUNTERS)}, intervals {', '.join(one.name for one in INTERVALS)}"
            )
        return self._rings[counter, interval].read()
