# Nested tables as hypervisors fill them, one violation at a time.

from libc.stdint cimport uint64_t

from pyvirt._core.shadow.state cimport cpu_t, hyper_t

cdef bint make_nested_root(hyper_t *s) noexcept nogil
cdef int fill_nested(hyper_t *s, cpu_t *v, uint64_t gpa, bint write) noexcept nogil
