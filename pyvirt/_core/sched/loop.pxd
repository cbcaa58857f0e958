# The event loop, and the steps that changes from outside share with it.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.sched.state cimport sched_t, why_t, world_state_t, world_t
from pyvirt._core.types cimport ns_t

cdef uint64_t run_until(sched_t *s, ns_t until, uint64_t most) noexcept nogil
cdef ns_t next_event(sched_t *s) noexcept nogil

cdef void charge(sched_t *s, uint32_t id, ns_t now) noexcept nogil
cdef void rearm(sched_t *s, uint32_t cpu, ns_t now) noexcept nogil
cdef void book(world_t *w, ns_t now) noexcept nogil
cdef void enter(sched_t *s, uint32_t id, why_t why, ns_t now) noexcept nogil
cdef void stop(sched_t *s, uint32_t id, world_state_t state, why_t why, ns_t now) noexcept nogil
cdef void resume(sched_t *s, uint32_t id, why_t why, ns_t now) noexcept nogil
cdef void take_cpu(sched_t *s, uint32_t cpu, uint32_t id, ns_t now) noexcept nogil
cdef void record(sched_t *s, uint32_t cpu, uint32_t id, ns_t now) noexcept nogil
cdef bint stops(sched_t *s, uint32_t id, ns_t now) noexcept nogil
cdef void place(sched_t *s, uint32_t id, ns_t now) noexcept nogil
cdef void fill(sched_t *s, uint32_t cpu, uint32_t before, ns_t now) noexcept nogil
cdef void make_runnable(sched_t *s, uint32_t id, ns_t now) noexcept nogil
