"""Where a world of the ESX policy waits, and which CPU gets it."""

from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t

from pyvirt._core.sched.hooks cimport allowed
from pyvirt._core.sched.policies.esx_state cimport (
    NOWHERE,
    cpu_of,
    esx_cpu_t,
    esx_world_t,
    host_of,
    world_of,
)
from pyvirt._core.sched.state cimport NO_CPU, NO_WORLD, sched_t


cdef bint is_idle(sched_t *s, uint32_t cpu) noexcept nogil:
    """Nothing runs there, nor is about to."""
    return (s.cpus[cpu].running == NO_WORLD and cpu_of(s, cpu).count == 0
            and cpu_of(s, cpu).reserved == NOWHERE)


cdef uint32_t idle_cpu_for(sched_t *s, uint32_t id) noexcept nogil:
    """An idle CPU that the world may run on, its last one or the lowest; or NO_CPU."""
    cdef uint32_t last = s.worlds[id].cpu, cpu, word
    cdef const uint64_t *mask = s.queues[s.worlds[id].queue].mask
    cdef uint64_t rest
    if not s.idle_count:
        return NO_CPU
    if last != NO_CPU and allowed(s, id, last) and is_idle(s, last):
        return last
    for word in range((s.cpu_count + 63) >> 6):
        rest = s.idle[word] & mask[word]
        cpu = 64 * word
        while rest:
            if rest & 1 and is_idle(s, cpu):
                return cpu
            rest >>= 1
            cpu += 1
    return NO_CPU


cdef bint has_sibling(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil:
    """Whether another world of the same VM runs or waits on the CPU."""
    cdef uint32_t each = s.vms[s.worlds[id].vm].first
    while each != NO_WORLD:
        if each != id and (world_of(s, each).queue == cpu or s.cpus[cpu].running == each):
            return True
        each = s.siblings[each]
    return False


cdef uint32_t place_world(sched_t *s, uint32_t id, bint part_siblings) noexcept nogil:
    """The CPU on which a world is to wait: an idle one, or the one with the fewest worlds.

    Of equal ones its last, else the lowest. Siblings are parted where there is a choice.
    """
    cdef uint32_t best = idle_cpu_for(s, id), cpu, last = s.worlds[id].cpu
    cdef uint64_t load, least = <uint64_t>-1
    if best != NO_CPU:
        return best
    for cpu in range(s.cpu_count):
        if allowed(s, id, cpu):
            load = cpu_of(s, cpu).count + (s.cpus[cpu].running != NO_WORLD)
            if part_siblings and has_sibling(s, cpu, id):
                load |= <uint64_t>1 << 32
            load = load << 1 | (cpu != last)
            if load < least:
                best, least = cpu, load
    return best


cdef void advance_host(sched_t *s) noexcept nogil:
    """Virtual time of the host: the least of those that compete, and never less than it was."""
    cdef int64_t least = least_key(s), passed
    cdef uint32_t cpu
    for cpu in range(s.cpu_count):
        if s.cpus[cpu].running != NO_WORLD:
            passed = runs_with(s, s.cpus[cpu].running)
            if passed < least:
                least = passed
    if least != INT64_MAX and least > host_of(s).v:
        host_of(s).v = least


cdef void drop(sched_t *s, uint32_t id) noexcept nogil:
    """A world does not wait any more, wherever it did."""
    cdef esx_world_t *w = world_of(s, id)
    cdef uint32_t cpu
    w.laggard = False
    if w.queue == NOWHERE:
        return
    cpu = w.queue
    if cpu_of(s, cpu).reserved == id:
        cpu_of(s, cpu).reserved = NOWHERE
        w.queue = NOWHERE
        host_of(s).active -= 1
    else:
        take(s, id)
        if cpu_of(s, cpu).first == id:
            cpu_of(s, cpu).first = NOWHERE
    if host_of(s).active == 0 and w.vt > host_of(s).v:
        host_of(s).v = w.vt


cdef uint32_t search(
    sched_t *s, uint32_t root, uint32_t cpu, int64_t below, bint part_siblings
) noexcept nogil:
    """The first world of a heap, with a key less than `below`, that the CPU may run; or NO_WORLD.

    Nothing below a world that is too late, or that may run, is looked at.
    """
    cdef esx_world_t *worlds = world_of(s, 0)
    cdef uint32_t id = root, best = NO_WORLD, child
    while True:
        child = NOWHERE
        if worlds[id].key < below or (worlds[id].key == below and best != NO_WORLD and id < best):
            if allowed(s, id, cpu) and not (part_siblings and has_sibling(s, cpu, id)):
                best, below = id, worlds[id].key
            else:
                child = worlds[id].child
        if child != NOWHERE:
            id = child
            continue
        while worlds[id].next == NOWHERE:
            if id == root:
                return best
            while worlds[worlds[id].prev].child != id:
                id = worlds[id].prev
            id = worlds[id].prev
            if id == root:
                return best
        id = worlds[id].next


cdef uint32_t pull_from_others(
    sched_t *s, uint32_t cpu, int64_t below, bint part_siblings
) noexcept nogil:
    """The world with the least key less than `below` that waits elsewhere and may run here.

    Of equal keys that of the lowest CPU, and there of the lowest number; or NO_WORLD.
    """
    cdef uint32_t other, found, best = NO_WORLD
    cdef esx_cpu_t *c = cpu_of(s, 0)
    for other in range(s.cpu_count):
        if other != cpu and c[other].head < below:
            found = search(s, c[other].root, cpu, below, part_siblings)
            if found != NO_WORLD:
                best, below = found, world_of(s, found).key
    return best


cdef void shift_times(sched_t *s, int64_t by) noexcept nogil:
    """Set all virtual times back, so that they never overflow."""
    cdef uint32_t i
    for i in range(s.world_count):
        world_of(s, i).vt -= by
        world_of(s, i).key -= by
    for i in range(s.cpu_count):
        if cpu_of(s, i).head != INT64_MAX:
            cpu_of(s, i).head -= by
        if cpu_of(s, i).node != INT64_MAX:
            cpu_of(s, i).node -= by
    host_of(s).v -= by
