"""Xen's part of S11: shares and wake-ups under credit, budgets under RTDS."""

from __future__ import annotations

import numpy as np

from pyvirt.sched import Jobs, Scheduler
from pyvirt.validation.tally import Tally

__all__ = ["boost", "budgets", "weights"]

MS = 1_000_000
#: Of Xen's credit scheduler.
TIMESLICE = 30 * MS
TICK = 10 * MS
RATELIMIT = MS


def weights(tally: Tally) -> str:
    """Two VMs of weights 512 and 256 on one CPU for 3 s: 2:1, to a timeslice."""
    host = Scheduler(policy="credit")
    for weight in (512, 256):
        host.add_vm(1, weight=weight)
    most = 0.0
    for second in (3, 4, 5, 6):
        host.run(second * 1000 * MS)
        off = np.abs(host.counters()["run"] - host.now_ns * np.array([2, 1]) / 3)
        tally.check(off <= TIMESLICE, f"after {second} s off by {off / MS} ms")
        most = max(most, float(off.max()))
    return "credit 2:1" if most <= TIMESLICE else f"credit off by {most / MS:.1f} ms"


def boost(tally: Tally) -> str:
    """A VM that has short jobs beside always runnable ones: each waits for the rate limit at most.

    In each tick one of its jobs is still running at the end, so that it earns credits and stays
    UNDER. A switch takes no time here.
    """
    longest = wakes = 0
    for hogs, cpus in ((1, 1), (3, 1), (4, 2)):
        host = Scheduler(cpus, policy="credit")
        for _ in range(hogs):
            host.add_vm(1)
        world = host.add_vm(1, Jobs()).worlds[0]
        rng = np.random.default_rng(hogs)
        for end in range(TICK, 5000 * MS, TICK):
            at = [*rng.integers(end - TICK, end, 3).tolist(), end - MS // 10]
            for time in sorted(at):
                host.run(time)
                host.submit(world, MS // 5)
        row = host.counters()[world]
        tally.check(
            row["wake_most"] <= RATELIMIT,
            f"a wait of {row['wake_most'] / MS} ms beside {hogs} on {cpus} CPUs",
        )
        wakes += int(row["wakes"])
        longest = max(longest, int(row["wake_most"]))
    tally.check(wakes > 3000, f"{wakes} wake-ups")
    return "wake-ups within 1 ms" if longest <= RATELIMIT else f"a wait of {longest / MS} ms"


def budgets(tally: Tally) -> str:
    """Sets of servers that need the whole of one CPU: each gets its budget in each period.

    That is what the theorem of Liu and Layland (1973) says of earliest deadline first.
    """
    rng = np.random.default_rng(11)
    met = periods = 0
    for _ in range(50):
        count = int(rng.integers(1, 8))
        period = rng.integers(2, 60, count) * MS
        share = rng.dirichlet(np.ones(count)) * 0.99999
        budget = np.maximum((period * share).astype(np.int64), 1)
        host = Scheduler(policy="rtds")
        for p, b in zip(period.tolist(), budget.tolist(), strict=True):
            host.add_vm(1, period_ns=p, budget_ns=b)
        ends = np.unique(np.concatenate([np.arange(p, 600 * MS, p) for p in period]))
        before = np.zeros(count, np.int64)
        for end in ends.tolist():
            host.run(end)
            run = host.counters()["run"]
            over = end % period == 0
            got = run[over] - before[over]
            before[over] = run[over]
            tally.check(got == budget[over], f"{got} ns for {budget[over]} in periods of {period}")
            periods += int(over.sum())
            met += int((got == budget[over]).sum())
    return "RTDS meets all budgets" if met == periods else f"RTDS misses {periods - met} budgets"
