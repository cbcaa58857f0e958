# Entitlements of the VMs on a host.

from libc.stdint cimport uint32_t

from pyvirt._core.sched.policies.esx_state cimport esx_t, esx_vm_t, host_of, vm_of
from pyvirt._core.sched.state cimport sched_t

cdef bint solve_entitlements(sched_t *s) noexcept nogil


cdef inline void wants_change(sched_t *s, uint32_t vm) noexcept nogil:
    """A world of the VM may begin or cease to demand a CPU: it is counted when that is solved."""
    cdef esx_t *e = host_of(s)
    cdef esx_vm_t *v = vm_of(s, vm)
    if not v.counts and not e.anew:
        v.counts = True
        v.changed = e.changed
        e.changed = vm
