# First in, first out: the oldest fill leaves; a hit changes nothing, nor does a fill in place. The list
# is that of LRU, with fills for uses.

from libc.stdint cimport uint32_t

from pyvirt._core.cache cimport cache_t, link_t

cdef extern from "policies/lru.h" nogil:
    link_t *list_of(const cache_t *c, uint32_t set)
    void list_touch(link_t *links, uint32_t end, uint32_t way)


cdef inline void fifo_filled(cache_t *c, uint32_t set, uint32_t way) noexcept nogil:
    list_touch(list_of(c, set), c.ways, way)


cdef inline uint32_t fifo_victim(const cache_t *c, uint32_t set) noexcept nogil:
    return list_of(c, set)[c.ways].before
