# The roots of a vCPU: the current one and a few before it.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.shadow.state cimport cpu_t, hyper_t

cdef bint switch_root(hyper_t *s, cpu_t *v, uint64_t cr3) noexcept nogil
cdef void forget_all(hyper_t *s, cpu_t *v) noexcept nogil
cdef void forget_current(hyper_t *s, cpu_t *v) noexcept nogil
cdef void forget_pcid(hyper_t *s, cpu_t *v, uint64_t pcid) noexcept nogil
cdef bint enter(hyper_t *s, cpu_t *v) noexcept nogil
