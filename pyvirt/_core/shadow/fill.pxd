# Filling shadow entries after a fault that the guest's tables allow, and prefetching their neighbours.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.shadow.leaves cimport put_t
from pyvirt._core.shadow.state cimport cpu_t, guest_walk_t, hyper_t

cdef enum:
    FILL_NO_ROOM = -1               # the pool has no page left
    FILL_MMIO = -2                  # there is no memory at the address
    FILL_SWITCHED = -3              # agile paging: from here on in the guest's own tables

cdef int fill(hyper_t *s, cpu_t *v, uint64_t va, uint32_t access, guest_walk_t *g) noexcept nogil
cdef int large_refusal(hyper_t *s, uint64_t gfn) noexcept nogil
cdef bint large_allowed(hyper_t *s, uint64_t gfn) noexcept nogil
cdef void fill_group(hyper_t *s, uint32_t slot) noexcept nogil
cdef uint32_t slot_of(uint32_t page, uint64_t address, uint32_t level) noexcept nogil
