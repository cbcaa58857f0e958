# The loop.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.interp.cpu cimport cpu_t, uop_t

cdef uint32_t run(cpu_t *c, uint64_t budget) noexcept nogil
cdef uint32_t loop(cpu_t *c, uint64_t end) noexcept nogil
cdef uint32_t execute(cpu_t *c, const uop_t *u, uint32_t count) noexcept nogil
cdef bint fetch_failed(cpu_t *c) noexcept nogil
cdef bint pass_through(cpu_t *c, const uop_t *u, uint32_t count) noexcept nogil
cdef bint emulate(cpu_t *c) noexcept nogil
cdef void devices(cpu_t *c) noexcept nogil
