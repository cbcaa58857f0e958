"""Events under a plug-in policy: a world stops or queues up again, and CPUs that were asked pick.

A policy says itself which CPU picks anew. Those asked are served when the event is over.
"""

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.sched.due cimport disarm_cpu
from pyvirt._core.sched.hooks cimport (
    hook_dequeue,
    hook_enqueue,
    hook_pick,
    hook_stopped,
    hook_timeslice,
    set_fault,
)
from pyvirt._core.sched.loop cimport book, charge, rearm, record, stops, take_cpu
from pyvirt._core.sched.pace cimport busy_threads
from pyvirt._core.sched.state cimport (
    FAULT_ENDLESS,
    FAULT_NONE,
    HAS_JOBS,
    HAS_LIMIT,
    MASK_WORDS,
    NEVER,
    NO_WORLD,
    QUEUED,
    READY,
    RUN,
    WAIT,
    WHY_PREEMPT,
    WHY_SLICE,
    WOKEN,
    cpu_t,
    sched_t,
    why_t,
    world_state_t,
    world_t,
)
from pyvirt._core.sched.topology cimport SAME_CORE, lowest_bit, near_mask
from pyvirt._core.types cimport ns_t


cdef inline void turn(sched_t *s, uint32_t cpu) noexcept nogil:
    """A CPU became busy or idle, perhaps not for good: what that means is seen after the event."""
    if s.paces != NULL and s.topology.smt:
        s.turned[cpu >> 6] |= <uint64_t>1 << (cpu & 63)
        s.turning = True


cdef inline void settle_thread(sched_t *s, uint32_t cpu, ns_t now) noexcept nogil:
    """If the number of busy threads of its core is another one, its world goes on at that speed."""
    cdef uint32_t id = s.cpus[cpu].running
    if id == NO_WORLD or s.paces[id].threads == busy_threads(s, cpu):
        return
    if s.worlds[id].since < now:
        charge(s, id, now)
    if s.cpus[cpu].running == id:
        rearm(s, cpu, now)


cdef void settle_turned(sched_t *s, ns_t now) noexcept nogil:
    """Threads of cores on which some became busy or idle go on at other speeds, by their numbers."""
    cdef uint64_t cores[MASK_WORDS]
    cdef const uint64_t *core
    cdef uint32_t i, k, cpu, some = 0, last = 0
    s.turning = False
    for i in range(s.topology.words):
        if s.turned[i]:
            some += 1 + (s.turned[i] & (s.turned[i] - 1) != 0)
            last = i
    if some == 1:                   # the usual case: one core
        cpu = 64 * last + lowest_bit(s.turned[last])
        s.turned[last] = 0
        k = s.topology.core[cpu]
        for i in range(s.topology.first[k], s.topology.first[k + 1]):
            settle_thread(s, s.topology.threads[i], now)
        return
    for i in range(s.topology.words):
        cores[i] = 0
    for i in range(s.topology.words):
        while s.turned[i]:
            cpu = 64 * i + lowest_bit(s.turned[i])
            s.turned[i] &= s.turned[i] - 1
            core = near_mask(s, cpu, SAME_CORE)
            for k in range(s.topology.words):
                cores[k] |= core[k]
    for i in range(s.topology.words):
        while cores[i]:
            cpu = 64 * i + lowest_bit(cores[i])
            cores[i] &= cores[i] - 1
            settle_thread(s, cpu, now)


cdef inline void vacate(sched_t *s, uint32_t cpu, ns_t now) noexcept nogil:
    """Its world no longer runs: it is idle until it picks. The CPU's event is left to that."""
    cdef cpu_t *c = &s.cpus[cpu]
    c.running = c.before = NO_WORLD
    c.idle_since = now
    s.idle[cpu >> 6] |= <uint64_t>1 << (cpu & 63)
    s.idle_count += 1
    turn(s, cpu)


cdef void plug_stop(sched_t *s, uint32_t id, world_state_t state, why_t why, ns_t now) noexcept nogil:
    """A world stops to compete, or waits where it stopped to compete; if it ran, its CPU is asked."""
    cdef world_t *w = &s.worlds[id]
    cdef bint ran = w.state == RUN
    cdef bint queued = w.state == READY
    if queued:
        hook_dequeue(s, id)
        w.flags &= ~WOKEN
    if ran:
        vacate(s, w.cpu, now)
        ask_cpu(s, w.cpu)
        w.since = now
    else:
        book(w, now)
    w.state = state
    if state == WAIT:
        w.marks = 0                 # nothing is remembered over a wait
    if not queued:
        hook_stopped(s, id, why)


