"""S7 and S8: entitlements over trees of pools, and a schedule by them."""

from __future__ import annotations

from fractions import Fraction
from importlib.util import find_spec
from math import inf

import numpy as np

from pyvirt.entitlement import Client, Pool, solve
from pyvirt.sched import EsxHost
from pyvirt.validation.entitlement_oracles import by_programs, exact
from pyvirt.validation.registry import Context, Outcome, experiment
from pyvirt.validation.tally import Tally

__all__ = ["entitlement", "pool_shares"]

TREES = 10_000
EXACT = Fraction(1, 10**12)  # of the capacity
PROGRAMS = 200
CLOSE = 1e-6  # likewise
QUANTUM = 50_000_000
SEED = 8

#: Linux 6.18 on one core with this tree as control groups (`cpu.shares`), each with a busy loop:
#: shares of the CPU time that the three got, which was 57 % of 6 s.
KERNEL = (("x", 0.1666), ("y", 0.4994), ("z", 0.3340))
TICK = 0.004 / (0.57 * 6)  # of that time; the kernel is up to a tick of 4 ms behind


@experiment("S7", "shares of a tree of pools")
def pool_shares(context: Context) -> Outcome:
    """Divide by A 2048 {1024, 3072} and B 1024 {1024}; then let the ESX policy run such VMs."""
    a = Pool("a", [Client("x", 1024), Client("y", 3072)], 2048)
    b = Pool("b", [Client("z", 1024)], 1024)
    got = solve(Pool("root", [a, b]), 1)
    tally = Tally()
    for name, part in (("x", Fraction(1, 6)), ("y", Fraction(1, 2)), ("z", Fraction(1, 3))):
        tally.check(
            bool(abs(Fraction(got[name]) - part) <= EXACT),
            f"{name} is entitled to {got[name]!r}, not to {part}",
        )
    for name, measured in KERNEL:
        tally.check(
            abs(got[name] - measured) <= TICK,
            f"{name} is entitled to {got[name]:.4f}, the kernel gave {measured}",
        )
    worst = _schedule(tally, {name: got[name] for name in ("x", "y", "z")})
    parts = ", ".join(str(Fraction(got[name]).limit_denominator(1000)) for name in ("x", "y", "z"))
    return tally.outcome(
        "S7",
        sentences=("1/6, 1/2, 1/3", parts),
        note=f"by the solver; a schedule of the ESX policy is at most {worst:.3f} quanta away",
    )


def _schedule(tally: Tally, parts: dict[str, float]) -> float:
    """Check what always runnable VMs had at 400 times; give the largest distance in quanta."""
    tree = Pool("host", [Pool("a", shares=2048), Pool("b", shares=1024)])
    host = EsxHost(1, mhz=1000, pools=tree, quantum_ns=QUANTUM)
    vms = {
        name: host.power_on(name, shares=shares, pool=pool)
        for name, shares, pool in (
            ("x", 1024, "host/a"),
            ("y", 3072, "host/a"),
            ("z", 1024, "host/b"),
        )
    }
    worst = 0.0
    for _ in range(400):
        host.run(host.now_ns + 17_000_000)
        run = host.counters()["run"]
        for name, vm in vms.items():
            off = abs(run[vm.worlds[0]] - parts[name] * host.now_ns) / QUANTUM
            # entitlements are rounded to ns a second
            tally.check(off <= 1 + 1e-6, f"{name} is {off:.3f} quanta away at {host.now_ns} ns")
            worst = max(worst, float(off))
    return worst


