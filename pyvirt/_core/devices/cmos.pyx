"""The clock and the battery-backed memory of a PC, as far as a guest reads them.

Registers are those of Motorola's MC146818A. The time follows from the cycle, in BCD or binary and in
12 or 24 hours as register B says; it cannot be set (writes to the ten time registers are kept by
nobody), and there are no interrupts. Memory sizes stand where the PC's BIOS leaves them: KiB below
640 KiB at 0x15, above 1 MiB at 0x17 and 0x30 (63 MiB at the most), 64 KiB above 16 MiB at 0x34.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memset

cdef enum:
    REGISTER_A = 10
    REGISTER_B = 11
    REGISTER_C = 12
    REGISTER_D = 13
    CENTURY = 0x32


cdef void put_size(cmos_t *c, int where, uint64_t value, uint64_t most) noexcept nogil:
    if value > most:
        value = most
    c.memory[where] = value & 0xFF
    c.memory[where + 1] = value >> 8 & 0xFF


cdef void cmos_reset(cmos_t *c, uint64_t memory_bytes) noexcept nogil:
    cdef uint64_t kib = memory_bytes >> 10
    c.index = 0
    memset(c.memory, 0, 128)
    c.memory[REGISTER_A] = 0x26
    c.memory[REGISTER_B] = 0x02
    c.memory[REGISTER_D] = 0x80
    put_size(c, 0x15, kib, 640)
    put_size(c, 0x17, kib - 1024 if kib > 1024 else 0, 0xFC00)
    put_size(c, 0x30, kib - 1024 if kib > 1024 else 0, 0xFC00)
    put_size(c, 0x34, kib - 16384 >> 6 if kib > 16384 else 0, 0xFFFF)


cdef uint8_t shown(const cmos_t *c, int64_t value) noexcept nogil:
    if c.memory[REGISTER_B] & 4:
        return <uint8_t>value
    return <uint8_t>(value / 10 << 4 | value % 10)


cdef uint8_t hours(const cmos_t *c, int64_t hour) noexcept nogil:
    cdef uint8_t value
    if c.memory[REGISTER_B] & 2:
        return shown(c, hour)
    value = shown(c, 12 if hour % 12 == 0 else hour % 12)
    return value | 0x80 if hour >= 12 else value


cdef uint8_t date(const cmos_t *c, int index, int64_t days) noexcept nogil:
    """Day, month, year or century of a day since 1970-01-01, in the Gregorian calendar.

    Counted in eras of 400 years from 0000-03-01, so that leap days end a year.
    """
    cdef int64_t z = days + 719468, era, doe, yoe, doy, mp, day, month, year
    era = z / 146097
    doe = z - era * 146097
    yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365
    doy = doe - (365 * yoe + yoe / 4 - yoe / 100)
    mp = (5 * doy + 2) / 153
    day = doy - (153 * mp + 2) / 5 + 1
    month = mp + 3 if mp < 10 else mp - 9
    year = yoe + era * 400 + (month <= 2)
    if index == 7:
        return shown(c, day)
    if index == 8:
        return shown(c, month)
    if index == 9:
        return shown(c, year % 100)
    return shown(c, year / 100 % 100)


cdef uint8_t cmos_read(cmos_t *c, bint odd, uint64_t now, uint64_t frequency) noexcept nogil:
    cdef int64_t seconds = c.epoch + <int64_t>(now / frequency)
    cdef int index = c.index & 0x7F
    cdef uint64_t rest
    if not odd:
        return 0xFF                     # the index cannot be read
    if index == 0:
        return shown(c, seconds % 60)
    if index == 2:
        return shown(c, seconds / 60 % 60)
    if index == 4:
        return hours(c, seconds / 3600 % 24)
    if index == 6:
        return <uint8_t>((seconds / 86400 + 4) % 7 + 1)     # Sunday is 1; 1970 began on a Thursday
    if 7 <= index <= 9 or index == CENTURY:
        return date(c, index, seconds / 86400)
    if index == REGISTER_A:
        # An update is announced 244 microseconds before it.
        rest = frequency - now % frequency
        return c.memory[index] | (0x80 if rest <= frequency * 244 / 1000000 else 0)
    return c.memory[index]


cdef void cmos_write(cmos_t *c, bint odd, uint8_t value) noexcept nogil:
    cdef int index = c.index & 0x7F
    if not odd:
        c.index = value
    elif index == REGISTER_A:
        c.memory[index] = value & 0x7F
    elif index != REGISTER_C and index != REGISTER_D and index > 9 and index != CENTURY:
        c.memory[index] = value
    elif index == 1 or index == 3 or index == 5:
        c.memory[index] = value         # the alarm's registers
