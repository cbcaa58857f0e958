"""Ends of slices of always runnable worlds under stride, one after the other.

What the event loop does, for the case in which it does the same again and again: every CPU is busy,
all slices are equal, there is one queue. Three things save work. The next event is the first of a
ring. Where a running world will stand when its slice is over is computed as it begins, for its key in
the tree: that becomes its virtual time at once. And what all events add to is added up at the end.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from pyvirt._core.sched.due cimport move_due_base, next_timer
from pyvirt._core.sched.loop cimport fill
from pyvirt._core.sched.queue cimport fetch_later, packed, push
from pyvirt._core.sched.policies.stride cimport stride_out
from pyvirt._core.sched.state cimport (
    AHEAD,
    CPU_BITS,
    HAS_JOBS,
    HAS_LIMIT,
    NO_CPU,
    POLICY_STRIDE,
    READY,
    RUN,
    SPREAD,
    WORLD_BITS,
    cpu_t,
    queue_t,
    sched_t,
    turn_t,
    world_t,
)
from pyvirt._core.sched.virtual cimport ahead, sync_queue, wrapping
from pyvirt._core.sched.winner cimport PV_EMPTY, winner_set
from pyvirt._core.types cimport ns_t

# Fewer slices of each CPU than this are not worth the preparation.
cdef enum:
    LEAST_TURNS = 4


cdef bint only_slices(const sched_t *s, ns_t until, uint64_t most) noexcept nogil:
    """Whether `end_slices` can begin, and will get far.

    Not where a slice is to end at the present time, and another one has begun at it on a CPU of a
    higher number: the next ends of those two would come in the wrong order.
    """
    cdef ns_t far = s.now + LEAST_TURNS * <ns_t>s.slice
    cdef const cpu_t *c
    cdef uint32_t cpu
    cdef bint ends = False
    if (s.policy != POLICY_STRIDE or not s.slice or s.idle_count or s.queue_count != 1
            or s.timeline != NULL or s.paces != NULL):
        return False
    if most < LEAST_TURNS * <uint64_t>s.cpu_count or until < far or next_timer(s) < far:
        return False
    for cpu in range(s.cpu_count):
        c = &s.cpus[cpu]
        if (s.worlds[c.running].flags & (HAS_JOBS | HAS_LIMIT) or c.event != c.slice_end
                or c.event - s.worlds[c.running].since != s.slice):
            return False
        if c.event == s.now:
            ends = True
        elif ends and s.worlds[c.running].since == s.now:
            return False
    return True


cdef inline void add_slice(world_t *w) noexcept nogil:
    """To its virtual time, before it runs."""
    cdef uint64_t rem = <uint64_t>w.rem + w.step_rem
    cdef int64_t v = wrapping(w.v, w.step)
    if rem >= w.weight:
        rem -= w.weight
        v = wrapping(v, 1)
    w.v, w.rem = v, <uint32_t>rem


cdef inline void take_slice(world_t *w) noexcept nogil:
    """Of a slice that is not over, what `add_slice` added."""
    cdef int64_t v = ahead(w.v, w.step)
    if w.rem < w.step_rem:
        w.rem += w.weight
        v = ahead(v, 1)
    w.v = v
    w.rem -= w.step_rem


cdef void begin_turns(sched_t *s) noexcept nogil:
    """Move the events from the tree into the ring, in their order."""
    cdef uint32_t i, cpu
    sync_queue(&s.queues[0], s.now)
    for i in range(s.cpu_count):
        cpu = <uint32_t>s.due[1] & ((1 << CPU_BITS) - 1)
        s.turns[i].when, s.turns[i].cpu = s.cpus[cpu].event, cpu
        s.turns[i].world = s.cpus[cpu].running
        add_slice(&s.worlds[s.cpus[cpu].running])
        winner_set(s.due, s.cpu_leaves, cpu, PV_EMPTY)


cdef void end_turns(sched_t *s, uint64_t count, ns_t now) noexcept nogil:
    """Note what was left to the end of the stretch, after so many events."""
    cdef queue_t *q = &s.queues[0]
    cdef cpu_t *c
    cdef uint32_t i
    s.now = now
    for i in range(s.cpu_count):
        c = &s.cpus[s.turns[i].cpu]
        c.running = s.turns[i].world
        c.event = c.slice_end = s.turns[i].when
        take_slice(&s.worlds[c.running])
    q.service += <ns_t>count * s.slice
    q.started += <ns_t>count * s.slice
    sync_queue(q, now)
    move_due_base(s)


cdef uint64_t end_slices(sched_t *s, ns_t until, uint64_t most) noexcept nogil:
    """Let events happen until one is not the end of a slice; returns how many did, at least one.

    At most 2**20 of them, so that nothing overflows.
    """
    cdef queue_t *q = &s.queues[0]
    cdef world_t *worlds = s.worlds
    cdef world_t *w
    cdef world_t *n
    cdef turn_t *t
    cdef cpu_t *c
    cdef ns_t slice = s.slice, now = s.now, timer = next_timer(s)
    cdef uint64_t count = 0
    cdef uint32_t at = 0, id, next
    cdef int64_t rank
    cdef bint large = q.leaves > 4096, usual = True
    if most > 1 << 20:
        most = 1 << 20
    if timer <= until:
        until = timer - 1               # timers come first
    begin_turns(s)
    while count < most and s.turns[at].when <= until:
        t = &s.turns[at]
        now = t.when
        id = t.world
        w = &worlds[id]
        w.run += slice
        w.since = now
        w.state = READY
        count += 1
        if w.flags & AHEAD:
            w.flags &= ~AHEAD
        else:
            push(s, q, id)
        next = <uint32_t>q.node[1] & ((1 << WORLD_BITS) - 1)
        n = &worlds[next]
        while n.state == RUN:
            stride_out(q, n)
            next = <uint32_t>q.node[1] & ((1 << WORLD_BITS) - 1)
            n = &worlds[next]
        if n.flags:
            usual = False
            break
        add_slice(n)
        rank = ahead(n.v, q.base)
        if rank > SPREAD:
            winner_set(q.node, q.leaves, n.slot, PV_EMPTY)
        else:
            n.flags = AHEAD
            winner_set(q.node, q.leaves, next if q.direct else n.slot, packed(rank, next))
        n.state = RUN
        if next != id:
            n.rdy += now - n.since
            n.since = now
            n.switches += 1
            if n.cpu != t.cpu:
                n.migrations += n.cpu != NO_CPU
                n.cpu = <uint16_t>t.cpu
            c = &s.cpus[t.cpu]
            c.began = now
            c.switches += 1
            t.world = next
        t.when = now + slice
        if large:
            fetch_later(s, q, n.slot)
        at += 1
        if at == s.cpu_count:
            at = 0
    if not usual:
        # The slice is over, and its world back in the queue; whose turn it is the event loop says.
        add_slice(w)
        end_turns(s, count, now)
        q.running -= 1
        q.started -= now
        fill(s, t.cpu, id, now)
    else:
        end_turns(s, count, now)
    return count
