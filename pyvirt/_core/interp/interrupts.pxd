# Delivery of exceptions and interrupts, IRET, and far transfers.

from libc.stdint cimport uint16_t, uint32_t

from pyvirt._core.interp.cpu cimport cpu_t

cdef enum:                      # where an event comes from
    BY_EXCEPTION = 0            # a fault: RF is set in the image of EFLAGS
    BY_TRAP = 1                 # an exception that reports after the instruction
    BY_DEVICE = 2
    BY_SOFTWARE = 3             # INT n, INT3, INTO
    BY_INT1 = 4

cdef bint deliver(
    cpu_t *c, uint32_t vector, uint32_t by, uint32_t coded, uint32_t error
) noexcept nogil
cdef bint deliver_fault(cpu_t *c) noexcept nogil
cdef void iret(cpu_t *c, uint32_t n) noexcept nogil
cdef void far_transfer(
    cpu_t *c, uint16_t selector, uint32_t offset, uint32_t n, bint call
) noexcept nogil
cdef void far_return(cpu_t *c, uint32_t n, uint32_t release) noexcept nogil
cdef void unsupported(cpu_t *c, uint32_t what) noexcept nogil
