"""Gangs of strict co-scheduling: VMs whose worlds were stopped, to start all at once."""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from pyvirt._core.sched.plug cimport ask, costart
from pyvirt._core.sched.policies.esx_limit cimport is_spent
from pyvirt._core.sched.policies.esx_progress cimport level_progress
from pyvirt._core.sched.policies.esx_queue cimport is_idle, may_run, runs_with
from pyvirt._core.sched.policies.esx_state cimport (
    COSCHED_STRICT,
    NOWHERE,
    cpu_of,
    esx_t,
    esx_vm_t,
    host_of,
    vm_of,
    world_of,
)
from pyvirt._core.sched.state cimport COSTOP, MASK_WORDS, MOST_CPUS, NO_CPU, NO_WORLD, sched_t


cdef uint32_t take_cpu(sched_t *s, uint32_t id, uint64_t *mask) noexcept nogil:
    """Take a CPU for a world out of a set: its last one, else the lowest; or NO_CPU."""
    cdef uint32_t cpu = s.worlds[id].cpu
    if cpu == NO_CPU or not mask[cpu >> 6] >> (cpu & 63) & 1 or not may_run(s, id, cpu):
        cpu = 0
        while cpu < s.cpu_count:
            if mask[cpu >> 6] >> (cpu & 63) & 1 and may_run(s, id, cpu):
                break
            cpu += 1
        if cpu == s.cpu_count:
            return NO_CPU
    mask[cpu >> 6] &= ~(<uint64_t>1 << (cpu & 63))
    return cpu


cdef bint fits_host(sched_t *s, uint32_t vm) noexcept nogil:
    """Whether each world of a VM finds a CPU when nothing else is there."""
    cdef uint64_t mask[MASK_WORDS]
    cdef uint32_t id = s.vms[vm].first
    memset(mask, 0xFF, sizeof(mask))
    while id != NO_WORLD:
        if world_of(s, id).known and take_cpu(s, id, mask) == NO_CPU:
            return False
        id = s.siblings[id]
    return True


cdef bint assign(
    sched_t *s, uint32_t vm, uint32_t cpu, int64_t passed, uint32_t *chosen
) noexcept nogil:
    """A CPU for each world of a gang: a free one, `cpu` among them, or one to be taken.

    To be taken are those whose world has more virtual time than the gang.
    """
    cdef uint64_t free[MASK_WORDS]
    cdef uint64_t taken[MASK_WORDS]
    cdef uint32_t other, id = s.vms[vm].first, count = 0
    memset(free, 0, sizeof(free))
    memset(taken, 0, sizeof(taken))
    for other in range(s.cpu_count):
        if other == cpu or (s.cpus[other].running == NO_WORLD
                            and cpu_of(s, other).reserved == NOWHERE):
            free[other >> 6] |= <uint64_t>1 << (other & 63)
        elif (cpu_of(s, other).reserved == NOWHERE
              and runs_with(s, s.cpus[other].running) > passed):
            taken[other >> 6] |= <uint64_t>1 << (other & 63)
    while id != NO_WORLD:
        if s.worlds[id].state == COSTOP:
            if count == MOST_CPUS:
                return False
            chosen[count] = take_cpu(s, id, free)
            if chosen[count] == NO_CPU:
                chosen[count] = take_cpu(s, id, taken)
                if chosen[count] == NO_CPU:
                    return False
            count += 1
        id = s.siblings[id]
    return True


cdef void join_gang(sched_t *s, uint32_t vm) noexcept nogil:
    """The VM waits to start all at once."""
    cdef esx_t *e = host_of(s)
    cdef esx_vm_t *v = vm_of(s, vm)
    if v.gang:
        return
    v.gang = True
    v.last_gang, v.next_gang = NO_WORLD, e.gangs
    if e.gangs != NO_WORLD:
        vm_of(s, e.gangs).last_gang = vm
    e.gangs = vm


cdef void leave_gang(sched_t *s, uint32_t vm) noexcept nogil:
    """It does not wait for that any more."""
    cdef esx_vm_t *v = vm_of(s, vm)
    if not v.gang:
        return
    v.gang = False
    if v.next_gang != NO_WORLD:
        vm_of(s, v.next_gang).last_gang = v.last_gang
    if v.last_gang != NO_WORLD:
        vm_of(s, v.last_gang).next_gang = v.next_gang
    else:
        host_of(s).gangs = v.next_gang


cdef int64_t gang_time(sched_t *s, uint32_t vm, uint32_t *count) noexcept nogil:
    """Mean virtual time of the worlds of a VM that are stopped, and their number."""
    cdef int64_t sum = 0, rest = 0
    cdef uint32_t id = s.vms[vm].first, n = 0
    while id != NO_WORLD:
        n += s.worlds[id].state == COSTOP
        id = s.siblings[id]
    count[0] = n
    if n == 0:
        return 0
    # without overflow of the sum; virtual times are not negative
    id = s.vms[vm].first
    while id != NO_WORLD:
        if s.worlds[id].state == COSTOP:
            sum += world_of(s, id).vt // n
            rest += world_of(s, id).vt % n
        id = s.siblings[id]
    return sum + rest // n


cdef uint32_t next_gang(sched_t *s, int64_t *passed, uint32_t *vm, int64_t below) noexcept nogil:
    """The gang that comes after (`passed`, `vm`) by virtual time and number, or NO_WORLD."""
    cdef int64_t least = below, mine
    cdef uint32_t best = NO_WORLD, next = host_of(s).gangs, i, count
    while next != NO_WORLD:
        i, next = next, vm_of(s, next).next_gang
        if is_spent(s, i):
            continue
        mine = gang_time(s, i, &count)
        if count == 0:
            leave_gang(s, i)
        elif (mine < least or (mine == least and best != NO_WORLD and i < best)) and (
                vm[0] == NO_WORLD or mine > passed[0] or (mine == passed[0] and i > vm[0])):
            best, least = i, mine
    passed[0], vm[0] = least, best
    return best


cdef uint32_t start_gang(sched_t *s, uint32_t cpu, int64_t below) noexcept nogil:
    """Start the first gang with less virtual time than `below` that finds CPUs.

    Gives the world of it that the CPU is to run, or NO_WORLD if it got others: then a gang after
    it may start as well.
    """
    cdef uint32_t chosen[MOST_CPUS]
    cdef uint32_t vm = NO_WORLD, id, at, mine = NO_WORLD
    cdef int64_t passed = 0
    if host_of(s).gangs == NO_WORLD:
        return NO_WORLD
    while mine == NO_WORLD and next_gang(s, &passed, &vm, below) != NO_WORLD:
        if not assign(s, vm, cpu, passed, chosen):
            continue
        level_progress(s, vm)
        leave_gang(s, vm)
        host_of(s).starting = True
        at = 0
        id = s.vms[vm].first
        while id != NO_WORLD:
            if s.worlds[id].state == COSTOP:
                costart(s, id)
                if chosen[at] == cpu:
                    mine = id
                else:
                    cpu_of(s, chosen[at]).reserved = id
                    world_of(s, id).queue = chosen[at]
                    host_of(s).active += 1
                    ask(s, chosen[at])
                at += 1
            id = s.siblings[id]
        host_of(s).starting = False
    return mine


cdef void ask_idle(sched_t *s) noexcept nogil:
    """Let an idle CPU see whether a gang can start: the lowest."""
    cdef uint32_t cpu
    if host_of(s).cosched != COSCHED_STRICT or not s.idle_count:
        return
    for cpu in range(s.cpu_count):
        if is_idle(s, cpu):
            ask(s, cpu)
            return
