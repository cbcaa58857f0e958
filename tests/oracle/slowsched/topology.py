"""Which CPUs share what, as lists of CPUs, and the choice of an idle one."""

from __future__ import annotations

LEVELS = ("core", "llc", "node", "socket")


class Shape:
    """`numbers` is the core, LLC, node and socket of each CPU."""

    def __init__(self, cpus: int, numbers: list[list[int]] | None = None) -> None:
        self.cpus = cpus
        self.numbers = numbers or [list(range(cpus)), [0] * cpus, [0] * cpus, [0] * cpus]

    def distance(self, a: int, b: int) -> int:
        shared = [numbers[a] == numbers[b] for numbers in self.numbers]
        return 0 if a == b else [*shared, True].index(True) + 1

    def core(self, cpu: int) -> list[int]:
        return [other for other in range(self.cpus) if self.distance(cpu, other) <= 1]

    def choose_idle(self, idle: set[int], allowed, last: int | None) -> int | None:
        """The last CPU; a core for itself; a thread; the nearest, the lowest number."""

        def order(cpu: int) -> tuple:
            alone = all(other in idle for other in self.core(cpu))
            return cpu != last, not alone, 0 if last is None else self.distance(last, cpu), cpu

        return min((cpu for cpu in allowed if cpu in idle), key=order, default=None)
