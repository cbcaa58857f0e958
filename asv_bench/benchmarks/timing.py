"""Timing on a machine that is never quiet."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Pair(NamedTuple):
    """Medians over interleaved repeats of two callables."""

    ratio: float
    """How many times faster the first is."""
    first_s: float
    second_s: float


def seconds(call: Callable[[], object], timer: Callable[[], float] = time.process_time) -> float:
    """Time one call; by default the CPU time of the whole process, threads included."""
    start = timer()
    call()
    return timer() - start


def paired(
    first: Callable[[], object],
    second: Callable[[], object],
    *,
    least: int = 5,
    most: int = 41,
    budget_s: float = 1.0,
    timer: Callable[[], float] = time.process_time,
) -> Pair:
    """Run both in turn, and take the median of the ratios of neighbours.

    Other load on the machine changes slowly against one pair, so it hits both halves of a ratio; a
    burst that hits one half only is an outlier, which the median drops. The order changes with each
    pair, so that neither always runs in the other's cache. It goes on for `budget_s`, within the
    bounds given.
    """
    times: list[tuple[float, float]] = []
    end = time.perf_counter() + budget_s
    while len(times) < least or (len(times) < most and time.perf_counter() < end):
        if len(times) % 2:
            b = seconds(second, timer)
            a = seconds(first, timer)
        else:
            a = seconds(first, timer)
            b = seconds(second, timer)
        times.append((a, b))
    return Pair(
        statistics.median(b / a for a, b in times),
        statistics.median(a for a, _ in times),
        statistics.median(b for _, b in times),
    )


def target(relation: str, value: float | dict[str, float]) -> Callable[[Callable], Callable]:
    """Note the figure that a benchmark must show; `report.py` prints the verdict.

    A benchmark with parameters has one figure for all, or a dictionary by parameter.
    """

    def note(method: Callable) -> Callable:
        method.target = (relation, value)
        return method

    return note


def unit(name: str) -> Callable[[Callable], Callable]:
    """Set the unit that asv shows for a ``track_`` benchmark."""

    def note(method: Callable) -> Callable:
        method.unit = name
        return method

    return note
