# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""What no choice of at most K moves can get below: a bound on the variance of hosts' loads.

H Var(N) is the largest value of 2 sum(y N) - sum(y**2) over all y that sum up to 0, reached by
y = N - mean(N). With y fixed this is linear in N, and each move changes it on its own; the K moves
that lower it most, whatever rules and reservations say, give a bound for any y. y is taken from the
balance reached, and from points between that and what the linear problem wants, as Frank and
Wolfe's method ("An algorithm for quadratic programming", 1956) does.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["lower_bound"]


@njit(cache=True, nogil=True)
def _linear(loads, sizes, weight, amount, source, may, most, y, wanted):
    """Give the bound for one y, and write the loads of the linear problem's moves to `wanted`."""
    vms, hosts = source.size, loads.shape[1]
    change = np.zeros(vms)
    where = np.full(vms, -1, np.int64)
    for vm in range(vms):
        s = source[vm]
        if s < 0:
            continue
        for d in range(hosts):
            if d == s or not may[vm, d]:
                continue
            got = 0.0
            for r in range(2):
                if weight[r] > 0:
                    there, here = y[r, d] * sizes[r, d], y[r, s] * sizes[r, s]
                    got += 2 * weight[r] * amount[r, vm] * (there - here)
            if got < change[vm]:
                change[vm] = got
                where[vm] = d
    bound = 0.0
    for r in range(2):
        for h in range(hosts):
            wanted[r, h] = loads[r, h]
            bound += weight[r] * (2 * y[r, h] * loads[r, h] - y[r, h] * y[r, h])
    order = np.argsort(change)
    for i in range(min(most, vms)):
        vm = order[i]
        if where[vm] < 0:
            break
        bound += change[vm]
        for r in range(2):
            wanted[r, source[vm]] -= amount[r, vm] * sizes[r, source[vm]]
            wanted[r, where[vm]] += amount[r, vm] * sizes[r, where[vm]]
    return bound


@njit(cache=True, nogil=True)
def lower_bound(loads, reached, sizes, weight, amount, source, may, most, rounds):
    """Bound the weighted sum of H times the variances from below.

    `loads` (2, H) at the start and as `reached`, `sizes` (2, H) one over capacities, `amount`
    (2, V), `source` (V,) -1 for VMs that stay, `may` (V, H) where each may be by itself.
    """
    hosts = loads.shape[1]
    point = reached.copy()
    wanted = np.zeros_like(loads)
    y = np.zeros_like(loads)
    best = 0.0
    for _ in range(rounds):
        for r in range(2):
            mean = point[r].sum() / hosts
            for h in range(hosts):
                y[r, h] = point[r, h] - mean
        bound = _linear(loads, sizes, weight, amount, source, may, most, y, wanted)
        best = max(best, bound)
        # The least variance on the way from the point to what is wanted.
        up, down = 0.0, 0.0
        for r in range(2):
            mean = (wanted[r] - point[r]).sum() / hosts
            for h in range(hosts):
                step = wanted[r, h] - point[r, h] - mean
                up -= weight[r] * step * y[r, h]
                down += weight[r] * step * step
        if down <= 0 or up <= 0:
            break
        part = min(up / down, 1.0)
        for r in range(2):
            for h in range(hosts):
                point[r, h] += part * (wanted[r, h] - point[r, h])
    return best
