# Earliest eligible virtual deadline first (Stoica and Abdel-Wahab, TR-95-22, 1995).
#
# The queue's virtual time V is the mean of its active worlds' virtual times, by weight; what running
# worlds have in progress counts. A world is eligible if its virtual time is not after V. The
# eligible world with the earliest deadline runs, for one request, of a slice; then its deadline
# moves on by a slice over its weight. Where none is eligible, which takes several CPUs, the one
# with the least virtual time runs.
#
# A world that leaves keeps what it is ahead of V, at most two slices of its own, and rejoins so that
# it is as far ahead of the V of then, which counts it (Linux, place_entity).
#
# In the way of Linux (`POLICY_LINUX`) the clock is looked at when a tick is due: a world runs up to
# the first tick at which it has reached its deadline (RUN_TO_PARITY), and the first deadline of a
# new world is half a slice away (PLACE_DEADLINE_INITIAL).
#
# Exact: of a queue `v` and `v_rem` are V without what is in progress, v + v_rem / weight.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from pyvirt._core.sched.state cimport (
    ELIGIBLE,
    FRESH,
    NO_WORLD,
    POLICY_EEVDF,
    POLICY_LINUX,
    VIRTUAL_SHIFT,
    WORLD_BITS,
    queue_t,
    sched_t,
    world_t,
)
from pyvirt._core.sched.virtual cimport advance_world, ahead, floor_div, wrapping
from pyvirt._core.sched.winner cimport PV_EMPTY, winner_set
from pyvirt._core.types cimport ns_t


cdef inline bint has_deadlines(const sched_t *s) noexcept nogil:
    return s.policy == POLICY_EEVDF or s.policy == POLICY_LINUX


cdef inline void normalise(queue_t *q) noexcept nogil:
    cdef int64_t whole
    if not q.weight:
        q.v_rem = 0
        return
    whole = floor_div(q.v_rem, q.weight)
    q.v = wrapping(q.v, whole)
    q.v_rem -= whole * q.weight


cdef inline int64_t mean_time(const queue_t *q, ns_t now) noexcept nogil:
    """V at `now`, rounded down; of a queue without active worlds, that of the last one."""
    cdef ns_t progress = <int64_t>q.running * now - q.started
    if not q.weight:
        return q.v
    return wrapping(q.v, floor_div(q.v_rem + (progress << VIRTUAL_SHIFT), q.weight))


cdef inline void shifted(queue_t *q, world_t *w, int64_t by) noexcept nogil:
    """A world's virtual time is about to change without CPU time."""
    w.deadline = wrapping(w.deadline, by)
    q.v_rem += by * w.weight
    normalise(q)


cdef inline void new_eevdf(world_t *w) noexcept nogil:
    w.remain = w.rem = 0
    w.flags |= FRESH


cdef inline void join_eevdf(sched_t *s, queue_t *q, world_t *w, ns_t now) noexcept nogil:
    cdef int64_t v = mean_time(q, now)
    cdef int64_t remain = w.remain
    if q.weight:
        remain += floor_div(remain * w.weight, q.weight)
    w.v = wrapping(v, remain)
    w.rem = 0
    w.deadline = wrapping(
        w.v, w.step // 2 if s.policy == POLICY_LINUX and w.flags & FRESH else w.step)
    w.flags &= ~FRESH
    if not q.weight:
        q.v, q.v_rem = w.v, 0
    else:
        q.v_rem += ahead(w.v, q.v) * w.weight
        # as it will be with the weight, which the caller adds
        q.weight += w.weight
        normalise(q)
        q.weight -= w.weight


cdef inline void leave_eevdf(queue_t *q, world_t *w, ns_t now) noexcept nogil:
    cdef int64_t v = mean_time(q, now)
    cdef int64_t most = 2 * w.step
    w.remain = ahead(w.v, v)
    if w.remain > most:
        w.remain = most
    elif w.remain < -most:
        w.remain = -most
    if q.weight == w.weight:
        q.v, q.v_rem = v, 0
        return
    q.v_rem -= ahead(w.v, q.v) * w.weight + w.rem
    q.weight -= w.weight
    normalise(q)
    q.weight += w.weight


cdef inline void charge_eevdf(queue_t *q, world_t *w, ns_t dt) noexcept nogil:
    advance_world(w, dt)
    q.v_rem += dt << VIRTUAL_SHIFT
    normalise(q)


cdef inline void queued_eevdf(world_t *w) noexcept nogil:
    """The next request, if the last one is done."""
    if ahead(w.v, w.deadline) >= 0:
        w.deadline = wrapping(w.v, w.step)


cdef inline void push_eevdf(queue_t *q, world_t *w, uint32_t id) noexcept nogil:
    w.flags &= ~ELIGIBLE
    winner_set(
        q.pending, q.leaves, w.slot, <uint64_t>ahead(w.v, q.base) << WORLD_BITS | id)


cdef inline void pull_eevdf(queue_t *q, world_t *w) noexcept nogil:
    winner_set(q.node if w.flags & ELIGIBLE else q.pending, q.leaves, w.slot, PV_EMPTY)


cdef inline uint32_t best_eevdf(sched_t *s, queue_t *q, ns_t now) noexcept nogil:
    """Sort by what is eligible now; V may also have gone back since."""
    cdef int64_t v = mean_time(q, now)
    cdef uint32_t id
    cdef world_t *w
    while q.pending[1] != PV_EMPTY:
        id = <uint32_t>q.pending[1] & ((1 << WORLD_BITS) - 1)
        w = &s.worlds[id]
        if ahead(w.v, v) > 0:
            break
        winner_set(q.pending, q.leaves, w.slot, PV_EMPTY)
        w.flags |= ELIGIBLE
        winner_set(
            q.node, q.leaves, w.slot, <uint64_t>ahead(w.deadline, q.base) << WORLD_BITS | id)
    while q.node[1] != PV_EMPTY:
        id = <uint32_t>q.node[1] & ((1 << WORLD_BITS) - 1)
        w = &s.worlds[id]
        if ahead(w.v, v) <= 0:
            return id
        winner_set(q.node, q.leaves, w.slot, PV_EMPTY)
        push_eevdf(q, w, id)
    if q.pending[1] == PV_EMPTY:
        return NO_WORLD
    return <uint32_t>q.pending[1] & ((1 << WORLD_BITS) - 1)


cdef inline ns_t timeslice_linux(const sched_t *s, const world_t *w, ns_t now) noexcept nogil:
    """Up to the first tick at which the deadline is reached."""
    cdef int64_t need = ahead(w.deadline, w.v) * w.weight - w.rem
    need = (need + (1 << VIRTUAL_SHIFT) - 1) >> VIRTUAL_SHIFT if need > 0 else 0
    if need < 1:
        need = 1
    return ((now + need + s.tick - 1) // s.tick) * s.tick - now
