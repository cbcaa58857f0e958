"""A PS/2 controller with a keyboard that answers; it resets the machine.

The minimum of IBM's PS/2 Hardware Interface Technical Reference ("Keyboard and Auxiliary Device
Controller"): self tests, the command byte, the output port with A20, the pulse of the reset line
(0xFE). No mouse. The keyboard acknowledges what it is sent; the owner gives the scan codes.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memmove, memset


cdef void ps2_reset(ps2_t *p) noexcept nogil:
    memset(p, 0, sizeof(ps2_t))
    p.output = 3
    p.mode = 4                          # the system flag: the self test was passed


cdef bint ps2_line(const ps2_t *p) noexcept nogil:
    """Interrupt 1: a byte waits, and the command byte asks for it."""
    return p.count != 0 and p.mode & 1 != 0


cdef bint ps2_key(ps2_t *p, uint8_t value) noexcept nogil:
    """A byte for port 0x60; False: the queue is full."""
    if p.count == PS2_QUEUE:
        return False
    p.queue[p.count] = value
    p.count += 1
    return True


cdef uint8_t ps2_read(ps2_t *p, bint status) noexcept nogil:
    if status:
        return 0x10 | p.mode & 4 | p.after_command << 3 | (p.count != 0)
    if p.count:
        p.last = p.queue[0]
        p.count -= 1
        memmove(p.queue, p.queue + 1, p.count)
    return p.last


cdef void to_keyboard(ps2_t *p, uint8_t value) noexcept nogil:
    if p.parameter:
        p.parameter = 0
        ps2_key(p, 0xFA)
        return
    ps2_key(p, 0xFA)
    if value == 0xFF:
        ps2_key(p, 0xAA)
    elif value == 0xF2:
        ps2_key(p, 0xAB)
        ps2_key(p, 0x83)
    elif value == 0xED or value == 0xF0 or value == 0xF3:
        p.parameter = 1


cdef void ps2_write(ps2_t *p, bint command, uint8_t value) noexcept nogil:
    cdef uint8_t waits = p.command
    p.after_command = command
    if not command:
        p.command = 0
        if waits == 0x60:
            p.mode = value
        elif waits == 0xD1:
            p.output = value
            if not value & 1:
                p.reset = 1
        elif waits == 0xD2:
            ps2_key(p, value)
        else:
            to_keyboard(p, value)
        return
    p.command = 0
    if value == 0x20:
        ps2_key(p, p.mode)
    elif value == 0x60 or value == 0xD1 or value == 0xD2:
        p.command = value
    elif value == 0xAA:
        ps2_key(p, 0x55)
    elif value == 0xAB:
        ps2_key(p, 0)
    elif value == 0xAD:
        p.mode |= 0x10
    elif value == 0xAE:
        p.mode &= ~0x10
    elif value == 0xD0:
        ps2_key(p, p.output)
    elif value >= 0xF0 and not value & 1:
        p.reset = 1                     # a pulse of the lines that are zero; bit 0 is reset
