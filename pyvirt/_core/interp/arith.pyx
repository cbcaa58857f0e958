"""Multiplication, division, and decimal adjustment (SDM vol. 2, each instruction's page).

What the manual leaves undefined: MUL and IMUL set SF, ZF, PF from the low half and clear AF;
divisions leave all flags; decimal adjustments set OF to 0, AAA and AAS leave SF, ZF and PF.
"""

from libc.stdint cimport int16_t, int32_t, int64_t, uint32_t, uint64_t

from pyvirt._core.interp.cpu cimport (
    F_AF,
    F_CF,
    F_PF,
    F_SF,
    F_ZF,
    R_EAX,
    R_EDX,
    X_DE,
    cpu_t,
)
from pyvirt._core.interp.flags cimport get_eflags, set_arithmetic, set_logic, set_shifted, widen
from pyvirt._core.interp.memory cimport raise_fault


cdef uint32_t signed_product(cpu_t *c, uint32_t a, uint32_t b, uint32_t n) noexcept nogil:
    """IMUL with two or three operands: CF and OF say that the product does not fit."""
    cdef int64_t wide = <int64_t><int32_t>widen(a, n) * <int64_t><int32_t>widen(b, n)
    cdef uint32_t low = <uint32_t>wide, lost
    if n == 2:
        low &= 0xFFFF
    lost = <int64_t><int32_t>widen(low, n) != wide
    set_shifted(c, low, n, lost, lost)
    return low


cdef void product(cpu_t *c, uint32_t op, uint32_t v, uint32_t n) noexcept nogil:
    """MUL (4) and IMUL (5) of the accumulator."""
    cdef uint64_t wide
    cdef uint32_t a = c.gpr[R_EAX], low, high, lost
    if op == 4:
        if n < 4:
            a &= 0xFF if n == 1 else 0xFFFF
        wide = <uint64_t>a * v
    else:
        wide = <uint64_t>(<int64_t><int32_t>widen(a, n) * <int64_t><int32_t>widen(v, n))
    low = <uint32_t>wide
    high = <uint32_t>(wide >> 8 * n)
    if n == 1:
        c.gpr[R_EAX] = (c.gpr[R_EAX] & <uint32_t>0xFFFF0000) | (low & 0xFFFF)
        low &= 0xFF
        high &= 0xFF
    elif n == 2:
        low &= 0xFFFF
        high &= 0xFFFF
        c.gpr[R_EAX] = (c.gpr[R_EAX] & <uint32_t>0xFFFF0000) | low
        c.gpr[R_EDX] = (c.gpr[R_EDX] & <uint32_t>0xFFFF0000) | high
    else:
        c.gpr[R_EAX] = low
        c.gpr[R_EDX] = high
    if op == 4:
        lost = high != 0
    else:
        lost = <int64_t><int32_t>widen(low, n) != <int64_t>wide
    set_shifted(c, low, n, lost, lost)


