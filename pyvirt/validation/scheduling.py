"""S1 to S4, S9, S12 and S13: schedulers against what their papers and queueing theory say."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pyvirt.sched import (
    PLUGS,
    POLICIES,
    BoundedPareto,
    Exponential,
    Fixed,
    LogNormal,
    OnOff,
    Periodic,
    Poisson,
    Scheduler,
)
from pyvirt.sched.times import Times
from pyvirt.validation.registry import Context, Outcome, experiment
from pyvirt.validation.tally import Tally

__all__ = ["accounting", "cpu_bound", "eevdf_lag", "lottery", "queueing", "stride", "stride_errors"]

MS = 1_000_000
QUANTUM = MS


def _host(policy: str, weights: list[int], cpus: int = 1, rng: int = 0) -> Scheduler:
    host = Scheduler(cpus, policy=policy, quantum_ns=QUANTUM, rng=rng)  # type: ignore[arg-type]
    for weight in weights:
        host.add(weight=weight)
    return host


def _allocations(policy: str, tickets: list[int], quanta: int) -> npt.NDArray[np.float64]:
    """Quanta that each client has had after each quantum."""
    host = _host(policy, tickets)
    rows = []
    for count in range(1, quanta + 1):
        host.run(count * QUANTUM)
        rows.append(host.counters()["run"] / QUANTUM)
    return np.array(rows)


def _absolute(rows: npt.NDArray[np.float64], tickets: list[int]) -> float:
    """Largest distance from the ideal allocation."""
    share = np.array(tickets) / sum(tickets)
    ideal = np.arange(1, len(rows) + 1)[:, None] * share
    return float(np.abs(rows - ideal).max())


def _pairwise(rows: npt.NDArray[np.float64], tickets: list[int]) -> float:
    """Largest distance from the ideal split between two clients of what both have had."""
    worst = 0.0
    for i, ours in enumerate(tickets):
        for j, theirs in enumerate(tickets[:i]):
            ideal = (rows[:, i] + rows[:, j]) * ours / (ours + theirs)
            worst = max(worst, float(np.abs(rows[:, i] - ideal).max()))
    return worst


@experiment("S1", "stride and hierarchical stride, 101 clients with 100:1:...:1 tickets")
def stride(context: Context) -> Outcome:
    """Compare the largest absolute errors over 1,000 quanta with those of exact passes."""
    tally = Tally()
    tickets = [100] + [1] * 100
    shown = []
    for policy, expected in (("stride", 50.0), ("hstride", 4.0)):
        found = _absolute(_allocations(policy, tickets, 1000), tickets)
        tally.check(abs(found - expected) < 1e-9, f"{policy}: {found} for {expected}")
        shown.append(f"{policy} {found:.3f}")
    return tally.outcome("S1", sentences=("stride 50.000, hstride 4.000", ", ".join(shown)))


@experiment("S2", "stride with 3:2:1, 7:3 and 13:7:3:1 tickets: errors and counts")
def stride_errors(context: Context) -> Outcome:
    """Compare absolute and pairwise errors, and final counts, with exact passes."""
    tally = Tally()
    cases = [
        ([3, 2, 1], 600, 1.0, 0.75, [300, 200, 100]),
        ([7, 3], 1000, 0.7, 0.7, [700, 300]),
        ([13, 7, 3, 1], 1200, 1.625, 13 / 14, [650, 350, 150, 50]),
    ]
    expected, measured = [], []
    for tickets, quanta, absolute, pairwise, counts in cases:
        rows = _allocations("stride", tickets, quanta)
        found = (_absolute(rows, tickets), _pairwise(rows, tickets), rows[-1].tolist())
        tally.check(abs(found[0] - absolute) < 1e-9, f"{tickets}: absolute error {found[0]}")
        tally.check(abs(found[1] - pairwise) < 1e-9, f"{tickets}: pairwise error {found[1]}")
        tally.check(found[2] == counts, f"{tickets}: counts {found[2]}")
        expected.append(f"{absolute:.3f} and {pairwise:.3f}")
        measured.append(f"{found[0]:.3f} and {found[1]:.3f}")
    return tally.outcome("S2", sentences=(", ".join(expected), ", ".join(measured)))


@experiment("S3", "lottery with 7:3 tickets: 1,000 draws with each of 10,000 seeds")
def lottery(context: Context) -> Outcome:
    """Compare mean and standard deviation of the wins with the binomial distribution's."""
    tally = Tally()
    seeds, draws, chance = 10_000, 1000, 0.7
    wins = np.empty(seeds)
    for seed in range(seeds):
        host = _host("lottery", [7, 3], rng=seed)
        # The first slice is not drawn: the first world was alone when it was added.
        host.run((draws + 1) * QUANTUM)
        wins[seed] = host.counters()["run"][0] / QUANTUM - 1
    sd = (draws * chance * (1 - chance)) ** 0.5
    mean_found, sd_found = float(wins.mean()), float(wins.std(ddof=1))
    tally.check(
        abs(mean_found - draws * chance) <= 3 * sd / seeds**0.5, f"mean {mean_found:.3f} for 700"
    )
    tally.check(abs(sd_found - sd) <= 3 * sd / (2 * seeds) ** 0.5, f"sd {sd_found:.3f} for {sd}")
    return tally.outcome(
        "S3",
        sentences=("mean 700, sd 14.49", f"mean {mean_found:.2f}, sd {sd_found:.2f}"),
        note="within 3 standard errors is a pass",
    )


