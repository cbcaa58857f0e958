# The clock and the battery-backed memory of a PC, as far as a guest reads them.

from libc.stdint cimport int64_t, uint8_t, uint64_t

cdef struct cmos_t:
    int64_t epoch           # the second since 1970 that cycle 0 is
    uint8_t index
    uint8_t memory[128]

cdef void cmos_reset(cmos_t *c, uint64_t memory_bytes) noexcept nogil
cdef uint8_t cmos_read(cmos_t *c, bint odd, uint64_t now, uint64_t frequency) noexcept nogil
cdef void cmos_write(cmos_t *c, bint odd, uint8_t value) noexcept nogil
