# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Hosts in the order of how full they are: an indexed binary heap, and a search in that order.

The key of a host is any float64; of equal keys the lower host comes first, so that the order is a
total one and results do not depend on the history of the heap.
"""

from __future__ import annotations

from numba import njit

__all__ = ["build", "later", "next_in_order", "rise", "sink"]


@njit(cache=True, nogil=True)
def later(key, one, other):
    """Whether host `one` comes after host `other`."""
    return key[one] > key[other] or (key[one] == key[other] and one > other)


@njit(cache=True, nogil=True)
def sink(heap, place, key, base, n, host):
    """Restore the order after a host's key grew, in the heap of `n` hosts that begins at `base`."""
    at = place[host] - base
    mine = key[host]
    while True:
        child = 2 * at + 1
        if child >= n:
            break
        best = heap[base + child]
        if child + 1 < n:
            other = heap[base + child + 1]
            if later(key, best, other):
                best = other
                child += 1
        if not (mine > key[best] or (mine == key[best] and host > best)):
            break
        heap[base + at] = best
        place[best] = base + at
        at = child
    heap[base + at] = host
    place[host] = base + at


@njit(cache=True, nogil=True)
def rise(heap, place, key, base, host):
    """Restore the order after a host's key fell."""
    at = place[host] - base
    while at > 0:
        parent = (at - 1) >> 1
        other = heap[base + parent]
        if not later(key, other, host):
            break
        heap[base + at] = other
        place[other] = base + at
        at = parent
    heap[base + at] = host
    place[host] = base + at


@njit(cache=True, nogil=True)
def build(heap, place, key, base, n):
    """Order the `n` hosts that stand from `base` on; `place` gets where each stands."""
    for at in range(n - 1, -1, -1):
        host = heap[base + at]
        place[host] = base + at
        sink(heap, place, key, base, n, host)


@njit(cache=True, nogil=True)
def next_in_order(heap, key, base, n, front, size):
    """Give the next host in order, or -1, and the new size of `front`.

    `front` is a heap of the places whose parents were given already: k hosts take O(k log k). It
    holds the place 0 alone, with a size of 1, before the first.
    """
    if size == 0:
        return -1, 0
    result = front[0]
    size -= 1
    if size > 0:
        _sink_front(heap, key, base, front, size, front[size])
    for child in range(2 * result + 1, min(2 * result + 3, n)):
        at = size
        size += 1
        while at > 0:
            parent = (at - 1) >> 1
            if not later(key, heap[base + front[parent]], heap[base + child]):
                break
            front[at] = front[parent]
            at = parent
        front[at] = child
    return heap[base + result], size


@njit(cache=True, nogil=True)
def _sink_front(heap, key, base, front, size, place):
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and later(
            key, heap[base + front[child]], heap[base + front[child + 1]]
        ):
            child += 1
        if not later(key, heap[base + place], heap[base + front[child]]):
            break
        front[at] = front[child]
        at = child
    front[at] = place
