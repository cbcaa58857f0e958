# Tables out of sync: who is, the marks above them, and the walk that finds them by the marks.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.shadow.state cimport hyper_t, page_t

cdef void mark_above(hyper_t *s, uint32_t page) noexcept nogil
cdef void mark_link(hyper_t *s, uint32_t slot) noexcept nogil
cdef void go_unsync(hyper_t *s, uint32_t page) noexcept nogil
cdef void end_unsync(hyper_t *s, uint32_t page) noexcept nogil
cdef uint32_t find_unsync(hyper_t *s, uint32_t page) noexcept nogil
cdef void clear_marks(hyper_t *s, uint32_t page) noexcept nogil
cdef bint is_traced(const hyper_t *s, const page_t *p) noexcept nogil
cdef bint may_write(hyper_t *s, uint64_t gfn, bint can_unsync, bint prefetch) noexcept nogil
