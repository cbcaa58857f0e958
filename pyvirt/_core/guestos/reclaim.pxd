# Reclaim: pages aged and taken.

from libc.stdint cimport uint64_t

from pyvirt._core.guestos.state cimport guest_t


cdef uint64_t reclaim(guest_t *g, uint64_t pages) noexcept nogil
cdef void drop_caches(guest_t *g) noexcept nogil
