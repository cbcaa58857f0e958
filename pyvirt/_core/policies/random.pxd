# Random: xorshift64* (Vigna 2016), one state for each array, drawn only when a way must be chosen.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.cache cimport cache_t


cdef inline uint32_t random_victim(cache_t *c) noexcept nogil:
    cdef uint64_t x = c.state.random
    x ^= x >> 12
    x ^= x << 25
    x ^= x >> 27
    c.state.random = x
    return <uint32_t>((x * 0x2545F4914F6CDD1DULL >> 32) % c.ways)
