"""Ends of slices of always runnable worlds under a plug-in policy, one after the other.

What the event loop does with four hooks, `requeue` does with one, where every CPU is busy. The CPUs'
events stand in a ring, in their order; a new one goes to its end, or as far forward as it must.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyvirt._core.sched.due cimport move_due_base, next_timer
from pyvirt._core.sched.hooks cimport checked_slice, may_run, set_fault
from pyvirt._core.sched.loop cimport requeued
from pyvirt._core.sched.state cimport (
    CPU_BITS,
    FAULT_TIMER,
    HAS_JOBS,
    HAS_LIMIT,
    HOOK_REQUEUE,
    MOST_TIMESLICE,
    NO_CPU,
    NO_WORLD,
    QUEUED,
    READY,
    RUN,
    cpu_t,
    plug_t,
    sched_t,
    turn_t,
    world_t,
)
from pyvirt._core.sched.winner cimport PV_EMPTY, winner_set
from pyvirt._core.types cimport ns_t

# Fewer slices of each CPU than this are not worth the preparation.
cdef enum:
    LEAST_TURNS = 4


cdef bint only_requeues(const sched_t *s, ns_t until, uint64_t most) noexcept nogil:
    """Whether `requeue_slices` can begin, and will get far."""
    cdef const cpu_t *c
    cdef uint32_t cpu
    cdef ns_t last = s.now
    if (s.idle_count or s.timeline != NULL or s.paces != NULL
            or most < LEAST_TURNS * <uint64_t>s.cpu_count):
        return False
    for cpu in range(s.cpu_count):
        c = &s.cpus[cpu]
        if s.worlds[c.running].flags & (HAS_JOBS | HAS_LIMIT) or c.event != c.slice_end:
            return False
        if c.event > last:
            last = c.event
    return until >= last and next_timer(s) > last and s.plug.timer > last


cdef void begin_turns(sched_t *s) noexcept nogil:
    """Move the events from the tree into the ring, in their order."""
    cdef uint32_t i, cpu
    for i in range(s.cpu_count):
        cpu = <uint32_t>s.due[1] & ((1 << CPU_BITS) - 1)
        s.turns[i].when, s.turns[i].cpu = s.cpus[cpu].event, cpu
        s.turns[i].world = s.cpus[cpu].running
        winner_set(s.due, s.cpu_leaves, cpu, PV_EMPTY)


cdef inline bint before(const turn_t *a, const turn_t *b) noexcept nogil:
    return a.when < b.when or (a.when == b.when and a.cpu < b.cpu)


cdef void sort_turn(turn_t *turns, uint32_t count, uint32_t at) noexcept nogil:
    """The last turn of the ring, at `at`, goes before those that come later."""
    cdef turn_t turn = turns[at]
    cdef uint32_t i = at, last
    while True:
        last = i - 1 if i else count - 1
        # the first of the ring is the one after `at`
        if last == at or not before(&turn, &turns[last]):
            break
        turns[i] = turns[last]
        i = last
    turns[i] = turn


cdef uint64_t requeue_slices(sched_t *s, ns_t until, uint64_t most) noexcept nogil:
    """Let events happen until one is not the end of a slice, or the policy asked a CPU.

    Returns how many did, at least one. The caller serves the CPUs that were asked.
    """
    cdef plug_t *plug = s.plug
    cdef world_t *worlds = s.worlds
    cdef world_t *w
    cdef world_t *n
    cdef turn_t *t
    cdef turn_t *last
    cdef cpu_t *c
    cdef ns_t now, timer = next_timer(s), dt, slice
    cdef uint64_t count = 0
    cdef uint32_t at = 0, id, next, hook = s.hook
    cdef bint usual = True
    if timer <= until:
        until = timer - 1               # timers come first
    begin_turns(s)
    s.hook = HOOK_REQUEUE
    s.depth += 1
    while count < most:
        t = &s.turns[at]
        now = t.when
        if now > until or plug.timer <= now:
            break
        count += 1
        s.now = now
        id = t.world
        w = &worlds[id]
        dt = now - w.since
        w.run += dt
        w.since = now
        w.state = READY
        slice = 0
        next = plug.requeue(s, t.cpu, id, dt, &slice)
        if w.state == READY:
            w.marks |= QUEUED
        if (next >= s.world_count or worlds[next].flags or worlds[next].marks != QUEUED
                or worlds[next].queue or <uint64_t>(slice - 1) >= <uint64_t>MOST_TIMESLICE
                or s.asking):
            usual = False
            break
        n = &worlds[next]
        n.marks = 0
        n.state = RUN
        c = &s.cpus[t.cpu]
        if next != id:
            n.rdy += now - n.since
            n.since = now
            n.switches += 1
            if n.cpu != t.cpu:
                n.migrations += n.cpu != NO_CPU
                n.cpu = <uint16_t>t.cpu
            c.running = next
            c.began = now
            c.switches += 1
            t.world = next
        slice += now
        c.slice_end = c.event = t.when = slice
        last = &s.turns[(at if at else s.cpu_count) - 1]
        if before(t, last):
            sort_turn(s.turns, s.cpu_count, at)
        at += 1
        if at == s.cpu_count:
            at = 0
    s.hook = hook
    s.depth -= 1
    if not usual:
        if not may_run(s, HOOK_REQUEUE, next, t.cpu):
            next = NO_WORLD
        else:
            slice = checked_slice(s, HOOK_REQUEUE, t.cpu, next, slice)
        move_due_base(s)
        requeued(s, t.cpu, id, next, slice, now)
    else:
        move_due_base(s)
    if plug.timer < s.now:
        set_fault(s, FAULT_TIMER, HOOK_REQUEUE, NO_CPU, NO_WORLD, plug.timer)
    return count
