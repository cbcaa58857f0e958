# Walks through the caches of a core.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyvirt._core.nestedwalk cimport nested_t
from pyvirt._core.paging cimport walk_t
from pyvirt._core.state cimport run_t

cdef struct host_t:                 # a guest-physical address, translated
    uint64_t pa
    uint64_t rights                 # the nested leaf with the rights of all levels
    int shift                       # of the nested page


cdef uint16_t walk_guest(run_t *x, uint64_t va, uint32_t access, walk_t *w,
                         host_t *last) noexcept nogil
cdef uint16_t walk_real(run_t *x, uint64_t gpa, uint32_t access, walk_t *w,
                        host_t *last) noexcept nogil
cdef bint walks_choose_nested(nested_t *t, run_t *x, uint32_t access) noexcept nogil
