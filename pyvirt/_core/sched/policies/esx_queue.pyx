"""Where a world of the ESX policy waits, and which CPU gets it."""

from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t

from pyvirt._core.sched.numa cimport at_home, home_mask
from pyvirt._core.sched.placement cimport idle_cpu_among
from pyvirt._core.sched.plug cimport ask
from pyvirt._core.sched.policies.esx_state cimport (
    BINS,
    NOWHERE,
    cpu_of,
    esx_cpu_t,
    esx_world_t,
    host_of,
    world_of,
)
from pyvirt._core.sched.state cimport MASK_WORDS, NO_CPU, NO_WORLD, sched_t
from pyvirt._core.sched.topology cimport lowest_bit


cdef bint is_idle(sched_t *s, uint32_t cpu) noexcept nogil:
    """Nothing runs there, nor is about to."""
    return (s.cpus[cpu].running == NO_WORLD and cpu_of(s, cpu).count == 0
            and cpu_of(s, cpu).reserved == NOWHERE)


cdef uint32_t idle_cpu_for(sched_t *s, uint32_t id) noexcept nogil:
    """The idle CPU that suits a world best, or NO_CPU."""
    cdef uint64_t idle[MASK_WORDS]
    cdef const uint64_t *home = home_mask(s, id)
    cdef uint64_t rest
    cdef uint32_t word, cpu
    if not s.idle_count:
        return NO_CPU
    for word in range((s.cpu_count + 63) >> 6):
        idle[word] = rest = s.idle[word] & (home[word] if home != NULL else ~<uint64_t>0)
        while rest:
            cpu = 64 * word + lowest_bit(rest)
            if not is_idle(s, cpu):
                idle[word] &= ~(<uint64_t>1 << (cpu & 63))
            rest &= rest - 1
    return idle_cpu_among(s, id, idle)


cdef bint has_sibling(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil:
    """Whether another world of the same VM runs or waits on the CPU."""
    cdef uint32_t each = s.vms[s.worlds[id].vm].first
    while each != NO_WORLD:
        if each != id and (world_of(s, each).queue == cpu or s.cpus[cpu].running == each):
            return True
        each = s.siblings[each]
    return False


cdef uint32_t least_busy(sched_t *s, uint32_t last) noexcept nogil:
    """Of all CPUs, none of which is idle, the one where the fewest wait: of equal ones `last`."""
    cdef const esx_cpu_t *c = cpu_of(s, 0)
    cdef uint32_t cpu, best = 0
    for cpu in range(1, s.cpu_count):
        if c[cpu].count < c[best].count:
            best = cpu
    return last if last != NO_CPU and c[last].count == c[best].count else best


cdef uint32_t place_world(sched_t *s, uint32_t id, bint part_siblings) noexcept nogil:
    """The CPU on which a world is to wait: an idle one, or the one with the fewest worlds.

    Of equal ones its last, else the lowest. Siblings are parted where there is a choice.
    """
    cdef uint32_t best = idle_cpu_for(s, id), cpu, last = s.worlds[id].cpu
    cdef const uint64_t *mask = s.queues[s.worlds[id].queue].mask
    cdef const esx_cpu_t *c = cpu_of(s, 0)
    cdef uint64_t load, least = <uint64_t>-1
    if best != NO_CPU:
        return best
    if not (s.idle_count or part_siblings or host_of(s).with_numa or s.worlds[id].queue):
        return least_busy(s, last)      # the usual case
    for cpu in range(s.cpu_count):
        if not mask[cpu >> 6] >> (cpu & 63) & 1 or not at_home(s, id, cpu):
            continue
        load = c[cpu].count + (s.cpus[cpu].running != NO_WORLD)
        if part_siblings and has_sibling(s, cpu, id):
            load |= <uint64_t>1 << 32
        load = load << 1 | (cpu != last)
        if load < least:
            best, least = cpu, load
    return best


cdef void settle(sched_t *s, uint32_t id, uint32_t cpu) noexcept nogil:
    """Let a world that has just come wait for a CPU, which it may take from one with more."""
    cdef uint32_t running = s.cpus[cpu].running
    if is_idle(s, cpu):
        cpu_of(s, cpu).first = id
    put(s, id, cpu)
    if running == NO_WORLD or key_of(s, id) + host_of(s).wake < runs_with(s, running):
        ask(s, cpu)


cdef int64_t find_least(sched_t *s) noexcept nogil:
    """The least key of all who wait, or INT64_MAX."""
    cdef esx_cpu_t *c = cpu_of(s, 0)
    cdef int64_t least = INT64_MAX
    cdef uint32_t cpu
    for cpu in range(s.cpu_count):
        if c[cpu].key[1] < least:
            least = c[cpu].key[1]
    host_of(s).least = least
    return least


cdef int64_t least_time(sched_t *s) noexcept nogil:
    """Of all that compete, the least virtual time, or INT64_MAX."""
    cdef int64_t least = find_least(s), passed
    cdef uint32_t cpu
    for cpu in range(s.cpu_count):
        if s.cpus[cpu].running != NO_WORLD:
            passed = runs_with(s, s.cpus[cpu].running)
            if passed < least:
                least = passed
    return least


cdef void advance_host(sched_t *s) noexcept nogil:
    """Virtual time of the host: the least of those that compete, and never less than it was."""
    cdef int64_t least = least_time(s)
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
    sched_t *s, uint32_t root, uint32_t cpu, int64_t below, bint part_siblings, uint32_t best
) noexcept nogil:
    """The first world of a heap that the CPU may run, if it comes before `best`; else `best`.

    `below` is the key of `best`, or where NO_WORLD is that, what the key must be less than. Nothing
    below a world that is too late, or that may run, is looked at.
    """
    cdef esx_world_t *worlds = world_of(s, 0)
    cdef uint32_t id = root, child
    while True:
        child = NOWHERE
        if worlds[id].key < below or (worlds[id].key == below and best != NO_WORLD and id < best):
            if may_run(s, id, cpu) and not (part_siblings and has_sibling(s, cpu, id)):
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


