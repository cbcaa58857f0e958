# The result of one access.

from libc.stdint cimport uint16_t, uint64_t


cdef class Access:
    cdef readonly object va
    cdef uint64_t c_pa              # host-physical, 0 after a fault
    cdef uint16_t c_code            # as in `pyvirt.Accesses`
