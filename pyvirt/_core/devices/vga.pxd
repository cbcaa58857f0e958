# What programs in text mode ask of a VGA: the CRT controller's registers, and where the beam is.

from libc.stdint cimport uint8_t, uint64_t

cdef enum:
    CRTC_REGISTERS = 25

cdef struct vga_t:
    uint8_t crtc[CRTC_REGISTERS]
    uint8_t index               # of the register that port 0x3D5 has

cdef void vga_reset(vga_t *v) noexcept nogil
cdef uint8_t vga_read(const vga_t *v, int register, uint64_t now, uint64_t frequency) noexcept nogil
cdef void vga_write(vga_t *v, int register, uint8_t value) noexcept nogil
