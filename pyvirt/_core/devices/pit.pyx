"""The 8254 timer: three counters, whose counts follow from when they were loaded.

Rules are those of Intel's data sheet 231164 (8254), "Mode Definitions". A count that is written is
loaded by the next pulse of the clock; nothing is stepped pulse by pulse. In modes 1 and 5 only the
gate starts a count; a gate that falls holds the count in modes 0 and 4 and, in modes 2 and 3, raises
OUT until it rises and the count begins anew.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from pyvirt._core.devices.clock cimport NEVER


cdef void pit_reset(pit_t *p) noexcept nogil:
    """No counter has a mode; the gates of 0 and 1 are wired high."""
    cdef int i
    memset(p, 0, sizeof(pit_t))
    for i in range(3):
        p.counter[i].access = 3
        p.counter[i].gate = i < 2


cdef inline uint32_t modulus(const counter_t *c) noexcept nogil:
    return 10000 if c.bcd else 65536


cdef void settle(counter_t *c, uint64_t tick) noexcept nogil:
    """A new count takes over where a period, or half of one in mode 3, has ended."""
    if c.next_count and c.loaded and c.running and tick >= c.switch_at:
        # In the middle of a period of mode 3 the low half follows, of the new count.
        c.ahead = (c.next_count + 1) / 2 if elapsed(c, c.switch_at) % c.count else 0
        c.count = c.next_count
        c.next_count = 0
        c.start = c.switch_at


cdef inline uint64_t elapsed(const counter_t *c, uint64_t tick) noexcept nogil:
    """Pulses since the one that loaded the count."""
    if not c.running:
        return c.held
    return tick - c.start + c.ahead if tick >= c.start else 0


cdef uint16_t value_at(counter_t *c, uint64_t tick) noexcept nogil:
    """The count that the guest would read."""
    cdef uint64_t k, n = c.count
    cdef uint32_t value
    settle(c, tick)
    k = elapsed(c, tick)
    if not c.loaded:
        value = <uint32_t>(c.held % modulus(c))
    elif c.mode == 2:
        value = <uint32_t>(n - k % n)
    elif c.mode == 3:
        k %= n
        if k >= (n + 1) / 2:
            k -= (n + 1) / 2
        value = <uint32_t>((n & ~<uint64_t>1) - 2 * k)
    elif k <= n:
        value = <uint32_t>(n - k)
    else:
        value = <uint32_t>(modulus(c) - (k - n) % modulus(c))
    value %= modulus(c)
    if c.bcd:
        value = value / 1000 << 12 | value / 100 % 10 << 8 | value / 10 % 10 << 4 | value % 10
    return <uint16_t>value


cdef bint out_at(counter_t *c, uint64_t tick) noexcept nogil:
    cdef uint64_t k, n
    settle(c, tick)
    n = c.count
    if not c.loaded:
        return c.mode != 0
    k = elapsed(c, tick)
    if c.mode == 0:
        return k >= n
    if c.mode == 1:
        return not c.running or tick < c.start or k >= n
    if c.mode == 2 or c.mode == 3:
        if not c.gate or not c.running or tick < c.start:
            return True
        return k % n != n - 1 if c.mode == 2 else k % n < (n + 1) / 2
    return not c.running or k != n


cdef bint pit_out(pit_t *p, int which, uint64_t tick) noexcept nogil:
    return out_at(&p.counter[which], tick)


cdef uint64_t rise_after(const counter_t *c, uint64_t tick) noexcept nogil:
    """The first tick after `tick` at which OUT goes high, as the counter stands."""
    cdef uint64_t n = c.count, pulses
    if not c.loaded or not c.running:
        return NEVER
    if c.mode == 2 or c.mode == 3:
        pulses = (elapsed(c, tick) / n + 1) * n
    else:
        pulses = n + (c.mode >= 4)
        if pulses <= c.ahead or elapsed(c, tick) >= pulses:
            return NEVER
    return c.start + pulses - c.ahead


cdef uint64_t pit_next_rise(pit_t *p, int which, uint64_t tick) noexcept nogil:
    """The first tick after `tick` at which OUT goes high, or `NEVER`.

    Where a new count waits it is the end of the current period, or the middle of it in mode 3.
    """
    cdef counter_t *c = &p.counter[which]
    cdef uint64_t rise
    settle(c, tick)
    rise = rise_after(c, tick)
    if c.next_count and c.running and c.switch_at < rise:
        return c.switch_at
    return rise


cdef bint pit_rose(pit_t *p, int which, uint64_t after, uint64_t tick) noexcept nogil:
    """Did OUT go high at a tick after `after`, up to and with `tick`?"""
    cdef counter_t *c = &p.counter[which]
    cdef uint64_t rise = rise_after(c, after), switch_at = c.switch_at
    if c.next_count and c.loaded and c.running and tick >= switch_at:
        settle(c, tick)
        if rise <= switch_at:
            return True
        rise = rise_after(c, after if after > switch_at else switch_at)
    return rise <= tick


cdef void load(counter_t *c, uint32_t count, uint64_t tick) noexcept nogil:
    """A whole count was written."""
    cdef uint64_t k, n
    if c.bcd:
        count = (count >> 12) * 1000 + (count >> 8 & 15) * 100 + (count >> 4 & 15) * 10 + (count & 15)
    if count == 0:
        count = modulus(c)
    if count == 1 and (c.mode == 2 or c.mode == 3):
        count = 2                               # 1 is not allowed in these modes
    settle(c, tick)
    if c.loaded and (c.mode == 2 or c.mode == 3) and c.running and tick >= c.start:
        n = c.count
        k = elapsed(c, tick) % n
        if c.mode == 3 and k < (n + 1) / 2:
            c.switch_at = tick - k + (n + 1) / 2
        else:
            c.switch_at = tick - k + n
        c.next_count = count
        return
    if c.loaded and (c.mode == 1 or c.mode == 5):
        c.next_count = count                    # with the next trigger
        c.switch_at = NEVER
        return
    c.count = count
    c.next_count = 0
    c.held = c.ahead = 0
    c.loaded = 1
    c.start = tick + 1
    c.running = c.gate and c.mode != 1 and c.mode != 5


cdef void pit_gate(pit_t *p, int which, bint high, uint64_t tick) noexcept nogil:
    cdef counter_t *c = &p.counter[which]
    if high == c.gate:
        return
    settle(c, tick)
    if not high and c.mode != 1 and c.mode != 5:
        c.held = elapsed(c, tick)
        c.running = 0
    c.gate = high
    if not high or not c.loaded:
        return
    if c.mode == 0 or c.mode == 4:
        c.start = tick
        c.ahead = c.held
        c.running = 1
        return
    if c.next_count:
        c.count = c.next_count
        c.next_count = 0
    c.start = tick + 1
    c.ahead = 0
    c.running = 1


cdef uint8_t status_of(counter_t *c, uint64_t tick) noexcept nogil:
    """The status byte: OUT, null count, access, mode, BCD."""
    cdef bint empty
    settle(c, tick)
    empty = not c.loaded or c.next_count != 0 or (c.running and tick < c.start)
    return <uint8_t>(out_at(c, tick) << 7 | empty << 6 | c.access << 4 | c.mode << 1 | c.bcd)


cdef void latch_count(counter_t *c, uint64_t tick) noexcept nogil:
    if not c.latched:                           # a second latch before the read is ignored
        c.latch = value_at(c, tick)
        c.latched = c.access


cdef void control(pit_t *p, uint8_t value, uint64_t tick) noexcept nogil:
    cdef counter_t *c
    cdef int i
    if value >> 6 == 3:                         # read back
        for i in range(3):
            if value >> (i + 1) & 1:
                c = &p.counter[i]
                if not value & 0x20:
                    latch_count(c, tick)
                if not value & 0x10 and not c.status_latched:
                    c.status = status_of(c, tick)
                    c.status_latched = 1
        return
    c = &p.counter[value >> 6]
    if not value & 0x30:
        latch_count(c, tick)
        return
    c.held = value_at(c, tick) if c.loaded else 0
    c.access = value >> 4 & 3
    c.mode = value >> 1 & 7
    if c.mode > 5:
        c.mode -= 4                             # 6 and 7 are 2 and 3
    c.bcd = value & 1
    c.loaded = c.running = 0
    c.next_count = 0
    c.high_next_read = c.high_next_write = 0
    c.latched = c.status_latched = 0


cdef void pit_write(pit_t *p, int which, uint8_t value, uint64_t tick) noexcept nogil:
    """`which` 0 to 2: a counter; 3: the control word."""
    cdef counter_t *c
    if which == 3:
        control(p, value, tick)
        return
    c = &p.counter[which]
    if c.access == 1:
        load(c, value, tick)
    elif c.access == 2:
        load(c, <uint32_t>value << 8, tick)
    elif not c.high_next_write:
        c.low_written = value
        c.high_next_write = 1
        if c.mode == 0 and c.loaded:            # the first byte stops the count, OUT goes low
            c.held = value_at(c, tick)
            c.loaded = 0
    else:
        c.high_next_write = 0
        load(c, <uint32_t>value << 8 | c.low_written, tick)


cdef uint8_t pit_read(pit_t *p, int which, uint64_t tick) noexcept nogil:
    """A latched status first, then a latched count, then the count itself; 3: nothing drives it."""
    cdef counter_t *c
    cdef uint16_t value
    if which == 3:
        return 0xFF
    c = &p.counter[which]
    if c.status_latched:
        c.status_latched = 0
        return c.status
    value = c.latch if c.latched else value_at(c, tick)
    if c.access == 3:
        c.high_next_read ^= 1
        if c.high_next_read:
            return value & 0xFF
        c.latched = 0
        return value >> 8
    c.latched = 0
    return value & 0xFF if c.access == 1 else value >> 8
