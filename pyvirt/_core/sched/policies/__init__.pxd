# What a policy decides, and the choice between the policies, one file each.
#
# new       a world comes into being
# join      it begins to compete: it has work, and may run. What it is worth is set here
# leave     it stops to compete: it blocks, reaches its limit, moves to another queue or goes away
# queued    it is about to enter its queue: after `join`, or at the end of its slice
# push      it enters the queue's order
# run       it is taken out to run
# pull      it is taken out, wherever it stands
# charge    it used a CPU for some time
# choose    the world that a CPU should run now, of those in its queues
# timeslice how long it may run from now on
#
# The caller keeps states, weights and times; nothing here allocates or fails.

from libc.stdint cimport int64_t, uint32_t

from pyvirt._core.sched.policies.eevdf cimport (
    best_eevdf,
    charge_eevdf,
    has_deadlines,
    join_eevdf,
    leave_eevdf,
    mean_time,
    new_eevdf,
    pull_eevdf,
    push_eevdf,
    queued_eevdf,
    timeslice_linux,
)
from pyvirt._core.sched.policies.hstride cimport (
    best_hstride,
    change_ready,
    change_tickets,
    charge_hstride,
)
from pyvirt._core.sched.policies.lottery cimport add_tickets, choose_lottery
from pyvirt._core.sched.policies.rr cimport rr_queued
from pyvirt._core.sched.policies.stride cimport (
    stride_best,
    stride_join,
    stride_leave,
    stride_new,
    stride_out,
    stride_push,
    stride_run,
)
from pyvirt._core.sched.queue cimport first, pull, push, push_slowly
from pyvirt._core.sched.state cimport (
    NO_WORLD,
    POLICY_HSTRIDE,
    POLICY_LINUX,
    POLICY_LOTTERY,
    POLICY_RR,
    POLICY_STRIDE,
    SPREAD,
    cpu_t,
    queue_t,
    sched_t,
    world_t,
)
from pyvirt._core.sched.virtual cimport advance_world, ahead
from pyvirt._core.types cimport ns_t


cdef inline void policy_new(sched_t *s, world_t *w) noexcept nogil:
    if s.policy == POLICY_STRIDE:
        stride_new(w)
    elif has_deadlines(s):
        new_eevdf(w)


cdef inline void policy_join(sched_t *s, queue_t *q, world_t *w, ns_t now) noexcept nogil:
    if s.policy == POLICY_STRIDE:
        stride_join(q, w, now)
    elif has_deadlines(s):
        join_eevdf(s, q, w, now)
    elif s.policy == POLICY_HSTRIDE:
        change_tickets(s, q, w.slot, w.weight)


cdef inline void policy_leave(sched_t *s, queue_t *q, world_t *w, ns_t now) noexcept nogil:
    if s.policy == POLICY_STRIDE:
        stride_out(q, w)
        stride_leave(q, w, now)
    elif has_deadlines(s):
        leave_eevdf(q, w, now)
    elif s.policy == POLICY_HSTRIDE:
        change_tickets(s, q, w.slot, -<int64_t>w.weight)


cdef inline void policy_queued(sched_t *s, world_t *w) noexcept nogil:
    if s.policy == POLICY_RR:
        rr_queued(s, w)
    elif has_deadlines(s):
        queued_eevdf(w)


cdef inline void policy_push(sched_t *s, queue_t *q, uint32_t id) noexcept nogil:
    cdef world_t *w = &s.worlds[id]
    if s.policy == POLICY_STRIDE:
        stride_push(s, q, id)
    elif s.policy == POLICY_RR:
        push(s, q, id)
    elif has_deadlines(s):
        if <unsigned long long>ahead(w.v, q.base) > <unsigned long long>SPREAD:
            push_slowly(s, q, id)
        else:
            push_eevdf(q, w, id)
    elif s.policy == POLICY_LOTTERY:
        add_tickets(q, w.slot, 1, w.weight)
    else:
        change_ready(q, w.slot, 1)


cdef inline void policy_pull(sched_t *s, queue_t *q, uint32_t id) noexcept nogil:
    cdef world_t *w = &s.worlds[id]
    if s.policy <= POLICY_STRIDE:
        pull(s, q, id)
    elif has_deadlines(s):
        pull_eevdf(q, w)
    elif s.policy == POLICY_LOTTERY:
        add_tickets(q, w.slot, -1, w.weight)
    else:
        change_ready(q, w.slot, -1)


cdef inline void policy_run(sched_t *s, queue_t *q, uint32_t id) noexcept nogil:
    if s.policy == POLICY_STRIDE:
        stride_run(q, &s.worlds[id], id)
    else:
        policy_pull(s, q, id)


cdef inline void policy_charge(sched_t *s, queue_t *q, world_t *w, ns_t dt) noexcept nogil:
    if s.policy == POLICY_STRIDE:
        advance_world(w, dt)
    elif has_deadlines(s):
        charge_eevdf(q, w, dt)
    elif s.policy == POLICY_HSTRIDE:
        charge_hstride(q, w, dt)


cdef inline uint32_t policy_choose(sched_t *s, const cpu_t *c, ns_t now) noexcept nogil:
    """The best of the best worlds of the CPU's queues, or NO_WORLD; it is not taken out."""
    cdef uint32_t i, id, best = NO_WORLD
    cdef int64_t rank, least = 0
    cdef queue_t *q
    if s.policy == POLICY_LOTTERY:
        return choose_lottery(s, c)
    for i in range(c.serves, c.serves + c.serve_count):
        q = &s.queues[s.serves[i]]
        if s.policy <= POLICY_STRIDE:
            id = stride_best(s, q) if s.policy == POLICY_STRIDE else first(q)
            rank = s.worlds[id].v if id != NO_WORLD else 0
        elif s.policy == POLICY_HSTRIDE:
            id = best_hstride(q)
            rank = q.groups[1].pass_
        else:
            id = best_eevdf(s, q, now)
            rank = ahead(s.worlds[id].deadline, mean_time(q, now)) if id != NO_WORLD else 0
        if id == NO_WORLD:
            continue
        if best == NO_WORLD or ahead(rank, least) < 0 or (rank == least and id < best):
            best, least = id, rank
    return best


cdef inline ns_t policy_timeslice(sched_t *s, uint32_t id, ns_t now) noexcept nogil:
    if s.policy == POLICY_LINUX:
        return timeslice_linux(s, &s.worlds[id], now)
    # Where all slices are the same, when this CPU's next event is need not wait for the pick.
    return s.slice if s.slice else s.worlds[id].slice
