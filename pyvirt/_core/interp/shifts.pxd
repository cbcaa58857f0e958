# Shifts and rotates (SDM vol. 2, RCL/RCR/ROL/ROR, SAL/SAR/SHL/SHR, SHLD, SHRD).
#
# Where the manual leaves OF undefined (counts other than 1) it is that of the last of so many
# steps; AF is clear after shifts. Callers do not call with a masked count of 0.

from libc.stdint cimport int32_t, uint32_t, uint64_t

from pyvirt._core.interp.cpu cimport cpu_t
from pyvirt._core.interp.flags cimport get_cf, set_cf_of, set_shifted, widen


cdef inline uint32_t mask_of(uint32_t n) noexcept nogil:
    return <uint32_t>0xFFFFFFFF >> (32 - 8 * n)


cdef inline uint32_t shift(
    cpu_t *c, uint32_t op, uint32_t a, uint32_t count, uint32_t n
) noexcept nogil:
    """ROL ROR RCL RCR SHL SHR SAL SAR by 1 to 31; `a` has n bytes."""
    cdef uint32_t bits = 8 * n, r, k, top = bits - 1, cf, of
    cdef uint64_t wide
    if op == 0:                             # ROL
        k = count & top
        r = a if k == 0 else ((a << k) | (a >> (bits - k))) & mask_of(n)
        cf = r & 1
        set_cf_of(c, cf, cf ^ (r >> top & 1))
    elif op == 1:                           # ROR
        k = count & top
        r = a if k == 0 else ((a >> k) | (a << (bits - k))) & mask_of(n)
        cf = r >> top & 1
        set_cf_of(c, cf, cf ^ (r >> (top - 1) & 1))
    elif op == 2 or op == 3:                # RCL, RCR: bits + 1 places, CF the highest
        k = count % (bits + 1)
        if k == 0:
            return a
        if op == 3:
            k = bits + 1 - k
        wide = <uint64_t>get_cf(c) << bits | a
        wide = (wide << k) | (wide >> (bits + 1 - k))
        r = <uint32_t>wide & mask_of(n)
        cf = <uint32_t>(wide >> bits) & 1
        of = (cf ^ (r >> top & 1)) if op == 2 else (r >> top ^ r >> (top - 1)) & 1
        set_cf_of(c, cf, of)
    elif op == 4 or op == 6:                # SHL
        wide = <uint64_t>a << count
        r = <uint32_t>wide & mask_of(n)
        cf = <uint32_t>(wide >> bits) & 1
        set_shifted(c, r, n, cf, cf ^ (r >> top & 1))
    elif op == 5:                           # SHR
        r = a >> count
        # the bit before the last step
        set_shifted(c, r, n, a >> (count - 1) & 1, (a >> (count - 1)) >> top & 1)
    else:                                   # SAR
        a = widen(a, n)
        r = <uint32_t>(<int32_t>a >> count)
        set_shifted(c, r, n, <uint32_t>(<int32_t>a >> (count - 1)) & 1, 0)
    return r


cdef inline uint32_t double_shift(
    cpu_t *c, uint32_t right, uint32_t a, uint32_t b, uint32_t count, uint32_t n
) noexcept nogil:
    """SHLD, SHRD by 1 to 31. With 2 bytes and more than 16, undefined in the manual, the bits that
    come in after those of `b` are those of `a` again, as P6 does."""
    cdef uint32_t r, cf, before
    cdef uint64_t wide
    if n == 4:
        if right:
            wide = <uint64_t>b << 32 | a
            r = <uint32_t>(wide >> count)
            cf = a >> (count - 1) & 1
            before = <uint32_t>(wide >> (count - 1))
        else:
            wide = <uint64_t>a << 32 | b
            r = <uint32_t>(wide << count >> 32)
            cf = a >> (32 - count) & 1
            before = <uint32_t>(wide << (count - 1) >> 32)
        set_shifted(c, r, 4, cf, (before ^ r) >> 31)
        return r
    if right:
        wide = <uint64_t>a << 32 | <uint64_t>b << 16 | a
        before = <uint32_t>(wide >> (count - 1)) & 0xFFFF
        cf = before & 1
        r = <uint32_t>(wide >> count) & 0xFFFF
    else:
        wide = <uint64_t>a << 32 | <uint64_t>b << 16 | a
        before = <uint32_t>(wide >> (33 - count)) & 0xFFFF
        cf = before >> 15 & 1
        r = <uint32_t>(wide >> (32 - count)) & 0xFFFF
    set_shifted(c, r, 2, cf, (before ^ r) >> 15 & 1)
    return r
