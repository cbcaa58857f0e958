"""What programs in text mode ask of a VGA: the CRT controller's registers, and where the beam is.

IBM's PS/2 Hardware Interface Technical Reference ("Video Subsystem"). Mode 3 is set: 80 by 25
characters of 9 by 16 dots at 28.322 MHz, 449 lines of 100 characters a frame. The screen itself is
memory at 0xB8000. Palette, fonts, and other modes are not there.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from pyvirt._core.devices.clock cimport ticks_at

cdef enum:
    PROTECT = 0x11              # bit 7: registers 0 to 7 cannot be written
    CHARACTERS = 3146889        # a second
    LINE = 100                  # characters, of which 80 are shown
    FRAME = 449                 # lines, of which 400 are shown
    RETRACE = 412               # the first of two

cdef uint8_t[25] MODE_3 = [
    0x5F, 0x4F, 0x50, 0x82, 0x55, 0x81, 0xBF, 0x1F, 0x00, 0x4F, 0x0D, 0x0E, 0x00,
    0x00, 0x00, 0x00, 0x9C, 0x8E, 0x8F, 0x28, 0x1F, 0x96, 0xB9, 0xA3, 0xFF]


cdef void vga_reset(vga_t *v) noexcept nogil:
    memcpy(v.crtc, MODE_3, CRTC_REGISTERS)
    v.index = 0


cdef uint8_t vga_read(
        const vga_t *v, int register, uint64_t now, uint64_t frequency) noexcept nogil:
    """Port 0x3D4, 0x3D5, or 0x3DA: `register` 0, 1 or 2."""
    cdef uint64_t at, line
    if register == 0:
        return v.index
    if register == 1:
        return v.crtc[v.index] if v.index < CRTC_REGISTERS else 0xFF
    at = ticks_at(now, CHARACTERS, frequency)
    line = at / LINE % FRAME
    return <uint8_t>((line >= 400 or at % LINE >= 80) | (RETRACE <= line < RETRACE + 2) << 3)


cdef void vga_write(vga_t *v, int register, uint8_t value) noexcept nogil:
    if register == 0:
        v.index = value
    elif register == 1 and v.index < CRTC_REGISTERS:
        if v.index > 7 or not v.crtc[PROTECT] & 0x80:
            v.crtc[v.index] = value
        elif v.index == 7:
            v.crtc[7] = (v.crtc[7] & ~0x10) | (value & 0x10)    # the one bit that is not protected
