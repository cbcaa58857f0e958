# A PS/2 controller with a keyboard that answers; it resets the machine.

from libc.stdint cimport uint8_t

cdef enum:
    PS2_QUEUE = 32

cdef struct ps2_t:
    uint8_t queue[PS2_QUEUE]    # what port 0x60 gives next
    uint8_t count
    uint8_t mode                # the command byte
    uint8_t output              # the output port: bit 0 not reset, bit 1 A20
    uint8_t command             # of the controller that waits for its data; 0: none
    uint8_t parameter           # the keyboard waits for a command's second byte
    uint8_t last                # what port 0x60 gave last
    uint8_t after_command       # the last write was to port 0x64
    uint8_t reset               # the reset line was pulled

cdef void ps2_reset(ps2_t *p) noexcept nogil
cdef bint ps2_line(const ps2_t *p) noexcept nogil
cdef uint8_t ps2_read(ps2_t *p, bint status) noexcept nogil
cdef void ps2_write(ps2_t *p, bint command, uint8_t value) noexcept nogil
cdef bint ps2_key(ps2_t *p, uint8_t value) noexcept nogil
