# The bus as the processor of a guest sees it.

from pyvirt._core.monitors.state cimport monitor_t

cdef void open_front(monitor_t *m) noexcept nogil
cdef void settle_front(monitor_t *m) noexcept nogil
