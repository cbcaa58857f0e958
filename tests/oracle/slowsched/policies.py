"""Policies as published, with exact fractions; virtual time in 2**-10 ns at weight 1."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
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
        self.slots: list = [None, None]  # places of worlds, active or not
        self.tree = None

    def make_room(self, worlds: int = 1) -> None:
        """Places for so many more, before the first of them takes one."""
        while self.slots.count(None) < worlds:
            self.slots += [None] * len(self.slots)

    def join(self, w: World) -> None:
        """Take the place after the last one, or the next free one."""
        self.make_room()
        place = sum(each is not None for each in self.slots)
        while self.slots[place] is not None:
            place = (place + 1) % len(self.slots)
        self.slots[place] = w

    def part(self, w: World) -> None:
        self.slots[self.slots.index(w)] = None

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

    def shift(self, w: World, by: int) -> None: ...

    def entered(self, q: Queue) -> None:
        """A world has entered: no rank is too far ahead of the least."""
        ranks = {w: floor(w.v) for w in q.members("ready")}
        least = min(ranks.values())
        for w, rank in ranks.items():
            if rank > least + SPREAD:
                w.v = Fraction(least + SPREAD) + (w.v - rank)
                self.shift(w, least + SPREAD - rank)

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


class Eevdf(Policy):
    """TR-95-22; the way of Linux with a tick."""

    def mean(self, q: Queue) -> int:
        """The queue's virtual time, rounded down."""
        now = self.host.now
        total, weight = Fraction(0), 0
        for w in q.worlds:
            progress = now - w.since if w.state == "run" else 0
            total += w.v * w.weight + progress * UNIT
            weight += w.weight
        return floor(total / weight) if weight else floor(q.v)

    def step(self, w: World) -> int:
        return w.slice * UNIT // w.weight

    def join(self, q: Queue, w: World) -> None:
        remain = floor(w.remain)
        others = sum(each.weight for each in q.worlds)
        if others:
            remain += remain * w.weight // others
        w.v = Fraction(self.mean(q) + remain)
        half = self.host.tick is not None and w.fresh
        w.deadline = floor(w.v) + self.step(w) // (2 if half else 1)
        w.fresh = False

    def leave(self, q: Queue, w: World) -> None:
        mean, most = self.mean(q), 2 * self.step(w)
        w.remain = Fraction(max(-most, min(most, floor(w.v) - mean)))
        q.v = Fraction(mean)

    def queued(self, w: World) -> None:
        if floor(w.v) >= w.deadline:
            w.deadline = floor(w.v) + self.step(w)

    def charge(self, w: World, dt: int) -> None:
        w.v += Fraction(dt * UNIT, w.weight)

    def reweighed(self, w: World, old: int) -> None:
        remain = max(-MOST_REMAIN, min(MOST_REMAIN, floor(w.remain)))
        w.remain = Fraction(remain * old // w.weight)

    def timeslice(self, w: World) -> int:
        if self.host.tick is None:
            return w.slice
        end = self.host.now // self.host.tick * self.host.tick
        while True:
            end += self.host.tick
            if w.v + Fraction((end - self.host.now) * UNIT, w.weight) >= w.deadline:
                return end - self.host.now

    def shift(self, w: World, by: int) -> None:
        w.deadline += by

    def pick(self, queues: list[Queue], cpu: int) -> World | None:
        candidates = []
        for q in queues:
            ready, mean = q.members("ready"), self.mean(q)
            eligible = [w for w in ready if floor(w.v) <= mean]
            if eligible:
                best = min(eligible, key=lambda w: (w.deadline, w.id))
            elif ready:
                best = min(ready, key=lambda w: (floor(w.v), w.id))
            else:
                continue
            candidates.append((best.deadline - mean, best.id, best))
        return min(candidates)[2] if candidates else None


class Lottery(Policy):
    """OSDI 1994."""

    def pick(self, queues: list[Queue], cpu: int) -> World | None:
        ready = [w for q in queues for w in q.slots if w is not None and w.state == "ready"]
        if not ready:
            return None
        ticket = self.host.random.below(sum(w.weight for w in ready))
        for w in ready:
            if ticket < w.weight:
                return w
            ticket -= w.weight
        raise AssertionError


class Group:
    """A node of the tree of hierarchical stride: `size` places from `first`."""

    def __init__(self, q: Queue, first: int, size: int) -> None:
        self.q, self.first, self.size = q, first, size
        self.passed = Fraction(0)
        self.children = []
        if size > 1:
            self.children = [Group(q, first, size // 2), Group(q, first + size // 2, size // 2)]

    def worlds(self) -> list:
        return [w for w in self.q.slots[self.first : self.first + self.size] if w is not None]

    def tickets(self) -> int:
        return sum(w.weight for w in self.worlds() if w in self.q.worlds)

    def ready(self) -> bool:
        return any(w.state == "ready" for w in self.worlds() if w in self.q.worlds)

    def way(self, place: int) -> list:
        """From this node down to a place."""
        for child in self.children:
            if child.first <= place < child.first + child.size:
                return [self, *child.way(place)]
        return [self]


class HStride(Policy):
    """TM-528, the tree in the order of places."""

    def tree(self, q: Queue) -> Group:
        """The tree, which grows with the places: the old one becomes the left child."""
        if q.tree is None:
            q.tree = Group(q, 0, len(q.slots))
        while q.tree.size < len(q.slots):
            old, q.tree = q.tree, Group(q, 0, 2 * q.tree.size)
            q.tree.children[0] = old
            q.tree.passed = old.passed
        return q.tree

    def changed(self, q: Queue, w: World) -> None:
        """The world is about to come or go: passes of its groups."""
        way = self.tree(q).way(q.slots.index(w))
        siblings = [[]] + [[c for c in up.children if c is not down] for up, down in pairwise(way)]
        siblings[0] = [self.tree(other) for other in self.host.queues.values() if other is not q]
        for group, others in zip(way, siblings, strict=True):
            if not group.tickets():
                known = [other.passed // 1 for other in others if other.tickets()]
                group.passed = Fraction(max([group.passed // 1, *known]))
            group.passed = Fraction(group.passed // 1)

    join = leave = changed

    def charge(self, w: World, dt: int) -> None:
        q = self.host.queue(w.cpus)
        for group in self.tree(q).way(q.slots.index(w)):
            group.passed += Fraction(dt * UNIT, group.tickets())

    def entered(self, q: Queue) -> None: ...

    def pick(self, queues: list[Queue], cpu: int) -> World | None:
        found = []
        for q in queues:
            group = self.tree(q)
            if not group.ready():
                continue
            passed = floor(group.passed)
            while group.children:
                group = min((c for c in group.children if c.ready()), key=lambda c: floor(c.passed))
            (w,) = group.worlds()
            found.append((passed, w.id, w))
        return min(found)[2] if found else None


POLICIES = {
    "rr": RoundRobin,
    "stride": Stride,
    "eevdf": Eevdf,
    "lottery": Lottery,
    "hstride": HStride,
}
