# The pool of table pages as physical memory, for a processor that walks them.

from libc.stdint cimport uint32_t

from pyvirt._core.shadow.state cimport hyper_t

cdef bint open_pool(hyper_t *s) noexcept nogil
cdef void close_pool(hyper_t *s) noexcept nogil
cdef bint show_page(hyper_t *s, uint32_t page) noexcept nogil
