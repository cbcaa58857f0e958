# Long stretches of the ESX policy in which nothing but ends of timeslices happens.

from libc.stdint cimport uint64_t

from pyvirt._core.sched.state cimport sched_t
from pyvirt._core.types cimport ns_t

cdef uint64_t run(sched_t *s, ns_t until, uint64_t most) noexcept nogil
