# An access of user code, with the page fault that it may take.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.guestos.state cimport guest_t, status_t


cdef status_t touch(guest_t *g, uint32_t pid, uint64_t va, int op, uint32_t size, bint given,
                    uint64_t value) noexcept nogil
