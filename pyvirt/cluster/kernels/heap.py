# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Hosts in the order of how full they are: an indexed binary heap, and a search in that order.

The key of a host is any float64 and stands beside it in the heap; of equal keys the lower host
comes first, so that the order is a total one and results do not depend on the heap's history.
"""

from __future__ import annotations

from numba import njit

__all__ = ["build", "later", "next_in_order", "note", "rise", "sink", "sink_first"]


@njit(cache=True, nogil=True)
def later(heap, keys, one, other):
    """Whether what stands at place `one` comes after what stands at place `other`."""
    return keys[one] > keys[other] or (keys[one] == keys[other] and heap[one] > heap[other])


@njit(cache=True, nogil=True)
def sink(heap, keys, place, base, n, host, key):
    """Give a host a key that is larger than before, in the heap of `n` hosts from `base` on."""
    at = place[host]
    while True:
        child = 2 * at - base + 1
        if child >= base + n:
            break
        best = keys[child]
        if child + 1 < base + n:
            other = keys[child + 1]
            if other < best or (other == best and heap[child + 1] < heap[child]):
                best = other
                child += 1
        if not (key > best or (key == best and host > heap[child])):
            break
        heap[at], keys[at] = heap[child], best
        place[heap[at]] = at
        at = child
    heap[at], keys[at] = host, key
    place[host] = at


@njit(cache=True, nogil=True)
def sink_first(heap, keys, base, n, key):
    """Give the first host a key that is larger than before, and note no places: see `note`."""
    at, host = base, heap[base]
    while True:
        child = 2 * at - base + 1
        if child >= base + n:
            break
        best = keys[child]
        if child + 1 < base + n:
            other = keys[child + 1]
            if other < best or (other == best and heap[child + 1] < heap[child]):
                best = other
                child += 1
        if not (key > best or (key == best and host > heap[child])):
            break
        heap[at], keys[at] = heap[child], best
        at = child
    heap[at], keys[at] = host, key


@njit(cache=True, nogil=True)
def note(heap, place):
    """Write down where each host stands, after `sink_first`."""
    for at in range(heap.size):
        place[heap[at]] = at


@njit(cache=True, nogil=True)
def rise(heap, keys, place, base, host, key):
    """Give a host a key that is smaller than before."""
    at = place[host]
    while at > base:
        parent = base + ((at - base - 1) >> 1)
        if not (keys[parent] > key or (keys[parent] == key and heap[parent] > host)):
            break
        heap[at], keys[at] = heap[parent], keys[parent]
        place[heap[at]] = at
        at = parent
    heap[at], keys[at] = host, key
    place[host] = at


@njit(cache=True, nogil=True)
def build(heap, keys, place, base, n):
    """Order the `n` hosts that stand from `base` on by `keys`; `place` gets where each stands."""
    for at in range(base + n - 1, base - 1, -1):
        place[heap[at]] = at
        sink(heap, keys, place, base, n, heap[at], keys[at])


@njit(cache=True, nogil=True)
def next_in_order(heap, keys, base, n, front, size):
    """Give the next host in order, or -1, and the new size of `front`.

    `front` is a heap of the places whose parents were given already: k hosts take O(k log k). It
    holds the place 0 alone, with a size of 1, before the first.
    """
    if size == 0:
        return -1, 0
    result = front[0]
    size -= 1
    if size > 0:
        _sink_front(heap, keys, base, front, size, front[size])
    for child in range(2 * result + 1, min(2 * result + 3, n)):
        at = size
        size += 1
        while at > 0:
            parent = (at - 1) >> 1
            if not later(heap, keys, base + front[parent], base + child):
                break
            front[at] = front[parent]
            at = parent
        front[at] = child
    return heap[base + result], size


@njit(cache=True, nogil=True)
def _sink_front(heap, keys, base, front, size, place):
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and later(heap, keys, base + front[child], base + front[child + 1]):
            child += 1
        if not later(heap, keys, base + place, base + front[child]):
            break
        front[at] = front[child]
        at = child
    front[at] = place
