# Limits of VMs and pools.

from libc.stdint cimport int64_t, uint32_t

from pyvirt._core.sched.policies.esx_state cimport bucket_t
from pyvirt._core.sched.state cimport sched_t
from pyvirt._core.types cimport ns_t

cdef ns_t quota_of(sched_t *s, int64_t limit) noexcept nogil
cdef void find_pool_alarm(sched_t *s) noexcept nogil
cdef void count_running(sched_t *s, uint32_t vm, int by) noexcept nogil
cdef bint is_spent(sched_t *s, uint32_t vm) noexcept nogil
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
