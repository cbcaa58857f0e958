"""The course of one migration whose part of the links changes on its way."""

from __future__ import annotations

import copy
import math

import numpy as np

from pyvirt.cluster import ConstantRate, DirtyLog, Migration, Precopy, WorkingSet
from pyvirt.cluster.migration import ROUND
from pyvirt.cluster.migration_codes import Ended

__all__ = ["Course"]

PAGE = 4096
COPY, DOWN, DONE = range(3)


class Course:
    """Rounds of pre-copy, gone through from one change of the bandwidth to the next.

    The rules are those of `pyvirt.cluster.migrate`, without round trips and ways to end other than
    to stop and copy; with one bandwidth all along it takes as long, and sends as much. What is left
    is judged by the bandwidth of the moment; a round's pages are sent at that of each moment, and
    the guest writes for as long as that takes.

    Parameters
    ----------
    memory : int
        Bytes, whole pages.
    dirty : ConstantRate, WorkingSet or DirtyLog
        How the guest writes.
    bytes_s : float
        The bandwidth to begin with.
    rules : Precopy, optional
        When rounds end.
    """

    def __init__(
        self,
        memory: int,
        dirty: ConstantRate | WorkingSet | DirtyLog,
        bytes_s: float,
        rules: Precopy | None = None,
    ) -> None:
        self._dirty, self._rules = dirty, rules or Precopy()
        self._memory = memory / PAGE
        self._speed_s = bytes_s / PAGE  # pages a second
        self._phase = COPY
        self._clock = self._took = self._guest = self._sent = self._lost = 0.0
        self._size = self._rest = self._memory  # of the round, and what of it is still to be sent
        self._part = 1.0  # of its full speed that the guest keeps
        self._rounds = 0
        self._ended = Ended.AT_ONCE
        self._stopped = math.inf
        self._hold = self._rules.switch_over_ns / 1e9

    def change(self, clock_ns: int, bytes_s: float) -> None:
        """Go on up to a time since the begin, and from then on with another bandwidth."""
        self._run(clock_ns / 1e9)
        self._speed_s = bytes_s / PAGE

    def times(self) -> tuple[int, int]:
        """Say when the guest stops, and when all is done, in ns since the begin, as things are."""
        end = copy.copy(self)
        end._run(math.inf)
        return round(end._stopped * 1e9), round(end._clock * 1e9)

    def outcome(self, stopped_ns: int, total_ns: int) -> Migration:
        """Say what it took, with the times at which it was carried out."""
        end = copy.copy(self)
        end._run(math.inf)
        return Migration(
            total_ns,
            total_ns - stopped_ns,
            end._sent * PAGE,
            np.zeros(end._rounds, ROUND),
            end._ended,
            True,
            round(end._lost * 1e9),
            0,
            0.0,
        )

    def _run(self, clock: float) -> None:
        while self._phase != DONE and self._clock < clock:
            need = self._rest / self._speed_s
            if self._phase == COPY:
                if self._clock + need > clock:
                    self._send(clock)
                    return
                self._clock += need
                self._took += need
                self._end_round()
            else:
                if self._clock + need + self._hold > clock:
                    held = max(0.0, clock - self._clock - need)
                    self._send(clock)
                    self._hold -= held
                    return
                self._clock += need + self._hold
                self._phase = DONE

    def _send(self, clock: float) -> None:
        took = clock - self._clock
        self._rest = max(0.0, self._rest - took * self._speed_s)
        self._took += took
        self._clock = clock

    def _end_round(self) -> None:
        rules, before = self._rules, self._size
        until = self._guest + self._took * self._part
        left = self._written(until)
        self._guest = until
        self._rounds += 1
        self._sent += before
        self._lost += self._took * (1.0 - self._part)
        self._took = 0.0
        self._size = self._rest = left
        if left / self._speed_s + self._hold <= rules.downtime_goal_ns / 1e9:
            self._stop(Ended.GOAL)
        elif self._rounds == rules.max_rounds:
            self._stop(Ended.ROUNDS)
        elif self._sent + left > rules.max_sent * self._memory:
            self._stop(Ended.DATA)
        elif left >= rules.progress * before:
            slower, most = self._part, rules.sdps_target * before
            if rules.sdps and left > most:
                slower = max(rules.sdps_slowest, self._part * most / left)
            # rounding alone is no progress
            if slower >= self._part * (1.0 - 1e-9):
                self._stop(Ended.STALLED)
            else:
                self._part = slower

    def _stop(self, why: Ended) -> None:
        self._ended, self._phase, self._stopped = why, DOWN, self._clock
        self._sent += self._rest

    def _written(self, until: float) -> float:
        """Pages written at least once in the round, up to a time of the guest's."""
        dirty, seconds = self._dirty, until - self._guest
        if isinstance(dirty, ConstantRate):
            return min(self._memory, dirty.pages_s * seconds)
        if isinstance(dirty, DirtyLog):
            return float(self._logged(dirty, self._guest, until))
        hot = min(float(dirty.pages), dirty.pages_s * seconds)
        if dirty.draw != "in turn" and dirty.pages:
            hot = dirty.pages * -math.expm1(-dirty.pages_s * seconds / dirty.pages)
        return hot + min(self._memory - dirty.pages, dirty.cold_pages_s * seconds)

    @staticmethod
    def _logged(log: DirtyLog, begin: float, end: float) -> int:
        times, period = log.times_ns / 1e9, log.period_ns / 1e9
        if not times.size:
            return 0
        turn = int(begin // period) if period else 0
        last = int(end // period) if period else 0
        if last > turn + 1:
            return int(np.unique(log.frames).size)
        found = []
        for i in range(turn, last + 1):
            first, after = np.searchsorted(times, [begin - i * period, end - i * period])
            found.append(log.frames[first:after])
        return int(np.unique(np.concatenate(found)).size)
