# The owner of one host's scheduling: its memory, its time, its timeline. What it is made of:
# pyvirt._core.sched.state.

from libc.stdint cimport uint32_t

from pyvirt._core.sched.plug cimport Plug
from pyvirt._core.sched.state cimport plug_t, sched_t
from pyvirt._core.sched.timeline cimport Recorder

cdef class Owner:
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
    cdef list free_vms                  # as `free_ids`

    cdef sched_t *pointer(self) noexcept nogil
    cdef object _check(self)
    cdef object _begin(self)
    cdef object _end(self)
    cdef object _raise(self)
    cdef object _set_topology(self, object topology)
    cdef object _grow(self, object worlds)
    cdef object _grow_trees(self, uint32_t leaves)
    cdef object _grow_vms(self, object vms)
    cdef void _begin_recording(self) noexcept
