"""Fixed priorities, as POSIX's SCHED_RR (IEEE Std 1003.1, 2.8.4 Process Scheduling)."""

from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memset

from pyvirt._core.arrays cimport as_int
from pyvirt._core.sched.ordered cimport (
    nodes_at,
    nodes_t,
    ordered_first,
    ordered_insert,
    ordered_next,
    ordered_remove,
)
from pyvirt._core.sched.plug cimport Plug, allowed, ask, asked
from pyvirt._core.sched.state cimport (
    MOST_SLICE,
    NO_CPU,
    NO_WORLD,
    RUN,
    WHY_PREEMPT,
    WHY_SLICE,
    sched_t,
)
from pyvirt._core.types cimport ns_t

# A key is what a priority lacks, then the place in line, of 2**42 in both directions.
cdef enum:
    PLACE_BITS = 43


cdef class FixedPriority(Plug):
    """The runnable world of highest priority runs; its weight is its priority.

    Rules (IEEE Std 1003.1, SCHED_RR): worlds of one priority stand in line; one that used its
    timeslice goes to the end of its line, and so does one that wakes or whose priority changes;
    one that is preempted goes to the head. A world that becomes ready gets an idle CPU: its last
    one, or that of lowest number; else it preempts, of the CPUs that it may run on, the one whose
    world has the lowest priority, if that is lower than its own; of equal ones that of lowest
    number. CPUs that others got at the same moment are left out.

    Parameters
    ----------
    timeslice_ns : int, optional
        Of every world; default: its own.

    Notes
    -----
    POSIX leaves the timeslice open, and says nothing about the choice between CPUs. A preempted
    world that goes to the head keeps no rest of its timeslice: it gets a whole one.
    """

    def __init__(self, timeslice_ns=None):
        cdef fixed_t own
        memset(&own, 0, sizeof(own))
        if timeslice_ns is not None:
            own.slice = as_int(timeslice_ns, "timeslice_ns", 1, MOST_SLICE)
        super().__init__("fixed", {"timeslice_ns": timeslice_ns})
        self.fill_own(&own, sizeof(own))
        self.table.world_size = sizeof(fixed_world_t)
        self.table.change = fixed_change
        self.table.enqueue = fixed_enqueue
        self.table.dequeue = fixed_dequeue
        self.table.pick = fixed_pick
        self.table.timeslice = fixed_timeslice


cdef inline nodes_t nodes(const sched_t *s) noexcept nogil:
    return nodes_at(&(<fixed_world_t *>s.plug.worlds).node, sizeof(fixed_world_t))


cdef uint32_t place_for(const sched_t *s, uint32_t id, bint picks) noexcept nogil:
    """An idle CPU, or the one to preempt, or NO_CPU; not the last one if that `picks` anyway."""
    cdef uint32_t last = s.worlds[id].cpu, cpu, best = NO_CPU, weight, least = s.worlds[id].weight
    if (not picks and last != NO_CPU and allowed(s, id, last)
            and s.cpus[last].running == NO_WORLD and not asked(s, last)):
        return last
    for cpu in range(s.cpu_count):
        if not allowed(s, id, cpu) or asked(s, cpu) or (picks and cpu == last):
            continue
        if s.cpus[cpu].running == NO_WORLD:
            return cpu
        weight = s.worlds[s.cpus[cpu].running].weight
        if weight < least:
            best, least = cpu, weight
    return best


cdef void fixed_enqueue(sched_t *s, uint32_t id, uint32_t why) noexcept nogil:
    cdef fixed_t *own = <fixed_t *>s.plug.own
    cdef int64_t place
    cdef uint32_t cpu
    if why == WHY_PREEMPT:
        own.first -= 1
        place = own.first
    else:
        own.last += 1
        place = own.last
    ordered_insert(
        &own.root, nodes(s), id, place - (<int64_t>s.worlds[id].weight << PLACE_BITS))
    cpu = place_for(s, id, why == WHY_PREEMPT or why == WHY_SLICE)
    if cpu != NO_CPU:
        ask(s, cpu)


cdef void fixed_dequeue(sched_t *s, uint32_t id) noexcept nogil:
    ordered_remove(&(<fixed_t *>s.plug.own).root, nodes(s), id)


cdef void fixed_change(sched_t *s, uint32_t id) noexcept nogil:
    """A running world may have become less than one that is ready."""
    if s.worlds[id].state == RUN:
        ask(s, s.worlds[id].cpu)


cdef uint32_t fixed_pick(sched_t *s, uint32_t cpu) noexcept nogil:
    cdef fixed_t *own = <fixed_t *>s.plug.own
    cdef uint32_t id = ordered_first(&own.root, nodes(s))
    while id != NO_WORLD and not allowed(s, id, cpu):
        id = ordered_next(nodes(s), id)
    if id != NO_WORLD:
        ordered_remove(&own.root, nodes(s), id)
    return id


cdef ns_t fixed_timeslice(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil:
    cdef ns_t slice = (<fixed_t *>s.plug.own).slice
    return slice if slice else s.worlds[id].slice
