# The guest's paging, through tables of the monitor's.

from libc.stdint cimport uint32_t

from pyvirt._core.monitors.state cimport monitor_t

cdef void attach_paging(monitor_t *m) noexcept nogil
cdef void guest_registers(monitor_t *m, uint32_t cr0, uint32_t cr3, uint32_t cr4) noexcept nogil
cdef void memory_changed(monitor_t *m) noexcept nogil
cdef void guest_invlpg(monitor_t *m, uint32_t linear) noexcept nogil
