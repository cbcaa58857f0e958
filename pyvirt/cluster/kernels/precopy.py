"""Pre-copy of a machine's memory in rounds; units are pages and seconds, in double precision."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from pyvirt.cluster.migration_codes import (
    ABORT,
    AT_ONCE,
    CONSTANT,
    DATA,
    GOAL,
    LIMITED,
    POSTCOPY,
    ROUNDS,
    STALLED,
    STOP_AND_COPY,
    TRACED,
)

__all__ = ["precopy"]


@njit(cache=True, nogil=True)
def _dirtied(
    kind: int, memory: float, rate: float, working_set: float, cold: float, seconds: float
) -> float:
    """Pages written at least once in so much of the guest's time."""
    if kind == CONSTANT:
        return min(memory, rate * seconds)
    if kind == LIMITED or working_set == 0.0:
        hot = min(working_set, rate * seconds)
    else:
        hot = working_set * -math.expm1(-rate * seconds / working_set)
    return hot + min(memory - working_set, cold * seconds)


@njit(cache=True, nogil=True)
def _first_at(times: Any, begin: int, end: int, time: float) -> int:
    """The first entry of a sorted part whose time is not below `time`."""
    while begin < end:
        middle = (begin + end) // 2
        if times[middle] < time:
            begin = middle + 1
        else:
            end = middle
    return begin


@njit(cache=True, nogil=True)
def precopy(
    memory: Any,
    kind: Any,
    rate: Any,
    working_set: Any,
    cold: Any,
    bandwidth: Any,
    log_start: Any,
    log_time: Any,
    log_frame: Any,
    log_period: Any,
    stamp: Any,
    goal_s: float,
    progress: float,
    most_sent: float,
    slow_to: float,
    slowest: float,
    round_s: float,
    switch_s: float,
    most_rounds: int,
    then: int,
    unit: float,
    result: Any,
    rounds: Any,
) -> None:
    """Move each machine; the arrays' first axis is the machine.

    `log_*` are the written frames of machines of the kind TRACED, by guest time, in CSR form; a
    period above 0 repeats the log. `stamp` has one 0 for each frame number of any log. `slow_to`
    is the part of the bandwidth to which a stalled guest's writes are slowed, 0 for never.
    `result` gets a record for each machine, in ns and, by `unit`, in bytes; `rounds`, unless it
    is empty, pages, seconds, dirtied and speed of each round.
    """
    mark = 0
    for v in range(memory.size):
        left = memory[v]
        clock = guest = sent = lost = 0.0
        speed = 1.0
        seconds = 0.0
        entry, cycle = log_start[v], 0
        ended = AT_ONCE
        n = 0
        while n < most_rounds:
            seconds = left / bandwidth[v] + round_s
            until = guest + seconds * speed
            if kind[v] == TRACED:
                mark += 1
                count = visited = 0
                length = log_start[v + 1] - log_start[v]
                period = log_period[v]
                while entry < log_start[v + 1]:
                    if cycle * period + log_time[entry] >= until:
                        break
                    if stamp[log_frame[entry]] != mark:
                        stamp[log_frame[entry]] = mark
                        count += 1
                    entry += 1
                    visited += 1
                    if entry == log_start[v + 1] and period > 0.0:
                        entry, cycle = log_start[v], cycle + 1
                    if visited == length and period > 0.0:
                        # every frame of the log is counted: go on where the round ends
                        cycle = max(cycle, int(until / period))
                        entry = _first_at(
                            log_time, log_start[v], log_start[v + 1], until - cycle * period
                        )
                        if entry == log_start[v + 1]:
                            entry, cycle = log_start[v], cycle + 1
                        break
                dirty = float(count)
            else:
                dirty = _dirtied(
                    kind[v], memory[v], rate[v], working_set[v], cold[v], seconds * speed
                )
            if rounds.shape[0] > 0:
                rounds[v, n, 0] = left
                rounds[v, n, 1] = seconds
                rounds[v, n, 2] = dirty
                rounds[v, n, 3] = speed
            n += 1
            clock += seconds
            guest = until
            sent += left
            lost += seconds * (1.0 - speed)
            before, left = left, dirty
            if left / bandwidth[v] + round_s + switch_s <= goal_s:
                ended = GOAL
                break
            ended = ROUNDS
            if n == most_rounds:
                break
            if sent + left > most_sent * memory[v]:
                ended = DATA
                break
            if left >= progress * before:
                slower = speed
                if slow_to > 0.0 and left > slow_to * bandwidth[v] * seconds:
                    slower = max(slowest, speed * slow_to * bandwidth[v] * seconds / left)
                # rounding alone is no progress
                if slower >= speed * (1.0 - 1e-9):
                    ended = STALLED
                    break
                speed = slower
        what = STOP_AND_COPY if ended == GOAL else then
        down = degraded = faults = 0.0
        if what == STOP_AND_COPY:
            down = left / bandwidth[v] + round_s + switch_s
            clock += down
            sent += left
        elif what == POSTCOPY:
            # a bit for each page says which ones are missing
            bitmap = memory[v] / 8.0 / 4096.0
            down = bitmap / bandwidth[v] + round_s + switch_s
            degraded = left / bandwidth[v]
            # the guest goes on writing as it did; what it touches is missing with the
            # probability with which it has not come yet, which falls from 1 to 0
            touched = rate[v] + cold[v]
            if kind[v] == TRACED:
                touched = left / seconds if seconds > 0.0 else 0.0
            faults = min(left, touched * degraded / 2.0)
            clock += down + degraded
            sent += bitmap + left
        one = result[v]
        one.total_ns = int(np.rint(clock * 1e9))
        one.downtime_ns = int(np.rint(down * 1e9))
        one.sent_bytes = sent * unit
        one.rounds = n
        one.ended = ended
        one.moved = what != ABORT
        one.lost_ns = int(np.rint(lost * 1e9))
        one.degraded_ns = int(np.rint(degraded * 1e9))
        one.remote_faults = faults
