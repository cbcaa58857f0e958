# The Python object that owns a processor.

from pyvirt._core.interp.bus cimport bus_t
from pyvirt._core.interp.cpu cimport cpu_t
from pyvirt._core.paging cimport dimension_t
from pyvirt._core.physmem cimport PhysMem


cdef class Cpu:
    cdef cpu_t c
    cdef dimension_t[3] tables
    cdef readonly PhysMem memory
    cdef readonly object bus        # what keeps the bus alive, or None
    cdef bint running
    cdef object __weakref__

    cdef cpu_t *pointer(self) noexcept nogil
