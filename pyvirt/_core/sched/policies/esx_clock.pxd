# Hooks of the ESX policy: its beginning, and its timer.

from pyvirt._core.sched.state cimport sched_t

cdef void begin(sched_t *s) noexcept nogil
cdef void tend_refill(sched_t *s) noexcept nogil
cdef void timed(sched_t *s) noexcept nogil
