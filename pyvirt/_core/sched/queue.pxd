# Run queues: worlds in the order of their ranks, ties by number.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from pyvirt._core.sched.state cimport NO_WORLD, SPREAD, WORLD_BITS, queue_t, sched_t, world_t
from pyvirt._core.sched.virtual cimport ahead
from pyvirt._core.sched.winner cimport PV_EMPTY, PV_FETCH, winner_set

cdef uint32_t find_queue(sched_t *s, const uint64_t *mask) noexcept nogil
cdef uint32_t new_queue(sched_t *s, const uint64_t *mask) noexcept nogil
cdef bint make_room(sched_t *s, queue_t *q) noexcept nogil
cdef bint add_room(sched_t *s, queue_t *q) noexcept nogil
cdef void join_queue(sched_t *s, uint32_t id, uint32_t queue) noexcept nogil
cdef void leave_queue(sched_t *s, uint32_t id) noexcept nogil
cdef bint set_serves(sched_t *s) noexcept nogil
cdef void push_slowly(sched_t *s, queue_t *q, uint32_t id) noexcept nogil
cdef void move_tree(
    uint64_t *node, uint32_t leaves, const uint64_t *old, uint32_t count) noexcept nogil
cdef void free_queue(queue_t *q) noexcept nogil
cdef void free_queues(queue_t *queues, uint32_t count) noexcept nogil
cdef size_t pending_size(const sched_t *s, uint32_t leaves) noexcept nogil
cdef size_t groups_size(const sched_t *s, uint32_t leaves) noexcept nogil


cdef inline uint64_t packed(int64_t rank, uint32_t id) noexcept nogil:
    return <uint64_t>rank << WORLD_BITS | id


cdef inline void push(sched_t *s, queue_t *q, uint32_t id) noexcept nogil:
    """Enter a world by its rank, `v`."""
    cdef world_t *w = &s.worlds[id]
    cdef int64_t rank = ahead(w.v, q.base)
    if <uint64_t>rank > <uint64_t>SPREAD:
        push_slowly(s, q, id)
    else:
        winner_set(q.node, q.leaves, w.slot, packed(rank, id))


cdef inline void pull(sched_t *s, queue_t *q, uint32_t id) noexcept nogil:
    """Take a world out, wherever it stands."""
    winner_set(q.node, q.leaves, s.worlds[id].slot, PV_EMPTY)


cdef inline void fetch_later(sched_t *s, const queue_t *q, uint32_t other) noexcept nogil:
    """Bring a world that will soon be picked into the cache: the best of those around `other`.

    Of a large tree, whose worlds are in no cache: the least of one of 64 parts is picked some 64
    events later.
    """
    cdef uint32_t i = q.leaves + other, leaf
    cdef const world_t *w
    while i >= 128:
        i >>= 1
    if q.node[i] == PV_EMPTY:
        return
    w = &s.worlds[<uint32_t>q.node[i] & ((1 << WORLD_BITS) - 1)]
    PV_FETCH(w)
    PV_FETCH(&w.slot)
    if q.direct:
        leaf = q.leaves + (<uint32_t>q.node[i] & ((1 << WORLD_BITS) - 1))
        PV_FETCH(&q.node[leaf])
        PV_FETCH(&q.node[leaf >> 1])
        PV_FETCH(&q.node[leaf >> 2])
        PV_FETCH(&q.node[leaf >> 3])


cdef inline uint32_t first(const queue_t *q) noexcept nogil:
    """The world of least rank, or NO_WORLD."""
    cdef uint64_t key = q.node[1]
    return NO_WORLD if key == PV_EMPTY else <uint32_t>key & ((1 << WORLD_BITS) - 1)
