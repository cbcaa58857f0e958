"""Which CPUs share what, as lists of CPUs, and the choice of an idle one."""

from __future__ import annotations

from fractions import Fraction

FULL = 1 << 16
LEVELS = ("core", "llc", "node", "socket")


class Shape:
    """`parts`: core, LLC, node, socket of CPUs; speeds by busy threads; costs by distance."""

    def __init__(self, cpus: int, parts: list | None = None) -> None:
        self.cpus = cpus
        alone = [list(range(cpus)), [0] * cpus, [0] * cpus, [0] * cpus], [FULL, FULL], [0] * 6
        self.numbers, speeds, self.costs = parts or alone
        self.speeds = [Fraction(speed, FULL) for speed in speeds]
        # Whether a world can work at another than full speed: else nobody looks at threads.
        slow = any(self.costs) or any(speed < 1 for speed in self.speeds[1:])
        self.paced = slow or len(set(self.numbers[2])) > 1

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
