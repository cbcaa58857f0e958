# The dirty log of a hypervisor, for Python.

from pyvirt._core.shadow.engine cimport HyperCore


cdef class LoggedCore(HyperCore):
    pass
