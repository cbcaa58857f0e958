"""Run queues: which there are, who belongs to them, and what happens when ranks grow apart."""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset

from pyvirt._core.sched.policies.eevdf cimport has_deadlines, push_eevdf, shifted
from pyvirt._core.sched.policies.hstride cimport grow_groups
from pyvirt._core.sched.state cimport (
    AHEAD,
    MASK_WORDS,
    MOST_QUEUES,
    NO_WORLD,
    POLICY_HSTRIDE,
    POLICY_LOTTERY,
    READY,
    SPREAD,
    hnode_t,
    queue_t,
    sched_t,
    world_t,
)
from pyvirt._core.sched.virtual cimport ahead, wrapping
from pyvirt._core.sched.winner cimport winner_build, winner_clear


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
    if not resize(s, q, 2):
        return MOST_QUEUES
    s.queue_count += 1
    if not set_serves(s):
        s.queue_count -= 1
        free_queue(q)
        return MOST_QUEUES
    return s.queue_count - 1


cdef bint resize(sched_t *s, queue_t *q, uint32_t leaves) noexcept nogil:
    """Give a queue more slots; what is in the trees stays."""
    cdef queue_t old = q[0]
    cdef uint32_t i
    q.node = <uint64_t *>calloc(2 * <size_t>leaves, sizeof(uint64_t))
    q.pending = <uint64_t *>calloc(1, pending_size(s, leaves))
    q.groups = <hnode_t *>calloc(1, groups_size(s, leaves))
    q.owner = <uint32_t *>calloc(leaves, sizeof(uint32_t))
    q.leaves = leaves
    if q.node == NULL or q.pending == NULL or q.groups == NULL or q.owner == NULL:
        free_queue(q)
        q[0] = old
        return False
    for i in range(leaves):
        q.owner[i] = old.owner[i] if i < old.leaves else NO_WORLD
    if s.policy == POLICY_LOTTERY:
        if old.leaves:
            memcpy(&q.node[leaves], &old.node[old.leaves], old.leaves * sizeof(uint64_t))
        for i in range(leaves - 1, 0, -1):
            q.node[i] = q.node[2 * i] + q.node[2 * i + 1]
    else:
        move_tree(q.node, leaves, old.node, old.leaves)
        if has_deadlines(s):
            move_tree(q.pending, leaves, old.pending, old.leaves)
    if s.policy == POLICY_HSTRIDE:
        grow_groups(q.groups, leaves, old.groups, old.leaves)
    free_queue(&old)
    return True


cdef void move_tree(
    uint64_t *node, uint32_t leaves, const uint64_t *old, uint32_t count
) noexcept nogil:
    """Copy the leaves of a smaller winner tree."""
    winner_clear(node, leaves)
    if count:
        memcpy(&node[leaves], &old[count], count * sizeof(uint64_t))
    winner_build(node, leaves)


cdef void free_queue(queue_t *q) noexcept nogil:
    free(q.node)
    free(q.pending)
    free(q.groups)
    free(q.owner)


cdef void free_queues(queue_t *queues, uint32_t count) noexcept nogil:
    cdef uint32_t i
    for i in range(count):
        free_queue(&queues[i])
    free(queues)


cdef size_t pending_size(const sched_t *s, uint32_t leaves) noexcept nogil:
    """Bytes of the tree of who is not eligible."""
    return (2 * <size_t>leaves if has_deadlines(s) else 1) * sizeof(uint64_t)


cdef size_t groups_size(const sched_t *s, uint32_t leaves) noexcept nogil:
    """Bytes of the tree of groups."""
    return (2 * <size_t>leaves if s.policy == POLICY_HSTRIDE else 1) * sizeof(hnode_t)


cdef bint make_room(sched_t *s, queue_t *q) noexcept nogil:
    """Make sure that one more world can join."""
    return q.members < q.leaves or resize(s, q, 2 * q.leaves)


cdef bint add_room(sched_t *s, queue_t *q) noexcept nogil:
    """Twice as many slots."""
    return resize(s, q, 2 * q.leaves)


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
        if other != NO_WORLD and (s.worlds[other].state == READY):
            if ahead(s.worlds[other].v, least) < 0:
                least = s.worlds[other].v
    q.base = least
    winner_clear(q.node, q.leaves)
    if has_deadlines(s):
        winner_clear(q.pending, q.leaves)
    for i in range(q.leaves):
        other = q.owner[i]
        if other == NO_WORLD:
            continue
        w = &s.worlds[other]
        w.flags &= ~AHEAD
        if w.state != READY and other != id:
            continue
        rank = ahead(w.v, least)
        if rank > SPREAD:
            if has_deadlines(s):
                shifted(q, w, SPREAD - rank)
            rank = SPREAD
            w.v = wrapping(least, rank)
        if has_deadlines(s):
            push_eevdf(q, w, other)
        else:
            q.node[q.leaves + i] = packed(rank, other)
    if not has_deadlines(s):
        winner_build(q.node, q.leaves)
