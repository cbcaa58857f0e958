# Huge pages: made at a fault, promoted, split.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.guestos.state cimport area_t, guest_t, proc_t, status_t


cdef bint wants_huge(const guest_t *g, const proc_t *p, const area_t *area,
                     uint64_t va) noexcept nogil
cdef void map_huge(guest_t *g, proc_t *p, uint32_t pid, const area_t *area,
                   uint64_t va) noexcept nogil
cdef void split(guest_t *g, proc_t *p, uint32_t pid, uint64_t va) noexcept nogil
cdef status_t split_edges(guest_t *g, proc_t *p, uint32_t pid, uint64_t start,
                          uint64_t end) noexcept nogil
cdef status_t promote(guest_t *g, uint32_t pid, uint64_t limit, uint64_t most_absent,
                      uint64_t *count) noexcept nogil
