"""H1 to H3: the idle memory tax, sampled working sets, thresholds and states of host memory."""

from __future__ import annotations

import numpy as np

from pyvirt.hostmem import HostMemory, MemoryState, min_free_pages, revoke, targets
from pyvirt.validation.registry import Context, Outcome, experiment
from pyvirt.validation.tally import Tally

__all__ = ["idle_tax", "sampling", "states"]

# Tax, active pages of each VM, pages divided, what each gets; 256 pages and equal shares.
TAXED = [
    (0.0, (20, 256), 360, (180, 180)),
    (0.25, (20, 256), 360, (157.142857, 202.857143)),
    (0.5, (20, 256), 360, (126.666667, 233.333333)),
    (0.75, (20, 256), 360, (104, 256)),
    (0.75, (60, 240), 358, (111.5, 246.5)),
]

SAMPLED = 4000
PERIOD_NS = 30 * 10**9
GIB = 1 << 18


@experiment("H1", "idle memory tax: two VMs of 256 MB, closed form and page by page")
def idle_tax(context: Context) -> Outcome:
    """Divide by the closed form in MB and in pages, and revoke page by page."""
    tally = Tally()
    said, found = [], []
    for tax, active, amount, expected in TAXED:
        for scale in (1, 256):  # pages of 1 MB, and of 4 KiB
            arguments = ([1, 1], [a * scale for a in active], 256 * scale, amount * scale)
            for how in (targets, revoke):
                made = how(*arguments, tax=tax)
                good = np.abs(made - np.array(expected) * scale) <= 1
                tally.check(good, f"{how.__name__} at {tax}: {made.tolist()}, not {expected}")
        said.append(f"{expected[0]:.1f}/{expected[1]:.1f}")
        exact = targets([1, 1], [a * 65536 for a in active], 256 * 65536, amount * 65536, tax=tax)
        found.append("/".join(f"{x / 65536:.1f}" for x in exact))
    return tally.outcome("H1", sentences=(", ".join(said), ", ".join(found)))


@experiment("H2", "working sets sampled by 100 pages in 30 s")
def sampling(context: Context) -> Outcome:
    """Sample thousands of VMs for each active part, and let the part jump up and down."""
    tally = Tally()
    worst = 0.0
    for part in (0.05, 0.2, 0.5, 0.8, 0.95):
        memory = HostMemory(SAMPLED << 10, seed=int(part * 100))
        active = int(part * 1000)
        memory.add_many(np.zeros(SAMPLED, int), memory=1000, used=1000, active=active)
        memory.step(10**9)  # memory is touched for the first time
        memory.step(PERIOD_NS)
        memory.step(PERIOD_NS - 2 * 10**9)
        seen = memory.vms.running
        deviation = np.sqrt(part * (1 - part) / 100)
        for value, expected, error in (
            (seen.mean(), part, deviation / np.sqrt(SAMPLED)),
            (seen.std(), deviation, deviation / np.sqrt(2 * SAMPLED)),
        ):
            worst = max(worst, abs(value - expected) / error)
            tally.check(abs(value - expected) <= 3 * error, f"{part}: {value}, not {expected}")
    up, down = _jump(0.1, 0.8), _jump(0.8, 0.1)
    tally.check(up <= 2, f"a rise is seen after {up} s")
    tally.check(down > 5 * 30, f"a fall is seen after {down} s")
    said = "within 3 standard errors; a rise is seen at once, a fall after several periods"
    measured = (
        f"within {worst:.1f} standard errors; a rise is seen after {up} s, a fall after {down} s"
    )
    return tally.outcome("H2", sentences=(said, measured))


def _jump(before: float, after: float) -> int:
    """Count the seconds until the mean estimate of many VMs is within 0.1 of the new part."""
    count = 500
    memory = HostMemory(count << 10, seed=1)
    memory.add_many(np.zeros(count, int), memory=1000, used=1000, active=int(before * 1000))
    for _ in range(60):
        memory.step(PERIOD_NS)
    memory.vms.active[:] = int(after * 1000)
    for second in range(1, 3600):
        memory.step(10**9)
        if abs(memory.vms.estimate.mean() / 1000 - after) <= 0.1:
            return second
    return 3600


@experiment("H3", "minimum of free memory, and the states of a host with hysteresis")
def states(context: Context) -> Outcome:
    """Let free memory fall and rise page by page, and count where states change."""
    tally = Tally()
    least = int(min_free_pages(128 * GIB))
    tally.check(least == 1923 * 256, f"minFree is {least / 256} MB")
    for band in (101, 110, 125):
        for policy, total in (("esx6", 128 * GIB), ("esx2002", 10_000)):
            _follow(tally, policy, total, band)
    said = "1923 MB; 100/64/32/16 % of it, 6/4/2/1 % of memory; left at the band above, exactly"
    return tally.outcome("H3", sentences=(said, said if tally.failed == 0 else "not so"))


def _follow(tally: Tally, policy: str, total: int, band: int) -> None:
    """Fall and rise over all thresholds; each state must change at its page and at no other."""
    from pyvirt.hostmem.kernels.step import transitions

    base = int(min_free_pages(total)) if policy == "esx6" else total
    if policy == "esx6":
        enter = [100, 64, 32, 16]
        leave = [10_000, 6_400, 3_200, 1_600]
    else:
        enter = [4, 4, 2, 1]  # there is no state clear
        leave = [600, 600, 400, 200]
    memory = HostMemory(total, policy, hysteresis=(band - 100) / 100)
    edges = [-(-base * percent // 100) for percent in enter]
    exits = [-(-base * part * band // 1_000_000) for part in leave]
    around = sorted({edge + d for edge in edges + exits for d in (-2, -1, 0, 1)} | {0, base * 2})
    free = np.array([*reversed(around), *around], dtype=np.int64)
    out = np.zeros(len(free), dtype=np.int64)
    transitions(memory._h, free, out)
    state = 0
    for i, pages in enumerate(free.tolist()):
        worse = max((k + 1 for k in range(4) if pages < edges[k]), default=0)
        state = max(state, worse)
        while state > 0 and pages >= exits[state - 1]:
            state -= 1
        if policy == "esx2002" and state == MemoryState.CLEAR:
            state = 0
        tally.check(out[i] == state, f"{policy}, {pages} free: {out[i]}, not {state}")
