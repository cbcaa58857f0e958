"""A policy that does everything a policy may do, at random: one class on both engines."""

from __future__ import annotations

from typing import Any

from oracle.slowsched import SlowPolicy
from pyvirt.sched import PythonPolicy


class Churn:
    """Parks, co-stops, preempts and sets its timer as its numbers say, and keeps a log."""

    def __init__(self, seed: int = 1) -> None:
        self.seed = seed
        self.line: list[int] = []
        self.known: list[int] = []
        self.log: list[tuple] = []

    def draw(self, below: int) -> int:
        self.seed = (self.seed * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.seed >> 33) % below

    def meddle(self: Any) -> None:
        """Perhaps ask for a CPU, or keep a world from running, or let it."""
        if not self.known or self.draw(3):
            return
        id = self.known[self.draw(len(self.known))]
        act = self.draw(6)
        if act == 0:
            self.park(id)
        elif act == 1:
            self.costop(id)
        elif act == 2:
            self.unpark(id)
        elif act == 3:
            self.costart(id)
        else:
            self.ask(self.draw(self.cpu_count))

    def begin(self: Any) -> None:
        self.log.append(("begin", self.now))
        self.timer = self.now + 3

    def add(self, id: int) -> None:
        self.log.append(("add", id))
        self.known.append(id)

    def remove(self, id: int) -> None:
        self.log.append(("remove", id))
        self.known.remove(id)

    def change(self: Any, id: int) -> None:
        self.log.append(("change", id, self.world(id).weight, self.world(id).state))
        self.meddle()

    def enqueue(self: Any, id: int, why: str) -> None:
        self.log.append(("enqueue", id, why, self.now, self.world(id).state))
        if self.draw(8) == 0:
            self.park(id)
            return
        if self.draw(8) == 0:
            self.costop(id)
            return
        self.line.insert(self.draw(len(self.line) + 1), id)
        self.ask(self.draw(self.cpu_count))

    def dequeue(self, id: int) -> None:
        self.log.append(("dequeue", id))
        self.line.remove(id)

    def charge(self: Any, id: int, dt: int) -> None:
        self.log.append(("charge", id, dt, self.world(id).state))
        self.meddle()

    def pick(self: Any, cpu: int) -> int | None:
        self.log.append(("pick", cpu, self.now))
        if self.draw(8) == 0:
            self.meddle()
        able = [id for id in self.line if self.allowed(id, cpu)]
        if not able or self.draw(10) == 0:
            return None
        self.line.remove(able[0])
        return able[0]

    def timeslice(self: Any, cpu: int, id: int) -> int:
        self.log.append(("timeslice", cpu, id, self.running(cpu), self.began(cpu)))
        if self.draw(10) == 0:
            self.meddle()
        return 1 + self.draw(7)

    def stopped(self: Any, id: int, why: str) -> None:
        self.log.append(("stopped", id, why, self.world(id).state, self.world(id).cpu))
        self.meddle()

    def timed(self: Any) -> None:
        self.log.append(("timed", self.now, self.timer))
        for cpu in range(self.cpu_count):
            if self.draw(2):
                self.account(cpu)
            if not self.asked(cpu):
                self.ask(cpu)
        for id in list(self.known):
            if self.draw(2):
                self.unpark(id)
            if self.draw(2):
                self.costart(id)
        if self.draw(20):
            self.timer = self.now + self.draw(9)


class FastChurn(Churn, PythonPolicy):
    pass


class SlowChurn(Churn, SlowPolicy):
    pass
