# Balancing of credit2's run queues.

from libc.stdint cimport uint32_t

from pyvirt._core.sched.state cimport sched_t

cdef void balance(sched_t *s, uint32_t queue, uint32_t chosen) noexcept nogil
