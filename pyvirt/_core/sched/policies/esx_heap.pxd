# A pairing heap of worlds, by key and number; the links stand in the worlds' records.
#
# To insert is to merge with the root; to take out the root is to merge its children in pairs.

from libc.stdint cimport uint32_t

from pyvirt._core.sched.policies.esx_state cimport NOWHERE, esx_world_t


cdef inline uint32_t merge(esx_world_t *w, uint32_t a, uint32_t b) noexcept nogil:
    """Make one heap of two that are not empty; give its root, whose `next` is not set."""
    # without a branch on the keys, which no one could predict
    cdef uint32_t swap = (w[b].key < w[a].key) | ((w[b].key == w[a].key) & (b < a))
    cdef uint32_t low = a ^ ((a ^ b) & (0 - swap)), high = a ^ b ^ low
    w[high].next = w[low].child
    if w[low].child != NOWHERE:
        w[w[low].child].prev = high
    w[high].prev = low
    w[low].child = high
    return low


cdef inline uint32_t merge_children(esx_world_t *w, uint32_t first) noexcept nogil:
    """Merge a chain of heaps: in pairs, and then the pairs from the last to the first."""
    cdef uint32_t pairs = NOWHERE, other, rest, root
    while first != NOWHERE:
        other = w[first].next
        if other == NOWHERE:
            w[first].next = pairs
            pairs = first
            break
        rest = w[other].next
        root = merge(w, first, other)
        w[root].next = pairs
        pairs = root
        first = rest
    if pairs == NOWHERE:
        return NOWHERE
    root = pairs
    rest = w[root].next
    while rest != NOWHERE:
        other = w[rest].next
        root = merge(w, root, rest)
        rest = other
    w[root].next = w[root].prev = NOWHERE
    return root
