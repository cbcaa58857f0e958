"""Co-scheduling, strict and relaxed.

Relaxed (since ESX 3, and with skew counted from the slowest sibling since ESX 4): a vCPU whose skew
reaches the one threshold is stopped alone, and starts again when its skew has fallen to the other.

Strict (ESX 2): when a vCPU that would run and does not is so far behind the furthest that runs, all
that would run stop; they start again all at once, when there is a CPU for each. Their progress is
equal then.
"""

from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint32_t, uint64_t
from libc.string cimport memset

from pyvirt._core.sched.hooks cimport allowed
from pyvirt._core.sched.plug cimport ask, costart, costop
from pyvirt._core.sched.policies.esx_alarm cimport set_alarm
from pyvirt._core.sched.policies.esx_limit cimport is_spent
from pyvirt._core.sched.policies.esx_queue cimport drop, is_idle, put, runs_with, take
from pyvirt._core.sched.policies.esx_state cimport (
    COSCHED_RELAXED,
    COSCHED_STRICT,
    IDLE,
    NOWHERE,
    RUNNING,
    STALLED,
    cpu_of,
    esx_t,
    esx_vm_t,
    esx_world_t,
    host_of,
    is_together,
    vm_of,
    world_of,
)
from pyvirt._core.sched.state cimport (
    COSTOP,
    LIMITED,
    MASK_WORDS,
    MOST_CPUS,
    NEVER,
    NO_CPU,
    NO_WORLD,
    READY,
    RUN,
    WAIT,
    sched_t,
)
from pyvirt._core.types cimport ns_t


# --- progress ---


cdef void sync_progress(sched_t *s, uint32_t vm) noexcept nogil:
    """Let the progress of a VM's worlds be what it is now."""
    cdef esx_vm_t *v = vm_of(s, vm)
    cdef ns_t dt = s.now - v.since, lead = INT64_MIN, idle, most
    cdef uint32_t id = s.vms[vm].first
    cdef esx_world_t *w
    cdef bint some = False
    if dt == 0 and not v.blocked:
        return
    v.blocked = False
    while id != NO_WORLD:
        w = world_of(s, id)
        if w.known:
            if w.pace == RUNNING:
                w.progress += dt
            if w.pace == IDLE or (w.pace == STALLED and s.worlds[id].state == WAIT):
                some = True
            elif w.progress > lead:
                lead = w.progress
        id = s.siblings[id]
    if some:
        id = s.vms[vm].first
        while id != NO_WORLD:
            w = world_of(s, id)
            idle = dt
            if w.pace == STALLED and s.worlds[id].state == WAIT:
                # it was blocked from outside, where it was parked or co-stopped
                if s.worlds[id].since > v.since:
                    idle = s.now - s.worlds[id].since
                w.pace = IDLE
            if w.known and w.pace == IDLE:
                most = w.progress + idle
                if lead != INT64_MIN and lead < most:
                    most = lead if lead > w.progress else w.progress
                w.progress = most
            id = s.siblings[id]
    v.since = s.now


cdef ns_t least_progress(sched_t *s, uint32_t vm) noexcept nogil:
    cdef ns_t least = INT64_MAX
    cdef uint32_t id = s.vms[vm].first
    while id != NO_WORLD:
        if world_of(s, id).known and world_of(s, id).progress < least:
            least = world_of(s, id).progress
        id = s.siblings[id]
    return least


cdef ns_t skew_of(sched_t *s, uint32_t id) noexcept nogil:
    """What a world is ahead of the slowest of its VM, whose progress is that of now."""
    return world_of(s, id).progress - least_progress(s, s.worlds[id].vm)


cdef bint has_stopped(sched_t *s, uint32_t vm) noexcept nogil:
    """Whether a world of the VM is co-stopped."""
    cdef uint32_t id = s.vms[vm].first
    while id != NO_WORLD:
        if s.worlds[id].state == COSTOP:
            return True
        id = s.siblings[id]
    return False


# --- thresholds ---