cdef void plug_requeue(
    sched_t *s, uint32_t cpu, uint32_t id, why_t why, ns_t now
) noexcept nogil:
    """A running world that is charged queues up again, and its CPU picks."""
    vacate(s, cpu, now)
    s.cpus[cpu].before = id
    s.worlds[id].state = READY
    hook_enqueue(s, id, why)
    plug_fill(s, cpu, now)


cdef inline void plug_fill(sched_t *s, uint32_t cpu, ns_t now) noexcept nogil:
    """An idle CPU picks. What it was asked before is answered by that."""
    cdef cpu_t *c = &s.cpus[cpu]
    cdef uint32_t id
    cdef ns_t slice
    s.asked[cpu >> 6] &= ~(<uint64_t>1 << (cpu & 63))
    id = hook_pick(s, cpu)
    if id == NO_WORLD:
        if s.timeline != NULL:
            record(s, cpu, NO_WORLD, now)
        c.before = NO_WORLD
        if c.event != NEVER:
            disarm_cpu(s, cpu)
        return
    take_up(s, cpu, id, now)
    c.slice_end = now               # should the hook ask for that
    slice = hook_timeslice(s, cpu, id)
    if c.running == id:
        c.slice_end = now + slice
        rearm(s, cpu, now)


cdef inline void take_up(sched_t *s, uint32_t cpu, uint32_t id, ns_t now) noexcept nogil:
    """An idle CPU gets a world that its policy gave."""
    cdef cpu_t *c = &s.cpus[cpu]
    cdef world_t *w = &s.worlds[id]
    w.marks &= ~QUEUED
    c.idle += now - c.idle_since
    s.idle[cpu >> 6] &= ~(<uint64_t>1 << (cpu & 63))
    s.idle_count -= 1
    turn(s, cpu)
    if id == c.before:
        w.state = RUN               # at the same moment: it just goes on
        c.running = id
    else:
        take_cpu(s, cpu, id, now)
    c.before = NO_WORLD


cdef void requeued(
    sched_t *s, uint32_t cpu, uint32_t id, uint32_t next, ns_t slice, ns_t now
) noexcept nogil:
    """What a policy said at once about a CPU whose world's slice ended: what `plug_requeue` asks."""
    vacate(s, cpu, now)
    s.asked[cpu >> 6] &= ~(<uint64_t>1 << (cpu & 63))
    if next == NO_WORLD:
        disarm_cpu(s, cpu)
        return
    s.cpus[cpu].before = id
    take_up(s, cpu, next, now)
    s.cpus[cpu].slice_end = now + slice
    rearm(s, cpu, now)


cdef void serve(sched_t *s, ns_t now) noexcept nogil:
    """Let the CPUs pick that are asked, always the lowest, until none is."""
    cdef uint32_t i, cpu, id
    cdef uint64_t rounds = 0
    cdef cpu_t *c
    while (s.asking or s.turning) and s.fault.kind == FAULT_NONE:
        if not s.asking:
            settle_turned(s, now)
            continue
        s.asking = False
        for i in range((s.cpu_count + 63) >> 6):
            if s.asked[i]:
                s.asking = True
                break
        if not s.asking:
            continue
        cpu = 64 * i + lowest_bit(s.asked[i])
        rounds += 1
        if rounds > 10000 + 100 * (<uint64_t>s.cpu_count + s.world_count):
            set_fault(s, FAULT_ENDLESS, 0, cpu, NO_WORLD, 0)
            break
        s.asked[i] &= ~(<uint64_t>1 << (cpu & 63))
        c = &s.cpus[cpu]
        id = c.running
        if id == NO_WORLD:
            plug_fill(s, cpu, now)
            continue
        charge(s, id, now)
        if c.running != id or (
                s.worlds[id].flags & (HAS_JOBS | HAS_LIMIT) and stops(s, id, now)):
            continue                # which asked the CPU once more
        plug_requeue(s, cpu, id, WHY_SLICE if now >= c.slice_end else WHY_PREEMPT, now)
