"""C6, C9 and C10: DRS's targets, its distance from proven optima, and its sums and choices."""

from __future__ import annotations

import csv
import math
from importlib.resources import files

import numpy as np

from pyvirt.cluster import Cluster, MigrationCost, Reach, drs, priority, target_imbalance
from pyvirt.cluster.balance import State
from pyvirt.validation.balance_cases import HOSTS, STEP_KHZ, balance_case, checksum
from pyvirt.validation.clusters_power import check_packing
from pyvirt.validation.registry import Context, Outcome, experiment
from pyvirt.validation.tally import Tally

__all__ = ["choices", "optima", "targets"]

RANDOM_MOVES = 1_000_000


@experiment("C6", "DRS: targets of the levels and priorities of recommendations")
def targets(context: Context) -> Outcome:
    """Compare with the documented formula, and with the targets that vCenter shows."""
    tally = Tally()
    shown = {2: 0.1414, 3: 0.1155, 4: 0.1, 16: 0.05}
    ours = {hosts: target_imbalance(3, hosts) for hosts in shown}
    for hosts, value in shown.items():
        tally.check(round(ours[hosts], 4) == value, f"level 3, {hosts} hosts: {ours[hosts]}")
    for hosts in (2, 3, 4, 16, 96):
        for i in range(1, 51):
            imbalance = i / 100
            right = min(max(6 - math.ceil(imbalance / 0.1 * math.sqrt(hosts)), 2), 5)
            tally.check(
                priority(imbalance, hosts) == right, f"priority of {imbalance}, {hosts} hosts"
            )
            # A level applies exactly the priorities up to its own: its target is where they end.
            for level in range(2, 5):
                limit = target_imbalance(level, hosts)
                if abs(imbalance - limit) > 1e-12:
                    above = imbalance > limit
                    tally.check(
                        (priority(imbalance, hosts) <= level) == above,
                        f"level {level}, {imbalance}, {hosts} hosts",
                    )
    return tally.outcome(
        "C6",
        sentences=(
            "level 3: .1414, .1155, .1000, .0500 for 2, 3, 4, 16 hosts",
            "level 3: "
            + ", ".join(f"{v:.4f}"[1:] for v in ours.values())
            + " for 2, 3, 4, 16 hosts",
        ),
    )


def _std(squares: float, total: int) -> float:
    """Standard deviation of loads from their sum of squares."""
    return math.sqrt(squares / HOSTS - (total / HOSTS) ** 2)


@experiment(
    "C9", "DRS at most 5 and 8 moves beside the proven optimum; packing on the fewest hosts"
)
def optima(context: Context) -> Outcome:
    """Compare the standard deviation reached with what CP-SAT proved to be the least."""
    tally = Tally()
    text = files("pyvirt.validation").joinpath("balance_optima.csv").read_text()
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    gaps: dict[int, list[float]] = {5: [], 8: []}
    for row in rows:
        seed, moves = int(row["seed"]), int(row["moves"])
        cluster = balance_case(seed)
        tally.check(checksum(cluster) == int(row["checksum"]), f"case {seed} is another one")
        plan = drs(cluster, level=5, max_moves=moves, cost=None, min_goodness=0)
        tally.check(len(plan) <= moves, f"case {seed}: {len(plan)} moves")
        plan.apply()
        steps = cluster.vms.demand[0] // STEP_KHZ
        loads = np.bincount(cluster.vms.host, weights=steps, minlength=HOSTS)
        reserved = cluster.sum_on_hosts(cluster.vms.reservation)
        tally.check(
            bool((reserved <= cluster.hosts.capacity).all()), f"case {seed}: too much reserved"
        )
        reached = _std(float((loads**2).sum()), int(steps.sum()))
        least = _std(float(row["bound"]), int(steps.sum()))
        tally.check(reached >= least * (1 - 1e-12), f"case {seed}: below the proven optimum")
        capacity = int(cluster.hosts.capacity[0, 0]) // STEP_KHZ
        tally.check(
            plan.lower_bound <= least / capacity * (1 + 1e-9), f"case {seed}: our bound is none"
        )
        if row["proven"] == "1":
            gaps[moves].append(reached / least - 1)
    for moves, found in gaps.items():
        tally.check(float(np.median(found)) <= 0.01, f"{moves} moves: median {np.median(found)}")
        tally.check(max(found) <= 0.03, f"{moves} moves: worst {max(found)}")
    measured = "; ".join(
        f"{moves} moves: median {np.median(found):.2%}, worst {max(found):.2%} of {len(found)}"
        for moves, found in gaps.items()
    )
    optimal = check_packing(tally)
    return tally.outcome(
        "C9",
        sentences=(
            "median <= 1 %, worst <= 3 %, never below; 18 hosts in at least 95 of 100 packings",
            f"{measured}; 18 hosts in {optimal}",
        ),
    )


