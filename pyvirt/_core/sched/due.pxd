# What is due when: the next event of each CPU, and the next arrival, refill or end of a pause of each
# world.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from pyvirt._core.sched.state cimport (
    CPU_BITS,
    DUE_HORIZON,
    NEVER,
    TIMER_HORIZON,
    WORLD_BITS,
    load_t,
    sched_t,
)
from pyvirt._core.sched.winner cimport PV_EMPTY, winner_set
from pyvirt._core.types cimport ns_t

cdef void move_due_base(sched_t *s) noexcept nogil
cdef void move_timer_base(sched_t *s, ns_t base) noexcept nogil


cdef inline ns_t load_due(const load_t *l) noexcept nogil:
    cdef ns_t when = l.refill if l.refill < l.arrival else l.arrival
    return when if when < l.pause_end else l.pause_end


cdef inline uint64_t timer_key(const sched_t *s, uint32_t id, ns_t when) noexcept nogil:
    """What lies behind the horizon is looked at again there."""
    cdef ns_t distance = when - s.timer_base
    return <uint64_t>(distance if distance < TIMER_HORIZON else TIMER_HORIZON) << WORLD_BITS | id


cdef inline void arm_cpu(sched_t *s, uint32_t cpu, ns_t when) noexcept nogil:
    """Set the CPU's next event, at most a slice from now."""
    s.cpus[cpu].event = when
    if when - s.due_base >= DUE_HORIZON:
        move_due_base(s)
    winner_set(s.due, s.cpu_leaves, cpu, <uint64_t>(when - s.due_base) << CPU_BITS | cpu)


cdef inline void disarm_cpu(sched_t *s, uint32_t cpu) noexcept nogil:
    s.cpus[cpu].event = NEVER
    winner_set(s.due, s.cpu_leaves, cpu, PV_EMPTY)


cdef inline void arm_timer(sched_t *s, uint32_t id) noexcept nogil:
    """Set a world's timer by its next arrival, refill or end of a pause."""
    cdef ns_t when = load_due(&s.loads[id])
    if when == NEVER:
        winner_set(s.timers, s.capacity, id, PV_EMPTY)
        return
    if s.now - s.timer_base > TIMER_HORIZON // 2:
        move_timer_base(s, s.now)
    winner_set(s.timers, s.capacity, id, timer_key(s, id, when))


cdef inline ns_t next_cpu_event(const sched_t *s) noexcept nogil:
    cdef uint64_t key = s.due[1]
    return NEVER if key == PV_EMPTY else s.due_base + <int64_t>(key >> CPU_BITS)


cdef inline ns_t next_timer(const sched_t *s) noexcept nogil:
    """Of all worlds; of one behind the horizon too early."""
    cdef uint64_t key = s.timers[1]
    return NEVER if key == PV_EMPTY else s.timer_base + <int64_t>(key >> WORLD_BITS)
