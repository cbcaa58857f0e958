# How far the vCPUs of a VM are.
#
# The progress of a vCPU is the time that it ran or was halted; a halted one is not carried beyond the
# furthest of its siblings that would run. The engine counts the former; what is kept is the rest. A
# vCPU's skew is what it is ahead of the slowest.

from libc.stdint cimport uint32_t

from pyvirt._core.sched.policies.esx_state cimport world_of
from pyvirt._core.sched.state cimport RUN, sched_t, world_t
from pyvirt._core.types cimport ns_t

cdef void sync_progress(sched_t *s, uint32_t vm) noexcept nogil
cdef void level_progress(sched_t *s, uint32_t vm) noexcept nogil
cdef ns_t least_progress(sched_t *s, uint32_t vm) noexcept nogil
cdef ns_t skew_of(sched_t *s, uint32_t id) noexcept nogil


cdef inline ns_t ran(sched_t *s, uint32_t id) noexcept nogil:
    """How long a world ran up to now."""
    cdef const world_t *w = &s.worlds[id]
    return w.run + (s.now - w.since if w.state == RUN else 0)


cdef inline ns_t progress_of(sched_t *s, uint32_t id) noexcept nogil:
    return world_of(s, id).offset + ran(s, id)
