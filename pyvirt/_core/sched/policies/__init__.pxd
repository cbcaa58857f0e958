# What a policy decides, and the choice between the policies, one file each.
#
# new       a world comes into being, or its weight or slice changed while it is not active
# join      it begins to compete: it has work, and may run. What it is worth is set here
# leave     it stops to compete: it blocks, reaches its limit, moves to another queue or goes away
# queued    it is about to enter its queue: after `join`, or at the end of its slice
# charge    it used a CPU for some time
# timeslice how long it may run from now on
#
# `w.v` at the time of `push` is the rank by which a queue orders. The caller keeps states, weights
# and times; nothing here allocates or fails.

from libc.stdint cimport uint32_t

from pyvirt._core.sched.policies.rr cimport rr_queued
from pyvirt._core.sched.policies.stride cimport stride_join, stride_leave, stride_new
from pyvirt._core.sched.state cimport POLICY_RR, POLICY_STRIDE, queue_t, sched_t, world_t
from pyvirt._core.sched.virtual cimport advance_world
from pyvirt._core.types cimport ns_t


cdef inline void policy_new(sched_t *s, world_t *w) noexcept nogil:
    if s.policy == POLICY_STRIDE:
        stride_new(w)


cdef inline void policy_join(sched_t *s, queue_t *q, world_t *w, ns_t now) noexcept nogil:
    if s.policy == POLICY_STRIDE:
        stride_join(q, w, now)


cdef inline void policy_leave(sched_t *s, queue_t *q, world_t *w, ns_t now) noexcept nogil:
    if s.policy == POLICY_STRIDE:
        stride_leave(q, w, now)


cdef inline void policy_queued(sched_t *s, world_t *w) noexcept nogil:
    if s.policy == POLICY_RR:
        rr_queued(s, w)


cdef inline void policy_charge(sched_t *s, world_t *w, ns_t dt) noexcept nogil:
    if s.policy == POLICY_STRIDE:
        advance_world(w, dt)


cdef inline ns_t policy_timeslice(sched_t *s, uint32_t id) noexcept nogil:
    # Where all slices are the same, when this CPU's next event is need not wait for the pick.
    return s.slice if s.slice else s.worlds[id].slice
