"""What a world is, and what it draws."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

WORD = (1 << 64) - 1


class Random:
    """xorshift64*, Vigna 2016."""

    def __init__(self, seed: int) -> None:
        self.state = seed

    def word(self) -> int:
        x = self.state
        x ^= x >> 12
        x = (x ^ x << 25) & WORD
        x ^= x >> 27
        self.state = x
        return x * 0x2545F4914F6CDD1D & WORD

    def time(self, kind: str, mean: int) -> int:
        if kind == "fixed":
            return mean
        if kind == "exponential":
            value = -math.log(((self.word() >> 11) + 1) / 2**53) * mean
        else:
            value = (self.word() >> 11) / 2**53 * (2.0 * mean)
        return max(1, int(value))

    def below(self, bound: int) -> int:
        mask = (1 << (bound - 1).bit_length()) - 1
        while True:
            value = self.word() >> 24 & mask
            if value < bound:
                return value


@dataclass(eq=False)
class World:
    id: int
    weight: int
    slice: int
    cpus: frozenset
    since: int
    source: str | None = None  # "none", "open", "closed", "trace", "team"; None: always runs
    job: tuple = ("fixed", 0)
    gap: tuple = ("fixed", 0)
    section: tuple = ("fixed", 0)
    trace: tuple | None = None
    parts: Iterator | None = None
    coming: tuple | None = None  # time and work of the trace's next part
    random: Random | None = None
    random_gap: Random | None = None
    state: str = "wait"
    held: bool = False
    halted: bool = False
    pause: str = ""
    pause_end: int | None = None
    cpu: int | None = None
    left: int = 0
    jobs: list = field(default_factory=list)  # arrival and work of each
    arrival: int | None = None
    first: int | None = None  # arrival, of a world that is being added
    limit: tuple | None = None  # quota, period
    budget: int = 0
    period_end: int = 0
    refill: int | None = None
    woken: bool = False
    times: dict = field(
        default_factory=lambda: dict.fromkeys(("run", "ready", "limited", "costop", "wait"), 0)
    )
    work: Fraction = Fraction(0)  # done, at whatever speed
    speed: Fraction = Fraction(1)
    threads: int = 0  # busy ones of its core when that speed was set
    memory: int = 1 << 16  # what remote memory leaves of the speed, in 2**-16
    stall: int = 0  # time until work goes on after a move
    stalled: int = 0
    moves: list = field(default_factory=lambda: [0] * 6)
    switches: int = 0
    migrations: int = 0
    done: int = 0
    interrupts: int = 0
    idle: int = 0
    swpwt: int = 0
    demanded: int = 0
    dropped: int = 0
    dropped_jobs: int = 0
    responses: list = field(default_factory=list)
    # of one that shares a barrier or a lock
    team: object = None
    phase: str = ""
    ticket: int = 0
    round_at: int = 0
    asked: int = 0
    spin_left: int | None = None
    window_left: int | None = None
    held_since: int = 0
    held_run: int = 0
    held_switches: int = 0
    spin: int = 0
    waits: int = 0
    wait_time: int = 0
    yields: int = 0
    holder_preempted: int = 0
    holder_off: int = 0
    waiter_preempted: int = 0
    wakes: list = field(default_factory=list)
    v: Fraction = Fraction(0)  # virtual time
    remain: Fraction = Fraction(0)  # what it is ahead of its queue while it does not compete
    deadline: int = 0  # virtual
    fresh: bool = True  # has not competed yet
    vm: int = 0
    parked: bool = False  # by a plug-in policy
    costopped: bool = False
    queued: bool = False  # a plug-in policy has it in a queue

    @property
    def slice_ns(self) -> int:
        return self.slice

    @property
    def has_work(self) -> bool:
        if self.halted or self.phase == "sleep":
            return False
        return self.source is None or bool(self.jobs) or self.left > 0

    @property
    def may_compete(self) -> bool:
        return not self.held and self.pause_end is None and self.has_work

    @property
    def waits_for(self) -> str:
        """The part of `wait` that the present time belongs to."""
        if self.state != "wait":
            return ""
        if self.pause_end is not None:
            return "swpwt" if self.pause == "swap" else "other"
        return "other" if self.held else "idle"

    def count(self, now: int) -> None:
        """Book the time in the present state."""
        time = now - self.since
        self.times[self.state] += time
        self.idle += time * (self.waits_for == "idle")
        self.swpwt += time * (self.waits_for == "swpwt")
        self.since = now

    def progress(self, dt: int) -> int:
        """Run for some time; gives the whole units of work."""
        lost = min(self.stall, dt)
        self.stall -= lost
        self.stalled += lost
        before = math.floor(self.work)
        self.work += (dt - lost) * self.speed
        return math.floor(self.work) - before

    def time_left(self) -> int:
        """Until the present job's work is done."""
        units = self.left - (self.work - math.floor(self.work)) if self.left else 0
        return self.stall + math.ceil(units / self.speed)

    def refresh(self, now: int) -> None:
        """Begin the present period of the limit."""
        while now >= self.period_end:
            self.period_end += self.limit[1]
            self.budget = self.limit[0]


@dataclass(eq=False)
class Vm:
    number: int
    weight: int
    reservation: int = 0
    limit: int = -1
    param: list = field(default_factory=lambda: [0] * 4)
    worlds: list = field(default_factory=list)  # numbers
