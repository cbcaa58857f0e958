# Paging-structure caches.

from libc.stdint cimport uint64_t

from pyvirt._core.paging cimport dimension_t
from pyvirt._core.state cimport walkcache_t

cdef enum:
    LEVELS_HELD = 6

cdef struct path_t:                 # what a walk learnt, by level of the entry
    uint64_t value[LEVELS_HELD]     # next table | rights of the levels down to there
    uint64_t second[LEVELS_HELD]    # guest: the next table's guest-physical address; else 0, from
                                    # which the loop over hits makes the table's place in the host


cdef int walkcache_find(walkcache_t *c, const dimension_t *d, uint64_t address, uint64_t low,
                        path_t *path) noexcept nogil
cdef void walkcache_store(walkcache_t *c, const dimension_t *d, uint64_t address, uint64_t low,
                          const path_t *path, int top, int first, int last) noexcept nogil
cdef bint walkcache_entry(walkcache_t *c, uint64_t pa, uint64_t low, uint64_t *entry) noexcept nogil
cdef void walkcache_keep(walkcache_t *c, uint64_t pa, uint64_t low, uint64_t entry) noexcept nogil
