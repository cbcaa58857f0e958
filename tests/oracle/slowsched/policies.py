"""Policies as published, with exact fractions; virtual time in 2**-10 ns at weight 1."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oracle.slowsched.engine import SlowScheduler
    from oracle.slowsched.worlds import World

UNIT = 1 << 10
SPREAD = 1 << 43
MOST_REMAIN = 1 << 42


class Queue:
    """The worlds with one affinity."""

    def __init__(self, cpus: frozenset) -> None:
        self.cpus = cpus
        self.worlds: set[World] = set()  # that are ready or run
        self.v = Fraction(0)
        self.then = 0  # CPU time that is in `v`

    def members(self, state: str) -> list:
        return [w for w in self.worlds if w.state == state]


class Policy:
    def __init__(self, host: SlowScheduler) -> None:
        self.host = host

    def new(self, w: World) -> None: ...

    def join(self, q: Queue, w: World) -> None: ...

    def leave(self, q: Queue, w: World) -> None: ...

    def queued(self, w: World) -> None: ...

    def charge(self, w: World, dt: int) -> None: ...

    def reweighed(self, w: World, old: int) -> None: ...

    def timeslice(self, w: World) -> int:
        return w.slice

    def entered(self, q: Queue) -> None:
        """A world has entered: no rank is too far ahead of the least."""
        ranks = {w: floor(w.v) for w in q.members("ready")}
        least = min(ranks.values())
        for w, rank in ranks.items():
            if rank > least + SPREAD:
                w.v = Fraction(least + SPREAD) + (w.v - rank)

    def pick(self, queues: list[Queue], cpu: int) -> World | None:
        ready = [w for q in queues for w in q.members("ready")]
        return min(ready, key=lambda w: (floor(w.v), w.id), default=None)


class RoundRobin(Policy):
    def __init__(self, host: SlowScheduler) -> None:
        super().__init__(host)
        self.number = 0

    def queued(self, w: World) -> None:
        w.v = Fraction(self.number)
        self.number += 1


class Stride(Policy):
    """TM-528: `remain` is kept over a leave, scaled with the stride."""

    def new(self, w: World) -> None:
        w.remain = Fraction(w.slice * UNIT, w.weight)

    def sync(self, q: Queue) -> None:
        """The queue's pass: rounded down whenever the weights that advance it change."""
        now = self.host.consumed(q)
        weight = sum(w.weight for w in q.worlds)
        if weight:
            q.v = Fraction(floor(q.v + Fraction((now - q.then) * UNIT, weight)))
        q.then = now

    def join(self, q: Queue, w: World) -> None:
        self.sync(q)
        w.v = q.v + w.remain

    def leave(self, q: Queue, w: World) -> None:
        self.sync(q)
        w.remain = w.v - q.v

    def charge(self, w: World, dt: int) -> None:
        w.v += Fraction(dt * UNIT, w.weight)

    def reweighed(self, w: World, old: int) -> None:
        remain = max(-MOST_REMAIN, min(MOST_REMAIN, floor(w.remain)))
        w.remain = Fraction(remain * old // w.weight)


POLICIES = {"rr": RoundRobin, "stride": Stride}
