# Home nodes of the VMs of the ESX policy, and queues that are evened out from time to time.

from libc.stdint cimport uint32_t

from pyvirt._core.sched.state cimport sched_t

cdef void begin_homes(sched_t *s) noexcept nogil
cdef void give_home(sched_t *s, uint32_t id) noexcept nogil
cdef bint goes_home(sched_t *s, uint32_t id) noexcept nogil
cdef void change_home(sched_t *s, uint32_t vm) noexcept nogil
cdef void leave_home(sched_t *s, uint32_t id) noexcept nogil
cdef void tend_homes(sched_t *s) noexcept nogil
