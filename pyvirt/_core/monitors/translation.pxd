# Binary translation.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.monitors.state cimport monitor_t

cdef bint open_translation(
    monitor_t *m, uint32_t capacity, uint32_t threshold, bint user
) noexcept nogil
cdef void close_translation(monitor_t *m) noexcept nogil
cdef uint32_t run_translation(monitor_t *m, uint64_t end) noexcept nogil
