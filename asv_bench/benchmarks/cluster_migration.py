"""Migrations: batches of pre-copies beside NumPy, and schedules under budgets."""

from __future__ import annotations

import time

import numpy as np

from pyvirt.cluster import (
    ConstantRate,
    DirtyLog,
    Disk,
    Kind,
    Link,
    Precopy,
    Site,
    migrate,
    migrate_many,
    migrate_storage,
    schedule_migrations,
)

from .timing import paired, target, unit

LINK = Link(10_000)
RULES = Precopy()


def machines(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Memory of 1 to 64 GiB, up to 400,000 dirty pages a second, as many as the link sends."""
    rng = np.random.default_rng(count)
    return rng.integers(1, 65, count) << 30, rng.integers(0, 400_000, count).astype(float)


def numpy_rounds(memory: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """The same rounds for a constant rate, with arrays over machines; total times in ns."""
    pages = memory / 4096
    bandwidth = LINK.bytes_s / 4096
    goal, switch = RULES.downtime_goal_ns / 1e9, RULES.switch_over_ns / 1e9
    left, speed, clock = pages.copy(), np.ones(pages.size), np.zeros(pages.size)
    live = np.arange(pages.size)
    for number in range(RULES.max_rounds):
        seconds = left[live] / bandwidth
        dirty = np.minimum(pages[live], rate[live] * (seconds * speed[live]))
        clock[live] += seconds
        before, left[live] = left[live], dirty
        stalled = dirty >= RULES.progress * before
        fast = dirty > RULES.sdps_target * bandwidth * seconds
        slower = speed[live] * RULES.sdps_target * bandwidth * seconds / np.maximum(dirty, 1e-300)
        slower = np.where(fast, np.maximum(RULES.sdps_slowest, slower), speed[live])
        done = dirty / bandwidth + 0.0 + switch <= goal
        stuck = stalled & (slower >= speed[live] * (1 - 1e-9))
        speed[live] = np.where(stalled, slower, speed[live])
        live = live[~(done | stuck)] if number + 1 < RULES.max_rounds else live[:0]
        if not live.size:
            break
    return np.rint((clock + left / bandwidth + switch) * 1e9).astype(np.int64)


class Precopies:
    """Each machine as if it were alone."""

    params = ["100", "10000", "1000000"]
    param_names = ["machines"]
    timer = time.process_time
    timeout = 300

    def setup(self, count):
        self.memory, self.rate = machines(int(count))
        mine = migrate_many(self.memory, self.rate, LINK, RULES)["total_ns"]
        if np.abs(mine - numpy_rounds(self.memory, self.rate)).max() > 10:
            raise AssertionError("NumPy makes other rounds")

    def time_ours(self, count):
        migrate_many(self.memory, self.rate, LINK, RULES)

    @unit("times faster than rounds with NumPy")
    @target(">=", {"10000": 1.0, "1000000": 2.0})
    def track_over_numpy(self, count):
        return paired(
            lambda: migrate_many(self.memory, self.rate, LINK, RULES),
            lambda: numpy_rounds(self.memory, self.rate),
            least=3,
        ).ratio


class Single:
    """One machine: the cost of a call; and its parts that walk logs."""

    timer = time.process_time

    def setup(self):
        rng = np.random.default_rng(1)
        self.log = DirtyLog(np.sort(rng.integers(0, 10**10, 10**6)), rng.integers(0, 10**6, 10**6))
        migrate(4 << 30, self.log, LINK)
        migrate_storage(Disk(1 << 40), self.log, 1e9)

    def time_constant_rate(self):
        migrate(4 << 30, ConstantRate(20_000), LINK)

    def time_log_of_a_million_writes(self):
        migrate(4 << 30, self.log, LINK)

    def time_mirror_with_a_million_writes(self):
        migrate_storage(Disk(1 << 40), self.log, 1e9)


class Schedules:
    """Migrations that are all submitted at once, eight a host; rounds and shared links."""

    params = ["1000 on 32", "10000 on 96", "10000 on 1000"]
    param_names = ["migrations on hosts"]
    timer = time.process_time
    timeout = 600

    def setup(self, size):
        count, hosts = map(int, size.split(" on "))
        rng = np.random.default_rng(0)
        self.source = rng.integers(0, hosts, count)
        self.columns = {
            "size_bytes": rng.integers(1, 64, count) * 10**9,
            "destination": (self.source + rng.integers(1, hosts, count)) % hosts,
            "network": self.source,
            "dirty_bytes_s": rng.integers(0, 5 * 10**8, count),
            "working_set_bytes": 10**9,
        }
        self.site = Site(np.full(hosts, 10_000), np.full(hosts, 10_000))
        self.kinds = np.full(count, Kind.VMOTION)
        schedule_migrations(Site([1, 1]), [0], 0, 1, destination=1)

    @target("<=", {"1000 on 32": 0.1, "10000 on 96": 2.0})
    def time_schedule(self, size):
        schedule_migrations(self.site, self.kinds, self.source, **self.columns)
