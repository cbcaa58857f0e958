# Round robin: first in, first out; who has used its slice goes to the end.

from libc.stdint cimport int64_t

from pyvirt._core.sched.state cimport sched_t, world_t


cdef inline void rr_queued(sched_t *s, world_t *w) noexcept nogil:
    """Take the next number in line."""
    w.v = <int64_t>s.sequence
    s.sequence += 1
