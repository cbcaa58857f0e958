# Processes: made, copied, given another program, ended.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.guestos.state cimport guest_t, status_t


cdef status_t new_process(guest_t *g, uint64_t shift, uint32_t *pid) noexcept nogil
cdef status_t fork(guest_t *g, uint32_t pid, uint32_t *child) noexcept nogil
cdef status_t exec_space(guest_t *g, uint32_t pid, uint64_t shift) noexcept nogil
cdef void exit_process(guest_t *g, uint32_t pid) noexcept nogil
