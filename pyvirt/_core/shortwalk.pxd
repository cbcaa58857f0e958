# Walks with nothing out of the ordinary, see shortwalk.h.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyvirt._core.cache cimport cache_t
from pyvirt._core.paging cimport dimension_t

cdef extern from "shortwalk.h" nogil:
    ctypedef struct ask_t:
        uint64_t leaf_mask
        uint64_t leaf_wanted
        uint64_t mask
        uint64_t wanted
        uint64_t dirty

    ctypedef struct shortwalk_t:
        cache_t *caches
        uint64_t low
        uint64_t start
        uint8_t ***root
        uint64_t limit
        uint64_t table_mask[6]
        uint64_t table_wanted
        uint64_t table_address
        uint64_t leaf_address
        uint64_t kept
        uint64_t added
        uint64_t rights_and
        uint64_t rights_or
        uint64_t *cache_hits
        uint64_t *level_refs
        uint8_t levels
        uint8_t fours

    uint64_t shortwalk(shortwalk_t *h, uint64_t address, const ask_t *ask,
                       unsigned int *refs)


cdef bint shortwalk_loops(const cache_t *c) noexcept nogil
cdef bint shortwalk_tables(shortwalk_t *h, const dimension_t *d) noexcept nogil
cdef bint shortwalk_caches(shortwalk_t *h, const dimension_t *d, cache_t *caches,
                           const bint *has) noexcept nogil
cdef void shortwalk_ask(ask_t *ask, const dimension_t *d, uint32_t access) noexcept nogil
