"""A device's own clock, counted exactly from cycles of the processor."""

from libc.stdint cimport uint64_t

cdef uint64_t NEVER = <uint64_t>-1
cdef uint64_t MOST_FREQUENCY = <uint64_t>1 << 40


cdef uint64_t ticks_at(uint64_t cycle, uint64_t rate, uint64_t frequency) noexcept nogil:
    """How many ticks of a clock of `rate` Hz there were up to `cycle`: floor(cycle rate / frequency).

    `rate` is below 2**24 and `frequency` at most `MOST_FREQUENCY`: the remainder's product fits.
    """
    return cycle / frequency * rate + cycle % frequency * rate / frequency


cdef uint64_t cycle_of(uint64_t tick, uint64_t rate, uint64_t frequency) noexcept nogil:
    """The first cycle at which `ticks_at` is `tick`, or `NEVER` where 64 bits cannot name it."""
    cdef uint64_t whole = tick / rate, rest = (tick % rate * frequency + rate - 1) / rate
    if whole > (NEVER - rest) / frequency:
        return NEVER
    return whole * frequency + rest
