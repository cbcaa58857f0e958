# String instructions.

from libc.stdint cimport uint32_t

from pyvirt._core.interp.cpu cimport cpu_t, uop_t

cdef enum:
    CHUNK = 4096                # repetitions after which the loop looks at time and interrupts

cdef void string_op(cpu_t *c, const uop_t *u) noexcept nogil
cdef uint32_t counted(cpu_t *c, uint32_t amask) noexcept nogil
cdef void step_register(cpu_t *c, uint32_t r, uint32_t step, uint32_t amask) noexcept nogil
