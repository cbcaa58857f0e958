# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Packing of items of two resources into bins: first fit, then a tabu search.

The search lets bins be too full and lowers the sum of what is too much, as a part of a bin: it
takes the best move of an item out of a bin that is too full, or the best swap of one of its items
with another, even where that makes it worse, but not one that it moved of late.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["first_fit", "overload", "search"]


@njit(cache=True, nogil=True)
def _over(cpu, memory, cap_cpu, cap_memory):
    over = 0.0
    if cpu > cap_cpu:
        over += (cpu - cap_cpu) / cap_cpu
    if memory > cap_memory:
        over += (memory - cap_memory) / cap_memory
    return over


@njit(cache=True, nogil=True)
def overload(load, capacity):
    """Sum up what is too much, as parts of bins."""
    total = 0.0
    for b in range(load.shape[1]):
        total += _over(load[0, b], load[1, b], capacity[0, b], capacity[1, b])
    return total


@njit(cache=True, nogil=True)
def first_fit(size, order, capacity, bins, place, load):
    """Put each item into the first of `bins` where it fits; gives how many bins got an item.

    Where it fits into none, it goes where that adds least to what is too much.
    """
    load[:] = 0
    used = 0
    for i in range(order.size):
        item = order[i]
        best, least = -1, np.inf
        for b in range(bins):
            over = _over(
                load[0, b] + size[0, item],
                load[1, b] + size[1, item],
                capacity[0, b],
                capacity[1, b],
            )
            if over == 0.0:
                best = b
                break
            over -= _over(load[0, b], load[1, b], capacity[0, b], capacity[1, b])
            if over < least:
                best, least = b, over
        place[item] = best
        load[0, best] += size[0, item]
        load[1, best] += size[1, item]
        used = max(used, best + 1)
    return used


@njit(cache=True, nogil=True)
def search(size, capacity, bins, place, load, steps, seed):
    """Lower the overload to nothing, in `steps` at most; gives how many were made, or -1."""
    items = place.size
    until = np.zeros(items, np.int64)  # the step up to which an item is not to be moved
    full = np.empty(bins, np.int64)
    state = np.uint64(seed) | np.uint64(1)
    for step in range(steps):
        count = 0
        for b in range(bins):
            if load[0, b] > capacity[0, b] or load[1, b] > capacity[1, b]:
                full[count] = b
                count += 1
        if count == 0:
            return step
        # xorshift64: which of the full bins, and how long its item rests
        state ^= state << np.uint64(13)
        state ^= state >> np.uint64(7)
        state ^= state << np.uint64(17)
        a = full[np.int64(state >> np.uint64(33)) % count]
        over_a = _over(load[0, a], load[1, a], capacity[0, a], capacity[1, a])
        best_item, best_other, best_bin, best = -1, -1, -1, np.inf
        for item in range(items):
            if place[item] != a or until[item] > step:
                continue
            cpu_a, memory_a = load[0, a] - size[0, item], load[1, a] - size[1, item]
            without = _over(cpu_a, memory_a, capacity[0, a], capacity[1, a]) - over_a
            for b in range(bins):
                if b == a:
                    continue
                change = (
                    without
                    + _over(
                        load[0, b] + size[0, item],
                        load[1, b] + size[1, item],
                        capacity[0, b],
                        capacity[1, b],
                    )
                    - _over(load[0, b], load[1, b], capacity[0, b], capacity[1, b])
                )
                if change < best:
                    best_item, best_other, best_bin, best = item, -1, b, change
            for other in range(items):
                b = place[other]
                if b == a or until[other] > step:
                    continue
                change = (
                    _over(
                        cpu_a + size[0, other],
                        memory_a + size[1, other],
                        capacity[0, a],
                        capacity[1, a],
                    )
                    - over_a
                    + _over(
                        load[0, b] + size[0, item] - size[0, other],
                        load[1, b] + size[1, item] - size[1, other],
                        capacity[0, b],
                        capacity[1, b],
                    )
                    - _over(load[0, b], load[1, b], capacity[0, b], capacity[1, b])
                )
                if change < best:
                    best_item, best_other, best_bin, best = item, other, b, change
        if best_item < 0:
            continue
        rest = 3 + np.int64(state & np.uint64(7))
        for item, source, target in (
            (best_item, a, best_bin),
            (best_other, best_bin, a),
        ):
            if item < 0:
                continue
            for resource in range(2):
                load[resource, source] -= size[resource, item]
                load[resource, target] += size[resource, item]
            place[item] = target
            until[item] = step + rest
    return steps if overload(load, capacity) == 0.0 else -1
