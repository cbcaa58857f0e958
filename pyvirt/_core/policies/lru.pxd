# Least recently used: exact, in the form that suits the number of ways (see lru.h).

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.cache cimport cache_t

cdef extern from "policies/lru.h" nogil:
    void lru_touch(cache_t *c, uint32_t set, uint32_t way)
    uint32_t lru_victim(const cache_t *c, uint32_t set)
    uint64_t lru_put(cache_t *c, uint32_t set, uint64_t tag, uint64_t value, uint64_t *evicted)
