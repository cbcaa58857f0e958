# Gangs of strict co-scheduling.

from libc.stdint cimport int64_t, uint32_t

from pyvirt._core.sched.state cimport sched_t

cdef bint fits_host(sched_t *s, uint32_t vm) noexcept nogil
cdef void join_gang(sched_t *s, uint32_t vm) noexcept nogil
cdef void leave_gang(sched_t *s, uint32_t vm) noexcept nogil
cdef uint32_t start_gang(sched_t *s, uint32_t cpu, int64_t below) noexcept nogil
cdef void ask_idle(sched_t *s) noexcept nogil
