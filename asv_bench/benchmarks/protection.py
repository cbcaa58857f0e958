"""Protection checks per second, over mixes of operations and one by one."""

from __future__ import annotations

import time

import numpy as np

from pyvirt.x86.protection import Descriptor, Gate, Operation, SystemType, check

from .timing import target, unit

COUNT = 1_000_000


def described(rng: np.random.Generator) -> np.ndarray:
    """A GDT's worth of segments and gates, drawn a million times."""
    entries = [Descriptor(kind, dpl).pack() for kind in range(0, 16, 2) for dpl in range(4)]
    entries += [Gate(SystemType.CALL32, 8, dpl).pack() for dpl in range(4)]
    entries += [Descriptor(2, 0, p=False).pack(), Descriptor(SystemType.TSS32, 3, s=False).pack()]
    return rng.choice(np.array(entries, np.uint64), COUNT)


class Checks:
    """Arrays with a million different cases; the result array is reused."""

    params = ["mixed", *(operation.name.lower() for operation in Operation)]
    param_names = ["operation"]

    def setup(self, operation: str) -> None:
        rng = np.random.default_rng(1)
        self.operation = (
            rng.integers(0, len(Operation), COUNT, dtype=np.uint8)
            if operation == "mixed"
            else np.full(COUNT, Operation[operation.upper()], np.uint8)
        )
        self.cpl = rng.integers(0, 4, COUNT, dtype=np.uint8)
        self.selector = rng.integers(0, 1 << 16, COUNT, dtype=np.uint16)
        self.descriptor = described(rng)
        if operation in ("int", "event"):
            gates = [
                Gate(kind, 8, dpl).pack()
                for kind in (SystemType.INT32, SystemType.TRAP32)
                for dpl in range(4)
            ]
            self.descriptor = rng.choice(np.array(gates, np.uint64), COUNT)
        self.others = {"target": described(rng), "stack": described(rng)}
        self.others["stack_selector"] = self.selector
        self.out = check(self.operation, self.cpl, self.selector, self.descriptor, **self.others)

    @unit("M/s")
    @target(">=", 50.0)
    def track_checks_per_second(self, operation: str) -> float:
        """The best within a second: other load on the machine only ever takes."""
        times: list[float] = []
        end = time.perf_counter() + 1.0
        while len(times) < 9 or time.perf_counter() < end:
            start = time.process_time()
            check(
                self.operation,
                self.cpl,
                self.selector,
                self.descriptor,
                out=self.out,
                **self.others,
            )
            times.append(time.process_time() - start)
        return COUNT / min(times) / 1e6
