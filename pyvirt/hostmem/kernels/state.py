# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""The state of a host by what is free, what is free by all that is not, and bad input."""

from __future__ import annotations

from numba import njit

from pyvirt.hostmem.layout import (
    ACTIVE,
    BALLOONED,
    CACHED_PER_PAGE,
    COPIES,
    ENTER_CLEAR,
    FREE,
    KERNEL,
    LEAVE_CLEAR,
    LIMIT,
    MAPPED,
    MEMORY,
    OVERHEAD,
    RESERVATION,
    SHARED,
    STATE,
    SWAPPED,
    TOTAL,
    UNTOUCHED,
    USED,
    ZIPPED,
)

__all__ = ["cached", "find_bad", "free_of", "own", "transition"]


@njit(cache=True, nogil=True)
def transition(h, host, free):
    """Give the state after `free` pages are free: down at once, up as far as thresholds allow."""
    state = h[STATE, host]
    for worse in range(4, state, -1):
        if free < h[ENTER_CLEAR + worse - 1, host]:
            return worse
    while state > 0 and free >= h[LEAVE_CLEAR + state - 1, host]:
        state -= 1
    return state


@njit(cache=True, nogil=True)
def cached(zipped):
    """Give the machine pages that hold so many compressed ones."""
    return (zipped + CACHED_PER_PAGE - 1) // CACHED_PER_PAGE


@njit(cache=True, nogil=True)
def own(v, i):
    """Give the machine pages that are a VM's alone, without overhead."""
    return v[MAPPED, i] - v[SHARED, i] + cached(v[ZIPPED, i])


@njit(cache=True, nogil=True)
def free_of(v, h, host, first, last):
    """Count the machine pages that nothing is in."""
    free = h[TOTAL, host] - h[KERNEL, host] - h[COPIES, host]
    for i in range(first, last):
        free -= own(v, i) + v[OVERHEAD, i]
    h[FREE, host] = free
    return free


@njit(cache=True, nogil=True)
def find_bad(v, least, most):
    """Give the first VM with an input out of range, and which rule: a row, or 100 and above."""
    for i in range(v.shape[1]):
        for row in range(len(least)):
            if v[row, i] < least[row] or v[row, i] > most[row]:
                return i, row
        memory = v[MEMORY, i]
        at_most = memory if v[LIMIT, i] < 0 else min(memory, v[LIMIT, i])
        if v[USED, i] > memory:
            return i, 100
        if v[ACTIVE, i] > v[USED, i]:
            return i, 101
        if v[RESERVATION, i] > at_most:
            return i, 102
        parts = v[UNTOUCHED, i] + v[MAPPED, i] + v[ZIPPED, i] + v[SWAPPED, i] + v[BALLOONED, i]
        if parts != memory:
            return i, 103
    return -1, 0
