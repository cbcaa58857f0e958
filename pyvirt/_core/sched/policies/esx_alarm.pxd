# When the ESX policy must look at what: the first alarm of all VMs, in a tree over their numbers.

from libc.stdint cimport uint32_t

from pyvirt._core.sched.policies.esx_state cimport bucket_end, esx_t, esx_vm_t, host_of, vm_of
from pyvirt._core.sched.state cimport NEVER, sched_t
from pyvirt._core.types cimport ns_t

cdef void build_alarms(sched_t *s) noexcept nogil
cdef uint32_t lowest_alarm(sched_t *s) noexcept nogil


cdef inline ns_t alarm_at(const char *vms, size_t size, uint32_t n, uint32_t i) noexcept nogil:
    """Node i of a tree with n leaves: the leaves follow the nodes, in the records of the VMs."""
    if i >= n:
        return (<const esx_vm_t *>(vms + (i - n) * size)).alarm
    return (<const esx_vm_t *>(vms + i * size)).node


cdef inline ns_t first_alarm(sched_t *s) noexcept nogil:
    if host_of(s).leaves != s.vm_count:
        build_alarms(s)
    return alarm_at(s.plug.vms, s.plug.vm_size, s.vm_count, 1) if s.vm_count else NEVER


cdef inline void set_timer(sched_t *s) noexcept nogil:
    """The policy's timer: the first of all that it has to see to."""
    cdef esx_t *e = host_of(s)
    cdef ns_t when = first_alarm(s)
    if e.next_solve < when:
        when = e.next_solve
    if e.next_refill < when:
        when = e.next_refill
    if e.pool_alarm < when:
        when = e.pool_alarm
    if e.next_home < when:
        when = e.next_home
    s.plug.timer = when


cdef inline void set_alarm(sched_t *s, uint32_t vm) noexcept nogil:
    """After a VM's due time or what runs under its limit changed: the tree and the timer."""
    cdef esx_vm_t *v = vm_of(s, vm)
    cdef ns_t when = bucket_end(&v.bucket, host_of(s).quantum), other
    cdef uint32_t n = s.vm_count, i = n + vm
    cdef char *vms = s.plug.vms
    cdef size_t size = s.plug.vm_size
    if v.due < when:
        when = v.due
    if when == v.alarm:
        return
    v.alarm = when
    if host_of(s).leaves != n:
        build_alarms(s)
    else:
        while i > 1:
            other = alarm_at(vms, size, n, i ^ 1)
            when = other if other < when else when
            i >>= 1
            v = <esx_vm_t *>(vms + i * size)
            if v.node == when:
                return
            v.node = when
    set_timer(s)
