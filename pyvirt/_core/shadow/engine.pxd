# The hypervisor object. What it is made of: pyvirt._core.shadow.state.

from pyvirt._core.owner cimport MmuOwner
from pyvirt._core.physmem cimport PhysMem
from pyvirt._core.shadow.state cimport hyper_t


cdef class HyperCore:
    cdef hyper_t s
    cdef readonly PhysMem mem
    cdef readonly object counters       # live, read-only
    cdef object _counters               # the same, writable
    cdef MmuOwner processor             # in front of the tables, or None
    cdef bint begun

    cdef object _attach(self, dict guest, object cr3, tuple caches)
    cdef void _start_processor(self) noexcept nogil
    cdef hyper_t *pointer(self) noexcept nogil
