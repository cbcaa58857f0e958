# The 8254 timer: three counters, whose counts follow from when they were loaded.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    PIT_RATE = 1193182          # Hz

cdef struct counter_t:
    uint64_t start              # the tick at which `count` was loaded
    uint64_t ahead              # pulses that count as done at `start`
    uint64_t held               # ticks counted when the gate fell or a first byte stopped it
    uint64_t switch_at          # the tick at which `next_count` takes the place of `count`
    uint32_t count              # 1 to 65,536, or to 10,000 in BCD
    uint32_t next_count         # 0: none waits
    uint16_t latch              # the latched count
    uint8_t mode                # 0 to 5
    uint8_t access              # 1 low byte, 2 high byte, 3 both
    uint8_t bcd
    uint8_t loaded              # it counts, or waits for its gate
    uint8_t running             # not stopped by its gate, or triggered by it
    uint8_t gate
    uint8_t high_next_read
    uint8_t high_next_write
    uint8_t low_written         # the first of two bytes
    uint8_t latched             # bytes of the latch still to be read, as in `access`
    uint8_t status              # the latched status
    uint8_t status_latched

cdef struct pit_t:
    counter_t counter[3]

cdef void pit_reset(pit_t *p) noexcept nogil
cdef uint8_t pit_read(pit_t *p, int which, uint64_t tick) noexcept nogil
cdef void pit_write(pit_t *p, int which, uint8_t value, uint64_t tick) noexcept nogil
cdef void pit_gate(pit_t *p, int which, bint high, uint64_t tick) noexcept nogil
cdef bint pit_out(pit_t *p, int which, uint64_t tick) noexcept nogil
cdef bint pit_rose(pit_t *p, int which, uint64_t after, uint64_t tick) noexcept nogil
cdef uint64_t pit_next_rise(pit_t *p, int which, uint64_t tick) noexcept nogil
