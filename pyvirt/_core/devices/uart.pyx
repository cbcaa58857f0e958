"""A 16550A serial port. What it sends is sent at once.

Registers and priorities of interrupts are those of the data sheet of National Semiconductor's
PC16550D (tables II and IV). The time of a character is not modelled: the transmitter is always empty
again before the next instruction, and a character that does not reach the trigger level counts as
one that has waited (IIR 0xC). What arrives waits outside until the receiver has room, so nothing is
overrun but in loopback.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memmove

from pyvirt._core.devices.bytebuf cimport buffer_put

cdef enum:
    IER_DATA = 1
    IER_EMPTY = 2
    IER_LINE = 4
    IER_MODEM = 8
    LCR_DIVISOR = 0x80
    MCR_OUT2 = 8
    MCR_LOOP = 0x10
    LSR_DATA = 1
    LSR_OVERRUN = 2
    LSR_EMPTY = 0x60            # holding and shift register
    MSR_THERE = 0xB0            # CTS, DSR and DCD of whoever is at the other end
    FCR_ON = 1


cdef void uart_reset(uart_t *u) noexcept nogil:
    """Registers as after MR; what was sent, and what waits, stays."""
    u.count = 0
    u.ier = u.fcr = u.lcr = u.mcr = u.scratch = 0
    u.lsr_errors = u.msr_changes = 0
    u.divisor[0] = u.divisor[1] = 0
    u.empty_pending = 0


cdef inline uint8_t room(const uart_t *u) noexcept nogil:
    return UART_FIFO if u.fcr & FCR_ON else 1


cdef void refill(uart_t *u) noexcept nogil:
    """From outside into the receiver."""
    cdef uint8_t most = room(u)
    if u.mcr & MCR_LOOP:
        return
    while u.count < most and u.waiting_first < u.waiting.length:
        u.fifo[u.count] = u.waiting.data[u.waiting_first]
        u.count += 1
        u.waiting_first += 1
    if u.waiting_first == u.waiting.length:
        u.waiting.length = 0
        u.waiting_first = 0


cdef bint uart_receive(uart_t *u, const uint8_t *data, uint32_t count) noexcept nogil:
    """Characters from the other end; False where there is no room for them to wait."""
    if not buffer_put(&u.waiting, data, count):
        return False
    refill(u)
    return True


cdef uint8_t cause(const uart_t *u) noexcept nogil:
    """IIR's lower four bits; 1: none."""
    cdef uint8_t trigger = 1
    if u.ier & IER_LINE and u.lsr_errors:
        return 6
    if u.ier & IER_DATA and u.count:
        if u.fcr & FCR_ON:
            if u.fcr >> 6 == 1:
                trigger = 4
            elif u.fcr >> 6 == 2:
                trigger = 8
            elif u.fcr >> 6 == 3:
                trigger = 14
        return 4 if u.count >= trigger else 0xC
    if u.ier & IER_EMPTY and u.empty_pending:
        return 2
    if u.ier & IER_MODEM and u.msr_changes:
        return 0
    return 1


cdef bint uart_line(const uart_t *u) noexcept nogil:
    """The level of its interrupt line, which a PC leads through OUT2."""
    return u.mcr & MCR_OUT2 != 0 and not u.mcr & MCR_LOOP and cause(u) != 1


cdef uint8_t modem(const uart_t *u) noexcept nogil:
    """MSR's upper four bits; in loopback they are MCR's: RTS, DTR, OUT1, OUT2."""
    if not u.mcr & MCR_LOOP:
        return MSR_THERE
    return (u.mcr & 2) << 3 | (u.mcr & 1) << 5 | (u.mcr & 4) << 4 | (u.mcr & 8) << 4


cdef void send(uart_t *u, uint8_t value) noexcept nogil:
    if u.mcr & MCR_LOOP:
        if u.count < room(u):
            u.fifo[u.count] = value
            u.count += 1
        else:
            u.lsr_errors |= LSR_OVERRUN
            if not u.fcr & FCR_ON:
                u.fifo[0] = value       # without FIFOs the new character replaces the old one
    else:
        buffer_put(&u.sent, &value, 1)
    u.empty_pending = 1


cdef uint8_t uart_read(uart_t *u, int register) noexcept nogil:
    cdef uint8_t value
    if register < 2 and u.lcr & LCR_DIVISOR:
        return u.divisor[register]
    if register == 0:
        value = u.fifo[0]
        if u.count:
            u.count -= 1
            memmove(u.fifo, u.fifo + 1, u.count)
            if u.count == 0 or u.fcr & FCR_ON:
                refill(u)
        return value
    if register == 1:
        return u.ier
    if register == 2:
        value = cause(u)
        if value == 2:
            u.empty_pending = 0
        return value | (0xC0 if u.fcr & FCR_ON else 0)
    if register == 3:
        return u.lcr
    if register == 4:
        return u.mcr
    if register == 5:
        value = LSR_EMPTY | u.lsr_errors | (LSR_DATA if u.count else 0)
        u.lsr_errors = 0
        return value
    if register == 6:
        value = modem(u) | u.msr_changes
        u.msr_changes = 0
        return value
    return u.scratch


cdef void uart_write(uart_t *u, int register, uint8_t value) noexcept nogil:
    cdef uint8_t before
    if register < 2 and u.lcr & LCR_DIVISOR:
        u.divisor[register] = value
    elif register == 0:
        send(u, value)
    elif register == 1:
        # To enable the interrupt while the transmitter is empty requests it.
        if value & IER_EMPTY and not u.ier & IER_EMPTY:
            u.empty_pending = 1
        u.ier = value & 0x0F
    elif register == 2:
        if (value ^ u.fcr) & FCR_ON or value & 2:
            u.count = 0
        u.fcr = value & 0xC9 if value & FCR_ON else 0
        refill(u)
    elif register == 3:
        u.lcr = value
    elif register == 4:
        before = modem(u)
        u.mcr = value & 0x1F
        before ^= modem(u)
        u.msr_changes |= before >> 4 & 0xB
        if before & 0x40 and not modem(u) & 0x40:
            u.msr_changes |= 4          # the trailing edge of RI
        refill(u)
    elif register == 7:
        u.scratch = value
