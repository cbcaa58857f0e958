"""Borrowed virtual time with exact fractions (Duda and Cheriton, SOSP 1999)."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor

from oracle.slowsched.plugged import SlowPolicy

UNIT = 1 << 10
MOST_SLICE = (1 << 32) - 1
MOST_WARP = 1 << 50


def rounded(time: Fraction) -> Fraction:
    return Fraction(floor(time * UNIT), UNIT)


class Bvt(SlowPolicy):
    vm_params = {  # noqa: RUF012
        "warp": (0, 0, MOST_WARP),
        "warp_limit": (0, 0, MOST_WARP),
        "unwarp": (0, 0, MOST_WARP),
    }

    def __init__(self, allowance: int) -> None:
        self.allowance = allowance

    def begin(self) -> None:
        self.queued: set = set()
        self.competing: set = set()
        self.svt = Fraction(0)  # while nobody competes
        self.last: dict = {}  # CPU: who was put back there, and not picked since

    def param(self, w, number: int) -> int:
        return self.vm(w.vm).param[number]

    # --- virtual times ---

    def actual(self, w) -> Fraction:
        """A, with what is in progress, in whole units."""
        progress = self.now - w.since if w.state == "run" else 0
        return rounded(w.actual + Fraction(progress, w.weight))

    def warp(self, w) -> int:
        return self.param(w, 0) if w.warped else 0

    def effective(self, w) -> Fraction:
        return self.actual(w) - self.warp(w)

    def scheduler_time(self) -> Fraction:
        return min(map(self.actual, self.competing), default=self.svt)

    def margin(self, w) -> Fraction:
        """C in the world's virtual time."""
        return Fraction(self.allowance * UNIT // w.weight, UNIT)

    def first(self, cpu: int):
        waiting = [w for w in self.queued if cpu in w.cpus]
        return min(waiting, key=lambda w: (self.effective(w), w.id), default=None)

    def lasts(self, w, other) -> int:
        """How long `w` runs until it is C beyond `other`, from when it was last charged."""
        goal = self.effective(other) + self.warp(w) + self.margin(w)
        return min(MOST_SLICE, max(0, ceil((goal - w.actual) * w.weight)))

    # --- hooks ---

    def add(self, id: int) -> None:
        w = self.world(id)
        w.actual = self.scheduler_time()
        w.warped = False
        w.warp_left = w.unwarped_until = 0
        w.came = None

    def enqueue(self, id: int, why: str) -> None:
        w = self.world(id)
        w.came = None
        if why in ("slice", "preempt"):
            self.last[w.cpu] = w
            self.queued.add(w)
            return
        if why in ("wake", "new"):
            w.actual = max(w.actual, self.scheduler_time())
            w.warped = self.param(w, 0) > 0 and self.now >= w.unwarped_until
            w.warp_left = self.param(w, 1)
            w.came = self.now
        self.queued.add(w)
        self.competing.add(w)
        self.find_cpu(w)

    def is_free(self, cpu: int) -> bool:
        """Idle, and not about to pick."""
        return self.host.cpus[cpu].running is None and cpu not in self.host.asked

    def idle(self, w, left: int | None) -> int | None:
        """The idle CPU that suits it best."""
        idle = {c for c in range(self.cpu_count) if self.is_free(c)}
        able = [c for c in w.cpus if c != left]
        return self.host.shape.choose_idle(idle, able, w.cpu)

    def find_cpu(self, w, left: int | None = None) -> None:
        """Where it may run; `left` is the CPU that it had and lost just now."""
        idle = self.idle(w, left)
        if idle is not None:
            self.ask(idle)
            return
        others = [c for c in sorted(w.cpus) if c != left]
        busy = [(c, self.host.cpus[c].running) for c in others]
        busy = [(c, other) for c, other in busy if other is not None]
        if busy and w.came == self.now:
            c, other = max(busy, key=lambda each: (self.effective(each[1]), -each[0]))
            if self.effective(w) < self.effective(other):
                self.ask(c)
                return
        ends = [(other.since + self.lasts(other, w), c) for c, other in busy]
        ends = [(end, c) for end, c in ends if end < self.host.cpus[c].slice_end]
        if ends:
            self.ask(min(ends)[1])

    def dequeue(self, id: int) -> None:
        self.queued.remove(self.world(id))
        self.stopped(id, "dequeue")

    def stopped(self, id: int, why: str) -> None:
        w = self.world(id)
        if w in self.competing:
            self.competing.remove(w)
            if not self.competing:
                self.svt = rounded(w.actual)

    def change(self, id: int) -> None:
        w = self.world(id)
        w.actual = rounded(w.actual)

    def charge(self, id: int, dt: int) -> None:
        w = self.world(id)
        w.actual += Fraction(dt, w.weight)
        if w.warped and self.param(w, 1):
            w.warp_left -= dt
            if w.warp_left <= 0:
                w.warped = False
                w.unwarped_until = self.now + self.param(w, 2)

    def pick(self, cpu: int) -> int | None:
        best, last = self.first(cpu), self.last.pop(cpu, None)
        if best is None:
            return None
        if last is not None and last is not best:
            gap = self.effective(last) - self.effective(best)
            woke = best.came == self.now and gap > 0
            if not woke and gap < self.margin(last):
                best = last
            elif self.now < self.host.cpus[cpu].slice_end:
                self.find_cpu(last, cpu)
            else:
                idle = self.idle(last, cpu)
                if idle is not None:
                    self.ask(idle)
        self.queued.remove(best)
        return best.id

    def timeslice(self, cpu: int, id: int) -> int:
        w, other = self.world(id), self.first(cpu)
        most = self.lasts(w, other) if other is not None else MOST_SLICE
        if w.warped and self.param(w, 1):
            most = min(most, w.warp_left)
        return max(1, most)
