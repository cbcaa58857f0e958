# The owner of one host's scheduling. What it is made of: pyvirt._core.sched.state.

from libc.stdint cimport uint32_t

from pyvirt._core.sched.plug cimport Plug
from pyvirt._core.sched.state cimport plug_t, sched_t
from pyvirt._core.sched.timeline cimport Recorder

cdef class SchedCore:
    cdef sched_t s
    cdef plug_t plug                    # of a plug-in policy
    cdef Plug plugin                    # or None
    cdef bint begun
    cdef bint leaps                     # over periods, exactly: fast_forward
    cdef bint busy                      # runs without the GIL
    cdef readonly object policy         # its name
    cdef list free_ids                  # of removed worlds; the last is given next
    cdef dict tables                    # number of a table of values by their count and hash
    cdef Recorder recorder              # of switches, or None
    cdef list free_vms                  # likewise

    cdef sched_t *pointer(self) noexcept nogil
    cdef object _check(self)
    cdef object _begin(self)
    cdef object _end(self)
    cdef object _raise(self)
    cdef object _set_topology(self, object topology)
    cdef object _grow(self, object worlds)
    cdef object _grow_vms(self, object vms)
    cdef object _params(self, object params, object before)
    cdef object _vm(self, object vm)
    cdef object _queue(self, object cpus)
    cdef void _begin_recording(self) noexcept
    cdef uint32_t _world(self, object world) except? 0xFFFFFFFF
    cdef object _describe(self, list loads)
    cdef uint32_t _hist(self, uint32_t id) noexcept
