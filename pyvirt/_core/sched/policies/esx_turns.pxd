# Hooks of the ESX policy: who waits, who runs.

from libc.stdint cimport uint8_t, uint32_t

from pyvirt._core.sched.cosched cimport stays_near, watch_start
from pyvirt._core.sched.policies.esx_limit cimport count_running
from pyvirt._core.sched.policies.esx_progress cimport sync_progress
from pyvirt._core.sched.policies.esx_state cimport (
    COSCHED_STRICT,
    IDLE,
    RUNNING,
    STALLED,
    esx_t,
    esx_vm_t,
    esx_world_t,
    host_of,
    vm_of,
)
from pyvirt._core.sched.state cimport sched_t
from pyvirt._core.types cimport ns_t

cdef void enqueue(sched_t *s, uint32_t id, uint32_t why) noexcept nogil
cdef void dequeue(sched_t *s, uint32_t id) noexcept nogil
cdef void charge(sched_t *s, uint32_t id, ns_t dt) noexcept nogil
cdef void stopped(sched_t *s, uint32_t id, uint32_t why) noexcept nogil
cdef uint32_t pick(sched_t *s, uint32_t cpu) noexcept nogil
cdef ns_t timeslice(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil


cdef inline void leave(
    sched_t *s, esx_world_t *w, uint32_t vm, esx_vm_t *v, uint8_t pace
) noexcept nogil:
    """A world no longer runs."""
    cdef esx_t *e = host_of(s)
    e.active -= 1
    if not w.plain:
        if (pace == IDLE or v.idles or v.blocked) and v.worlds > 1 and e.cosched >= COSCHED_STRICT:
            sync_progress(s, vm)
            v.idles |= pace == IDLE
        count_running(s, vm, v, -1)
    w.pace = pace


cdef inline void start(sched_t *s, uint32_t id, esx_world_t *w) noexcept nogil:
    """A world begins to run."""
    cdef esx_t *e = host_of(s)
    cdef uint32_t vm
    cdef esx_vm_t *v
    e.active += 1
    w.pace = RUNNING
    if w.plain:
        return
    vm = s.worlds[id].vm
    v = vm_of(s, vm)
    w.laggard = False
    if v.worlds < 2 or e.cosched < COSCHED_STRICT:
        count_running(s, vm, v, 1)
        return
    if v.idles or v.blocked:
        w.pace = STALLED            # up to now
        sync_progress(s, vm)
        w.pace = RUNNING
    count_running(s, vm, v, 1)
    if v.watch or not stays_near(s, v, id):
        watch_start(s, vm, id)
