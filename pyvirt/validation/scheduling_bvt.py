"""S16: BVT against what follows from its published rules."""

from __future__ import annotations

import numpy as np

from pyvirt.sched import Bvt, Poisson, Scheduler
from pyvirt.validation.registry import Context, Outcome, experiment
from pyvirt.validation.tally import Tally

__all__ = ["bvt"]

MS = 1_000_000
SECOND = 1000 * MS


@experiment("S16", "BVT: run lengths, wake-ups with and without a warp, a warped world that fails")
def bvt(context: Context) -> Outcome:
    """Compare with closed forms of the rules of Duda and Cheriton (SOSP 1999).

    Who runs keeps its CPU until it is the allowance C over its weight ahead in virtual time. So of
    two worlds that always run, one runs for C (1 + its weight over the other's) at a time; and one
    that wakes beside one that always runs, at the least virtual time, waits for C, or with a warp
    not at all. The abstract promises "weighted sharing", "even with thread failure at the real-time
    level": a warped world that never stops is ahead of its share by no more than its warp W
    times its weight, or the limit L of a warp, and C.
    """
    tally = Tally()
    off = _run_lengths(tally)
    plain, warped = _waits(tally)
    crowd = _crowd(tally)
    ahead = _failures(tally)
    return tally.outcome(
        "S16",
        sentences=(
            "runs of C (1 + w/v) to 1 + w/v ns; a wake-up waits for C, warped for 0; "
            "a failed world is ahead by no more than C and the least of W w and L",
            f"runs within {off:.0f} ns; waits of {plain} C and {warped}; "
            f"ahead by {ahead:.0%} of that at most",
        ),
        note="beside 16 worlds the 99th percentile of wake-ups without a warp is "
        f"{crowd / MS:.0f} ms for a C of 10 ms, with one 0",
    )


def _run_lengths(tally: Tally) -> float:
    """Compare runs of two worlds; gives how far one is off at most."""
    worst = 0.0
    for allowance in (MS, 10 * MS):
        for weights in ((1, 1), (2, 1), (7, 3), (1, 10)):
            host = Scheduler(policy=Bvt(allowance_ns=allowance))
            for weight in weights:
                host.add(weight=weight)
            host.record()
            host.run(2 * SECOND)
            # the first one starts level with the other, and the last one is not over
            runs = host.timeline().segments()[1:-1]
            for world, weight in enumerate(weights):
                mine = runs[runs["world"] == world]
                lengths = mine["end_ns"] - mine["begin_ns"]
                more = 1 + weight / weights[1 - world]
                off = np.abs(lengths - allowance * more)
                # either ends at a whole nanosecond, up to one late: the other's counts by weights
                about = f"C {allowance}, weights {weights}: off by {off.max():.1f} ns"
                tally.check(off <= more, about)
                worst = max(worst, float(off.max()))
    return worst


def _waits(tally: Tally) -> tuple[str, str]:
    """Look at each wake-up beside one world that always runs."""
    found = []
    allowance = 10 * MS
    for warp in (0, 1):
        seen: set[float] = set()
        for weight in (1, 3):
            host = Scheduler(policy=Bvt(allowance_ns=allowance), rng=weight)
            # its wake-ups are far enough apart for the other one to be ahead at each
            host.add(weight=1)
            vm = host.add_vm(1, Poisson(MS // 100, 400 * MS), weight=weight, warp=warp)
            host.run(200 * SECOND)
            row = host.counters()[vm.worlds[0]]
            seen.add(int(row["wake_time"]) / int(row["wakes"]) / allowance)
            seen.add(int(row["wake_most"]) / allowance)
        tally.check(seen == {1.0 - warp}, f"warp {warp}: waits of {seen} C")
        found.append(" or ".join(f"{wait:g}" for wait in sorted(seen)))
    return found[0], found[1]


def _crowd(tally: Tally) -> float:
    """Wake-ups among many worlds; gives the 99th percentile without a warp."""
    late = 0.0
    for warp in (0, 1000 * MS):
        host = Scheduler(policy=Bvt(), rng=1)
        for _ in range(16):
            host.add()
        vm = host.add_vm(1, Poisson(MS // 5, 40 * MS), warp=warp, wakes=True)
        host.run(100 * SECOND)
        if warp:
            most = int(host.counters()["wake_most"][vm.worlds[0]])
            tally.check(most == 0, f"a warped world waits for {most:,} ns")
        else:
            late = float(host.wake_percentiles(vm, 99)[0])
    return late


def _failures(tally: Tally) -> float:
    """Let a warped world run for ever; gives how much of the bound it comes to at most."""
    rng = np.random.default_rng(3)
    worst = 0.0
    for limited in (False, True) * 20:
        weights = rng.integers(1, 20, rng.integers(1, 6))
        weight, warp = int(rng.integers(1, 20)), int(rng.integers(1, 50)) * MS
        limit = int(rng.integers(1, 30)) * MS
        allowance = int(rng.integers(1, 20)) * MS
        host = Scheduler(policy=Bvt(allowance_ns=allowance))
        for each in weights:
            host.add(weight=int(each))
        failed = host.add_vm(
            1,
            weight=weight,
            warp=warp,
            warp_limit=limit if limited else 0,
            unwarp=1000 * SECOND if limited else 0,
        )
        bound = min(limit, warp * weight) if limited else warp * weight
        for now in range(5 * MS, 2 * SECOND, 5 * MS):
            host.run(now)
            share = now * weight / (int(weights.sum()) + weight)
            ahead = int(host.counters()["run"][failed.worlds[0]]) - share
            tally.check(ahead <= bound + allowance + 1, f"ahead by {ahead:,.0f} ns at {now:,}")
            worst = max(worst, ahead / (bound + allowance))
    return worst
