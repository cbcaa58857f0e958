# How fast a world works while it runs, where that differs: a busy thread of the same core takes part of
# it, a move costs time before the work goes on, and remote memory slows down.
#
# Speeds are in 2**-16 of full speed, at which a nanosecond of time is a nanosecond of work; what a
# stretch of time leaves over of a unit of work is kept, so that a world's work does not depend on
# when it is looked at.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.sched.state cimport NO_CPU, pace_t, sched_t
from pyvirt._core.sched.topology cimport distance
from pyvirt._core.types cimport ns_t


cdef inline ns_t work_in(pace_t *p, ns_t dt) noexcept nogil:
    """Let a running world work for `dt` ns; returns its work."""
    cdef ns_t low, work
    if p.stall:
        if dt <= p.stall:
            p.stall -= dt
            p.stalled += dt
            return 0
        dt -= p.stall
        p.stalled += p.stall
        p.stall = 0
    low = (dt & 0xFFFF) * p.speed + p.fraction
    work = (dt >> 16) * p.speed + (low >> 16)
    p.fraction = <uint32_t>(low & 0xFFFF)
    p.used += work
    return work


cdef inline ns_t time_for(const pace_t *p, ns_t work) noexcept nogil:
    """How long a running world takes for some work: the least time in which it is all done."""
    cdef ns_t whole = work // p.speed, rest = ((work % p.speed) << 16) - p.fraction
    if work <= 0:
        return p.stall
    if whole >> 44:                 # longer than anything else
        return <ns_t>1 << 61
    # rounded up; a negative quotient is, in C
    return p.stall + (whole << 16) + (rest + p.speed - 1 if rest > 0 else rest) // p.speed


cdef inline uint32_t threads_of(const sched_t *s, uint32_t cpu) noexcept nogil:
    """How many threads the CPU's core has."""
    cdef uint32_t core = s.topology.core[cpu]
    return s.topology.first[core + 1] - s.topology.first[core]


cdef inline uint32_t busy_threads(const sched_t *s, uint32_t cpu) noexcept nogil:
    """Of the CPU's core."""
    cdef uint32_t core = s.topology.core[cpu], i, other, busy = 0
    for i in range(s.topology.first[core], s.topology.first[core + 1]):
        other = s.topology.threads[i]
        busy += not s.idle[other >> 6] >> (other & 63) & 1
    return busy


cdef inline void set_speed_among(sched_t *s, uint32_t id, uint32_t busy) noexcept nogil:
    """Of a world that runs from now on, where so many threads of its core are busy; it is charged."""
    cdef pace_t *p = &s.paces[id]
    p.threads = busy
    p.speed = <uint32_t>(<uint64_t>s.topology.speed[busy] * p.memory_speed >> 16)
    if not p.speed:
        p.speed = 1


cdef inline void set_speed(sched_t *s, uint32_t id, uint32_t cpu) noexcept nogil:
    """Of a world that runs on this CPU, from now on; it is charged."""
    set_speed_among(s, id, busy_threads(s, cpu))


cdef inline void moved(sched_t *s, uint32_t id, uint32_t before, uint32_t cpu) noexcept nogil:
    """A world comes to run on another CPU than before: what its caches held is far away."""
    cdef pace_t *p = &s.paces[id]
    cdef uint32_t far
    if before == NO_CPU:
        return
    far = distance(s, before, cpu)
    p.moves[far] += 1
    if s.topology.move_cost[far] > p.stall:
        p.stall = s.topology.move_cost[far]
