# Barriers and locks between the worlds of a team, such as the vCPUs of a virtual machine. Who waits
# spins, which burns its CPU's time, or sleeps, or the one and then the other.

from libc.stdint cimport uint32_t

from pyvirt._core.sched.state cimport sched_t
from pyvirt._core.sched.work cimport work_t
from pyvirt._core.types cimport ns_t

cdef enum spin_t:
    SPIN_ON = 0
    SPIN_SLEEP = 1                  # it has spun long enough
    SPIN_YIELD = 2                  # the host noticed that it spins

cdef void join_team(sched_t *s, uint32_t id, uint32_t team) noexcept nogil
cdef void leave_team(sched_t *s, uint32_t id, ns_t now) noexcept nogil
cdef void begin_round(sched_t *s, uint32_t id, ns_t now) noexcept nogil
cdef bint end_of_phase(sched_t *s, uint32_t id, ns_t now) noexcept nogil
cdef spin_t end_of_spin(sched_t *s, work_t *k) noexcept nogil
cdef ns_t next_change(sched_t *s, uint32_t id, ns_t now) noexcept nogil
