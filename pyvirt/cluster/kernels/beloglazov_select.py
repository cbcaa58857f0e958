"""Which VM leaves an overloaded host: the smallest, the least used, any, the most correlated."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

__all__ = ["pick"]

MU, RS, MC = 1, 2, 3
# Pages of the array `work`; the first three are those of the overload tests.
SHARED, OWN, LINES, VECTORS = 3, 4, 5, 6


@njit(cache=True, nogil=True, error_model="numpy")
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


@njit(cache=True, nogil=True, error_model="numpy")
def _reflect(z: Any, pivot: Any, k: int, first: int, end: int, n: int, d: float) -> float:
    """Apply the reflection of step k, in the array `pivot`, to the columns from `first` to `end`.

    Four columns go side by side, each with its sums in the order of the rows; up to three columns
    behind the end are zeros, and stay so. Gives the squares of the column `first` below row k.
    """
    scale = d * pivot[k]
    square = 0.0
    for c in range(first, end, 4):
        w0 = w1 = w2 = w3 = 0.0
        for i in range(k, n):
            factor = pivot[i]
            w0 += z[i, c] * factor
            w1 += z[i, c + 1] * factor
            w2 += z[i, c + 2] * factor
            w3 += z[i, c + 3] * factor
        w0 /= scale
        w1 /= scale
        w2 /= scale
        w3 /= scale
        for i in range(k, n):
            factor = pivot[i]
            z[i, c] += w0 * factor
            z[i, c + 1] += w1 * factor
            z[i, c + 2] += w2 * factor
            z[i, c + 3] += w3 * factor
        if c == first:
            for i in range(k + 1, n):
                square += z[i, c] * z[i, c]
    return square


@njit(cache=True, nogil=True, error_model="numpy")
def _pivot(z: Any, c: int, k: int, n: int, pivot: Any, square: float) -> float:
    """Copy the reflector of step k out of column c, and give the diagonal element."""
    for i in range(k, n):
        pivot[i] = z[i, c]
    d = math.sqrt(square)
    if pivot[k] > 0.0:
        d = -d
    pivot[k] -= d
    return d


@njit(cache=True, nogil=True, error_model="numpy")
def _scatter(line: Any, n: int) -> float:
    """Squared deviations from the mean, by updating: exactly 0 for a constant."""
    total = average = 0.0
    for i in range(n):
        delta = line[i] - average
        part = delta / (i + 1)
        average += part
        total += i * delta * part
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _correlated(vms: Any, rows: Any, use: Any, p: int, n: int, newest: int, work: Any) -> int:
    """Which of p VMs the others explain best; -1 where that cannot be asked.

    Each VM's row is regressed on a column of ones and the other rows. The columns before it are
    the same as in the regression before, and so are their reflections: they are made once, in
    `shared`, and the rest in `own`. `lines[0]` to `lines[p]` are the columns as they were.
    """
    shared, own, lines = work[SHARED], work[OWN], work[LINES]
    diagonal, pivot, y = work[VECTORS, 0], work[VECTORS, 1], work[VECTORS, 2]
    fitted, model = work[VECTORS, 3], work[VECTORS, 4]
    for i in range(n):
        shared[i, 0] = 1.0
        lines[0, i] = 1.0
        for c in range(p + 1, p + 4):
            shared[i, c] = 0.0
    for c in range(p):
        v = rows[c]
        for i in range(n):
            lines[c + 1, i] = use[v, newest - i]
            shared[i, c + 1] = lines[c + 1, i]
        if vms[v].scatter < 0.0:
            vms[v].scatter = _scatter(lines[c + 1], n)
    best, index = 4.9e-324, 0
    square_shared = 0.0
    for i in range(n):
        square_shared += shared[i, 0] * shared[i, 0]
    for x in range(p):
        # the next column that all later regressions have in common
        diagonal[x] = _pivot(shared, x, x, n, pivot, square_shared)
        if diagonal[x] == 0.0:
            return -1
        square_shared = _reflect(shared, pivot, x, x + 1, p + 1, n, diagonal[x])
        # columns of the other VMs behind this one, its own as the last, and zeros
        rest = p - x - 1
        square = 0.0
        for i in range(n):
            for c in range(rest):
                own[i, c] = shared[i, x + 2 + c]
            own[i, rest] = shared[i, x + 1]
            own[i, rest + 1] = own[i, rest + 2] = own[i, rest + 3] = 0.0
            if i > x:
                square += own[i, 0] * own[i, 0]
        for c in range(rest):
            k = x + 1 + c
            diagonal[k] = _pivot(own, c, k, n, pivot, square)
            if diagonal[k] == 0.0:
                return -1
            square = _reflect(own, pivot, k, c + 1, rest + 1, n, diagonal[k])
        for i in range(p):
            y[i] = own[i, rest]
        for k in range(p - 1, x, -1):
            b = y[k] / diagonal[k]
            fitted[k] = b
            for i in range(k):
                y[i] -= b * own[i, k - x - 1]
        for k in range(x, -1, -1):
            b = y[k] / diagonal[k]
            fitted[k] = b
            for i in range(k):
                y[i] -= b * shared[i, k]
        for i in range(n):
            model[i] = 0.0
        for k in range(p):
            line = lines[k if k <= x else k + 1]
            b = fitted[k]
            for i in range(n):
                model[i] += line[i] * b
        line = lines[x + 1]
        rss = 0.0
        for i in range(n):
            miss = line[i] - model[i]
            rss += miss * miss
        tss = vms[rows[x]].scatter
        if tss == 0.0:
            continue  # 0 / 0, or less than anything
        fit = 1.0 - rss / tss
        if fit > best:
            best, index = fit, x
    return index


@njit(cache=True, nogil=True, error_model="numpy")
def pick(
    r: Any,
    hosts: Any,
    vms: Any,
    member: Any,
    demand: Any,
    use: Any,
    work: Any,
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
        found = _correlated(vms, member[h], use, count, n, r.step, work)
        if found >= 0:
            return member[h, found]
    best = member[h, 0]
    if r.selection == MU:
        least = demand[best] / vms[best].mips
        for i in range(1, count):
            v = member[h, i]
            value = demand[v] / vms[v].mips
            if value < least:
                best, least = v, value
        return best
    for i in range(1, count):
        v = member[h, i]
        if vms[v].memory < vms[best].memory:
            best = v
    return best
