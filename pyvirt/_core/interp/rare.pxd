# Less frequent instructions.

from pyvirt._core.interp.cpu cimport cpu_t, uop_t

cdef void other(cpu_t *c, const uop_t *u) noexcept nogil
