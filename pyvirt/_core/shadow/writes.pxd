# A guest's write to a table whose shadow must not go unsync: what it does to the shadow pages.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.shadow.state cimport cpu_t, hyper_t

cdef void clear_write_counts(hyper_t *s, cpu_t *v, uint64_t va) noexcept nogil
cdef void table_written(hyper_t *s, cpu_t *v, uint64_t gpa, uint32_t size) noexcept nogil
