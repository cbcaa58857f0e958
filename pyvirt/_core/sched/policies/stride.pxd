# Stride scheduling (Waldspurger and Weihl, MIT/LCS/TM-528, 1995): the least pass runs, and its pass
# grows by its stride, which is one over its tickets, for each slice; by a part of that for less.
#
# A world that stops to compete keeps what it is ahead of the queue's pass (`remain`), and rejoins
# as far ahead. A new one joins one stride ahead. With other tickets, `remain` is scaled by the
# strides.

# Which world runs next is known before it has run: a world that gets a CPU stays in the tree, with the
# pass that it will have at the end of its slice (`AHEAD`). So a slice changes the tree once. If
# others run out of lower passes before that, it is taken out.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from pyvirt._core.sched.queue cimport first, packed, push
from pyvirt._core.sched.state cimport AHEAD, NO_WORLD, RUN, SPREAD, queue_t, sched_t, world_t
from pyvirt._core.sched.virtual cimport ahead, sync_queue, wrapping
from pyvirt._core.sched.winner cimport PV_EMPTY, winner_set
from pyvirt._core.types cimport ns_t


cdef inline void stride_new(world_t *w) noexcept nogil:
    w.remain, w.rem = w.step, w.step_rem


cdef inline void stride_join(queue_t *q, world_t *w, ns_t now) noexcept nogil:
    """Before the world's weight counts in the queue's."""
    sync_queue(q, now)
    q.v_rem = 0
    w.v = wrapping(q.v, w.remain)


cdef inline void stride_leave(queue_t *q, world_t *w, ns_t now) noexcept nogil:
    """While the world's weight still counts."""
    sync_queue(q, now)
    q.v_rem = 0
    w.remain = ahead(w.v, q.v)


cdef inline void stride_push(sched_t *s, queue_t *q, uint32_t id) noexcept nogil:
    """At the end of a whole slice it is there already."""
    if s.worlds[id].flags & AHEAD:
        s.worlds[id].flags &= ~AHEAD
    else:
        push(s, q, id)


cdef inline void stride_run(queue_t *q, world_t *w, uint32_t id) noexcept nogil:
    """A ready world gets a CPU."""
    cdef int64_t rank = ahead(w.v, q.base) + w.step
    rank += <uint64_t>w.rem + w.step_rem >= w.weight
    if rank > SPREAD:
        winner_set(q.node, q.leaves, w.slot, PV_EMPTY)
    else:
        w.flags |= AHEAD
        winner_set(q.node, q.leaves, id if q.direct else w.slot, packed(rank, id))


cdef inline void stride_out(queue_t *q, world_t *w) noexcept nogil:
    """A running world is no longer to be in the tree."""
    if w.flags & AHEAD:
        w.flags &= ~AHEAD
        winner_set(q.node, q.leaves, w.slot, PV_EMPTY)


cdef inline uint32_t stride_best(sched_t *s, queue_t *q) noexcept nogil:
    cdef uint32_t id = first(q)
    while id != NO_WORLD and s.worlds[id].state == RUN:
        stride_out(q, &s.worlds[id])
        id = first(q)
    return id
