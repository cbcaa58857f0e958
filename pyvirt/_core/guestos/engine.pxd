# The system as Python calls it.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.guestos.state cimport guest_t, status_t
from pyvirt._core.physmem cimport PhysMem


cdef class GuestCore:
    cdef readonly PhysMem mem       # what the tables are by the system's own view
    cdef guest_t g
    cdef dict slots                 # process number -> index in g.procs
    cdef object last_pid            # given out
    cdef bint begun
    cdef object __weakref__

    cdef uint32_t _slot(self, object pid) except? 0xFFFFFFFF
    cdef uint32_t _act(self, object pid, object vcpu) except? 0xFFFFFFFF
    cdef object _begin(self)
    cdef object _raise(self, status_t status, str what, uint64_t va)
