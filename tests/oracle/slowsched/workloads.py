"""What worlds do: traces of demand, barriers and locks, each from its rule alone."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

from oracle.slowsched.worlds import WORD, Random, World

if TYPE_CHECKING:
    from oracle.slowsched.engine import SlowScheduler


def second_seed(seed: int) -> int:
    """splitmix64, Steele, Lea and Flood 2014."""
    z = seed + 0x9E3779B97F4A7C15 & WORD
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & WORD
    z = (z ^ z >> 27) * 0x94D049BB133111EB & WORD
    return z ^ z >> 31 or 1


def drawn(random: Random, kind: str, *p) -> int:
    """One time of a distribution."""
    if kind in ("fixed", "exponential", "uniform"):
        return random.time(kind, p[0])
    if kind == "between":
        return p[0] + random.below(p[1] - p[0] + 1)
    if kind == "empirical":
        return int(p[0][random.below(len(p[0]))])
    if kind == "lognormal":
        mean, sigma = p
        radius = math.sqrt(2.0 * -math.log(((random.word() >> 11) + 1) / 2**53))
        normal = radius * math.cos((random.word() >> 11) / 2**53 * 6.283185307179586)
        value = math.exp(sigma * normal) * (mean * math.exp(-0.5 * sigma * sigma))
    else:
        low, high, alpha = p
        part = (random.word() >> 11) / 2**53
        value = low * math.pow(1.0 - part * (1.0 - math.pow(low / high, alpha)), -1.0 / alpha)
    return max(1, int(min(value, 2.0**50)))


def parts(trace: tuple, start: int):
    """Yield the time and the work of each part of a trace of demand, and last its end."""
    times, demands, grain, repeat, _ = trace
    done, total = 0, Fraction(0)
    while True:
        for begin, end, demand in zip(times, times[1:], demands, strict=False):
            step = grain if demand else end - begin
            for at in range(begin, end, step):
                total += Fraction((min(at + step, end) - at) * demand, 10**9)
                yield start + at, math.floor(total) - done
                done = math.floor(total)
        start += times[-1]
        if not repeat:
            yield start, 0
            return


class Team:
    """Worlds that share a barrier or a lock."""

    def __init__(self, host: SlowScheduler, kind: str, spin, window, seed: int) -> None:
        self.host = host
        self.kind = kind
        self.spin = spin
        self.window = window
        self.random = Random(seed)
        self.members: list[World] = []
        self.queue: list[World] = []  # who waits, in the order of arrivals or requests
        self.holder: World | None = None

    def begin_round(self, w: World) -> None:
        w.phase = "work"
        w.round_at = self.host.now
        w.left = drawn(w.random, *w.job)

    def end_round(self, w: World) -> None:
        w.done += 1
        w.responses.append(self.host.now - w.round_at)
        self.begin_round(w)

    def begin_wait(self, w: World) -> None:
        w.waits += 1
        w.asked = self.host.now
        self.queue.append(w)
        if self.spin == 0:
            w.phase = "sleep"
        else:
            self.begin_spin(w)

    def begin_spin(self, w: World) -> None:
        w.phase, w.spin_left, w.window_left = "spin", self.spin, self.window

    def end_wait(self, w: World) -> bool:
        """Return whether it slept."""
        if w.state == "run":
            self.host.charge(w)
            self.host.rearm(w)
        w.wait_time += self.host.now - w.asked
        self.queue.remove(w)
        return w.phase == "sleep"

    def hold(self, w: World) -> None:
        self.holder = w
        w.phase = "section"
        w.held_since, w.held_run = self.host.now, w.times["run"]
        # without a CPU it comes to run once without having been preempted as the holder
        w.held_switches = w.switches + (w.state != "run")
        w.left = drawn(w.random, *w.section)

    def wake(self, w: World) -> None:
        if w.state == "wait" and w.may_compete:
            self.host.make_runnable(w)

    def open(self, last: World | None) -> None:
        if last:
            self.end_round(last)
        for w in list(self.members):
            if w in self.queue and w is not last:
                slept = self.end_wait(w)
                self.end_round(w)
                if slept:
                    self.wake(w)

    def pass_on(self) -> None:
        """The lock is free."""
        if not self.queue:
            return
        first = min(self.queue, key=lambda w: w.ticket)
        if self.kind == "test_and_set":
            ready = [w for w in self.members if w.phase == "spin" and w.state == "run"]
            if ready:
                first = ready[self.random.below(len(ready)) if len(ready) > 1 else 0]
            else:
                asleep = [w for w in self.queue if w.phase == "sleep"]
                if asleep:
                    first = min(asleep, key=lambda w: w.ticket)
                    self.begin_spin(first)
                    self.wake(first)
                return
        slept = self.end_wait(first)
        if first.state != "run" and not slept:
            first.waiter_preempted += 1
        self.hold(first)
        if slept:
            self.wake(first)

    def end_of_phase(self, w: World) -> None:
        if self.kind == "barrier":
            if len(self.queue) + 1 == len(self.members):
                self.open(w)
            else:
                self.begin_wait(w)
        elif w.phase == "work":
            w.ticket = self.next_ticket()
            if self.holder is None:
                self.hold(w)
            else:
                self.begin_wait(w)
        else:
            w.holder_off += self.host.now - w.held_since - (w.times["run"] - w.held_run)
            self.holder = None
            self.end_round(w)
            self.pass_on()

    def next_ticket(self) -> int:
        return 1 + max((m.ticket for m in self.members), default=0)

    def got_cpu(self, w: World) -> None:
        if w.phase == "section" and w.switches != w.held_switches:
            w.held_switches = w.switches
            w.holder_preempted += 1
        if w.phase == "spin" and self.kind == "test_and_set" and self.holder is None:
            w.wait_time += self.host.now - w.asked
            self.queue.remove(w)
            self.hold(w)

    def due(self, w: World) -> list[int]:
        """When a running member's phase needs to be looked at."""
        if w.phase != "spin":
            return [w.since + w.time_left()]
        spins = [] if self.spin is None else [w.spin_left]
        return [w.since + left for left in [*spins, *([w.window_left] if self.window else [])]]

    def leave(self, w: World) -> None:
        self.members.remove(w)
        waited = w in self.queue
        if waited:
            self.queue.remove(w)
        if not self.members:
            return
        if self.kind == "barrier":
            if not waited and len(self.queue) == len(self.members):
                self.open(None)
        else:
            if self.holder is w:
                self.holder = None
            if self.holder is None:
                self.pass_on()
