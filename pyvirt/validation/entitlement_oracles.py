"""Two slow ways to divide a capacity over a tree of pools, which share no code with the solver.

Both follow the definition from the objects of the tree: demands and floors go up, amounts come
down. `exact` divides in fractions, by bisection over the sorted breakpoints. `by_programs` knows
nothing of levels: it raises the smallest amount per share as far as a linear program allows, fixes
those whose constraints have a price, and goes on with the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import inf, isinf, lcm
from typing import Any

from pyvirt.entitlement import Client, Pool

__all__ = ["by_programs", "exact"]

Divide = Callable[[list[Any], list[Any], list[Any], Any], list[Any]]
ACCURACY = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


def exact(tree: Pool, capacity: float) -> list[Fraction]:
    """Give the entitlement of every node, breadth-first, in fractions."""
    return _over(tree, _number(capacity), _number, _bisect)


def by_programs(tree: Pool, capacity: float) -> list[float]:
    """Likewise by lexicographic linear programs; floors must not exceed what there is."""
    return _over(tree, capacity, float, _programs)


def _number(value: float) -> Any:
    return inf if isinf(value) else Fraction(value)


def _over(tree: Pool, capacity: Any, number: Callable[[float], Any], divide: Divide) -> list[Any]:
    bounds: dict[int, tuple[Any, Any]] = {}

    def climb(node: Pool | Client) -> tuple[Any, Any]:
        """Floor and demand of a node, and of all below it."""
        if isinstance(node, Client):
            keep = node.demand if node.touched is None else node.touched
            floor = number(min(node.reservation, keep))
            found = floor, max(floor, number(min(node.limit, node.demand)))
        else:
            below = [climb(child) for child in node.children]
            demand = min(number(node.limit), sum(demand for _, demand in below))
            found = (
                min(demand, max(number(node.reservation), sum(floor for floor, _ in below))),
                demand,
            )
        bounds[id(node)] = found
        return found

    result = [min(capacity, climb(tree)[1])]
    nodes: list[Pool | Client] = [tree]
    for node, amount in zip(nodes, result, strict=False):  # both grow on the way
        if isinstance(node, Pool) and node.children:
            floors, caps = zip(*(bounds[id(child)] for child in node.children), strict=True)
            shares = [number(child.shares) for child in node.children]  # type: ignore[arg-type]
            nodes += node.children
            result += divide(shares, list(floors), list(caps), amount)
    return result


def _bisect(shares: list[Any], floors: list[Any], caps: list[Any], amount: Any) -> list[Any]:
    """Find the level between the breakpoints around it."""
    if sum(caps) <= amount:
        return caps
    if sum(floors) >= amount:
        total = sum(floors)
        return [floor * amount / total if total else floor for floor in floors]
    reached = [c if s else f for s, f, c in zip(shares, floors, caps, strict=True)]
    if sum(reached) <= amount:
        # All that have shares are at their caps: the others are equal among themselves.
        ones = [Fraction(not s) for s in shares]
        floors = [c if s else f for s, f, c in zip(shares, floors, caps, strict=True)]
        return _bisect(ones, floors, caps, amount)

    # From here on in integers, in units of a common denominator; levels are p / q.
    unit = lcm(*(x.denominator for x in (*floors, *caps, amount) if x != inf))
    part = lcm(*(s.denominator for s in shares))
    clients = [
        (int(s * part), int(f * unit), c if c == inf else int(c * unit))
        for s, f, c in zip(shares, floors, caps, strict=True)
    ]
    total = int(amount * unit)

    def at(p: int, q: int) -> list[Any]:
        """Give q times what each gets at the level p / q."""
        return [min(max(p * s, f * q), c * q) if s else f * q for s, f, c in clients]

    points = {Fraction(bound, s) for s, *ends in clients if s for bound in ends if bound != inf}
    bends = sorted(points | {Fraction(0)})
    low, high = 0, len(bends)
    while high - low > 1:
        middle = (low + high) // 2
        if sum(at(*bends[middle].as_integer_ratio())) <= total * bends[middle].denominator:
            low = middle
        else:
            high = middle
    p, q = bends[low].as_integer_ratio()
    missing = total * q - sum(at(p, q))
    if missing:
        slope = sum(s for s, f, c in clients if f * q <= p * s < c * q)  # right of the breakpoint
        p, q = p * slope + missing, q * slope
    return [Fraction(x, q * unit) for x in at(p, q)]


def _programs(
    shares: Sequence[float], floors: Sequence[float], caps: Sequence[float], amount: float
) -> list[float]:
    """Raise the smallest amount per share, then the next, until all are fixed."""
    import numpy as np
    from scipy.optimize import linprog

    n = len(shares)
    if amount <= 0:
        return [0.0] * n
    fixed: dict[int, float] = {}
    bounds = [
        (f / amount, None if isinf(c) else c / amount) for f, c in zip(floors, caps, strict=True)
    ]
    for weights in (shares, [float(not s) for s in shares]):
        scale = max(weights) or 1.0
        while active := [i for i in range(n) if weights[i] and i not in fixed]:
            rows = np.zeros((len(active) + 1, n + 1))
            for row, i in enumerate(active):  # weight * t <= amount of i
                rows[row, i] = -1
                rows[row, n] = weights[i] / scale
            rows[-1, :n] = 1
            found = linprog(
                np.append(np.zeros(n), -1.0),
                A_ub=rows,
                b_ub=np.append(np.zeros(len(active)), 1.0),
                bounds=[
                    *([fixed[i]] * 2 if i in fixed else bounds[i] for i in range(n)),
                    [0, None],
                ],
                method="highs",
                options=ACCURACY,
            )
            if found.status != 0:
                raise ArithmeticError(f"linear program: {found.message}")
            priced = [i for i, y in zip(active, found.ineqlin.marginals, strict=False) if y < -1e-9]
            if not priced:
                raise ArithmeticError("linear program: no constraint has a price")
            for i in priced:
                fixed[i] = float(found.x[i])
    return [fixed[i] * amount for i in range(n)]
