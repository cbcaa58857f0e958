# Co-scheduling: keeping the vCPUs of a VM together in time.

from libc.stdint cimport uint32_t

from pyvirt._core.sched.policies.esx_progress cimport progress_of
from pyvirt._core.sched.policies.esx_state cimport esx_vm_t, host_of
from pyvirt._core.sched.state cimport sched_t

cdef bint has_stopped(sched_t *s, uint32_t vm) noexcept nogil
cdef void keep_together(sched_t *s, uint32_t vm) noexcept nogil
cdef void look_later(sched_t *s, uint32_t vm) noexcept nogil
cdef void look_now(sched_t *s, uint32_t vm) noexcept nogil
cdef void watch_start(sched_t *s, uint32_t vm, uint32_t id) noexcept nogil


cdef inline bint stays_near(sched_t *s, const esx_vm_t *v, uint32_t id) noexcept nogil:
    """Whether a world, if it runs for a quantum, comes to no threshold: no sibling goes back."""
    return progress_of(s, id) + host_of(s).quantum - v.floor < host_of(s).skew_stop
