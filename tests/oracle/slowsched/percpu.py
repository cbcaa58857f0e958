"""A queue for each CPU: lists, sorted anew each time."""

from __future__ import annotations

from fractions import Fraction
from math import floor

from oracle.slowsched.numa import SlowNuma
from oracle.slowsched.plugged import SlowPolicy


class PerCpu(SlowPolicy):
    def __init__(self, timeslice_ns, balance_ns, imbalance_percent, numa=None) -> None:
        self.slice, self.balance, self.percent = timeslice_ns, balance_ns, imbalance_percent
        self.numa = numa and SlowNuma(self, numa)
        self.vm_params = {"memory_mb": (0, 0, (1 << 24) - 1)}

    def begin(self) -> None:
        self.queues: list[list[int]] = [[] for _ in range(self.cpu_count)]
        self.clock = [0] * self.cpu_count
        self.v: dict[int, Fraction] = {}
        self.at: dict[int, int] = {}  # in whose queue, or from whose a world came last
        self.pulls = self.pushes = 0
        self.next_balance = self.now + self.balance if self.balance else None
        if self.numa:
            self.numa.begin()
        self.set_timer()

    def set_timer(self) -> None:
        due = [self.next_balance, self.numa.due if self.numa else None]
        self.timer = min((t for t in due if t is not None), default=None)

    def add(self, id: int) -> None:
        self.v[id] = Fraction(0)
        self.competes = getattr(self, "competes", set()) - {id}
        self.at.pop(id, None)

    def remove(self, id: int) -> None:
        if self.numa:
            self.numa.remove(id)

    def change(self, id: int) -> None:
        self.v[id] = Fraction(floor(self.v[id]))
        if self.numa:
            self.numa.change(self.world(id).vm)

    def able(self, id: int, cpu: int) -> bool:
        return self.allowed(id, cpu) and (not self.numa or self.numa.at_home(id, cpu))

    def load(self, cpu: int) -> int:
        here = [*self.queues[cpu], self.running(cpu)]
        return sum(self.world(id).weight for id in here if id is not None)

    def idle(self, id: int) -> int | None:
        cpus = [cpu for cpu in range(self.cpu_count) if self.able(id, cpu)]
        free = {c for c in range(self.cpu_count) if self.running(c) is None and not self.asked(c)}
        return self.host.shape.choose_idle(free, cpus, self.world(id).cpu)

    def choose(self, id: int) -> int:
        cpu = self.idle(id)
        if cpu is not None:
            return cpu
        cpus = [cpu for cpu in range(self.cpu_count) if self.able(id, cpu)]
        last = self.world(id).cpu
        return min(cpus, key=lambda cpu: (self.load(cpu), cpu != last, cpu))

    def insert(self, id: int, cpu: int) -> None:
        self.queues[cpu].append(id)
        self.at[id] = cpu
        if self.running(cpu) is None:
            self.ask(cpu)

    def shift(self, id: int, source: int, cpu: int) -> None:
        self.v[id] += self.clock[cpu] - self.clock[source]

    def move(self, id: int, source: int, cpu: int) -> None:
        self.queues[source].remove(id)
        self.shift(id, source, cpu)
        self.insert(id, cpu)

    def waiter(self, source: int, cpu: int, most: float) -> int | None:
        able = [id for id in self.queues[source] if self.able(id, cpu)]
        able = [id for id in able if self.world(id).weight <= most]
        return min(able, key=lambda id: (floor(self.v[id]), id), default=None)

    # --- hooks ---

    def enqueue(self, id: int, why: str) -> None:
        cpu = self.world(id).cpu
        crowded = False
        if why in ("slice", "preempt"):
            if not self.able(id, cpu):
                cpu = self.choose(id)
                self.shift(id, self.at[id], cpu)
            crowded = bool(self.queues[cpu])
        else:
            if self.numa and self.numa.home(id) is None:
                vm = self.world(id).vm
                self.numa.place(vm, 256 * self.vm(vm).param[0])
            cpu = self.choose(id)
            self.v[id] = self.clock[cpu] + (self.v[id] if floor(self.v[id]) > 0 else self.v[id] % 1)
        self.competes.add(id)
        self.insert(id, cpu)
        other = self.idle(id) if crowded else None
        if other is not None:
            self.ask(other)

    def leave(self, id: int) -> None:
        self.competes.discard(id)
        self.v[id] -= self.clock[self.at[id]]

    def dequeue(self, id: int) -> None:
        self.queues[self.at[id]].remove(id)
        self.leave(id)

    def stopped(self, id: int, why: str) -> None:
        if id in self.competes:
            self.leave(id)

    def charge(self, id: int, dt: int) -> None:
        self.v[id] += Fraction(dt, self.world(id).weight)

    def pick(self, cpu: int) -> int | None:
        source = cpu
        id = min(self.queues[cpu], key=lambda id: (floor(self.v[id]), id), default=None)
        if id is None:
            others = [other for other in range(self.cpu_count) if other != cpu]
            others.sort(key=lambda other: (self.host.shape.distance(cpu, other), other))
            found = [(self.waiter(other, cpu, float("inf")), other) for other in others]
            found = [(id, other) for id, other in found if id is not None]
            if not found:
                return None
            id, source = found[0]
            self.pulls += 1
        self.queues[source].remove(id)
        self.shift(id, source, cpu)
        self.at[id] = cpu
        self.clock[cpu] = max(self.clock[cpu], floor(self.v[id]))
        return id

    def timeslice(self, cpu: int, id: int) -> int:
        return self.slice

    def timed(self) -> None:
        if self.next_balance == self.now:
            before = None
            for numbers in (*self.host.shape.numbers[1:], [0] * self.cpu_count):
                if max(numbers) == before:
                    continue  # the same parts of the host as one level below
                before = max(numbers)
                for part in range(max(numbers) + 1):
                    self.even_out([c for c, at in enumerate(numbers) if at == part])
            self.next_balance = self.now + self.balance
        if self.numa and self.numa.due == self.now:
            self.numa.timed()
        self.set_timer()

    def even_out(self, cpus: list[int]) -> None:
        for _ in range(self.cpu_count):
            most = min(cpus, key=lambda cpu: (-self.load(cpu), cpu))
            least = min(cpus, key=lambda cpu: (self.load(cpu), cpu))
            high, low = self.load(most), self.load(least)
            if 100 * (high - low) <= self.percent * low:
                return
            id = self.waiter(most, least, high - low - 1)
            if id is None:
                return
            self.move(id, most, least)
            self.pushes += 1

    def rehomed(self, id: int) -> None:
        w = self.world(id)
        if w.state == "ready":
            self.move(id, self.at[id], self.choose(id))
        elif w.state == "run":
            self.ask(w.cpu)
