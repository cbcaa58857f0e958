# Events under a plug-in policy.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.sched.state cimport sched_t, why_t, world_state_t
from pyvirt._core.types cimport ns_t

cdef void plug_stop(sched_t *s, uint32_t id, world_state_t state, why_t why, ns_t now) noexcept nogil
cdef void plug_requeue(sched_t *s, uint32_t cpu, uint32_t id, why_t why, ns_t now) noexcept nogil
cdef void requeued(
    sched_t *s, uint32_t cpu, uint32_t id, uint32_t next, ns_t slice, ns_t now) noexcept nogil
cdef void serve(sched_t *s, ns_t now) noexcept nogil


cdef inline void ask_cpu(sched_t *s, uint32_t cpu) noexcept nogil:
    s.asked[cpu >> 6] |= <uint64_t>1 << (cpu & 63)
    s.asking = True
