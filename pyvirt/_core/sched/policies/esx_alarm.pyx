"""The tree of alarms: made anew when there are more VMs, and searched for who is due."""

from libc.stdint cimport uint32_t

from pyvirt._core.sched.policies.esx_state cimport host_of, vm_of
from pyvirt._core.sched.state cimport sched_t
from pyvirt._core.types cimport ns_t


cdef void build_alarms(sched_t *s) noexcept nogil:
    cdef uint32_t n = s.vm_count, i
    cdef size_t size = s.plug.vm_size
    cdef char *vms = s.plug.vms
    cdef ns_t left, right
    host_of(s).leaves = n
    for i in range(n - 1 if n else 0, 0, -1):
        left, right = alarm_at(vms, size, n, 2 * i), alarm_at(vms, size, n, 2 * i + 1)
        vm_of(s, i).node = left if left < right else right


cdef uint32_t lowest(
    const char *vms, size_t size, uint32_t n, uint32_t i, ns_t when
) noexcept nogil:
    """The lowest VM below a node whose alarm is at `when`, the least of the node."""
    cdef uint32_t left, right
    while i < n:
        if alarm_at(vms, size, n, 2 * i) != when:
            i = 2 * i + 1
        elif alarm_at(vms, size, n, 2 * i + 1) != when:
            i = 2 * i
        else:
            left = lowest(vms, size, n, 2 * i, when)
            right = lowest(vms, size, n, 2 * i + 1, when)
            return left if left < right else right
    return i - n


cdef uint32_t lowest_alarm(sched_t *s) noexcept nogil:
    """The VM with the first alarm, of several the lowest; there is one at least."""
    return lowest(s.plug.vms, s.plug.vm_size, s.vm_count, 1, first_alarm(s))
