"""Which VM leaves an overloaded host: the smallest, the least used, any, the most correlated."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

__all__ = ["pick"]

MU, RS, MC = 1, 2, 3


@njit(cache=True, nogil=True)
def _below(r: Any, n: int) -> Any:
    """Draw one of 0 to n - 1 (splitmix64; what would favour small numbers is drawn again)."""
    count = np.uint64(n)
    end = (np.uint64(0xFFFFFFFFFFFFFFFF) // count) * count
    while True:
        r.state += np.uint64(0x9E3779B97F4A7C15)
        z = r.state
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
        if z < end:
            return np.int64(z % count)


@njit(cache=True, nogil=True)
def _reflect(z: Any, pivot: Any, k: int, first: int, end: int, n: int, dots: Any, d: float) -> None:
    """Apply the reflection of step k, in the array `pivot`, to the columns from `first` to `end`.

    Each column's sum runs in the order of the rows; columns go side by side.
    """
    for c in range(first, end):
        dots[c] = 0.0
    for i in range(k, n):
        factor = pivot[i]
        for c in range(first, end):
            dots[c] += z[i, c] * factor
    scale = d * pivot[k]
    for c in range(first, end):
        dots[c] /= scale
    for i in range(k, n):
        factor = pivot[i]
        for c in range(first, end):
            z[i, c] += dots[c] * factor


@njit(cache=True, nogil=True)
def _pivot(z: Any, c: int, k: int, n: int, pivot: Any) -> float:
    """Copy the reflector of step k out of column c, and give the diagonal element."""
    square = 0.0
    for i in range(k, n):
        pivot[i] = z[i, c]
        square += pivot[i] * pivot[i]
    d = math.sqrt(square)
    if pivot[k] > 0.0:
        d = -d
    pivot[k] -= d
    return d


@njit(cache=True, nogil=True)
def _correlated(rows: Any, use: Any, p: int, n: int, newest: int, work: Any, lines: Any) -> int:
    """Which of p VMs the others explain best; -1 where that cannot be asked.

    Each VM's row is regressed on a column of ones and the other rows. The columns before it are
    the same as in the regression before, and so are their reflections: they are made once, in
    `work[0]`, and the rest in `work[1]`. `lines[0]` to `lines[p]` are the columns as they were.
    """
    shared, own = work[0], work[1]
    diagonal, dots, pivot, y, fitted = work[2, 0], work[2, 1], work[2, 2], work[2, 3], work[2, 4]
    model = work[2, 5]
    for i in range(n):
        shared[i, 0] = 1.0
        lines[0, i] = 1.0
    for c in range(p):
        v = rows[c]
        for i in range(n):
            lines[c + 1, i] = use[v, newest - i]
            shared[i, c + 1] = lines[c + 1, i]
    best, index = 4.9e-324, 0
    for x in range(p):
        # the next column that all later regressions have in common
        diagonal[x] = _pivot(shared, x, x, n, pivot)
        if diagonal[x] == 0.0:
            return -1
        _reflect(shared, pivot, x, x + 1, p + 1, n, dots, diagonal[x])
        # columns of the other VMs behind this one, and its own as the last
        rest = p - x - 1
        for i in range(n):
            for c in range(rest):
                own[i, c] = shared[i, x + 2 + c]
            own[i, rest] = shared[i, x + 1]
        for c in range(rest):
            k = x + 1 + c
            diagonal[k] = _pivot(own, c, k, n, pivot)
            if diagonal[k] == 0.0:
                return -1
            _reflect(own, pivot, k, c + 1, rest + 1, n, dots, diagonal[k])
        for i in range(p):
            y[i] = own[i, rest]
        for k in range(p - 1, -1, -1):
            b = y[k] / diagonal[k]
            fitted[k] = b
            for i in range(k):
                y[i] -= b * (shared[i, k] if k <= x else own[i, k - x - 1])
        for i in range(n):
            model[i] = 0.0
        for k in range(p):
            line = lines[k if k <= x else k + 1]
            b = fitted[k]
            for i in range(n):
                model[i] += line[i] * b
        line = lines[x + 1]
        rss = tss = average = 0.0
        for i in range(n):
            miss = line[i] - model[i]
            rss += miss * miss
            delta = line[i] - average
            part = delta / (i + 1)
            average += part
            tss += i * delta * part
        if tss == 0.0:
            continue  # 0 / 0, or less than anything
        fit = 1.0 - rss / tss
        if fit > best:
            best, index = fit, x
    return index


@njit(cache=True, nogil=True)
def pick(
    r: Any,
    hosts: Any,
    vms: Any,
    member: Any,
    mips: Any,
    demand: Any,
    use: Any,
    work: Any,
    lines: Any,
    h: int,
) -> int:
    """Choose one of a host's VMs; none of them is in migration. `use` is (V, steps), of one."""
    count = hosts[h].count
    if count == 1:
        return member[h, 0]
    if r.selection == RS:
        return member[h, _below(r, count)]
    n = r.step + 1 - r.window
    if r.selection == MC and n >= count:
        found = _correlated(member[h], use, count, n, r.step, work, lines)
        if found >= 0:
            return member[h, found]
    best = member[h, 0]
    if r.selection == MU:
        least = demand[best] / mips[best]
        for i in range(1, count):
            v = member[h, i]
            value = demand[v] / mips[v]
            if value < least:
                best, least = v, value
        return best
    for i in range(1, count):
        v = member[h, i]
        if vms[v].memory < vms[best].memory:
            best = v
    return best
