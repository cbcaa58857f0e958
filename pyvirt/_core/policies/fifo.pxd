# First in, first out: the oldest fill leaves; a hit changes nothing, nor does a fill in place.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.cache cimport cache_t

cdef extern from "policies/lru.h" nogil:
    uint32_t oldest(const uint64_t *stamps, uint32_t ways)


cdef inline void fifo_filled(cache_t *c, uint32_t set, uint32_t way) noexcept nogil:
    c.state.clock += 1
    c.stamps[<uint64_t>set * c.stride + way] = c.state.clock


cdef inline uint32_t fifo_victim(const cache_t *c, uint32_t set) noexcept nogil:
    return oldest(c.stamps + <uint64_t>set * c.stride, c.ways)