@experiment("S4", "EEVDF with random weights: the lag of each client")
def eevdf_lag(context: Context) -> Outcome:
    """Compare the service of always runnable clients with the ideal, at most one quantum away."""
    tally = Tally()
    worst = []
    for clients, samples in ((64, 2000), (1000, 1000), (10_000, 200), (100_000, 40)):
        context.report(f"{clients:,} clients")
        weights = np.random.default_rng(clients).integers(1, 1001, clients)
        host = _host("eevdf", weights.tolist())
        share = weights / weights.sum()
        most = 0.0
        for sample in range(1, samples + 1):
            # several rounds of all clients, at times within slices, too
            host.run(sample * 5 * clients * QUANTUM // samples + sample * 12_345)
            lag = np.abs(host.now_ns * share - host.counters()["run"]) / QUANTUM
            most = max(most, float(lag.max()))
        tally.check(most <= 1.0, f"{clients} clients: a lag of {most:.3f} quanta")
        worst.append(f"{clients:,}: {most:.2f}")
    return tally.outcome(
        "S4",
        sentences=("at most 1 quantum", "at most 1 quantum" if not tally.failed else "more"),
        note="largest lag in quanta, by clients: " + ", ".join(worst),
    )


@experiment("S9", "N always runnable worlds on P CPUs: RUN = P/N, RDY = 1 - P/N")
def cpu_bound(context: Context) -> Outcome:
    """Compare times in states with the equal share, at most one quantum away."""
    tally = Tally()
    seconds = 2
    for policy in ("rr", "stride", "eevdf"):
        for worlds, cpus in ((1, 1), (3, 1), (5, 2), (4, 4), (7, 8), (64, 8), (100, 64)):
            host = _host(policy, [1] * worlds, cpus)
            host.run(seconds * 1000 * MS)
            rows = host.counters()
            share = min(1, cpus / worlds)
            total = seconds * 1000 * MS
            off = np.maximum(
                np.abs(rows["run"] - share * total), np.abs(rows["rdy"] - (1 - share) * total)
            )
            tally.check(
                (off <= QUANTUM) & (rows["wait"] == 0),
                lambda i, p=policy, n=worlds, c=cpus, o=off: (  # type: ignore[misc]
                    f"{p}, {n} worlds on {c}: world {i} is {o[i] / QUANTUM:.2f} quanta off"
                ),
            )
            tally.figure("worlds within a quantum", worlds, np.count_nonzero(off <= QUANTUM))
    return tally.outcome("S9")


def _mean_response(
    work: Times, worlds: int, quantum: int, jobs: int, rng: int, gap: int = 2 * MS
) -> float:
    """Mean response in ms of Poisson jobs spread over some worlds."""
    host = Scheduler(policy="rr", quantum_ns=quantum, rng=rng)
    for _ in range(worlds):
        host.add(Poisson(work, gap * worlds))
    host.run(gap * jobs)
    rows = host.counters()
    return float(rows["job_time"].sum() / rows["jobs_done"].sum() / MS)


def _pareto_moments(low: float, high: float, alpha: float) -> tuple[float, float]:
    """Mean and mean square of the Pareto distribution between bounds."""
    scale = alpha * low**alpha / (1 - (low / high) ** alpha)
    first, second = (
        scale * (low ** (power - alpha) - high ** (power - alpha)) / (alpha - power)
        for power in (1, 2)
    )
    return first, second


@experiment(
    "S12", "M/M/1, M/D/1 and M/G/1 at load 0.5, in order of arrival and with a short quantum"
)
def queueing(context: Context) -> Outcome:
    """Compare mean response times with processor sharing's, and with Pollaczek and Khinchine's."""
    tally = Tally()
    shown, quantum = [], MS // 20
    works: list[tuple[str, Times]] = [("exponential", Exponential(MS)), ("fixed", Fixed(MS))]
    for name, work in works:
        context.report(f"a million {name} jobs")
        found = _mean_response(work, 1024, quantum, 1_000_000, 12)
        # 1 %; of fixed jobs, which a quantum that is not yet 0 favours, and a quantum
        bound = 0.02 + (quantum / MS if name == "fixed" else 0)
        tally.check(abs(found - 2) <= bound, f"{name}: {found:.4f} service times for 2")
        shown.append(f"{name} {found:.3f}")
    heavy = BoundedPareto(MS // 4, 10 * MS, 1.5)
    cases: list[tuple[str, Times, float, float]] = [
        ("fixed", Fixed(MS), 1, 1),
        ("exponential", Exponential(MS), 1, 2),
        ("lognormal", LogNormal(MS, 1.0), 1, math.e),
        ("Pareto", heavy, *_pareto_moments(0.25, 10, 1.5)),
    ]
    off = []
    for name, work, mean, square in cases:
        context.report(f"{name}: in order of arrival, and shared")
        gap = round(2 * mean * MS)
        expected = mean + square * MS / gap / 2 / 0.5
        found = _mean_response(work, 1, 1 << 31, 2_000_000, 4, gap) / expected - 1
        tally.check(abs(found) <= 0.02, f"{name} in order of arrival: {found:+.2%}")
        part = round(mean * MS / 50)
        shared = _mean_response(work, 1024, part, 1_000_000, 9, gap) / (2 * mean) - 1
        tally.check(abs(shared) <= 0.02, f"{name}, shared: {shared:+.2%}")
        off.append(f"{name} {found:+.2%} and {shared:+.2%}")
    return tally.outcome(
        "S12",
        sentences=("response of 2 service times, both", ", ".join(shown) + " service times"),
        note="within 1 % is a pass, of fixed jobs and a quantum of 0.05. M/G/1 in order of arrival "
        "from Pollaczek and Khinchine's mean, with a quantum of 1/50 from that of processor "
        "sharing (2 % is a pass): " + ", ".join(off),
    )


@experiment("S13", "RUN + RDY + MLMTD + CSTP + WAIT = elapsed for each world, to the nanosecond")
def accounting(context: Context) -> Outcome:
    """Check the sum of times after each of many stretches, while worlds come, go and block."""
    tally = Tally()
    rng = np.random.default_rng(13)
    costop = 0
    for policy in (*POLICIES, *PLUGS):
        host = Scheduler(4, policy=policy, quantum_ns=MS, rng=13)  # type: ignore[arg-type]
        for i in range(40):
            workload = [None, OnOff(MS, 2 * MS), Poisson(MS, 9 * MS), Periodic(MS, 7 * MS)][i % 4]
            limit = (MS, 5 * MS) if i % 3 == 0 else None
            affinity = [i % 4, 3] if i % 5 == 0 else None
            host.add(workload, weight=1 + i, limit=limit, affinity=affinity)
        if policy in PLUGS:
            for _ in range(3):
                host.add_vm(3, weight=99)
        for _ in range(300):
            host.run(host.now_ns + int(rng.integers(1, 3 * MS)))
            world = int(rng.integers(0, 40))
            change = int(rng.integers(0, 3))
            if change == 0:
                host.block(world)
            elif change == 1:
                host.wake(world)
            else:
                host.set_weight(world, 1 + world % 7)
            rows = host.counters()
            total = sum(rows[each] for each in ("run", "rdy", "mlmtd", "cstp", "wait"))
            equal = total == rows["elapsed"]
            tally.check(equal, f"{policy}: a world's times do not add up")
            cpus = host.cpu_counters()
            tally.check(rows["run"].sum() == cpus["run"].sum(), f"{policy}: worlds and CPUs differ")
            tally.figure("sums equal", len(rows), np.count_nonzero(equal))
        costop += int(rows["cstp"].sum())
    tally.check(costop > 0, "nothing was co-stopped")
    return tally.outcome("S13", note=f"of {len(POLICIES) + len(PLUGS)} policies")
