# The system as Python calls it.

from pyvirt._core.guestos.owner cimport GuestOwner


cdef class GuestCore(GuestOwner):
    pass
