"""The CPU that a virtual machine wants over time, as a step function whose means are exact."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pyvirt.machine.loads import cpu_work, turn
from pyvirt.sched.demand import Demand
from pyvirt.sched.workloads import Jobs, OnOff
from pyvirt.spec import VMSpec

__all__ = ["Wanted"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
#: Bursts that are drawn, and then begin again.
DRAWS = 1000


class Wanted:
    """What a machine wants, in CPUs of a host, without its monitor's part.

    Parameters
    ----------
    spec : VMSpec
        With a seed for what is drawn.
    mhz : float
        Of the host.
    factor : float
        1 and its monitor's part.
    latency_ns : int
        Of a request that it waits for.
    """

    def __init__(self, spec: VMSpec, mhz: float, factor: float = 1.0, latency_ns: int = 0) -> None:
        found = turn(spec, mhz, factor, latency_ns)
        if found is not None:
            part = found[0] / sum(found) / factor
            self._set(np.array([0, 1]), np.array([spec.vcpus * part]), True)
            return
        works = cpu_work(spec, mhz, 1.0)
        first = works[0]
        if isinstance(first, Demand):
            # of one demand that was divided
            parts = sum(one.integers() for one in works if isinstance(one, Demand))
            bounds = np.asarray(first.times_ns, np.int64)
            self._set(bounds, np.asarray(parts) / 1e9, first.repeat)
        elif isinstance(first, OnOff):
            self._set(*_bursts(spec), True)
        else:
            level = 0.0 if isinstance(first, Jobs) else float(spec.vcpus)
            self._set(np.array([0, 1]), np.array([level]), True)

    def _set(self, bounds: Ints, cpus: Floats, repeat: bool) -> None:
        self._bounds, self._repeat = bounds.astype(np.float64), repeat
        self._sums = np.concatenate([[0.0], np.cumsum(np.diff(bounds) * cpus)])
        self._level = float(cpus[0]) if len(cpus) == 1 and repeat else None

    def mean(self, since_ns: Ints) -> Floats:
        """Give the mean demand between each two times, which count from its beginning."""
        if self._level is not None:
            return np.full(len(since_ns) - 1, self._level)
        times = np.asarray(since_ns, np.float64)
        period, total = self._bounds[-1], self._sums[-1]
        turns = np.floor(times / period) if self._repeat else np.zeros(len(times))
        came = np.interp(times - turns * period, self._bounds, self._sums) + turns * total
        lengths = np.diff(times)
        return np.divide(np.diff(came), lengths, out=np.zeros(len(lengths)), where=lengths > 0)


def _bursts(spec: VMSpec) -> tuple[Ints, Floats]:
    """Give demands of all vCPUs, on and off in turn."""
    assert spec.workload is not None
    cpu = spec.workload.cpu
    lengths = np.array([[cpu.on_ns, cpu.off_ns]], np.float64)
    if cpu.distribution == "exponential":
        rng = np.random.default_rng(0 if cpu.seed is None else cpu.seed)
        lengths = rng.exponential(1.0, (DRAWS, 2)) * lengths
    whole = np.maximum(np.rint(lengths).astype(np.int64), [1, 0]).ravel()
    cpus = np.tile([float(spec.vcpus), 0.0], len(whole) // 2)[whole > 0]
    return np.concatenate([[0], np.cumsum(whole[whole > 0])]), cpus
