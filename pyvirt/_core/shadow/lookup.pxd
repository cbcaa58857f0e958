# Finding the shadow page of a guest frame and role, or making it.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyvirt._core.shadow.state cimport cpu_t, hyper_t

cdef uint32_t role_of(const cpu_t *v, uint32_t slot, uint32_t level, uint8_t rights,
                      bint direct) noexcept nogil
cdef uint32_t get_page(hyper_t *s, cpu_t *v, uint64_t gfn, uint32_t role) noexcept nogil
cdef void link_page(hyper_t *s, cpu_t *v, uint32_t slot, uint32_t page) noexcept nogil
