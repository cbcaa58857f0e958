"""S5, S6 and S11: EEVDF as Linux does it, and limits, against what a kernel was seen to do.

The figures were measured on Linux 6.18 with 250 ticks a second, two CPUs and always running
tasks that share one of them.
"""

from __future__ import annotations

import numpy as np

from pyvirt.sched import Scheduler
from pyvirt.validation import scheduling_xen as xen
from pyvirt.validation.registry import Context, Outcome, experiment
from pyvirt.validation.tally import Tally

__all__ = ["kernel_runs", "kernel_shares", "quota"]

MS = 1_000_000
TICK = 4 * MS
#: ``se.slice`` on two CPUs: 0.7 ms times 1 + log2(2).
SLICE = 1_400_000
#: The kernel's ``sched_prio_to_weight``.
NICE = {-5: 3121, 0: 1024, 1: 820, 3: 526, 5: 335, 6: 272, 9: 137, 10: 110, 19: 15}

#: Weights, and the shares that the kernel's tasks had over 5 to 6 s.
SHARES = [
    ([NICE[0]] * 3, [0.3330, 0.3334, 0.3336]),
    ([NICE[0], NICE[1]], [0.5554, 0.4446]),
    ([NICE[0], NICE[5]], [0.7536, 0.2464]),
    ([NICE[0], NICE[5], NICE[10]], [0.6973, 0.2279, 0.0748]),
    ([NICE[-5], NICE[0], NICE[5], NICE[10]], [0.6802, 0.2233, 0.0731, 0.0234]),
    ([NICE[0], NICE[19]], [0.9853, 0.0147]),
    ([2048, 1024], [0.6667, 0.3333]),
    ([3072, 2048, 1024], [0.5001, 0.3330, 0.1669]),
    ([2000, 1000, 500], [0.5712, 0.2861, 0.1428]),
    ([8192, 512], [0.9413, 0.0587]),
]

#: From traces of 2 s with ``perf sched``: nice values, shares, mean lengths of runs in ms where
#: nothing else ran on the CPU.
TRACES = [
    ([0, 5, 10], [0.6967, 0.2280, 0.0753], None),
    ([-5, 0, 5, 10], [0.6806, 0.2238, 0.0717, 0.0239], [8.65, 3.98, 4.00, 4.00]),
]


def _linux(weights: list[int]) -> Scheduler:
    host = Scheduler(policy="eevdf", quantum_ns=SLICE, linux_tick_ns=TICK)
    for weight in weights:
        host.add(weight=weight)
    return host


@experiment("S5", "shares of a Linux kernel's tasks by nice value and by cpu.shares")
def kernel_shares(context: Context) -> Outcome:
    """Compare lags, at most a tick apart.

    The kernel's runs took 5 to 6 s; how long each was is not recorded. So ours is the mean of the
    lags at all ticks in that second.
    """
    tally = Tally()
    ends = np.arange(5000 * MS, 6000 * MS + 1, TICK)
    for weights, shares in SHARES:
        host = _linux(weights)
        ideal = np.array(weights) / sum(weights)
        lags = []
        for end in ends.tolist():
            host.run(end)
            lags.append(end * ideal - host.counters()["run"])
        kernel = (ideal - np.array(shares)) * float(ends.mean())
        off = np.abs(np.mean(lags, axis=0) - kernel)
        near = off <= TICK
        tally.check(near, f"{weights}: off by {off / MS} ms")
        tally.figure("tasks within 4 ms of the kernel's", len(near), np.count_nonzero(near))
    return tally.outcome("S5")


@experiment("S6", "traces of a Linux kernel: shares and lengths of runs by nice value")
def kernel_runs(context: Context) -> Outcome:
    """Compare shares (0.3 points) and mean runs (3 %); every run must be of whole ticks."""
    tally = Tally()
    seconds = 2
    for nice, shares, lengths in TRACES:
        host = _linux([NICE[n] for n in nice])
        ends = []
        running, since = int(host.cpu_counters()["world"][0]), 0
        while (when := host.next_event_time()) is not None and when <= seconds * 1000 * MS:
            host.step()
            now_running = int(host.cpu_counters()["world"][0])
            if now_running != running:
                ends.append((running, host.now_ns - since))
                running, since = now_running, host.now_ns
        host.run(seconds * 1000 * MS)
        rows = host.counters()
        share = rows["run"] / (seconds * 1000 * MS)
        near = np.abs(share - shares) <= 0.003
        tally.check(near, f"nice {nice}: shares {share}")
        tally.figure("shares", len(near), np.count_nonzero(near))
        whole = np.array([length % TICK == 0 for _, length in ends])
        tally.check(whole, "a run that is not of whole ticks")
        if lengths is not None:
            of = [[length for world, length in ends if world == i] for i in range(len(nice))]
            mean = np.array([np.mean(each) / MS for each in of])
            near = np.abs(mean / lengths - 1) <= 0.03
            tally.check(near, f"nice {nice}: runs of {mean} ms")
            tally.figure("mean lengths of runs", len(near), np.count_nonzero(near))
    return tally.outcome("S6")


@experiment("S11", "a quota of 25 ms in 100 ms; Xen's credit and RTDS")
def quota(context: Context) -> Outcome:
    """Compare the share of the CPU with the kernel's 25.0 %, Xen's policies with their rules."""
    tally = Tally()
    shown = []
    for others in (0, 1):
        host = Scheduler(policy="eevdf", quantum_ns=SLICE, linux_tick_ns=TICK)
        world = host.add(limit=(25 * MS, 100 * MS))
        for _ in range(others):
            host.add()
        host.run(6000 * MS)
        share = float(host.counters()["run"][world]) / (6000 * MS)
        tally.check(abs(share - 0.25) <= 0.005, f"{share:.4f} of the CPU beside {others}")
        shown.append(f"{100 * share:.1f} %")
    parts = [part(tally) for part in (xen.weights, xen.boost, xen.budgets)]
    return tally.outcome(
        "S11",
        sentences=(
            "alone 25.0 %, beside another 25.0 %; credit 2:1, wake-ups within 1 ms; "
            "RTDS meets all budgets",
            "alone {}, beside another {}; {}, {}; {}".format(*shown, *parts),
        ),
    )
