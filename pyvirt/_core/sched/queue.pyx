"""Run queues: which there are, who belongs to them, and what happens when ranks grow apart."""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset

from pyvirt._core.sched.state cimport (
    MASK_WORDS,
    MOST_QUEUES,
    NO_WORLD,
    READY,
    SPREAD,
    queue_t,
    sched_t,
    world_t,
)
from pyvirt._core.sched.virtual cimport ahead, wrapping
from pyvirt._core.sched.winner cimport PV_EMPTY, winner_build, winner_clear


cdef uint32_t find_queue(sched_t *s, const uint64_t *mask) noexcept nogil:
    """The queue of exactly these CPUs, or the number of queues if there is none."""
    cdef uint32_t i
    for i in range(s.queue_count):
        if memcmp(s.queues[i].mask, mask, MASK_WORDS * sizeof(uint64_t)) == 0:
            break
    else:
        return s.queue_count
    return i


cdef uint32_t new_queue(sched_t *s, const uint64_t *mask) noexcept nogil:
    """Make a queue for these CPUs; returns MOST_QUEUES without memory or numbers."""
    cdef queue_t *grown
    cdef queue_t *q
    if s.queue_count == MOST_QUEUES:
        return MOST_QUEUES
    grown = <queue_t *>realloc(s.queues, (s.queue_count + 1) * sizeof(queue_t))
    if grown == NULL:
        return MOST_QUEUES
    s.queues = grown
    q = &grown[s.queue_count]
    memset(q, 0, sizeof(queue_t))
    memcpy(q.mask, mask, sizeof(q.mask))
    if not resize(q, 2):
        return MOST_QUEUES
    s.queue_count += 1
    if not set_serves(s):
        s.queue_count -= 1
        free(q.node)
        free(q.owner)
        return MOST_QUEUES
    return s.queue_count - 1


cdef bint resize(queue_t *q, uint32_t leaves) noexcept nogil:
    """Give a queue more slots; what is in the tree stays."""
    cdef uint64_t *node = <uint64_t *>calloc(2 * <size_t>leaves, sizeof(uint64_t))
    cdef uint32_t *owner = <uint32_t *>calloc(leaves, sizeof(uint32_t))
    cdef uint32_t i
    if node == NULL or owner == NULL:
        free(node)
        free(owner)
        return False
    winner_clear(node, leaves)
    for i in range(leaves):
        owner[i] = q.owner[i] if i < q.leaves else NO_WORLD
    if q.leaves:
        memcpy(&node[leaves], &q.node[q.leaves], q.leaves * sizeof(uint64_t))
    winner_build(node, leaves)
    free(q.node)
    free(q.owner)
    q.node, q.owner, q.leaves = node, owner, leaves
    return True


cdef bint make_room(sched_t *s, queue_t *q) noexcept nogil:
    """Make sure that one more world can join."""
    return q.members < q.leaves or resize(q, 2 * q.leaves)


cdef void join_queue(sched_t *s, uint32_t id, uint32_t queue) noexcept nogil:
    """Give a world a slot; there is room."""
    cdef queue_t *q = &s.queues[queue]
    # Slots are given in order as long as none was given back: the search ends at once.
    cdef uint32_t slot = q.members
    while q.owner[slot] != NO_WORLD:
        slot = slot + 1 if slot + 1 < q.leaves else 0
    if not q.members:
        q.direct = True
    q.direct = q.direct and slot == id
    q.owner[slot] = id
    q.members += 1
    s.worlds[id].queue = <uint16_t>queue
    s.worlds[id].slot = slot


cdef void leave_queue(sched_t *s, uint32_t id) noexcept nogil:
    """Give the slot back; the world is not in the tree."""
    cdef queue_t *q = &s.queues[s.worlds[id].queue]
    q.owner[s.worlds[id].slot] = NO_WORLD
    q.members -= 1


cdef bint set_serves(sched_t *s) noexcept nogil:
    """List the queues of each CPU."""
    cdef uint32_t cpu, i, at = 0
    cdef size_t total = 0
    cdef uint32_t *serves
    for i in range(s.queue_count):
        for cpu in range(s.cpu_count):
            total += s.queues[i].mask[cpu >> 6] >> (cpu & 63) & 1
    serves = <uint32_t *>realloc(s.serves, (total + 1) * sizeof(uint32_t))
    if serves == NULL:
        return False
    s.serves = serves
    for cpu in range(s.cpu_count):
        s.cpus[cpu].serves = at
        for i in range(s.queue_count):
            if s.queues[i].mask[cpu >> 6] >> (cpu & 63) & 1:
                serves[at] = i
                at += 1
        s.cpus[cpu].serve_count = at - s.cpus[cpu].serves
    return True


cdef void push_slowly(sched_t *s, queue_t *q, uint32_t id) noexcept nogil:
    """Enter a world whose rank the present base does not suit: move the base, keep the spread.

    The base becomes the least rank. Who is more than SPREAD ahead of it is put back to that: this
    happens only where weights ask for more than one CPU and such a world never waited.
    """
    cdef int64_t least = s.worlds[id].v, rank
    cdef uint32_t i, other
    cdef world_t *w
    for i in range(q.leaves):
        other = q.owner[i]
        if other != NO_WORLD and s.worlds[other].state == READY:
            if ahead(s.worlds[other].v, least) < 0:
                least = s.worlds[other].v
    q.base = least
    for i in range(q.leaves):
        other = q.owner[i]
        q.node[q.leaves + i] = PV_EMPTY
        if other == NO_WORLD:
            continue
        w = &s.worlds[other]
        if w.state != READY and other != id:
            continue
        rank = ahead(w.v, least)
        if rank > SPREAD:
            rank = SPREAD
            w.v = wrapping(least, rank)
        q.node[q.leaves + i] = packed(rank, other)
    winner_build(q.node, q.leaves)
