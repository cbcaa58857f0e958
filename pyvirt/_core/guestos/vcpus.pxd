# Virtual processors: kernel entries, loads of CR3, flushes, context switches.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.guestos.state cimport guest_t, proc_t

cdef enum cause_t:                  # of a kernel entry
    CAUSE_SYSCALL = 0
    CAUSE_FAULT = 1
    CAUSE_INTERRUPT = 2


cdef void enter_kernel(guest_t *g, cause_t cause) noexcept nogil
cdef void leave_kernel(guest_t *g, cause_t cause) noexcept nogil
cdef void kernel_work(guest_t *g, uint32_t count) noexcept nogil
cdef uint64_t stack_of(const guest_t *g) noexcept nogil
cdef void flush(guest_t *g, uint32_t pid, uint64_t start, uint64_t end, bint whole) noexcept nogil
cdef void load_space(guest_t *g, uint32_t pid) noexcept nogil
cdef void switch_to(guest_t *g, uint32_t cpu, uint32_t pid, cause_t cause) noexcept nogil
cdef uint64_t loaded_cr3(const guest_t *g, uint32_t cpu) noexcept nogil
