# Multiplication, division, and decimal adjustment.

from libc.stdint cimport uint32_t

from pyvirt._core.interp.cpu cimport cpu_t

cdef void multiply_divide(cpu_t *c, uint32_t op, uint32_t v, uint32_t n) noexcept nogil
cdef uint32_t signed_product(cpu_t *c, uint32_t a, uint32_t b, uint32_t n) noexcept nogil
cdef void decimal(cpu_t *c, uint32_t op, uint32_t base) noexcept nogil
