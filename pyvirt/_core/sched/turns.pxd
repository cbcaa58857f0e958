# The loop over ends of timeslices of always runnable worlds, under a plug-in policy that has the hook
# `requeue`. A policy in Cython compiles the loop around that hook, if it is inline:
#
#     cdef void all_turns(sched_t *s, stretch_t *t) noexcept nogil:
#         turns(s, t, requeue)
#
# is the hook `turns`; pyvirt/turns.h is the same in C. The ring is in the order of the events; a new one
# goes to its end, or as far forward as it must.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyvirt._core.sched.state cimport (
    MOST_TIMESLICE,
    NO_CPU,
    QUEUED,
    READY,
    RUN,
    cpu_t,
    plug_t,
    sched_t,
    stretch_t,
    turn_t,
    world_t,
)
from pyvirt._core.types cimport ns_t

ctypedef uint32_t (*requeue_t)(
    sched_t *s, uint32_t cpu, uint32_t id, ns_t dt, ns_t *slice) noexcept nogil


cdef inline bint before(const turn_t *a, const turn_t *b) noexcept nogil:
    return a.when < b.when or (a.when == b.when and a.cpu < b.cpu)


cdef inline void sort_turn(turn_t *ring, uint32_t count, uint32_t at) noexcept nogil:
    """The last turn of the ring, at `at`, goes before those that come later."""
    cdef turn_t turn = ring[at]
    cdef uint32_t i = at, last
    while True:
        last = i - 1 if i else count - 1
        # the first of the ring is the one after `at`
        if last == at or not before(&turn, &ring[last]):
            break
        ring[i] = ring[last]
        i = last
    ring[i] = turn


cdef inline void turns(sched_t *s, stretch_t *stretch, requeue_t requeue) noexcept nogil:
    """Let timeslices end until something else is to be done than to run the world that comes next."""
    cdef world_t *worlds = s.worlds
    cdef plug_t *plug = s.plug
    cdef turn_t *ring = stretch.turns
    cdef world_t *w
    cdef world_t *n
    cdef turn_t *t
    cdef cpu_t *c
    cdef ns_t now, dt, slice, until = stretch.until
    cdef uint64_t count = 0, most = stretch.most
    cdef uint32_t at = 0, cpus = s.cpu_count, last = cpus - 1, id, cpu, next
    while count < most:
        t = &ring[at]
        now = t.when
        if now > until or plug.timer <= now:
            break
        count += 1
        s.now = now
        id = t.world
        cpu = t.cpu
        w = &worlds[id]
        dt = now - w.since
        w.run += dt
        w.since = now
        w.state = READY
        slice = 0
        next = requeue(s, cpu, id, dt, &slice)
        if w.state == READY:
            w.marks |= QUEUED
        n = &worlds[next]
        if (next >= s.world_count or n.flags or n.marks != QUEUED or n.queue
                or <uint64_t>(slice - 1) >= <uint64_t>MOST_TIMESLICE or s.asking):
            stretch.left = True
            stretch.next, stretch.slice = next, slice
            break
        n.marks = 0
        n.state = RUN
        c = &s.cpus[cpu]
        if next != id:
            n.rdy += now - n.since
            n.since = now
            n.switches += 1
            if n.cpu != cpu:
                n.migrations += n.cpu != NO_CPU
                n.cpu = <uint16_t>cpu
            c.running = next
            c.began = now
            c.switches += 1
            t.world = next
        slice += now
        c.slice_end = c.event = t.when = slice
        if before(t, &ring[last]):
            sort_turn(ring, cpus, at)
        last = at
        at = at + 1 if at + 1 < cpus else 0
    stretch.count, stretch.at = count, at
