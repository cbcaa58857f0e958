# The physical memory object. What it is made of: pyvirt._core.frames.

from pyvirt._core.frames cimport physmem_t


cdef class PhysMem:
    cdef physmem_t m
    cdef list buffers           # keeps what the segments point into alive
    cdef object __weakref__

    cdef physmem_t *pointer(self) noexcept nogil
