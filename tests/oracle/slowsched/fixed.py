"""Fixed priorities: POSIX's SCHED_RR, in the plainest way."""

from __future__ import annotations

from oracle.slowsched.plugged import SlowPolicy


class Fixed(SlowPolicy):
    def __init__(self, timeslice_ns: int | None = None) -> None:
        self.timeslice_ns = timeslice_ns

    def begin(self) -> None:
        self.line: list[int] = []  # ready worlds; of equal priority in this order

    def enqueue(self, id: int, why: str) -> None:
        self.line.insert(0 if why == "preempt" else len(self.line), id)
        cpus = [cpu for cpu in range(self.cpu_count) if self.allowed(id, cpu)]
        cpus = [cpu for cpu in cpus if not self.asked(cpu)]
        last = self.world(id).cpu
        if why in ("preempt", "slice"):
            cpus = [cpu for cpu in cpus if cpu != last]  # which picks anyway
        idle = [cpu for cpu in cpus if self.running(cpu) is None]
        if idle:
            self.ask(last if last in idle else idle[0])
            return
        mine = self.world(id).weight
        lower = [
            (self.world(self.running(cpu)).weight, cpu)
            for cpu in cpus
            if self.world(self.running(cpu)).weight < mine
        ]
        if lower:
            self.ask(min(lower)[1])

    def dequeue(self, id: int) -> None:
        self.line.remove(id)

    def change(self, id: int) -> None:
        if self.world(id).state == "run":
            self.ask(self.world(id).cpu)

    def pick(self, cpu: int) -> int | None:
        able = [id for id in self.line if self.allowed(id, cpu)]
        if not able:
            return None
        id = max(able, key=lambda id: self.world(id).weight)
        self.line.remove(id)
        return id

    def timeslice(self, cpu: int, id: int) -> int:
        return self.world(id).slice if self.timeslice_ns is None else self.timeslice_ns