@experiment("S8", "entitlement against exact fractions and linear programs")
def entitlement(context: Context) -> Outcome:
    """Solve the worked example and random trees, and compare every node."""
    tally = Tally()
    example = Pool(
        "host",
        [
            Client("a", 2000),
            Client("b", 1000, reservation=2000),
            Client("c", 1000, limit=500),
        ],
    )
    given = solve(example, 6000).given[1:]
    for got, want in zip(given, (3500, 2000, 500), strict=True):
        tally.check(bool(got == want), f"the example gives {got!r}, not {want}")
    example_text = "/".join(f"{x:g}" for x in given)

    rng = np.random.default_rng(SEED)
    equal = 0
    for number in range(TREES):
        if number % 1000 == 0:
            context.report(f"S8 tree {number} of {TREES}")
        tree, capacity = random_tree(rng, admitted=bool(number % 2))
        got_all = solve(tree, capacity, overcommit="scale").given.tolist()
        want_all = exact(tree, capacity)
        slack = EXACT * Fraction(capacity)
        wrong = [
            i
            for i, (x, y) in enumerate(zip(got_all, want_all, strict=True))
            if abs(Fraction(x) - y) > slack
        ]
        equal += not wrong
        tally.check(
            not wrong,
            f"tree {number}: node {wrong[0]} gets {got_all[wrong[0]]!r}, "
            f"not {float(want_all[wrong[0]])!r}"
            if wrong
            else "",
        )

    programs = PROGRAMS
    solved = 0
    if find_spec("scipy") is None:
        programs = 0
        tally.missing("linear programs: scipy is not installed (extra: planning)")
    for number in range(programs):
        if number % 50 == 0:
            context.report(f"S8 linear programs, tree {number} of {PROGRAMS}")
        tree, capacity = random_tree(rng, admitted=True)
        got = solve(tree, capacity).given
        apart = float(np.abs(got - np.array(by_programs(tree, capacity))).max())
        solved += apart <= CLOSE * capacity
        tally.check(
            apart <= CLOSE * capacity,
            f"tree {number} of the linear programs: {apart / capacity:g} of the capacity apart",
        )
    return tally.outcome(
        "S8",
        sentences=(
            _sentence("3500/2000/500", TREES, programs),
            _sentence(example_text, equal, solved),
        ),
    )


def _sentence(example: str, trees: int, programs: int) -> str:
    text = f"{example}; {trees:,} trees within 1e-12 of fractions"
    return text + (f", {programs} within 1e-6 of linear programs" if programs else "")


def random_tree(rng: np.random.Generator, *, admitted: bool) -> tuple[Pool, float]:
    """Make a tree of up to four levels, and a capacity.

    `admitted`: the floors below a pool never exceed its limit, and the capacity suffices.
    Otherwise they may. A third of the trees has small integers, so that bounds coincide.
    """
    small = rng.random() < 1 / 3

    def amount() -> float:
        return float(rng.integers(0, 6)) if small else float(rng.integers(0, 1 << 20)) / 1024

    def bounds(least: float) -> tuple[float, float]:
        """A reservation, and a limit of at least this."""
        reservation = amount() if rng.random() < 0.5 else 0.0
        limit = max(least, reservation) + amount() if rng.random() < 0.4 else inf
        return reservation, limit

    def shares() -> float:
        if rng.random() < 0.1:
            return 0.0
        return float(rng.integers(1, 5)) if small else float(rng.integers(64, 6400)) / 64

    def client(name: str) -> tuple[Client, float]:
        reservation, limit = bounds(0.0)
        demand = inf if rng.random() < 0.2 else amount()
        touched = amount() if rng.random() < 0.3 else None
        return Client(name, shares(), reservation, limit, demand, touched), reservation

    def pool(name: str, depth: int) -> tuple[Pool, float]:
        """A pool, and what it and all below it may keep at most."""
        made = [
            pool(f"p{i}", depth - 1) if depth and rng.random() < 0.3 else client(f"c{i}")
            for i in range(rng.integers(1, 5))
        ]
        reserved = sum(kept for _, kept in made)
        reservation, limit = bounds(reserved if admitted else 0.0)
        children = tuple(child for child, _ in made)
        kept = max(reservation, reserved)
        return Pool(name, children, shares(), reservation, limit), kept

    tree, kept = pool("root", 3)
    capacity = (kept if admitted else 0.0) + amount() * float(rng.integers(1, 8))
    return tree, capacity or 1.0
