"""Run queues of the credit scheduler: one for each CPU, of three ranks, first in, first out."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyvirt._core.sched.ordered cimport (
    fifo_first,
    fifo_next,
    fifo_pop,
    fifo_push,
    fifo_remove,
    fifo_t,
)
from pyvirt._core.sched.plug cimport allowed, ask
from pyvirt._core.sched.policies.credit_state cimport (
    OVER,
    RANKS,
    cpu_of,
    credit_cpu_t,
    credit_own_t,
    credit_world_t,
    links,
    own,
    world,
)
from pyvirt._core.sched.state cimport NO_CPU, NO_WORLD, sched_t


cdef void put(sched_t *s, uint32_t id) noexcept nogil:
    cdef credit_own_t *o = own(s)
    cdef credit_world_t *w = world(s, id)
    cdef credit_cpu_t *c = cpu_of(s, w.home)
    w.queued = w.rank
    fifo_push(&c.queue[w.rank], links(s), id)
    c.waiting += 1
    o.waiting += 1
    o.eager += w.rank < OVER


cdef void take(sched_t *s, uint32_t id) noexcept nogil:
    cdef credit_own_t *o = own(s)
    cdef credit_world_t *w = world(s, id)
    cdef credit_cpu_t *c = cpu_of(s, w.home)
    fifo_remove(&c.queue[w.queued], links(s), id)
    c.waiting -= 1
    o.waiting -= 1
    o.eager -= w.queued < OVER


cdef void sort(sched_t *s, uint32_t cpu) noexcept nogil:
    """Put the CPU's worlds under their present ranks; those of one rank keep their order."""
    cdef credit_cpu_t *c = cpu_of(s, cpu)
    cdef credit_own_t *o = own(s)
    cdef fifo_t before[RANKS]
    cdef uint32_t rank, id
    cdef credit_world_t *w
    c.unsorted = False
    for rank in range(RANKS):
        before[rank] = c.queue[rank]
        c.queue[rank].first = c.queue[rank].last = 0
    for rank in range(RANKS):
        id = fifo_pop(&before[rank], links(s))
        while id != NO_WORLD:
            w = world(s, id)
            o.eager += <uint32_t>(w.rank < OVER) - <uint32_t>(w.queued < OVER)
            w.queued = w.rank
            fifo_push(&c.queue[w.rank], links(s), id)
            id = fifo_pop(&before[rank], links(s))


# --- which CPU ---


cdef uint32_t idle_cpu(const sched_t *s, uint32_t id) noexcept nogil:
    """The lowest idle CPU of the world's that is not about to pick, or NO_CPU."""
    cdef const uint64_t *mask = s.queues[s.worlds[id].queue].mask
    cdef uint64_t free
    cdef uint32_t i, cpu
    if s.idle_count <= <uint32_t>(own(s).serving != NO_CPU):
        return NO_CPU               # the one that picks counts as idle
    for i in range((s.cpu_count + 63) >> 6):
        free = s.idle[i] & mask[i] & ~s.asked[i]
        cpu = 64 * i
        while free:
            if free & 1 and cpu != own(s).serving:
                return cpu
            free >>= 1
            cpu += 1
    return NO_CPU


cdef bint asked(const sched_t *s, uint32_t cpu) noexcept nogil:
    return cpu == own(s).serving or s.asked[cpu >> 6] >> (cpu & 63) & 1


cdef uint32_t new_home(const sched_t *s, uint32_t id) noexcept nogil:
    """An idle CPU, or the one with the fewest worlds."""
    cdef uint32_t cpu = idle_cpu(s, id), load, least = 0, best = NO_CPU
    if cpu != NO_CPU:
        return cpu
    for cpu in range(s.cpu_count):
        if allowed(s, id, cpu):
            load = cpu_of(s, cpu).waiting + (s.cpus[cpu].running != NO_WORLD)
            if best == NO_CPU or load < least:
                best, least = cpu, load
    return best


cdef void find_home(sched_t *s, uint32_t id) noexcept nogil:
    cdef credit_world_t *w = world(s, id)
    if w.home == NO_CPU or not allowed(s, id, w.home):
        w.home = <uint16_t>new_home(s, id)


cdef uint32_t steal(const sched_t *s, uint32_t cpu, uint32_t rank) noexcept nogil:
    """The first world of a higher rank that waits at another CPU and may run here."""
    cdef uint32_t k, r, id, peer
    cdef const credit_cpu_t *c
    if not (own(s).eager if rank == OVER else own(s).waiting):
        return NO_WORLD
    for k in range(1, s.cpu_count):
        peer = cpu + k if cpu + k < s.cpu_count else cpu + k - s.cpu_count
        c = cpu_of(s, peer)
        if not c.waiting:
            continue
        for r in range(rank):
            id = fifo_first(&c.queue[r])
            while id != NO_WORLD:
                if allowed(s, id, cpu):
                    return id
                id = fifo_next(links(s), id)
    return NO_WORLD


cdef void offer(sched_t *s) noexcept nogil:
    """An idle CPU took one: another that still waits may have an idle CPU of its own."""
    cdef uint32_t cpu, rank, id, idle
    if s.idle_count < 2 or not own(s).waiting:
        return                      # the one that picks counts as idle
    for cpu in range(s.cpu_count):
        for rank in range(RANKS):
            id = fifo_first(&cpu_of(s, cpu).queue[rank])
            while id != NO_WORLD:
                idle = idle_cpu(s, id)
                if idle != NO_CPU:
                    ask(s, idle)
                    return
                id = fifo_next(links(s), id)
