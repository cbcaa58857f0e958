# The hypervisor object. What it is made of: pyvirt._core.shadow.state.

from pyvirt._core.physmem cimport PhysMem
from pyvirt._core.shadow.state cimport hyper_t


cdef class HyperCore:
    cdef hyper_t s
    cdef readonly PhysMem mem
    cdef readonly object counters       # live, read-only
    cdef object _counters               # the same, writable
    cdef bint begun

    cdef hyper_t *pointer(self) noexcept nogil
