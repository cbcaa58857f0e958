# Leaping over what repeats itself.

from libc.stdint cimport uint64_t

from pyvirt._core.sched.state cimport sched_t
from pyvirt._core.types cimport ns_t

cdef uint64_t run_forward(sched_t *s, ns_t until, uint64_t most) noexcept nogil
