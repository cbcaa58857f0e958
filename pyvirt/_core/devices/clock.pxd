# A device's own clock, counted exactly from cycles of the processor.

from libc.stdint cimport uint64_t

cdef uint64_t NEVER             # the largest number
cdef uint64_t MOST_FREQUENCY    # of the processor, so that no product of 64 bits overflows

cdef uint64_t ticks_at(uint64_t cycle, uint64_t rate, uint64_t frequency) noexcept nogil
cdef uint64_t cycle_of(uint64_t tick, uint64_t rate, uint64_t frequency) noexcept nogil
