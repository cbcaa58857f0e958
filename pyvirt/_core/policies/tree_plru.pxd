# Tree-PLRU: a binary tree over the ways whose every node points to the half to evict from.
#
# Node i has the children 2i + 1 and 2i + 2, and is bit i of the set's word: 0 points to the left.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.cache cimport cache_t


cdef inline void tree_touch(cache_t *c, uint32_t set, uint32_t way) noexcept nogil:
    """Point every node on the way's path to the other half."""
    cdef uint64_t bits = c.bits[set]
    cdef uint32_t node = 0, half = c.ways >> 1
    while half:
        if way & half:
            bits &= ~(<uint64_t>1 << node)
            node = 2 * node + 2
        else:
            bits |= <uint64_t>1 << node
            node = 2 * node + 1
        half >>= 1
    c.bits[set] = bits


cdef inline uint32_t tree_victim(const cache_t *c, uint32_t set) noexcept nogil:
    """Follow the pointers."""
    cdef uint64_t bits = c.bits[set]
    cdef uint32_t node = 0, way = 0, half = c.ways >> 1
    while half:
        if bits >> node & 1:
            way |= half
            node = 2 * node + 2
        else:
            node = 2 * node + 1
        half >>= 1
    return way
