"""Linux's completely fair scheduler up to 6.5, with exact fractions; virtual runtime in ns."""

from __future__ import annotations

from fractions import Fraction
from math import floor

from oracle.slowsched.plugged import SlowPolicy

UNIT = 1 << 10  # of weights, so that parts of a VM's shares are not rounded away
MOST_MOVED = 32


class Cfs(SlowPolicy):
    def __init__(
        self, latency, granularity, wakeup, tick, balance, imbalance=117, groups=False
    ) -> None:
        self.latency, self.granularity, self.wakeup = latency, granularity, wakeup
        self.tick, self.balance, self.imbalance, self.groups = tick, balance, imbalance, groups

    def begin(self) -> None:
        cpus = range(self.cpu_count)
        self.queues: list = [set() for _ in cpus]  # who waits
        self.members: list = [set() for _ in cpus]  # who waits or runs
        self.least = [0 for _ in cpus]  # min_vruntime
        self.put_back: list = [None for _ in cpus]
        self.timer = self.balance if self.cpu_count > 1 else None

    # --- virtual runtimes ---

    def runtime(self, w) -> int:
        """A world's virtual runtime now."""
        if w.state != "run":
            return floor(w.runtime)
        return floor(w.runtime + self.scaled(self.now - w.since - w.paid, w))

    def scaled(self, time, w) -> Fraction:
        return Fraction(time * 1024 * UNIT, w.share)

    def first(self, cpu: int):
        return min(self.queues[cpu], key=lambda w: (floor(w.runtime), w.id), default=None)

    def current(self, cpu: int):
        w = self.host.cpus[cpu].running
        return w if w in self.members[cpu] and w.state == "run" else None

    def refresh(self, cpu: int) -> None:
        there = [floor(w.runtime) for w in self.queues[cpu]]
        if self.current(cpu):
            there.append(self.runtime(self.current(cpu)))
        if there:
            self.least[cpu] = max(self.least[cpu], min(there))

    def load(self, cpu: int) -> int:
        return sum(w.share for w in self.members[cpu])

    def slice(self, cpu: int, w) -> int:
        count = len(self.members[cpu])
        period = max(self.latency, count * self.granularity)
        if count <= self.latency // self.granularity:
            period = self.latency
        return max(period * w.share // self.load(cpu), self.granularity)

    # --- a VM's shares ---

    def reweigh(self, vm) -> None:
        active = [w for w in map(self.world, vm.worlds) if w.competes]
        total = sum(w.weight for w in active)
        for w in active:
            share = w.weight * UNIT
            if self.groups:
                share = max(1, vm.weight * UNIT * w.weight // total)
            if share != w.share:
                if w.state == "run":
                    progress = self.now - w.since - w.paid
                    w.runtime += self.scaled(progress, w)
                    w.paid += progress
                w.runtime = Fraction(floor(w.runtime))
                w.share = share

    # --- hooks ---

    def add(self, id: int) -> None:
        w = self.world(id)
        w.runtime = Fraction(0)
        w.home = None
        w.share = w.weight * UNIT
        w.paid = 0
        w.competes = False

    def enqueue(self, id: int, why: str) -> None:
        w = self.world(id)
        if why in ("slice", "preempt"):
            self.put_back[w.home] = (w, why)
            return
        cpu = self.choose(w)
        w.competes = True
        self.refresh(cpu)
        if w.home is None:
            w.runtime = Fraction(self.least[cpu])
        elif w.home != cpu:
            self.refresh(w.home)
            w.runtime += self.least[cpu] - self.least[w.home]
        w.home = cpu
        self.members[cpu].add(w)
        self.reweigh(self.vm(w.vm))
        if why == "new":
            w.runtime = Fraction(self.least[cpu] + floor(self.scaled(self.slice(cpu, w), w)))
        elif why != "move":
            w.runtime = max(w.runtime, Fraction(self.least[cpu] - self.latency // 2))
        self.queues[cpu].add(w)
        if len(self.members[cpu]) == 1:
            self.ask(cpu)
        elif why in ("wake", "new"):
            self.preempt(cpu, w)

    def choose(self, w) -> int:
        idle = self.idle(w)
        if idle is not None:
            return idle
        if w.home in w.cpus:
            return w.home
        return min(w.cpus, key=lambda c: (self.load(c), c))

    def is_free(self, cpu: int) -> bool:
        """Idle, and not about to pick."""
        return self.host.cpus[cpu].running is None and cpu not in self.host.asked

    def idle(self, w) -> int | None:
        """The CPU that suits it best, of those where nobody runs or waits."""
        idle = {c for c in range(self.cpu_count) if self.is_free(c)}
        able = [c for c in w.cpus if not self.members[c]]
        return self.host.shape.choose_idle(idle, able, w.cpu)

    def preempt(self, cpu: int, w) -> None:
        other = self.current(cpu)
        if other is not None:
            ahead = self.runtime(other) - floor(w.runtime)
            if ahead > floor(self.scaled(self.wakeup, w)):
                self.ask(cpu)

    def dequeue(self, id: int) -> None:
        w = self.world(id)
        self.refresh(w.home)
        self.queues[w.home].remove(w)
        self.leave(w)

    def stopped(self, id: int, why: str) -> None:
        w = self.world(id)
        if not w.competes:
            return
        if not self.queues[w.home]:
            self.least[w.home] = max(self.least[w.home], floor(w.runtime))
        self.leave(w)

    def leave(self, w) -> None:
        self.members[w.home].remove(w)
        self.refresh(w.home)
        w.competes = False
        self.reweigh(self.vm(w.vm))

    def change(self, id: int) -> None:
        w = self.world(id)
        if w.competes or self.groups:
            self.reweigh(self.vm(w.vm))
        elif w.share != w.weight * UNIT:
            w.runtime = Fraction(floor(w.runtime))
            w.share = w.weight * UNIT

    def charge(self, id: int, dt: int) -> None:
        w = self.world(id)
        w.runtime += self.scaled(dt - w.paid, w)
        w.paid = 0

    def pick(self, cpu: int) -> int | None:
        last, why = self.put_back[cpu] or (None, None)
        self.put_back[cpu] = None
        if last is not None:
            if why == "slice" and not self.expired(cpu, last):
                return last.id
            self.queues[cpu].add(last)
        self.refresh(cpu)
        best = self.first(cpu)
        if best is None:
            best = self.pull(cpu)
        if best is not None:
            self.queues[cpu].remove(best)
        if last is not None and last is not best and self.idle(last) is not None:
            self.ask(self.idle(last))
        return None if best is None else best.id

    def expired(self, cpu: int, w) -> bool:
        """What the tick asks."""
        first = self.first(cpu)
        if first is None:
            return False
        ran = self.now - self.host.cpus[cpu].began
        ideal = self.slice(cpu, w)
        if ran > ideal:
            return True
        return ran >= self.granularity and floor(w.runtime) - floor(first.runtime) > ideal

    def timeslice(self, cpu: int, id: int) -> int:
        return self.tick - self.now % self.tick

    # --- balancing ---

    def movable(self, source: int, cpu: int) -> list:
        waiting = sorted(self.queues[source], key=lambda w: (floor(w.runtime), w.id))
        return [w for w in waiting if cpu in w.cpus]

    def busiest(self, cpu: int):
        others = [c for c in range(len(self.queues)) if c != cpu and self.movable(c, cpu)]
        return max(others, key=lambda c: (self.load(c), -c), default=None)

    def move(self, w, cpu: int) -> None:
        self.refresh(w.home)
        self.refresh(cpu)
        self.queues[w.home].remove(w)
        self.members[w.home].remove(w)
        w.runtime += self.least[cpu] - self.least[w.home]
        self.refresh(w.home)
        w.home = cpu
        self.members[cpu].add(w)
        self.queues[cpu].add(w)

    def pull(self, cpu: int):
        source = self.busiest(cpu)
        if source is None:
            return None
        w = self.movable(source, cpu)[0]
        self.move(w, cpu)
        return w

    def timed(self) -> None:
        self.timer = self.now + self.balance
        for cpu in range(len(self.queues)):
            source = self.busiest(cpu)
            if source is None:
                continue
            ours, theirs = self.load(cpu), self.load(source)
            if 100 * theirs <= self.imbalance * ours:
                continue
            rest = (theirs - ours) // 2
            moved = 0
            for w in self.movable(source, cpu):
                if w.share <= rest and moved < MOST_MOVED:
                    rest -= w.share
                    moved += 1
                    self.move(w, cpu)
                    self.preempt(cpu, w)
