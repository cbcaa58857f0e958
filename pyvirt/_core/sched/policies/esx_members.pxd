# Hooks of the ESX policy: worlds and VMs come, go, and get other parameters.

from libc.stdint cimport uint32_t

from pyvirt._core.sched.state cimport sched_t

cdef void add(sched_t *s, uint32_t id) noexcept nogil
cdef void remove(sched_t *s, uint32_t id) noexcept nogil
cdef void change(sched_t *s, uint32_t id) noexcept nogil
