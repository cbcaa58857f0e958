"""What a world does with the CPU: the workloads of `pyvirt.sched.Scheduler.add`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["Always", "Distribution", "Jobs", "OnOff", "Periodic", "Poisson", "Workload"]

#: Of times: always the mean; exponential; uniform from 0 to twice the mean.
Distribution: TypeAlias = Literal["fixed", "exponential", "uniform"]


@dataclass(frozen=True, slots=True)
class Always:
    """A world that always wants the CPU."""


@dataclass(frozen=True, slots=True)
class Jobs:
    """A world whose work the caller brings, with `Scheduler.submit`."""


@dataclass(frozen=True, slots=True)
class OnOff:
    """A world that works and then waits, in turn, beginning with work.

    Attributes
    ----------
    work_ns : int
        Mean CPU time of a stretch of work.
    wait_ns : int
        Mean time from its end to the next stretch.
    work, wait : {"fixed", "exponential", "uniform"}
        Distributions.
    start_ns : int
        Time from its addition to the first stretch.
    """

    work_ns: int
    wait_ns: int
    work: Distribution = "exponential"
    wait: Distribution = "exponential"
    start_ns: int = 0


@dataclass(frozen=True, slots=True)
class Poisson:
    """A world to which jobs come at random, whether or not the last one is done.

    Attributes
    ----------
    work_ns : int
        Mean CPU time of a job.
    gap_ns : int
        Mean time between arrivals, which is exponential.
    work : {"fixed", "exponential", "uniform"}
        Distribution of the CPU time.
    """

    work_ns: int
    gap_ns: int
    work: Distribution = "exponential"


@dataclass(frozen=True, slots=True)
class Periodic:
    """A world to which a job comes at the start of each period; unfinished ones pile up.

    Attributes
    ----------
    work_ns : int
        Mean CPU time of a job.
    period_ns : int
        Time between arrivals.
    work : {"fixed", "exponential", "uniform"}
        Distribution of the CPU time.
    start_ns : int
        Time from the world's addition to the first job.
    """

    work_ns: int
    period_ns: int
    work: Distribution = "fixed"
    start_ns: int = 0


Workload: TypeAlias = Always | Jobs | OnOff | Poisson | Periodic
