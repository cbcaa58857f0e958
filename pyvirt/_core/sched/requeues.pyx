"""Ends of slices of always runnable worlds under a plug-in policy, one after the other.

What the event loop does with four hooks, `requeue` does with one, where every CPU is busy: here is what
comes before and after the loop over a ring of the CPUs' events (pyvirt._core.sched.turns).
"""

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.sched.due cimport move_due_base, next_timer
from pyvirt._core.sched.hooks cimport checked_slice, may_run, set_fault
from pyvirt._core.sched.plugged cimport requeued
from pyvirt._core.sched.state cimport (
    CPU_BITS,
    FAULT_TIMER,
    HAS_JOBS,
    HAS_LIMIT,
    HOOK_REQUEUE,
    NO_CPU,
    NO_WORLD,
    cpu_t,
    plug_t,
    sched_t,
    stretch_t,
)
from pyvirt._core.sched.turns cimport turns
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


cdef uint64_t requeue_slices(sched_t *s, ns_t until, uint64_t most) noexcept nogil:
    """Let events happen until one is not the end of a slice, or the policy asked a CPU.

    Returns how many did, at least one. The caller serves the CPUs that were asked.
    """
    cdef plug_t *plug = s.plug
    cdef stretch_t stretch
    cdef ns_t timer = next_timer(s)
    cdef uint32_t cpu, id, next, hook = s.hook
    stretch.turns = s.turns
    stretch.until = until if until < timer else timer - 1   # timers come first
    stretch.most, stretch.count, stretch.at, stretch.left = most, 0, 0, False
    begin_turns(s)
    s.hook = HOOK_REQUEUE
    s.depth += 1
    if plug.turns != NULL:
        plug.turns(s, &stretch)
    else:
        turns(s, &stretch, plug.requeue)
    s.hook = hook
    s.depth -= 1
    move_due_base(s)
    if stretch.left:
        cpu, id = s.turns[stretch.at].cpu, s.turns[stretch.at].world
        next = NO_WORLD
        if may_run(s, HOOK_REQUEUE, stretch.next, cpu):
            next = stretch.next
            stretch.slice = checked_slice(s, HOOK_REQUEUE, cpu, next, stretch.slice)
        requeued(s, cpu, id, next, stretch.slice, s.now)
    if plug.timer < s.now:
        set_fault(s, FAULT_TIMER, HOOK_REQUEUE, NO_CPU, NO_WORLD, plug.timer)
    return stretch.count
