# Agile paging: which of the guest's tables are in nested mode, and when they change it.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.shadow.state cimport cpu_t, hyper_t

cdef uint32_t shadow_page(const hyper_t *s, uint64_t gfn) noexcept nogil
cdef bint has_nested_root(hyper_t *s, cpu_t *v) noexcept nogil
cdef void move_pending(hyper_t *s) noexcept nogil
cdef void return_table(hyper_t *s, uint64_t gfn) noexcept nogil
cdef void end_interval(hyper_t *s) noexcept nogil
cdef bint root_is_cached(const hyper_t *s, const cpu_t *v, uint64_t cr3) noexcept nogil
