# The loop over accesses that hit, see hits.h.

from libc.stdint cimport uint8_t, uint16_t, uint64_t

from pyvirt._core.ahead cimport ahead_t
from pyvirt._core.cache cimport cache_t
from pyvirt._core.nestedwalk cimport nested_t

cdef extern from "hits.h" nogil:
    enum:
        HITS_END
        HITS_MISS
        HITS_WEAK
        HITS_RANGE
        HITS_NO_WALK
        HITS_IDENTITY
        HITS_NATIVE
        HITS_NESTED

    ctypedef struct hits_t:
        cache_t *first
        cache_t *second
        uint64_t low
        uint64_t twin_low
        uint64_t global_low
        uint64_t mask
        uint64_t wanted
        uint64_t identity
        nested_t tables
        ahead_t *ahead
        const nested_t *asked
        uint64_t total
        uint64_t second_hits
        uint64_t walks
        uint8_t globals
        uint8_t sure
        uint8_t walk
        uint8_t calm
        uint8_t mixed
        uint8_t asks
        uint8_t nested
        uint8_t unused
        uint8_t why

    int hits_choose(int vectors)
    int hit_one(hits_t *h, uint64_t va, uint64_t *pa)
    uint64_t hits(hits_t *h, const uint64_t *vas, uint64_t i, uint64_t n, uint64_t *pas,
                  uint16_t *codes)
