# Bit-PLRU (MRU bits): one bit for each way, set when touched; when all are set, the others clear.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.cache cimport cache_t


cdef inline void bit_touch(cache_t *c, uint32_t set, uint32_t way) noexcept nogil:
    cdef uint64_t bit = <uint64_t>1 << way
    cdef uint64_t all_ways = ((<uint64_t>1 << (c.ways - 1)) - 1) << 1 | 1
    cdef uint64_t bits = c.bits[set] | bit
    c.bits[set] = bit if bits == all_ways else bits


cdef inline uint32_t bit_victim(const cache_t *c, uint32_t set) noexcept nogil:
    """The lowest way whose bit is clear; with a single way, that one."""
    cdef uint64_t bits = c.bits[set]
    cdef uint32_t way = 0
    while way + 1 < c.ways and bits >> way & 1:
        way += 1
    return way
