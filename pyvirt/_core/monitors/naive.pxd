# Trap and emulate at CPL 1, without translation.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.monitors.state cimport monitor_t

cdef uint32_t run_naive(monitor_t *m, uint64_t end) noexcept nogil
