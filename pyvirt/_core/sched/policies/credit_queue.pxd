# Run queues of the credit scheduler: one for each CPU, of three ranks.

from libc.stdint cimport uint32_t

from pyvirt._core.sched.state cimport sched_t

cdef void put(sched_t *s, uint32_t id) noexcept nogil
cdef void take(sched_t *s, uint32_t id) noexcept nogil
cdef void sort(sched_t *s, uint32_t cpu) noexcept nogil
cdef uint32_t idle_cpu(const sched_t *s, uint32_t id) noexcept nogil
cdef bint asked(const sched_t *s, uint32_t cpu) noexcept nogil
cdef void find_home(sched_t *s, uint32_t id) noexcept nogil
cdef uint32_t steal(const sched_t *s, uint32_t cpu, uint32_t rank) noexcept nogil
cdef void offer(sched_t *s) noexcept nogil
