"""What a world does with the CPU: the workloads of `pyvirt.sched.Scheduler.add` and `add_vm`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from pyvirt.sched.demand import Demand
from pyvirt.sched.times import Times

__all__ = [
    "Always",
    "Barrier",
    "Distribution",
    "Jobs",
    "Lock",
    "OnOff",
    "Periodic",
    "Poisson",
    "Workload",
]

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
    work_ns : int or Times
        Mean CPU time of a stretch of work, or its distribution.
    wait_ns : int or Times
        Mean time from its end to the next stretch, or its distribution.
    work, wait : {"fixed", "exponential", "uniform"}
        Distributions, where a mean is given.
    start_ns : int
        Time from its addition to the first stretch.
    """

    work_ns: int | Times
    wait_ns: int | Times
    work: Distribution = "exponential"
    wait: Distribution = "exponential"
    start_ns: int = 0


@dataclass(frozen=True, slots=True)
class Poisson:
    """A world to which jobs come at random, whether or not the last one is done.

    Attributes
    ----------
    work_ns : int or Times
        Mean CPU time of a job, or its distribution.
    gap_ns : int
        Mean time between arrivals, which is exponential.
    work : {"fixed", "exponential", "uniform"}
        Distribution of the CPU time, where a mean is given.
    """

    work_ns: int | Times
    gap_ns: int
    work: Distribution = "exponential"


@dataclass(frozen=True, slots=True)
class Periodic:
    """A world to which a job comes at the start of each period; unfinished ones pile up.

    Attributes
    ----------
    work_ns : int or Times
        Mean CPU time of a job, or its distribution.
    period_ns : int or Times
        Time between arrivals.
    work : {"fixed", "exponential", "uniform"}
        Distribution of the CPU time, where a mean is given.
    start_ns : int
        Time from the world's addition to the first job.
    """

    work_ns: int | Times
    period_ns: int | Times
    work: Distribution = "fixed"
    start_ns: int = 0


@dataclass(frozen=True, slots=True)
class Barrier:
    """Phases of work of the worlds of a VM, none of which begins the next before all have come.

    A job is a round: from the start of a phase until the barrier opens.

    Attributes
    ----------
    work_ns : int or Times
        Mean CPU time of a world's phase, or its distribution.
    work : {"fixed", "exponential", "uniform"}
        Its distribution, where a mean is given.
    spin_ns : int or None
        How long, in CPU time, a world that waits spins before it halts. 0: it halts at once;
        None: it spins until the barrier opens.
    pause_exit_ns : int or None
        CPU time of spinning after which the host notices that (a pause-loop exit), and the CPU goes
        to another world if the policy has one that is better; None: never.
    start_ns : int
        Time from the addition to the first phase.
    """

    work_ns: int | Times
    work: Distribution = "exponential"
    spin_ns: int | None = None
    pause_exit_ns: int | None = None
    start_ns: int = 0


@dataclass(frozen=True, slots=True)
class Lock:
    """Work of the worlds of a VM, and in turn a section that only one at a time may be in.

    A job is a round: from the start of the work to the end of the section. The lock is held by a
    world, whether or not that has a CPU.

    Attributes
    ----------
    work_ns : int or Times
        Mean CPU time outside the lock, or its distribution.
    section_ns : int or Times
        Mean CPU time with the lock held, or its distribution.
    work, section : {"fixed", "exponential", "uniform"}
        Distributions, where a mean is given.
    lock : {"ticket", "test_and_set"}
        A ticket lock is handed on in the order of requests, also to a world that has no CPU then. A
        test-and-set lock goes to one of those that spin on a CPU, each as likely; if none does, it
        is free for the first that runs and tests it, and the world that sleeps longest is woken.
    spin_ns, pause_exit_ns
        As of `Barrier`.
    start_ns : int
        Time from the addition to the first work.
    """

    work_ns: int | Times
    section_ns: int | Times
    work: Distribution = "exponential"
    section: Distribution = "exponential"
    lock: Literal["ticket", "test_and_set"] = "ticket"
    spin_ns: int | None = None
    pause_exit_ns: int | None = None
    start_ns: int = 0


Workload: TypeAlias = Always | Jobs | OnOff | Poisson | Periodic | Demand | Barrier | Lock
