"""What is due when: moving the bases of keys, which happens rarely."""

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.sched.state cimport CPU_BITS, GONE, NEVER, sched_t
from pyvirt._core.sched.winner cimport PV_EMPTY, winner_build, winner_clear
from pyvirt._core.types cimport ns_t


cdef void move_due_base(sched_t *s) noexcept nogil:
    """Keys of CPU events count from now on from `now`; no event lies before it."""
    cdef uint32_t cpu
    s.due_base = s.now
    for cpu in range(s.cpu_count):
        s.due[s.cpu_leaves + cpu] = (
            PV_EMPTY if s.cpus[cpu].event == NEVER
            else <uint64_t>(s.cpus[cpu].event - s.due_base) << CPU_BITS | cpu)
    winner_build(s.due, s.cpu_leaves)


cdef void move_timer_base(sched_t *s, ns_t base) noexcept nogil:
    """Keys of timers count from `base`, which is not after the first of them."""
    cdef uint32_t id
    cdef ns_t when
    s.timer_base = base
    winner_clear(s.timers, s.capacity)
    for id in range(s.world_count):
        if s.worlds[id].state != GONE:
            when = load_due(&s.loads[id])
            if when != NEVER:
                s.timers[s.capacity + id] = timer_key(s, id, when)
    winner_build(s.timers, s.capacity)
