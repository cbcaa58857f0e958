# The guest's own tables, as the hypervisor reads them when a shadow entry is missing.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pyvirt._core.shadow.state cimport cpu_t, guest_walk_t, hyper_t

cdef uint16_t walk_guest(hyper_t *s, cpu_t *v, uint64_t va, uint32_t access,
                         guest_walk_t *g) noexcept nogil
cdef uint16_t read_guest(hyper_t *s, cpu_t *v, uint64_t va, uint32_t access,
                         guest_walk_t *g) noexcept nogil
cdef bint mark_entry(hyper_t *s, uint64_t gpa, uint64_t wanted) noexcept nogil
cdef bint set_accessed(hyper_t *s, cpu_t *v, guest_walk_t *g, bint dirty) noexcept nogil