cdef void mark_laggards(sched_t *s, uint32_t vm) noexcept nogil:
    """Who waits for a CPU and holds a sibling back goes somewhat before its turn."""
    cdef esx_t *e = host_of(s)
    cdef ns_t ahead = INT64_MIN
    cdef uint32_t id = s.vms[vm].first, cpu
    cdef esx_world_t *w
    cdef bint laggard
    while id != NO_WORLD:
        if s.worlds[id].state == COSTOP and world_of(s, id).progress > ahead:
            ahead = world_of(s, id).progress
        id = s.siblings[id]
    id = s.vms[vm].first
    while id != NO_WORLD:
        w = world_of(s, id)
        if w.queue != NOWHERE:
            laggard = ahead != INT64_MIN and ahead - w.progress > e.skew_start
            if laggard != w.laggard:
                cpu = w.queue
                take(s, id)
                w.laggard = laggard
                put(s, id, cpu)
        id = s.siblings[id]


ctypedef struct survey_t:           # of the progress of a VM's worlds
    ns_t still                      # least of those that would run and do not
    ns_t moving                     # least of those that run or are halted
    ns_t furthest                   # most of those that run
    ns_t nearest                    # least of those that are co-stopped
    ns_t most                       # of those that run or are ready
    bint laggards                   # there are some


cdef inline void survey(sched_t *s, uint32_t vm, survey_t *found) noexcept nogil:
    cdef uint32_t id = s.vms[vm].first
    cdef esx_world_t *w
    found.still = found.moving = found.nearest = INT64_MAX
    found.furthest = found.most = INT64_MIN
    found.laggards = False
    while id != NO_WORLD:
        w = world_of(s, id)
        if w.known:
            if w.pace == STALLED:
                if w.progress < found.still:
                    found.still = w.progress
            elif w.progress < found.moving:
                found.moving = w.progress
            if w.pace == RUNNING and w.progress > found.furthest:
                found.furthest = w.progress
            if s.worlds[id].state == COSTOP:
                if w.progress < found.nearest:
                    found.nearest = w.progress
            elif w.pace != IDLE and w.progress > found.most:
                found.most = w.progress
            found.laggards |= w.laggard
        id = s.siblings[id]


cdef inline void set_due(sched_t *s, uint32_t vm, const survey_t *now) noexcept nogil:
    """When a skew crosses a threshold, if who runs or is halted goes on and the rest stands."""
    cdef esx_t *e = host_of(s)
    cdef ns_t rest = NEVER, other
    if now.still != INT64_MAX and now.furthest != INT64_MIN and (
            e.cosched == COSCHED_RELAXED or vm_of(s, vm).fits):
        rest = e.skew_stop - (now.furthest - now.still)
    if (e.cosched == COSCHED_RELAXED and now.nearest != INT64_MAX and now.moving != INT64_MAX
            and now.nearest - now.still <= e.skew_start):
        other = now.nearest - now.moving - e.skew_start
        rest = other if other < rest else rest
    if rest < 0:
        rest = 0
    vm_of(s, vm).due = NEVER if rest == NEVER else s.now + rest
    set_alarm(s, vm)


cdef void look_later(sched_t *s, uint32_t vm) noexcept nogil:
    """Set when the VM, whose progress is that of now, is looked at next."""
    cdef survey_t found
    survey(s, vm, &found)
    set_due(s, vm, &found)


cdef void look_now(sched_t *s, uint32_t vm) noexcept nogil:
    """Let the policy's timer look at the VM at this moment, when the engine is done with it."""
    vm_of(s, vm).blocked = True
    if is_together(s, vm) and not vm_of(s, vm).busy:
        vm_of(s, vm).due = s.now
        set_alarm(s, vm)


cdef void stop_one(sched_t *s, uint32_t id) noexcept nogil:
    """Co-stop a world, unless its limit ends at this very moment: then that is what keeps it."""
    drop(s, id)
    costop(s, id)
    if s.worlds[id].state == LIMITED:
        costart(s, id)


cdef void keep_relaxed(sched_t *s, uint32_t vm) noexcept nogil:
    cdef esx_t *e = host_of(s)
    cdef ns_t least = least_progress(s, vm)
    cdef uint32_t id = s.vms[vm].first
    while id != NO_WORLD:
        if s.worlds[id].state == COSTOP and world_of(s, id).progress - least <= e.skew_start:
            costart(s, id)
        id = s.siblings[id]
    id = s.vms[vm].first
    while id != NO_WORLD:
        if ((s.worlds[id].state == RUN or s.worlds[id].state == READY)
                and world_of(s, id).progress - least >= e.skew_stop):
            stop_one(s, id)
        id = s.siblings[id]
    mark_laggards(s, vm)


cdef void keep_strict(sched_t *s, uint32_t vm) noexcept nogil:
    cdef ns_t still = INT64_MAX, furthest = INT64_MIN
    cdef uint32_t id = s.vms[vm].first
    cdef esx_world_t *w
    while id != NO_WORLD:
        w = world_of(s, id)
        if w.pace == RUNNING and w.progress > furthest:
            furthest = w.progress
        if w.known and w.pace == STALLED and w.progress < still:
            still = w.progress
        id = s.siblings[id]
    if (still == INT64_MAX or furthest == INT64_MIN or not vm_of(s, vm).fits
            or furthest - still < host_of(s).skew_stop):
        return
    vm_of(s, vm).gang = True
    id = s.vms[vm].first
    while id != NO_WORLD:
        if s.worlds[id].state == RUN or s.worlds[id].state == READY:
            stop_one(s, id)
        id = s.siblings[id]


cdef void keep_together(sched_t *s, uint32_t vm) noexcept nogil:
    """Stop who is too far ahead, start who is no longer, and say when to look again."""
    cdef esx_vm_t *v = vm_of(s, vm)
    cdef uint32_t cosched = host_of(s).cosched
    cdef survey_t found
    cdef ns_t least
    if cosched < COSCHED_STRICT or v.busy:
        return
    if v.worlds < 2 and not has_stopped(s, vm):
        v.due = NEVER
        set_alarm(s, vm)
        return
    sync_progress(s, vm)
    survey(s, vm, &found)
    least = found.still if found.still < found.moving else found.moving
    if (cosched == COSCHED_RELAXED and found.nearest == INT64_MAX and not found.laggards
            and (found.most == INT64_MIN or found.most - least < host_of(s).skew_stop)):
        set_due(s, vm, &found)      # the usual case: all are together
        return
    v.busy = True
    if cosched == COSCHED_RELAXED:
        keep_relaxed(s, vm)
    else:
        keep_strict(s, vm)
    v.busy = False
    look_later(s, vm)


# --- gangs ---


cdef uint32_t take_cpu(sched_t *s, uint32_t id, uint64_t *mask) noexcept nogil:
    """Take a CPU for a world out of a set: its last one, else the lowest; or NO_CPU."""
    cdef uint32_t cpu = s.worlds[id].cpu
    if cpu == NO_CPU or not mask[cpu >> 6] >> (cpu & 63) & 1 or not allowed(s, id, cpu):
        cpu = 0
        while cpu < s.cpu_count:
            if mask[cpu >> 6] >> (cpu & 63) & 1 and allowed(s, id, cpu):
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
    cdef uint32_t best = NO_WORLD, i, count
    for i in range(s.vm_count):
        if s.vms[i].worlds == 0 or not vm_of(s, i).gang or is_spent(s, i):
            continue
        mine = gang_time(s, i, &count)
        if count == 0:
            vm_of(s, i).gang = False
        elif mine < least and (
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
    while mine == NO_WORLD and next_gang(s, &passed, &vm, below) != NO_WORLD:
        if not assign(s, vm, cpu, passed, chosen):
            continue
        level_progress(s, vm)
        vm_of(s, vm).gang = False
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


cdef void level_progress(sched_t *s, uint32_t vm) noexcept nogil:
    """All worlds of a VM are as far as the furthest."""
    cdef ns_t most = INT64_MIN
    cdef uint32_t id = s.vms[vm].first
    sync_progress(s, vm)
    while id != NO_WORLD:
        if world_of(s, id).known and world_of(s, id).progress > most:
            most = world_of(s, id).progress
        id = s.siblings[id]
    id = s.vms[vm].first
    while id != NO_WORLD:
        world_of(s, id).progress = most
        id = s.siblings[id]


cdef void ask_idle(sched_t *s) noexcept nogil:
    """Let an idle CPU see whether a gang can start: the lowest."""
    cdef uint32_t cpu
    if host_of(s).cosched != COSCHED_STRICT or not s.idle_count:
        return
    for cpu in range(s.cpu_count):
        if is_idle(s, cpu):
            ask(s, cpu)
            return
