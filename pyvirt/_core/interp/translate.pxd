# From a decoded instruction to a micro-operation.

from pyvirt._core.decode.insn cimport insn_t
from pyvirt._core.interp.cpu cimport uop_t

cdef void translate(const insn_t *i, uop_t *u) noexcept nogil
cdef bint ends_block(const uop_t *u) noexcept nogil