cdef inline uint32_t first_below(
    sched_t *s, uint32_t source, uint32_t cpu, int64_t below, bint part_siblings
) noexcept nogil:
    """The first world with a key less than `below` that waits for one CPU and may run on another."""
    cdef esx_cpu_t *c = cpu_of(s, source)
    cdef uint32_t bin, found = NO_WORLD
    cdef int64_t key = below
    for bin in range(BINS, 2 * BINS):
        if c.key[bin] <= key and c.who[bin] != NOWHERE:
            found = search(s, c.who[bin], cpu, key, part_siblings, found)
            if found != NO_WORLD:
                key = world_of(s, found).key
    return found


cdef uint32_t first_waiting(
    sched_t *s, uint32_t source, uint32_t cpu, bint part_siblings
) noexcept nogil:
    """The first world that waits for one CPU and may run on another, or NO_WORLD."""
    return first_below(s, source, cpu, INT64_MAX, part_siblings)


cdef uint32_t pull_from_others(
    sched_t *s, uint32_t cpu, int64_t below, bint part_siblings
) noexcept nogil:
    """The world with the least key less than `below` that waits elsewhere and may run here.

    Of equal keys that of the lowest CPU, and there of the lowest number; or NO_WORLD.
    """
    cdef uint32_t other, found, best = NO_WORLD
    for other in range(s.cpu_count):
        if other == cpu or cpu_of(s, other).key[1] >= below:
            continue
        found = first_below(s, other, cpu, below, part_siblings)
        if found != NO_WORLD:
            best, below = found, world_of(s, found).key
    return best


cdef void shift_times(sched_t *s, int64_t by) noexcept nogil:
    """Set all virtual times back, so that they never overflow."""
    cdef uint32_t i, bin
    for i in range(s.world_count):
        world_of(s, i).vt -= by
        world_of(s, i).key -= by
    for i in range(s.cpu_count):
        for bin in range(1, 2 * BINS):
            if cpu_of(s, i).who[bin] != NOWHERE:
                cpu_of(s, i).key[bin] -= by
    if host_of(s).least != INT64_MAX:
        host_of(s).least -= by
    host_of(s).v -= by
