# Entitlements of the VMs on a host.

from pyvirt._core.sched.state cimport sched_t

cdef bint solve_entitlements(sched_t *s) noexcept nogil
