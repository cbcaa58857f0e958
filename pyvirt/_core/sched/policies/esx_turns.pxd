# Hooks of the ESX policy: who waits, who runs.

from libc.stdint cimport uint8_t, uint32_t

from pyvirt._core.sched.cosched cimport stays_near, watch_start
from pyvirt._core.sched.policies.esx_limit cimport count_running
from pyvirt._core.sched.policies.esx_progress cimport sync_progress
from pyvirt._core.sched.policies.esx_state cimport (
    IDLE,
    RUNNING,
    STALLED,
    esx_vm_t,
    esx_world_t,
    host_of,
    is_together,
    vm_of,
    world_of,
)
from pyvirt._core.sched.state cimport sched_t
from pyvirt._core.types cimport ns_t

cdef void enqueue(sched_t *s, uint32_t id, uint32_t why) noexcept nogil
cdef void dequeue(sched_t *s, uint32_t id) noexcept nogil
cdef void charge(sched_t *s, uint32_t id, ns_t dt) noexcept nogil
cdef void stopped(sched_t *s, uint32_t id, uint32_t why) noexcept nogil
cdef uint32_t pick(sched_t *s, uint32_t cpu) noexcept nogil
cdef ns_t timeslice(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil


cdef inline void leave(sched_t *s, uint32_t id, uint8_t pace) noexcept nogil:
    """A world no longer runs."""
    cdef uint32_t vm = s.worlds[id].vm
    cdef esx_vm_t *v
    host_of(s).active -= 1
    if not world_of(s, id).plain:
        v = vm_of(s, vm)
        if is_together(s, vm) and (pace == IDLE or v.idles or v.blocked):
            sync_progress(s, vm)
            v.idles |= pace == IDLE
        count_running(s, vm, -1)
    world_of(s, id).pace = pace


cdef inline void start(sched_t *s, uint32_t id) noexcept nogil:
    """A world begins to run."""
    cdef esx_world_t *w = world_of(s, id)
    cdef uint32_t vm
    cdef esx_vm_t *v
    w.pace = RUNNING
    host_of(s).active += 1
    if w.plain:
        return
    vm = s.worlds[id].vm
    v = vm_of(s, vm)
    w.laggard = False
    if not is_together(s, vm):
        count_running(s, vm, 1)
        return
    if v.idles or v.blocked:
        w.pace = STALLED            # up to now
        sync_progress(s, vm)
        w.pace = RUNNING
    count_running(s, vm, 1)
    if v.watch or not stays_near(s, v, id):
        watch_start(s, vm, id)
