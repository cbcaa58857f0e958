# Hooks of the ESX policy: worlds and VMs come, go, and get other parameters.

from libc.stdint cimport int64_t, uint32_t

from pyvirt._core.sched.state cimport sched_t

cdef void add(sched_t *s, uint32_t id) noexcept nogil
cdef void remove(sched_t *s, uint32_t id) noexcept nogil
cdef void change(sched_t *s, uint32_t id) noexcept nogil

# Not a hook: called as one, between events.
cdef void change_bounds(
    sched_t *s, uint32_t pool, double shares, int64_t reservation, int64_t limit
) noexcept nogil