cdef void quotient(cpu_t *c, uint32_t op, uint32_t v, uint32_t n) noexcept nogil:
    """DIV (6) and IDIV (7): #DE where the divisor is 0 or the quotient does not fit."""
    cdef uint64_t wide, q, r, limit
    cdef int64_t signed_wide, d
    cdef bint negative
    cdef uint64_t magnitude, divisor
    if v == 0:
        raise_fault(c, X_DE, 0, 0)
        return
    if n == 1:
        wide = c.gpr[R_EAX] & 0xFFFF
    elif n == 2:
        wide = <uint64_t>(c.gpr[R_EDX] & 0xFFFF) << 16 | (c.gpr[R_EAX] & 0xFFFF)
    else:
        wide = <uint64_t>c.gpr[R_EDX] << 32 | c.gpr[R_EAX]
    if op == 6:
        q = wide // v
        r = wide % v
        if q >> 8 * n:
            raise_fault(c, X_DE, 0, 0)
            return
    else:
        if n == 1:
            signed_wide = <int16_t>wide
        elif n == 2:
            signed_wide = <int32_t>wide
        else:
            signed_wide = <int64_t>wide
        d = <int64_t><int32_t>widen(v, n)
        # by magnitudes: the smallest number has none of its own sign
        magnitude = 0 - <uint64_t>signed_wide if signed_wide < 0 else <uint64_t>signed_wide
        divisor = 0 - <uint64_t>d if d < 0 else <uint64_t>d
        q = magnitude // divisor
        r = magnitude % divisor
        negative = (signed_wide < 0) != (d < 0)
        limit = <uint64_t>1 << (8 * n - 1)
        if q > limit or (q == limit and not negative):
            raise_fault(c, X_DE, 0, 0)
            return
        if negative:
            q = 0 - q
        if signed_wide < 0:
            r = 0 - r
    if n == 1:
        c.gpr[R_EAX] = ((c.gpr[R_EAX] & <uint32_t>0xFFFF0000) | <uint32_t>(r & 0xFF) << 8
                        | <uint32_t>(q & 0xFF))
    elif n == 2:
        c.gpr[R_EAX] = (c.gpr[R_EAX] & <uint32_t>0xFFFF0000) | <uint32_t>(q & 0xFFFF)
        c.gpr[R_EDX] = (c.gpr[R_EDX] & <uint32_t>0xFFFF0000) | <uint32_t>(r & 0xFFFF)
    else:
        c.gpr[R_EAX] = <uint32_t>q
        c.gpr[R_EDX] = <uint32_t>r


cdef void multiply_divide(cpu_t *c, uint32_t op, uint32_t v, uint32_t n) noexcept nogil:
    """MUL IMUL DIV IDIV: `op` 4 to 7, `v` of n bytes."""
    if op < 6:
        product(c, op, v, n)
    else:
        quotient(c, op, v, n)


cdef void adjusted(cpu_t *c, uint32_t al, uint32_t carry, uint32_t half) noexcept nogil:
    """DAA and DAS: SF, ZF, PF by the result, CF and AF as given."""
    set_logic(c, al, 1)
    c.fl_aux = carry << 31 | carry << 30 | half << 3


cdef void decimal(cpu_t *c, uint32_t op, uint32_t base) noexcept nogil:
    """DAA DAS AAA AAS AAM AAD: `op` 0 to 5; `base` is the immediate of the last two."""
    cdef uint32_t eax = c.gpr[R_EAX], al = eax & 0xFF, ah = eax >> 8 & 0xFF, old = al
    cdef uint32_t f = get_eflags(c), carry = f & F_CF, half
    base &= 0xFF
    if op < 2:
        half = (al & 15) > 9 or (f & F_AF) != 0
        if half:
            if op == 1 and al < 6:
                carry = 1
            al = (al + 6 if op == 0 else al - 6) & 0xFF
        if old > 0x99 or f & F_CF:
            al = (al + 0x60 if op == 0 else al - 0x60) & 0xFF
            carry = 1
        elif op == 0:
            carry = 0
        c.gpr[R_EAX] = (eax & ~<uint32_t>0xFF) | al
        adjusted(c, al, carry, half)
    elif op < 4:
        half = (al & 15) > 9 or (f & F_AF) != 0
        if half:
            if op == 2:
                ah = ah + 1 + (al > 0xF9)
                al += 6
            else:
                ah = ah - 1 - (al < 6)
                al -= 6
        c.gpr[R_EAX] = (eax & ~<uint32_t>0xFFFF) | (ah & 0xFF) << 8 | (al & 15)
        set_arithmetic(c, (f & (F_SF | F_ZF | F_PF)) | (F_CF | F_AF if half else 0))
    elif op == 4:
        if base == 0:
            raise_fault(c, X_DE, 0, 0)
            return
        c.gpr[R_EAX] = (eax & ~<uint32_t>0xFFFF) | (al // base) << 8 | al % base
        set_logic(c, al % base, 1)
    else:
        al = (al + ah * base) & 0xFF
        c.gpr[R_EAX] = (eax & ~<uint32_t>0xFFFF) | al
        set_logic(c, al, 1)
