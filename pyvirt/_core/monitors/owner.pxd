# The Python object that owns a monitor.

from pyvirt._core.interp.owner cimport Cpu
from pyvirt._core.monitors.state cimport monitor_t


cdef class MonitorCore:
    cdef monitor_t m
    cdef readonly Cpu cpu
    cdef readonly tuple tables      # of HyperCore, or empty
