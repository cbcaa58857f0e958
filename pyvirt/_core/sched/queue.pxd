# Run queues: worlds in the order of their ranks, ties by number.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from pyvirt._core.sched.state cimport NO_WORLD, SPREAD, WORLD_BITS, queue_t, sched_t, world_t
from pyvirt._core.sched.virtual cimport ahead
from pyvirt._core.sched.winner cimport PV_EMPTY, winner_set

cdef uint32_t find_queue(sched_t *s, const uint64_t *mask) noexcept nogil
cdef uint32_t new_queue(sched_t *s, const uint64_t *mask) noexcept nogil
cdef bint make_room(sched_t *s, queue_t *q) noexcept nogil
cdef void join_queue(sched_t *s, uint32_t id, uint32_t queue) noexcept nogil
cdef void leave_queue(sched_t *s, uint32_t id) noexcept nogil
cdef bint set_serves(sched_t *s) noexcept nogil
cdef void push_slowly(sched_t *s, queue_t *q, uint32_t id) noexcept nogil


cdef inline uint64_t packed(int64_t rank, uint32_t id) noexcept nogil:
    return <uint64_t>rank << WORLD_BITS | id


cdef inline void push(sched_t *s, queue_t *q, uint32_t id) noexcept nogil:
    """Enter a world by its rank, `v`."""
    cdef world_t *w = &s.worlds[id]
    cdef int64_t rank = ahead(w.v, q.base)
    q.ready += 1
    if <uint64_t>rank > <uint64_t>SPREAD:
        push_slowly(s, q, id)
    else:
        winner_set(q.node, q.leaves, w.slot, packed(rank, id))


cdef inline void pull(sched_t *s, queue_t *q, uint32_t id) noexcept nogil:
    """Take a world out, wherever it stands."""
    q.ready -= 1
    winner_set(q.node, q.leaves, s.worlds[id].slot, PV_EMPTY)


cdef inline uint32_t first(const queue_t *q) noexcept nogil:
    """The world of least rank, or NO_WORLD."""
    cdef uint64_t key = q.node[1]
    return NO_WORLD if key == PV_EMPTY else <uint32_t>key & ((1 << WORLD_BITS) - 1)
