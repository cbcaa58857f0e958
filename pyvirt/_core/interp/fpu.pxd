# Instructions of the x87.

from libc.stdint cimport uint32_t

from pyvirt._core.interp.cpu cimport cpu_t, fpu_t, uop_t

cdef void fpu_reset(fpu_t *f) noexcept nogil
cdef void fpu_op(cpu_t *c, const uop_t *u) noexcept nogil
cdef uint32_t status_word(const fpu_t *f) noexcept nogil
cdef uint32_t tag_word(const fpu_t *f) noexcept nogil
