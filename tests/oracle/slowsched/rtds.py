"""Xen's RTDS: deferrable servers under global EDF, as described; everything searched for anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from oracle.slowsched.plugged import SlowPolicy


@dataclass(eq=False)
class Server:
    id: int
    deadline: int
    budget: int = 0
    level: int = 0
    serves: bool = False  # competes, or is out of budget
    depleted: bool = False


class Rtds(SlowPolicy):
    vm_params: ClassVar = {
        "period_ns": (10_000_000, 1, 1 << 46),
        "budget_ns": (4_000_000, 1, 1 << 46),
        "extratime": (0, 0, 1),
    }

    def begin(self):
        self.servers = {}
        self.queue = []
        self.serving = None

    def add(self, id):
        self.servers[id] = Server(id, self.now)  # the first period begins here

    def remove(self, id):
        self.leave(self.servers[id])
        del self.servers[id]

    def params(self, u):
        return self.vm(self.world(u.id).vm).param

    # --- periods ---

    def refill(self, u):
        """Begin the present period."""
        period, budget, _, _ = self.params(u)
        while u.deadline <= self.now:
            u.deadline += period
        u.budget = min(budget, period)
        u.level = 0

    def set_timer(self):
        deadlines = [u.deadline for u in self.servers.values() if u.serves]
        self.timer = min(deadlines, default=None)

    def charge(self, id, dt):
        self.servers[id].budget -= dt

    def timed(self):
        due = [u for u in self.servers.values() if u.serves and u.deadline <= self.now]
        for u in sorted(due, key=lambda u: u.id):
            if u.serves and u.deadline <= self.now:
                self.end_period(u)
        self.set_timer()

    def end_period(self, u):
        depleted, u.depleted = u.depleted, False
        state = self.world(u.id).state
        if state == "wait":
            u.serves = False  # it blocked while it was out of budget
            return
        if state == "run":
            self.account(self.world(u.id).cpu)
        self.refill(u)
        if state == "run":
            self.ask(self.world(u.id).cpu)
        if u in self.queue:
            self.tickle(u)
        if depleted:
            self.unpark(u.id)

    # --- who runs ---

    def order(self, u):
        return u.level, u.deadline

    def idle_cpu(self, u):
        idle = [
            cpu
            for cpu in range(self.cpu_count)
            if self.allowed(u.id, cpu)
            and self.running(cpu) is None
            and not self.asked(cpu)
            and cpu != self.serving
        ]
        last = self.world(u.id).cpu
        return last if last in idle else min(idle, default=None)

    def tickle(self, u):
        """Have an idle CPU, or that of the least urgent world if it is less urgent, pick."""
        idle = self.idle_cpu(u)
        if idle is not None:
            self.ask(idle)
            return
        worse = [
            (self.order(self.servers[self.running(cpu)]), -cpu)
            for cpu in range(self.cpu_count)
            if self.allowed(u.id, cpu) and self.running(cpu) is not None and not self.asked(cpu)
        ]
        if worse and max(worse)[0] > self.order(u):
            self.ask(-max(worse)[1])

    def enqueue(self, id, why):
        u = self.servers[id]
        if why in ("preempt", "slice"):
            self.serving = self.world(id).cpu
        if not u.serves:
            u.serves = True
            if u.deadline <= self.now:
                self.refill(u)
            self.set_timer()
        if u.budget <= 0:
            period, budget, extratime, _ = self.params(u)
            if not extratime:
                u.depleted = True
                self.park(id)
                return
            u.level += 1
            u.budget = min(budget, period)
        self.queue.append(u)
        self.tickle(u)

    def leave(self, u):
        """What sleeps needs no refills: it is given a new period when it wakes."""
        u.serves = False
        self.set_timer()

    def dequeue(self, id):
        self.queue.remove(self.servers[id])
        self.leave(self.servers[id])

    def stopped(self, id, why):
        if why != "park":
            self.servers[id].depleted = False
            self.leave(self.servers[id])

    def pick(self, cpu):
        ran = self.serving == cpu
        self.serving = cpu
        able = [u for u in self.queue if self.allowed(u.id, cpu)]
        u = min(able, key=lambda u: (*self.order(u), u.id), default=None)
        if u is not None:
            self.queue.remove(u)
            if not ran:
                self.offer()
        self.serving = None
        return None if u is None else u.id

    def offer(self):
        """An idle CPU took one: another that still waits may have an idle CPU of its own."""
        for u in sorted(self.queue, key=lambda u: (*self.order(u), u.id)):
            idle = self.idle_cpu(u)
            if idle is not None:
                self.ask(idle)
                return

    def timeslice(self, cpu, id):
        return self.servers[id].budget
