# A 16550A serial port. What it sends is sent at once.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyvirt._core.devices.bytebuf cimport bytebuf_t

cdef enum:
    UART_FIFO = 16

cdef struct uart_t:
    bytebuf_t sent              # and not yet taken by the owner
    bytebuf_t waiting           # for room in the receiver
    uint64_t waiting_first      # how many of them went into the receiver already
    uint8_t fifo[UART_FIFO]     # received and not read
    uint8_t count               # of them; 1 at most without FIFOs
    uint8_t ier
    uint8_t fcr
    uint8_t lcr
    uint8_t mcr
    uint8_t lsr_errors          # overrun and others, until LSR is read
    uint8_t msr_changes         # the lower four bits, until MSR is read
    uint8_t scratch
    uint8_t divisor[2]
    uint8_t empty_pending       # the interrupt that the transmitter is empty, until IIR is read

cdef void uart_reset(uart_t *u) noexcept nogil
cdef bint uart_line(const uart_t *u) noexcept nogil
cdef uint8_t uart_read(uart_t *u, int register) noexcept nogil
cdef void uart_write(uart_t *u, int register, uint8_t value) noexcept nogil
cdef bint uart_receive(uart_t *u, const uint8_t *data, uint32_t count) noexcept nogil
