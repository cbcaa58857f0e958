# The owner of one host's scheduling. What it is made of: pyvirt._core.sched.state.

from libc.stdint cimport uint32_t

from pyvirt._core.sched.state cimport sched_t
from pyvirt._core.sched.timeline cimport Recorder

cdef class SchedCore:
    cdef sched_t s
    cdef bint begun
    cdef bint busy                      # runs without the GIL
    cdef readonly object policy         # its name
    cdef list free_ids                  # of removed worlds; the last is given next
    cdef Recorder recorder              # of switches, or None

    cdef sched_t *pointer(self) noexcept nogil
    cdef object _check(self)
    cdef object _grow(self, object worlds)
    cdef object _queue(self, object cpus)
    cdef void _begin_recording(self) noexcept
    cdef uint32_t _world(self, object world) except? 0xFFFFFFFF
