# Hooks of the ESX policy: who waits, who runs.

from libc.stdint cimport uint32_t

from pyvirt._core.sched.state cimport sched_t
from pyvirt._core.types cimport ns_t

cdef void enqueue(sched_t *s, uint32_t id, uint32_t why) noexcept nogil
cdef void dequeue(sched_t *s, uint32_t id) noexcept nogil
cdef void charge(sched_t *s, uint32_t id, ns_t dt) noexcept nogil
cdef void stopped(sched_t *s, uint32_t id, uint32_t why) noexcept nogil
cdef uint32_t pick(sched_t *s, uint32_t cpu) noexcept nogil
cdef ns_t timeslice(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil
