"""Co-scheduling, strict and relaxed.

Relaxed (since ESX 3, and with skew counted from the slowest sibling since ESX 4): a vCPU whose skew
reaches the one threshold is stopped alone, and starts again when its skew has fallen to the other.

Strict (ESX 2): when a vCPU that would run and does not is so far behind the furthest that runs, all
that would run stop; they start again all at once, when there is a CPU for each. Their progress is
equal then.

As long as it is sure that no vCPU which runs can come to a threshold before it is picked again, a
VM is not looked at (`watch`).
"""

from libc.stdint cimport INT64_MAX, INT64_MIN, uint32_t

from pyvirt._core.sched.plug cimport costart, costop
from pyvirt._core.sched.policies.esx_alarm cimport set_alarm
from pyvirt._core.sched.policies.esx_gang cimport join_gang
from pyvirt._core.sched.policies.esx_progress cimport (
    least_progress,
    progress_of,
    sync_progress,
)
from pyvirt._core.sched.policies.esx_queue cimport drop, put, take
from pyvirt._core.sched.policies.esx_state cimport (
    COSCHED_RELAXED,
    COSCHED_STRICT,
    IDLE,
    NOWHERE,
    RUNNING,
    STALLED,
    esx_t,
    esx_vm_t,
    esx_world_t,
    host_of,
    is_together,
    vm_of,
    world_of,
)
from pyvirt._core.sched.state cimport COSTOP, LIMITED, NEVER, NO_WORLD, READY, RUN, sched_t
from pyvirt._core.types cimport ns_t


cdef bint has_stopped(sched_t *s, uint32_t vm) noexcept nogil:
    """Whether a world of the VM is co-stopped."""
    cdef uint32_t id = s.vms[vm].first
    while id != NO_WORLD:
        if s.worlds[id].state == COSTOP:
            return True
        id = s.siblings[id]
    return False


# --- when a threshold is crossed ---


ctypedef struct survey_t:           # of the progress of a VM's worlds
    ns_t still                      # least of those that would run and do not
    ns_t moving                     # least of those that run or are halted
    ns_t furthest                   # most of those that run
    ns_t nearest                    # least of those that are co-stopped
    ns_t most                       # of those that run, are ready or parked
    bint laggards                   # there are some


cdef inline void survey(sched_t *s, uint32_t vm, survey_t *found) noexcept nogil:
    cdef uint32_t id = s.vms[vm].first
    cdef esx_world_t *w
    cdef ns_t progress
    found.still = found.moving = found.nearest = INT64_MAX
    found.furthest = found.most = INT64_MIN
    found.laggards = False
    while id != NO_WORLD:
        w = world_of(s, id)
        if w.known:
            progress = progress_of(s, id)
            if w.pace == STALLED:
                if progress < found.still:
                    found.still = progress
            elif progress < found.moving:
                found.moving = progress
            if w.pace == RUNNING and progress > found.furthest:
                found.furthest = progress
            if w.pace == STALLED and s.worlds[id].state == COSTOP:
                if progress < found.nearest:
                    found.nearest = progress
            elif w.pace != IDLE and progress > found.most:
                found.most = progress
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
    """Set when the VM is looked at next."""
    cdef survey_t found
    survey(s, vm, &found)
    set_due(s, vm, &found)


cdef void watch_start(sched_t *s, uint32_t vm, uint32_t id) noexcept nogil:
    """A world of the VM begins to run, and it is not sure that it stays near the others."""
    cdef esx_vm_t *v = vm_of(s, vm)
    if not v.watch:
        v.floor = least_progress(s, vm)
        if stays_near(s, v, id):
            return
        v.watch = True
    look_later(s, vm)


cdef void look_now(sched_t *s, uint32_t vm) noexcept nogil:
    """Let the policy's timer look at the VM at this moment, when the engine is done with it."""
    cdef esx_vm_t *v = vm_of(s, vm)
    v.blocked = True
    if is_together(s, vm) and not v.busy:
        v.watch = True
        v.due = s.now
        set_alarm(s, vm)


# --- what is done then ---


cdef void mark_laggards(sched_t *s, uint32_t vm) noexcept nogil:
    """Who waits for a CPU and holds a sibling back goes somewhat before its turn."""
    cdef esx_t *e = host_of(s)
    cdef ns_t ahead = INT64_MIN
    cdef uint32_t id = s.vms[vm].first, cpu
    cdef esx_world_t *w
    cdef bint laggard
    while id != NO_WORLD:
        if s.worlds[id].state == COSTOP and progress_of(s, id) > ahead:
            ahead = progress_of(s, id)
        id = s.siblings[id]
    id = s.vms[vm].first
    while id != NO_WORLD:
        w = world_of(s, id)
        if w.queue != NOWHERE:
            laggard = ahead != INT64_MIN and ahead - progress_of(s, id) > e.skew_start
            if laggard != w.laggard:
                cpu = w.queue
                take(s, id)
                w.laggard = laggard
                put(s, id, cpu)
        id = s.siblings[id]


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
        if s.worlds[id].state == COSTOP and progress_of(s, id) - least <= e.skew_start:
            costart(s, id)
        id = s.siblings[id]
    id = s.vms[vm].first
    while id != NO_WORLD:
        if ((s.worlds[id].state == RUN or s.worlds[id].state == READY)
                and progress_of(s, id) - least >= e.skew_stop):
            stop_one(s, id)
        id = s.siblings[id]
    mark_laggards(s, vm)


cdef void keep_strict(sched_t *s, uint32_t vm) noexcept nogil:
    cdef ns_t still = INT64_MAX, furthest = INT64_MIN
    cdef uint32_t id = s.vms[vm].first
    cdef esx_world_t *w
    while id != NO_WORLD:
        w = world_of(s, id)
        if w.pace == RUNNING and progress_of(s, id) > furthest:
            furthest = progress_of(s, id)
        if w.known and w.pace == STALLED and progress_of(s, id) < still:
            still = progress_of(s, id)
        id = s.siblings[id]
    if (still == INT64_MAX or furthest == INT64_MIN or not vm_of(s, vm).fits
            or furthest - still < host_of(s).skew_stop):
        return
    join_gang(s, vm)
    id = s.vms[vm].first
    while id != NO_WORLD:
        if s.worlds[id].state == RUN or s.worlds[id].state == READY:
            stop_one(s, id)
        id = s.siblings[id]


cdef void keep_together(sched_t *s, uint32_t vm) noexcept nogil:
    """Stop who is too far ahead, start who is no longer, and say when to look again."""
    cdef esx_t *e = host_of(s)
    cdef esx_vm_t *v = vm_of(s, vm)
    cdef survey_t found
    if e.cosched < COSCHED_STRICT or v.busy:
        return
    if v.worlds < 2 and not has_stopped(s, vm):
        v.due = NEVER
        set_alarm(s, vm)
        return
    sync_progress(s, vm)
    survey(s, vm, &found)
    v.floor = found.still if found.still < found.moving else found.moving
    if (found.nearest == INT64_MAX and not found.laggards
            and (found.most == INT64_MIN or found.most - v.floor < e.skew_stop)):
        # the usual case: all are together, and perhaps remain so
        v.watch = (found.furthest != INT64_MIN
                   and found.furthest + e.quantum - v.floor >= e.skew_stop)
        if not v.watch:
            found.furthest = INT64_MIN
        set_due(s, vm, &found)
        return
    v.watch = v.busy = True
    if e.cosched == COSCHED_RELAXED:
        keep_relaxed(s, vm)
    else:
        keep_strict(s, vm)
    v.busy = False
    look_later(s, vm)
