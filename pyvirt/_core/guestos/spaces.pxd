# Address spaces: areas, fork, exec, exit.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.guestos.state cimport area_t, guest_t, proc_t, status_t


cdef status_t new_process(guest_t *g, uint32_t *pid) noexcept nogil
cdef status_t map_area(guest_t *g, uint32_t pid, uint64_t size, const area_t *wanted,
                       uint64_t *va) noexcept nogil
cdef status_t unmap(guest_t *g, uint32_t pid, uint64_t start, uint64_t end) noexcept nogil
cdef status_t protect(guest_t *g, uint32_t pid, uint64_t start, uint64_t end,
                      uint32_t rights) noexcept nogil
cdef status_t fork(guest_t *g, uint32_t pid, uint32_t *child) noexcept nogil
cdef status_t exec_space(guest_t *g, uint32_t pid) noexcept nogil
cdef void exit_process(guest_t *g, uint32_t pid) noexcept nogil
