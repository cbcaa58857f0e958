# Sensitive instructions.

from pyvirt._core.interp.cpu cimport cpu_t, uop_t

cdef void system_op(cpu_t *c, const uop_t *u) noexcept nogil
