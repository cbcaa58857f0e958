"""Binary translation: hot code of a guest out of the code cache, beside the interpreter."""

from __future__ import annotations

import statistics
import time

from pyvirt.x86 import guests
from pyvirt.x86.machine import ExitReason
from pyvirt.x86.monitor import Monitor
from pyvirt.x86.pc import PC

from .interp import INSTRUCTIONS, LOOPS, Loops
from .timing import target, unit


class Translated:
    """The loops of the interpreter, as code of a guest at CPL 0: chained units of translations."""

    params = list(LOOPS)
    param_names = ("loop",)
    timeout = 120

    def setup(self, loop: str) -> None:
        self.plain, self.guest = Loops(), Loops()
        for one in (self.plain, self.guest):
            one.setup(loop)
        self.monitor = Monitor(self.guest.machine, "translation")
        self.monitor.run(10_000)
        self.monitor.forget()

    def ours(self) -> float:
        """Run so many instructions under the monitor; give the seconds."""
        start = time.process_time()
        if self.monitor.run(INSTRUCTIONS).reason is not ExitReason.BUDGET:
            raise AssertionError("the loop ended")
        spent = time.process_time() - start
        if self.monitor.counts.booked["translated"] % INSTRUCTIONS:
            raise AssertionError("not all of the loop came out of the cache")
        return spent

    @unit("M instructions/s")
    def track_translated(self, loop: str) -> float:
        return INSTRUCTIONS / min(self.ours() for _ in range(3)) / 1e6

    @target(">=", 1.0)
    @unit("times the interpreter's speed")
    def track_ratio(self, loop: str) -> float:
        ratios = []
        for _ in range(9):
            plain = self.plain.ours()
            ratios.append(plain / self.ours())
        return statistics.median(ratios)


class TranslatedKernel:
    """The repository's guest kernel to its end, natively and under translation."""

    timeout = 120

    def seconds(self, technique: str) -> float:
        """Boot and run; give the seconds."""
        pc = PC(disk=guests.kernel_disk(), technique=technique)
        pc.boot(guests.kernel_image())
        start = time.process_time()
        if pc.run().exit_value != 16:
            raise AssertionError("the guest did not come to its end")
        return time.process_time() - start

    @unit("times the native run's time")
    def track_time(self) -> float:
        pairs = [(self.seconds("translation"), self.seconds("native")) for _ in range(5)]
        return statistics.median(ours / native for ours, native in pairs)
