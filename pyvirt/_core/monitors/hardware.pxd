# The hardware-assisted monitor.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.monitors.state cimport monitor_t

cdef uint32_t run_hardware(monitor_t *m, uint64_t end) noexcept nogil
