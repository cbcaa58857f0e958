"""Progress of the vCPUs of a VM: that of the halted ones, and comparisons."""

from libc.stdint cimport INT64_MAX, INT64_MIN, uint32_t

from pyvirt._core.sched.policies.esx_state cimport (
    IDLE,
    STALLED,
    esx_vm_t,
    esx_world_t,
    vm_of,
    world_of,
)
from pyvirt._core.sched.state cimport NO_WORLD, WAIT, sched_t
from pyvirt._core.types cimport ns_t


cdef void sync_progress(sched_t *s, uint32_t vm) noexcept nogil:
    """Let the progress of a VM's halted worlds be what it is now, before who would run changes."""
    cdef esx_vm_t *v = vm_of(s, vm)
    cdef ns_t dt = s.now - v.since, lead = INT64_MIN, idle, most, progress
    cdef uint32_t id = s.vms[vm].first
    cdef esx_world_t *w
    cdef bint some = False, blocked = v.blocked
    v.since = s.now
    if not blocked and (dt == 0 or not v.idles):
        return
    v.blocked = False
    while id != NO_WORLD:
        w = world_of(s, id)
        if w.known:
            if w.pace == IDLE or (blocked and w.pace == STALLED and s.worlds[id].state == WAIT):
                some = True
            if w.pace != IDLE:
                progress = progress_of(s, id)
                if progress > lead:
                    lead = progress
        id = s.siblings[id]
    v.idles = some
    if not some:
        return
    id = s.vms[vm].first
    while id != NO_WORLD:
        w = world_of(s, id)
        idle = dt
        if w.pace == STALLED and s.worlds[id].state == WAIT:
            # it was blocked from outside, where it was parked or co-stopped
            if s.now - s.worlds[id].since < dt:
                idle = s.now - s.worlds[id].since
            w.pace = IDLE
        if w.known and w.pace == IDLE:
            progress = progress_of(s, id)
            most = progress + idle
            if lead != INT64_MIN and lead < most:
                most = lead if lead > progress else progress
            w.offset += most - progress
        id = s.siblings[id]


cdef ns_t least_progress(sched_t *s, uint32_t vm) noexcept nogil:
    """Of all worlds of a VM, whose halted ones were synced."""
    cdef ns_t least = INT64_MAX, progress
    cdef uint32_t id = s.vms[vm].first
    while id != NO_WORLD:
        if world_of(s, id).known:
            progress = progress_of(s, id)
            if progress < least:
                least = progress
        id = s.siblings[id]
    return least


cdef ns_t skew_of(sched_t *s, uint32_t id) noexcept nogil:
    """What a world is ahead of the slowest of its VM."""
    return progress_of(s, id) - least_progress(s, s.worlds[id].vm)


cdef void level_progress(sched_t *s, uint32_t vm) noexcept nogil:
    """All worlds of a VM are as far as the furthest."""
    cdef ns_t most = INT64_MIN, progress
    cdef uint32_t id = s.vms[vm].first
    sync_progress(s, vm)
    while id != NO_WORLD:
        if world_of(s, id).known:
            progress = progress_of(s, id)
            if progress > most:
                most = progress
        id = s.siblings[id]
    id = s.vms[vm].first
    while id != NO_WORLD:
        world_of(s, id).offset += most - progress_of(s, id)
        id = s.siblings[id]
