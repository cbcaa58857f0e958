# Limits of VMs and pools.

from libc.stdint cimport int64_t, uint32_t

from pyvirt._core.sched.policies.esx_alarm cimport set_alarm
from pyvirt._core.sched.policies.esx_state cimport (
    bucket_t,
    ends_soon,
    esx_vm_t,
    host_of,
    pools_of,
)
from pyvirt._core.sched.state cimport NEVER, sched_t
from pyvirt._core.types cimport ns_t

cdef ns_t quota_of(sched_t *s, int64_t limit) noexcept nogil
cdef void find_pool_alarm(sched_t *s) noexcept nogil
cdef void count_in_pools(sched_t *s, uint32_t pool, int by) noexcept nogil
cdef bint is_spent(sched_t *s, uint32_t vm) noexcept nogil
cdef void park_spent(sched_t *s, uint32_t vm) noexcept nogil
cdef void unpark_rest(sched_t *s) noexcept nogil
cdef void refill(sched_t *s) noexcept nogil
cdef void end_pool_limits(sched_t *s) noexcept nogil
cdef void end_limit(sched_t *s, uint32_t vm) noexcept nogil
cdef void change_limit(sched_t *s, uint32_t vm) noexcept nogil
cdef void change_pool(sched_t *s, uint32_t vm, uint32_t pool) noexcept nogil


cdef inline void advance(bucket_t *b, ns_t now) noexcept nogil:
    """Count what was used up to now."""
    b.used += b.running * (now - b.since)
    b.since = now


cdef inline void restart(bucket_t *b, ns_t now) noexcept nogil:
    advance(b, now)
    b.used = 0
    b.spent = False


cdef inline void count_running(sched_t *s, uint32_t vm, esx_vm_t *v, int by) noexcept nogil:
    """So many worlds more, or less, run under the limits of a VM and of the pools above it."""
    if not v.limited:
        return
    advance(&v.bucket, s.now)
    v.bucket.running += <uint32_t>by
    if v.alarm != NEVER or ends_soon(&v.bucket, host_of(s).quantum):
        set_alarm(s, vm)
    if pools_of(s)[v.pool].limited:
        count_in_pools(s, v.pool, by)
