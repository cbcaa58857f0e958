# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Targets: machine pages divided by shares under a tax on idle memory.

A VM of S shares, A active pages and P in all pays ``g(P) = P`` up to A and ``A + k (P - A)``
beyond, with ``k = 1 / (1 - tax)`` (Waldspurger, OSDI 2002, 5.3: the adjusted shares-per-page ratio
is S / g(P)). Where pages are revoked from the one with the smallest ratio, g(P) / S ends up equal
for all that are at no bound: ``P = g^-1(level S)``. That inverse is the sum of what two clients of
the plain division get, for ``keep = 1 - tax``:

    P = clip(level S, 0, A) + clip(level S keep, keep A, keep A + most - A) - keep A

so the solver of entitlements finds the level as it is, and no third breakpoint is needed.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pyvirt.entitlement.jit import SCRATCH, divide

__all__ = ["WORK", "taxed"]

WORK = 4 + SCRATCH
"""Rows of twice as many doubles as there are VMs."""


@njit(cache=True, nogil=True)
def cut(least, amount, out):
    """The least that each must have is more than there is: cut all by one factor, exact in sum."""
    n = len(least)
    whole = 0.0
    for i in range(n):
        whole += least[i]
    before, given = 0.0, 0
    for i in range(n):
        before += least[i]
        upto = min(int(before / whole * amount), amount) if whole > 0 else 0
        if i == n - 1 and whole > 0:
            upto = amount
        out[i] = max(min(upto - given, least[i]), 0)
        given += out[i]


@njit(cache=True, nogil=True)
def taxed(solver, shares, active, least, most, amount, keep, out, work):
    """Divide `amount` whole pages; least <= most; gives what nobody takes."""
    n = len(shares)
    floor_sum, cap_sum = 0, 0
    for i in range(n):
        floor_sum += least[i]
        cap_sum += most[i]
    if cap_sum <= amount:
        out[:] = most
        return amount - cap_sum
    if floor_sum >= amount:
        if floor_sum > amount:
            cut(least, amount, out)
        else:
            out[:] = least
        return 0
    two = 2 * n
    weight, floors, caps = work[:two], work[two : 2 * two], work[2 * two : 3 * two]
    given, scratch = work[3 * two : 4 * two], work[4 * two :]
    offsets = 0.0
    for i in range(n):
        touched = float(min(active[i], most[i]))
        offset = keep * touched
        weight[i] = shares[i]
        floors[i] = min(float(least[i]), touched)
        caps[i] = touched
        weight[n + i] = shares[i] * keep
        floors[n + i] = offset + max(least[i] - touched, 0.0)
        caps[n + i] = offset + (most[i] - touched)
        offsets += offset
    divide(solver, weight, floors, caps, amount + offsets, given, scratch)
    rest = amount
    for i in range(n):
        pages = given[i] + given[n + i] - keep * float(min(active[i], most[i]))
        pages = min(max(pages, float(least[i])), float(most[i]))
        whole = int(np.floor(pages))
        out[i] = whole
        given[i] = pages - whole
        rest -= whole
    # one page each to those that rounding took most from, the first of equal ones first
    while rest > 0:
        best = -1
        for i in range(n):
            if out[i] < most[i] and (best < 0 or given[i] > given[best]):
                best = i
        out[best] += 1
        given[best] -= 1.0
        rest -= 1
    while rest < 0:
        worst = -1
        for i in range(n):
            if out[i] > least[i] and (worst < 0 or given[i] < given[worst]):
                worst = i
        out[worst] -= 1
        given[worst] += 1.0
        rest += 1
    return 0
