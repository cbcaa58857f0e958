# The six arithmetic flags, computed when asked for.
#
# fl_result is the last result, sign-extended to 32 bits. fl_aux has CF in bit 31, CF xor OF in
# bit 30, AF in bit 3, what is xored into the low byte of the result before its parity is taken in
# bits 15:8, and what is xored into the sign in bit 0.

from libc.stdint cimport int8_t, int16_t, int32_t, uint32_t

from pyvirt._core.interp.cpu cimport F_AF, F_ARITHMETIC, F_CF, F_OF, F_ONE, F_PF, F_SF, F_ZF, cpu_t


cdef inline uint32_t get_cf(const cpu_t *c) noexcept nogil:
    return c.fl_aux >> 31


cdef inline uint32_t get_of(const cpu_t *c) noexcept nogil:
    return (c.fl_aux ^ (c.fl_aux << 1)) >> 31


cdef inline uint32_t get_sf(const cpu_t *c) noexcept nogil:
    return (c.fl_result >> 31) ^ (c.fl_aux & 1)


cdef inline uint32_t get_zf(const cpu_t *c) noexcept nogil:
    return c.fl_result == 0


cdef inline uint32_t get_af(const cpu_t *c) noexcept nogil:
    return c.fl_aux >> 3 & 1


cdef inline uint32_t get_pf(const cpu_t *c) noexcept nogil:
    cdef uint32_t v = (c.fl_result ^ (c.fl_aux >> 8)) & 0xFF
    v ^= v >> 4
    return (<uint32_t>0x9669 >> (v & 15)) & 1


cdef inline uint32_t get_eflags(const cpu_t *c) noexcept nogil:
    """All of EFLAGS."""
    return (c.eflags | F_ONE | get_cf(c) | get_pf(c) << 2 | get_af(c) << 4 | get_zf(c) << 6
            | get_sf(c) << 7 | get_of(c) << 11)


cdef inline void set_arithmetic(cpu_t *c, uint32_t f) noexcept nogil:
    """The six flags from their bits in `f`."""
    cdef uint32_t cf = f & F_CF, of = (f & F_OF) != 0
    c.fl_result = 0 if f & F_ZF else 0x100
    c.fl_aux = (cf << 31 | (cf ^ of) << 30 | <uint32_t>((f & F_AF) != 0) << 3
                | <uint32_t>((f & F_PF) == 0) << 8 | <uint32_t>((f & F_SF) != 0))


cdef inline void set_eflags(cpu_t *c, uint32_t f) noexcept nogil:
    """All of EFLAGS; who may change what is the caller's to know."""
    c.eflags = f & ~<uint32_t>F_ARITHMETIC
    set_arithmetic(c, f)


cdef inline uint32_t widen(uint32_t v, uint32_t n) noexcept nogil:
    """A value of n bytes, sign-extended."""
    if n == 4:
        return v
    if n == 2:
        return <uint32_t><int32_t><int16_t>v
    return <uint32_t><int32_t><int8_t>v


cdef inline void set_carries(
    cpu_t *c, uint32_t result, uint32_t carries, uint32_t n
) noexcept nogil:
    """Flags of an addition or subtraction from the carries out of each bit."""
    c.fl_result = widen(result, n)
    if n == 4:
        c.fl_aux = carries & <uint32_t>0xC0000008
    elif n == 2:
        c.fl_aux = (carries << 16 & <uint32_t>0xC0000000) | (carries & 8)
    else:
        c.fl_aux = (carries << 24 & <uint32_t>0xC0000000) | (carries & 8)


cdef inline void set_logic(cpu_t *c, uint32_t result, uint32_t n) noexcept nogil:
    """Flags of AND, OR, XOR: CF, OF and AF are clear."""
    c.fl_result = widen(result, n)
    c.fl_aux = 0


cdef inline void set_shifted(
    cpu_t *c, uint32_t result, uint32_t n, uint32_t cf, uint32_t of
) noexcept nogil:
    """Flags of a shift; AF, which is undefined, is clear."""
    c.fl_result = widen(result, n)
    c.fl_aux = cf << 31 | (cf ^ of) << 30


cdef inline void set_cf_of(cpu_t *c, uint32_t cf, uint32_t of) noexcept nogil:
    """Only CF and OF (rotates)."""
    c.fl_aux = (c.fl_aux & ~<uint32_t>0xC0000000) | cf << 31 | (cf ^ of) << 30


cdef inline void set_cf(cpu_t *c, uint32_t cf) noexcept nogil:
    set_cf_of(c, cf, get_of(c))


cdef inline bint condition(const cpu_t *c, uint32_t cc) noexcept nogil:
    """The sixteen conditions of Jcc, SETcc and CMOVcc (SDM vol. 1, appendix B)."""
    cdef bint v
    cdef uint32_t which = cc >> 1
    if which == 0:
        v = get_of(c)
    elif which == 1:
        v = get_cf(c)
    elif which == 2:
        v = get_zf(c)
    elif which == 3:
        v = get_cf(c) | get_zf(c)
    elif which == 4:
        v = get_sf(c)
    elif which == 5:
        v = get_pf(c)
    elif which == 6:
        v = get_sf(c) ^ get_of(c)
    else:
        v = get_zf(c) | (get_sf(c) ^ get_of(c))
    return v ^ (cc & 1)
