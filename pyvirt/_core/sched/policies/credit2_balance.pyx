"""Balancing of credit2's run queues."""

from libc.stdint cimport int64_t, uint32_t

from pyvirt._core.sched.ordered cimport fifo_first, fifo_next
from pyvirt._core.sched.plug cimport account, ask
from pyvirt._core.sched.policies.credit2_queue cimport (
    assign,
    meets,
    put,
    take,
    tickle,
    update,
    update_world,
)
from pyvirt._core.sched.policies.credit2_state cimport (
    LOAD_ONE,
    credit2_own_t,
    credit2_queue_t,
    credit2_world_t,
    links,
    own,
    queue_of,
    world,
)
from pyvirt._core.sched.state cimport NO_CPU, NO_WORLD, RUN, sched_t

# --- between run queues ---


cdef inline int64_t distance(int64_t a, int64_t b) noexcept nogil:
    return a - b if a > b else b - a


cdef void balance(sched_t *s, uint32_t queue, uint32_t chosen) noexcept nogil:
    """Compare with the run queue whose load is the most different."""
    cdef credit2_own_t *o = own(s)
    cdef credit2_queue_t *q = queue_of(s, queue)
    cdef uint32_t other = NO_CPU, i
    cdef int64_t most = -1, cpus
    for i in range(o.queues):
        update(s, queue_of(s, i))
    for i in range(o.queues):
        if i != queue and distance(q.load, queue_of(s, i).load) > most:
            other, most = i, distance(q.load, queue_of(s, i).load)
    cpus = max(q.cpus, queue_of(s, other).cpus)
    if most >= (o.under if max(q.load, queue_of(s, other).load) < cpus * LOAD_ONE else o.over):
        exchange(s, queue, other, chosen)


cdef void note_loads(sched_t *s, uint32_t queue, uint32_t other, uint32_t chosen) noexcept nogil:
    """Bring those up to date that may move."""
    cdef uint32_t id = fifo_first(&queue_of(s, queue).worlds)
    while id != NO_WORLD:
        if id != chosen and meets(s, id, other):
            update_world(s, world(s, id))
        id = fifo_next(links(s), id)


cdef uint32_t next_movable(
    const sched_t *s, uint32_t id, uint32_t other, uint32_t chosen
) noexcept nogil:
    """From `id` on, in its list."""
    while id != NO_WORLD and (id == chosen or not meets(s, id, other)):
        id = fifo_next(links(s), id)
    return id


cdef void exchange(sched_t *s, uint32_t queue, uint32_t other, uint32_t chosen) noexcept nogil:
    """Push, pull or swap what brings the loads closest together.

    Of equally good ways the one that moves least, then the lowest numbers.
    """
    cdef int64_t apart = queue_of(s, queue).load - queue_of(s, other).load
    cdef int64_t least = distance(apart, 0), left, mine
    cdef int64_t best_push = -1, best_pull = -1, push = -1, pull
    cdef uint32_t i = NO_WORLD, j
    note_loads(s, queue, other, chosen)
    note_loads(s, other, queue, chosen)
    while True:
        mine = apart if push < 0 else apart - 2 * world(s, i).load
        pull, j = -1, NO_WORLD
        while True:
            left = distance(mine if pull < 0 else mine + 2 * world(s, j).load, 0)
            if left < least or (
                left == least
                and (push < best_push or (push == best_push and pull < best_pull))
            ):
                least, best_push, best_pull = left, push, pull
            j = fifo_first(&queue_of(s, other).worlds) if pull < 0 else fifo_next(links(s), j)
            j = next_movable(s, j, queue, chosen)
            if j == NO_WORLD:
                break
            pull = j
        i = fifo_first(&queue_of(s, queue).worlds) if push < 0 else fifo_next(links(s), i)
        i = next_movable(s, i, other, chosen)
        if i == NO_WORLD:
            break
        push = i
    if best_push >= 0:
        move(s, <uint32_t>best_push, other)
    if best_pull >= 0:
        move(s, <uint32_t>best_pull, queue)


cdef void move(sched_t *s, uint32_t id, uint32_t queue) noexcept nogil:
    cdef credit2_world_t *w = world(s, id)
    cdef bint waited = w.place.contained
    if waited:
        take(s, id)
    elif s.worlds[id].state == RUN:
        account(s, s.worlds[id].cpu)
    assign(s, id, queue)
    w.residue = 0
    if waited:
        put(s, id)
        tickle(s, id)
    elif s.worlds[id].state == RUN:
        ask(s, s.worlds[id].cpu)