def _cluster(seed: int) -> Cluster:
    """Make a small cluster with reservations, rules apart and two capacities."""
    rng = np.random.default_rng(seed)
    hosts, vms = int(rng.integers(2, 8)), int(rng.integers(4, 30))
    size = rng.integers(1, 3, hosts)
    demand = rng.integers(1, 3_000_000, (2, vms))
    pairs = [np.sort(rng.choice(vms, 2, replace=False)).tolist() for _ in range(3)]
    return Cluster.from_arrays(
        {"capacity": np.stack([size * 20_000_000, size * 16_000_000]), "cores": [8] * hosts},
        {
            "host": rng.integers(0, hosts, vms),
            "vcpus": np.full(vms, 4),
            "memory": demand[1],
            "demand": demand,
            "reservation": demand // 4,
        },
        rules={"kind": np.ones(3, np.uint8), "vms": pairs},
    )


def _best(state: State, reach: Reach) -> tuple[int, int, int]:
    """Try each move: sums of squares from scratch, in Python's integers."""
    b = state.balance
    allowed = reach.allowed()
    where = b.where.tolist()
    sizes = b.size.tolist()
    hosts = sorted(b.host.tolist())
    loads = b.load.tolist()

    def spread(loads: list[list[int]]) -> int:
        total = 0
        for r in (0, 1):
            mine = [loads[r][h] for h in hosts]
            total += state.weights[r] * (len(mine) * sum(x * x for x in mine) - sum(mine) ** 2)
        return total

    now = spread(loads)
    best = (0, -1, -1)
    for vm in range(len(where)):
        for host in hosts:
            if host == where[vm] or not allowed[vm, host]:
                continue
            after = [list(row) for row in loads]
            for r in (0, 1):
                for h, sign in ((where[vm], -1), (host, 1)):
                    part = float(b.amount[r, vm]) * float(b.scale[r, sizes[h]])
                    after[r][h] += sign * int(part + 0.5)
            gain = now - spread(after)
            if gain > best[0]:
                best = (gain, vm, host)
    return best


@experiment("C10", "DRS: sums after a million random moves; the chosen move beside trying each")
def choices(context: Context) -> Outcome:
    """Compare incremental sums with sums from scratch, and moves by index with brute force."""
    from pyvirt.cluster.kernels import balance, index

    tally = Tally()
    cluster = balance_case(0)
    cluster.hosts.capacity[:, ::3] //= 2
    state = State(cluster, Reach(cluster), cluster.vms.demand, MigrationCost())
    b = state.balance
    rng = np.random.default_rng(1)
    balance.wander(
        b,
        rng.integers(0, len(cluster.vms), RANDOM_MOVES),
        rng.integers(0, len(cluster.hosts), RANDOM_MOVES),
    )
    kept = [array.copy() for array in (b.load, b.raw, b.sums, b.free)]
    state.restart(b.where.copy())
    for name, ours, fresh in zip(
        ("loads", "amounts", "sums", "free"), kept, (b.load, b.raw, b.sums, b.free), strict=True
    ):
        tally.check(np.array_equal(ours, fresh), f"{name} are not those from scratch")
    alike = 0
    for seed in range(1000):
        small = _cluster(seed)
        reach = Reach(small)
        state = State(small, reach, small.vms.demand)
        found = tuple(int(x) for x in index.best(state.balance, state.rows()))
        right = _best(state, reach)
        tally.check(found == right, f"cluster {seed}: {found}, not {right}")
        alike += found == right
    return tally.outcome(
        "C10",
        sentences=(
            "sums equal after 1,000,000 moves; 1,000 of 1,000 moves the best",
            f"sums equal after {RANDOM_MOVES:,} moves; {alike:,} of 1,000 moves the best",
        ),
    )
