# The loop.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.interp.cpu cimport cpu_t

cdef uint32_t run(cpu_t *c, uint64_t budget) noexcept nogil
