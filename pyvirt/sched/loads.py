"""What the engine is told about a workload."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.sched import times
from pyvirt.sched.demand import Demand
from pyvirt.sched.workloads import Always, Barrier, Jobs, Lock, OnOff, Periodic, Poisson, Workload

__all__ = ["described", "team"]

_DISTRIBUTIONS = ("fixed", "exponential", "uniform")


def distribution(time: Any, kind: str, name: str) -> tuple[Any, ...]:
    """Give the name and parameters of a distribution, from a mean or an object."""
    if isinstance(time, times.Fixed):
        return ("fixed", time.time_ns)
    if isinstance(time, times.Exponential):
        return ("exponential", time.mean_ns)
    if isinstance(time, times.Between):
        return ("between", time.low_ns, time.high_ns)
    if isinstance(time, times.LogNormal):
        return ("lognormal", time.mean_ns, time.sigma)
    if isinstance(time, times.BoundedPareto):
        return ("pareto", time.low_ns, time.high_ns, time.alpha)
    if isinstance(time, times.Empirical):
        return ("empirical", time.values_ns)
    if kind not in _DISTRIBUTIONS:
        raise InvalidValueError(
            f"a distribution is one of {', '.join(_DISTRIBUTIONS)}, got {kind!r:.80}"
        )
    return (kind, time)


def described(
    workload: Workload, seed: Callable[[], int], number: int | None = None, responses: bool = False
) -> tuple[Any, ...] | None:
    """Give what `SchedCore._add` takes; of worlds that share something, `number` is its number."""
    more: dict[str, Any] = {}
    start: int | None = None
    work: tuple[Any, ...] = ("fixed", 0)
    gap: tuple[Any, ...] = ("fixed", 0)
    source: str | None
    if isinstance(workload, Always):
        if responses:
            raise InvalidValueError("responses must be False for a world that has no jobs")
        return None
    if isinstance(workload, Jobs):
        source = None
    elif isinstance(workload, OnOff):
        source, start = "closed", workload.start_ns
        work = distribution(workload.work_ns, workload.work, "work_ns")
        gap = distribution(workload.wait_ns, workload.wait, "wait_ns")
    elif isinstance(workload, Poisson):
        source = "open"
        work = distribution(workload.work_ns, workload.work, "work_ns")
        gap = distribution(workload.gap_ns, "exponential", "gap_ns")
    elif isinstance(workload, Periodic):
        source, start = "open", workload.start_ns
        work = distribution(workload.work_ns, workload.work, "work_ns")
        gap = distribution(workload.period_ns, "fixed", "period_ns")
    elif isinstance(workload, Demand):
        source, start = "trace", workload.start_ns
        more["trace"] = trace(workload)
    elif isinstance(workload, (Barrier, Lock)):
        if number is None:
            raise InvalidTypeError(f"{type(workload).__name__} is for the worlds of a VM: add_vm")
        source, start = "team", workload.start_ns
        more["team"] = number
        more["work"] = distribution(workload.work_ns, workload.work, "work_ns")
        if isinstance(workload, Lock):
            section = distribution(workload.section_ns, workload.section, "section_ns")
            more["section"] = section
    else:
        raise InvalidTypeError(
            "workload must be Always, Jobs, OnOff, Poisson, Periodic, Demand, Barrier or Lock, "
            f"got {workload!r:.80}"
        )
    if responses:
        more["responses"] = True
    simple = [work, gap]
    for i, (name, given) in enumerate((("work", work), ("gap", gap))):
        if given[0] not in _DISTRIBUTIONS:
            more[name] = given
            simple[i] = ("fixed", 1)
    load = (source, simple[0][1], simple[0][0], simple[1][1], simple[1][0], start, seed())
    return (*load, more) if more else load


def trace(demand: Demand) -> tuple[Any, ...]:
    """Give starts and end, demands, grain, whether it repeats, whether it drops."""
    if demand.unserved not in ("queue", "drop"):
        raise InvalidValueError(f"unserved must be queue or drop, got {demand.unserved!r:.80}")
    drops = demand.unserved == "drop"
    return (demand.times_ns, demand.integers(), demand.grain_ns, demand.repeat, drops)


def team(workload: Barrier | Lock) -> tuple[str, int | None, int | None]:
    """Give the kind, bound of spinning, and window, for `SchedCore._add_team`."""
    kind: str = "barrier" if isinstance(workload, Barrier) else workload.lock
    if isinstance(workload, Lock) and kind == "barrier":
        raise InvalidValueError("lock must be ticket or test_and_set, got 'barrier'")
    return (kind, workload.spin_ns, workload.pause_exit_ns)
