"""Arithmetic of the x87's 80-bit format with integers, so that it is the same on every machine.

SDM vol. 1: 4.2 and 4.8 (formats, NaNs, table 4-7), 4.9 (exceptions), 8.1.5 (precision and rounding),
8.2.2 (encodings that are no longer supported). Results are those of masked exceptions; which were
met is gathered in `flags`. Tininess is found after rounding. Where overflow or underflow is not
masked, the exponent is moved by 24,576 (8.5.4, 8.5.5).
"""

from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t

cdef uint64_t TOP = 0x8000000000000000
cdef uint64_t QUIET = 0x4000000000000000
cdef uint64_t ALL = 0xFFFFFFFFFFFFFFFF

cdef enum:
    BIAS = 16383
    HIGHEST = 0x7FFF
    WRAP = 24576


cdef inline x80_t made(uint32_t sign, uint32_t exponent, uint64_t m) noexcept nogil:
    cdef x80_t v
    v.m = m
    v.se = <uint16_t>(sign << 15 | exponent)
    return v


cdef inline uint32_t sign_of(x80_t a) noexcept nogil:
    return a.se >> 15


cdef inline int32_t exponent_of(x80_t a) noexcept nogil:
    return a.se & 0x7FFF


cdef x80_t x_indefinite() noexcept nogil:
    """The quiet NaN that stands for an invalid result."""
    return made(1, HIGHEST, TOP | QUIET)


cdef inline x80_t infinity(uint32_t sign) noexcept nogil:
    return made(sign, HIGHEST, TOP)


cdef bint x_unsupported(x80_t a) noexcept nogil:
    """Unnormals, pseudo-NaNs and pseudo-infinities: an exponent without the integer bit."""
    return exponent_of(a) != 0 and not a.m >> 63


cdef bint x_is_nan(x80_t a) noexcept nogil:
    return exponent_of(a) == HIGHEST and a.m << 1 != 0 and a.m >> 63


cdef inline bint signals(x80_t a) noexcept nogil:
    return x_is_nan(a) and not a.m & QUIET


cdef inline bint is_infinity(x80_t a) noexcept nogil:
    return exponent_of(a) == HIGHEST and a.m == TOP


cdef inline bint is_zero(x80_t a) noexcept nogil:
    return exponent_of(a) == 0 and a.m == 0


cdef inline bint is_denormal(x80_t a) noexcept nogil:
    return exponent_of(a) == 0 and a.m != 0


cdef inline int leading(uint64_t m) noexcept nogil:
    """Zeros above the highest one of a number that is not 0."""
    cdef int n = 0
    while not m >> 63:
        m <<= 1
        n += 1
    return n


cdef inline int32_t normal(x80_t a, uint64_t *m) noexcept nogil:
    """Exponent and significand with its integer bit, of a finite number that is not 0."""
    cdef int32_t e = exponent_of(a)
    cdef int n
    m[0] = a.m
    if e == 0:
        n = leading(a.m)
        m[0] = a.m << n
        return 1 - n
    return e


cdef inline void shift_right(uint64_t *high, uint64_t *low, uint32_t n) noexcept nogil:
    """128 bits; what falls out stays as a one in the lowest bit."""
    cdef uint64_t lost
    if n == 0:
        return
    if n < 64:
        lost = low[0] << (64 - n)
        low[0] = high[0] << (64 - n) | low[0] >> n | (lost != 0)
        high[0] >>= n
    elif n < 128:
        lost = low[0] | (high[0] << (128 - n) if n > 64 else 0)
        low[0] = (high[0] >> (n - 64)) | (lost != 0)
        high[0] = 0
    else:
        low[0] = (high[0] | low[0]) != 0
        high[0] = 0


cdef inline bint away(uint32_t mode, uint32_t sign, int rest, bint odd) noexcept nogil:
    """Whether to round away from zero; `rest` is 0 (nothing), 1 (below half), 2 (half), 3."""
    if mode == NEAREST:
        return rest == 3 or (rest == 2 and odd)
    if mode == CHOP or rest == 0:
        return False
    return (mode == DOWN) == (sign == 1)


cdef inline int against_half(uint64_t rest, uint64_t half, uint64_t low) noexcept nogil:
    if rest == half:
        return 3 if low else 2
    if rest > half:
        return 3
    return 1 if rest or low else 0


cdef uint64_t rounded(
    uint32_t mode, uint32_t sign, uint64_t high, uint64_t low, uint32_t drop, bint *up,
    bint *inexact, bint *carry
) noexcept nogil:
    """`high` without its lowest `drop` bits (0 to 64), rounded; `low` follows below."""
    cdef uint64_t unit, kept, rest
    cdef int place
    if drop == 0:
        place = against_half(low, TOP, 0)
        kept = high
        unit = 1
    elif drop < 64:
        unit = <uint64_t>1 << drop
        rest = high & (unit - 1)
        kept = high - rest
        place = against_half(rest, unit >> 1, low)
    else:
        place = against_half(high, TOP, low)
        kept = 0
        unit = 0
    inexact[0] = place != 0
    up[0] = away(mode, sign, place, (kept & unit) != 0)
    carry[0] = False
    if up[0]:
        if unit == 0:
            carry[0] = True
        else:
            kept += unit
            carry[0] = kept == 0
    return kept


cdef x80_t packed(
    rounding_t *r, uint32_t sign, int32_t e, uint64_t high, uint64_t low
) noexcept nogil:
    """Round to the precision of the control word, and to the range of exponents."""
    cdef uint32_t mode = r.control >> 10 & 3, width = r.control >> 8 & 3
    cdef uint32_t drop = 40 if width == 0 else 11 if width == 2 else 0
    cdef bint up, inexact, carry, tiny = False
    cdef uint64_t m
    if e < 1:
        m = rounded(mode, sign, high, low, drop, &up, &inexact, &carry)
        tiny = e < 0 or not carry
        if tiny and not r.control & FE_UNDERFLOW:
            e += WRAP
            r.flags |= FE_UNDERFLOW
            tiny = False
        else:
            shift_right(&high, &low, <uint32_t>(1 - e))
            e = 0
    m = rounded(mode, sign, high, low, drop, &up, &inexact, &carry)
    if carry:
        m = TOP
        e += 1
    elif e == 0 and m >> 63:
        e = 1
    if e >= HIGHEST:
        r.flags |= FE_OVERFLOW
        if not r.control & FE_OVERFLOW:
            e -= WRAP
        else:
            r.flags |= FE_PRECISION
            if mode == NEAREST or (mode == UP and not sign) or (mode == DOWN and sign):
                r.up = 1
                return infinity(sign)
            r.up = 0
            return made(sign, HIGHEST - 1, ALL << drop)
    r.up = up
    if inexact:
        r.flags |= FE_PRECISION
        if tiny:
            r.flags |= FE_UNDERFLOW
    return made(sign, <uint32_t>e, m)


cdef x80_t invalid(rounding_t *r) noexcept nogil:
    r.flags = <uint16_t>((r.flags & ~<uint32_t>FE_DENORMAL) | FE_INVALID)
    return x_indefinite()


cdef bint settled(rounding_t *r, x80_t a, x80_t b, x80_t *out) noexcept nogil:
    """NaNs and encodings that are not supported decide a result; denormals are noted."""
    cdef bint na, nb, sa, sb
    if x_unsupported(a) or x_unsupported(b):
        out[0] = invalid(r)
        return True
    na = x_is_nan(a)
    nb = x_is_nan(b)
    if not na and not nb:
        if is_denormal(a) or is_denormal(b):
            r.flags |= FE_DENORMAL
        return False
    sa = signals(a)
    sb = signals(b)
    r.flags &= <uint16_t>~<uint32_t>FE_DENORMAL     # of an operand that came from memory
    if sa or sb:
        r.flags |= FE_INVALID
    a.m |= QUIET
    b.m |= QUIET
    if na and nb and sa == sb:
        if a.m != b.m:
            out[0] = a if a.m > b.m else b
        else:
            out[0] = a if sign_of(a) < sign_of(b) else b
    elif na and nb:
        out[0] = b if sa else a         # of a signalling and a quiet one, the quiet one
    else:
        out[0] = a if na else b
    return True


cdef x80_t x_add(rounding_t *r, x80_t a, x80_t b, bint subtract) noexcept nogil:
    cdef x80_t out
    cdef uint64_t ma, mb, low = 0, other = 0
    cdef int32_t ea, eb
    cdef uint32_t sign
    cdef int n
    r.up = 0
    if settled(r, a, b, &out):
        return out
    if subtract:
        b.se ^= 0x8000
    if is_infinity(a):
        return invalid(r) if is_infinity(b) and a.se != b.se else a
    if is_infinity(b):
        return b
    if is_zero(a) and is_zero(b):
        if a.se == b.se:
            return a
        return made((r.control >> 10 & 3) == DOWN, 0, 0)
    if is_zero(a) or is_zero(b):
        if is_zero(a):
            a = b
        ea = normal(a, &ma)
        return packed(r, sign_of(a), ea, ma, 0)
    ea = normal(a, &ma)
    eb = normal(b, &mb)
    if ea < eb or (ea == eb and ma < mb):
        a, b = b, a
        ea, eb = eb, ea
        ma, mb = mb, ma
    sign = sign_of(a)
    shift_right(&mb, &other, <uint32_t>(ea - eb))
    if sign == sign_of(b):
        ma += mb
        low = other
        if ma < mb:
            shift_right(&ma, &low, 1)
            ma |= TOP
            ea += 1
        return packed(r, sign, ea, ma, low)
    low = 0 - other
    ma = ma - mb - (other != 0)
    if ma == 0 and low == 0:
        return made((r.control >> 10 & 3) == DOWN, 0, 0)
    if ma == 0:
        ma = low
        low = 0
        ea -= 64
    n = leading(ma)
    if n:
        ma = ma << n | low >> (64 - n)
        low <<= n
    return packed(r, sign, ea - n, ma, low)


cdef void product(uint64_t a, uint64_t b, uint64_t *high, uint64_t *low) noexcept nogil:
    """64 times 64 bits."""
    cdef uint64_t a0 = <uint32_t>a, a1 = a >> 32, b0 = <uint32_t>b, b1 = b >> 32
    cdef uint64_t p00 = a0 * b0, p01 = a0 * b1, p10 = a1 * b0, middle
    middle = (p00 >> 32) + <uint32_t>p01 + <uint32_t>p10
    low[0] = <uint32_t>p00 | middle << 32
    high[0] = a1 * b1 + (p01 >> 32) + (p10 >> 32) + (middle >> 32)


cdef x80_t x_multiply(rounding_t *r, x80_t a, x80_t b) noexcept nogil:
    cdef x80_t out
    cdef uint64_t ma, mb, high, low
    cdef int32_t e
    cdef uint32_t sign = sign_of(a) ^ sign_of(b)
    r.up = 0
    if settled(r, a, b, &out):
        return out
    if is_infinity(a) or is_infinity(b):
        return invalid(r) if is_zero(a) or is_zero(b) else infinity(sign)
    if is_zero(a) or is_zero(b):
        return made(sign, 0, 0)
    e = normal(a, &ma) + normal(b, &mb) - BIAS + 1
    product(ma, mb, &high, &low)
    if not high >> 63:
        high = high << 1 | low >> 63
        low <<= 1
        e -= 1
    return packed(r, sign, e, high, low)


cdef uint64_t quotient(uint64_t *rest, uint64_t by) noexcept nogil:
    """64 bits of `rest` / `by` after the point, `rest` < `by`; what is left goes to `rest`."""
    cdef uint64_t q = 0, v = rest[0]
    cdef bint over
    for _ in range(64):
        over = v >> 63 != 0
        v <<= 1
        q <<= 1
        if over or v >= by:
            v -= by
            q |= 1
    rest[0] = v
    return q


cdef x80_t x_divide(rounding_t *r, x80_t a, x80_t b) noexcept nogil:
    cdef x80_t out
    cdef uint64_t ma, mb, high, low
    cdef int32_t e
    cdef uint32_t sign = sign_of(a) ^ sign_of(b)
    r.up = 0
    if settled(r, a, b, &out):
        return out
    if is_infinity(a):
        return invalid(r) if is_infinity(b) else infinity(sign)
    if is_infinity(b):
        return made(sign, 0, 0)
    if is_zero(b):
        if is_zero(a):
            return invalid(r)
        r.flags = <uint16_t>((r.flags & ~<uint32_t>FE_DENORMAL) | FE_ZERO)
        return infinity(sign)
    if is_zero(a):
        return made(sign, 0, 0)
    e = normal(a, &ma) - normal(b, &mb) + BIAS
    if ma >= mb:
        ma -= mb
        high = quotient(&ma, mb)
        low = quotient(&ma, mb) | (ma != 0)
        # the integer bit is one
        low = high << 63 | low >> 1 | (low & 1)
        high = TOP | high >> 1
    else:
        e -= 1
        high = quotient(&ma, mb)
        low = quotient(&ma, mb) | (ma != 0)
    return packed(r, sign, e, high, low)


cdef x80_t x_root(rounding_t *r, x80_t a) noexcept nogil:
    cdef x80_t out
    cdef uint64_t m, low = 0, root = 0, rest = 0, over = 0, high_trial, trial
    cdef int32_t e
    r.up = 0
    if settled(r, a, a, &out):
        return out
    if is_zero(a):
        return a
    if sign_of(a):
        return invalid(r)
    if is_infinity(a):
        return a
    e = normal(a, &m) - BIAS
    # 64 bits of the root from 128 of the radicand, two a step
    if not e & 1:
        low = m << 63
        m >>= 1
    for _ in range(64):
        over = over << 2 | rest >> 62
        rest = rest << 2 | m >> 62
        m = m << 2 | low >> 62
        low <<= 2
        high_trial = root >> 62
        trial = root << 2 | 1
        root <<= 1
        if over > high_trial or (over == high_trial and rest >= trial):
            over -= high_trial + (rest < trial)
            rest -= trial
            root |= 1
    if over or rest > root:             # never half: (root + 1/2) squared is no integer
        low = TOP | 1
    else:
        low = rest != 0
    return packed(r, 0, (e >> 1) + BIAS, root, low)


cdef x80_t x_whole(rounding_t *r, x80_t a) noexcept nogil:
    """The integer that the rounding gives."""
    cdef x80_t out
    cdef uint64_t m, low = 0
    cdef int32_t e
    cdef bint up, inexact, carry
    cdef uint32_t mode = r.control >> 10 & 3, sign = sign_of(a)
    r.up = 0
    if settled(r, a, a, &out):
        return out
    if is_zero(a) or exponent_of(a) >= BIAS + 63:
        return a
    e = normal(a, &m)
    if e < BIAS - 1:                    # below a half
        low = 1
        m = 0
        e = BIAS - 1
    m = rounded(mode, sign, m, low, <uint32_t>(BIAS + 63 - e), &up, &inexact, &carry)
    r.up = up
    if inexact:
        r.flags |= FE_PRECISION
    if carry:
        return made(sign, <uint32_t>(e + 1), TOP)
    if m == 0:
        return made(sign, 0, 0)
    return made(sign, <uint32_t>e, m)


cdef int x_compare(rounding_t *r, x80_t a, x80_t b, bint quiet) noexcept nogil:
    """Invalid are signalling NaNs, and, unless `quiet`, all."""
    cdef uint64_t ma, mb
    cdef int32_t ea, eb
    cdef bint below
    if x_unsupported(a) or x_unsupported(b):
        invalid(r)
        return UNORDERED
    if x_is_nan(a) or x_is_nan(b):
        r.flags &= <uint16_t>~<uint32_t>FE_DENORMAL
        if not quiet or signals(a) or signals(b):
            r.flags |= FE_INVALID
        return UNORDERED
    if is_denormal(a) or is_denormal(b):
        r.flags |= FE_DENORMAL
    if is_zero(a) and is_zero(b):
        return EQUAL
    if sign_of(a) != sign_of(b):
        return LESS if sign_of(a) else GREATER
    if is_zero(a) or is_zero(b):
        below = is_zero(a)
    else:
        ea = HIGHEST if is_infinity(a) else normal(a, &ma)
        eb = HIGHEST if is_infinity(b) else normal(b, &mb)
        if is_infinity(a):
            ma = TOP
        if is_infinity(b):
            mb = TOP
        if ea == eb and ma == mb:
            return EQUAL
        below = ea < eb or (ea == eb and ma < mb)
    return LESS if below != (sign_of(a) == 1) else GREATER


cdef x80_t x_of_integer(int64_t v) noexcept nogil:
    cdef uint64_t m = <uint64_t>v
    cdef int n
    if v == 0:
        return made(0, 0, 0)
    if v < 0:
        m = 0 - m
    n = leading(m)
    return made(v < 0, <uint32_t>(BIAS + 63 - n), m << n)


cdef x80_t x_of_float(rounding_t *r, uint64_t v, bint double_) noexcept nogil:
    """Single or double precision, exactly; a signalling NaN is invalid and becomes quiet."""
    cdef uint32_t fraction = 52 if double_ else 23, width = 11 if double_ else 8
    cdef uint32_t sign = <uint32_t>(v >> (fraction + width)) & 1, top = (1 << width) - 1
    cdef uint32_t e = <uint32_t>(v >> fraction) & top
    cdef uint64_t m = (v & ((<uint64_t>1 << fraction) - 1)) << (63 - fraction)
    cdef int32_t bias = <int32_t>(top >> 1)
    cdef int n
    if e == top:
        if m and not m & QUIET:
            r.flags |= FE_INVALID
            m |= QUIET
        return made(sign, HIGHEST, TOP | m)
    if e == 0:
        if m == 0:
            return made(sign, 0, 0)
        r.flags |= FE_DENORMAL
        n = leading(m)
        return made(sign, <uint32_t>(BIAS - bias + 1 - n), m << n)
    return made(sign, <uint32_t>(<int32_t>e - bias + BIAS), TOP | m)


cdef uint64_t x_to_float(rounding_t *r, x80_t a, bint double_) noexcept nogil:
    """Single or double precision, rounded."""
    cdef uint32_t fraction = 52 if double_ else 23, width = 11 if double_ else 8
    cdef uint32_t top = (1 << width) - 1, mode = r.control >> 10 & 3, sign = sign_of(a)
    cdef uint64_t m, low = 0, s = <uint64_t>sign << (fraction + width)
    cdef int32_t e, bias = <int32_t>(top >> 1)
    cdef uint32_t drop = 63 - fraction
    cdef bint up, inexact, carry, tiny = False
    r.up = 0
    if x_unsupported(a):
        r.flags |= FE_INVALID
        return <uint64_t>1 << (fraction + width) | <uint64_t>top << fraction | <uint64_t>1 << (
            fraction - 1)
    if x_is_nan(a):
        if signals(a):
            r.flags |= FE_INVALID
        return s | <uint64_t>top << fraction | ((a.m | QUIET) << 1) >> (64 - fraction)
    if is_infinity(a):
        return s | <uint64_t>top << fraction
    if is_zero(a):
        return s
    e = normal(a, &m) - BIAS + bias
    if e < 1:
        rounded(mode, sign, m, 0, drop, &up, &inexact, &carry)
        tiny = e < 0 or not carry
        shift_right(&m, &low, <uint32_t>(1 - e))
        e = 0
    m = rounded(mode, sign, m, low, drop, &up, &inexact, &carry)
    if carry:
        m = TOP
        e += 1
    elif e == 0 and m >> 63:
        e = 1
    if e >= <int32_t>top:
        r.flags |= FE_OVERFLOW | FE_PRECISION
        if mode == NEAREST or (mode == UP and not sign) or (mode == DOWN and sign):
            r.up = 1
            return s | <uint64_t>top << fraction
        return s | (<uint64_t>top << fraction) - 1
    r.up = up
    if tiny and (inexact or not r.control & FE_UNDERFLOW):
        r.flags |= FE_UNDERFLOW
    if inexact:
        r.flags |= FE_PRECISION
    return s | <uint64_t>e << fraction | (m << 1) >> (64 - fraction)


cdef int64_t x_to_integer(rounding_t *r, x80_t a, uint32_t bits) noexcept nogil:
    """An integer of 16, 32 or 64 bits; one that does not fit is invalid, and the most negative."""
    cdef uint64_t m, most = <uint64_t>1 << (bits - 1)
    cdef int32_t e
    cdef bint up, inexact, carry
    cdef uint32_t mode = r.control >> 10 & 3, sign = sign_of(a)
    cdef uint64_t low = 0
    r.up = 0
    if is_zero(a):
        return 0
    if x_unsupported(a) or exponent_of(a) >= BIAS + 64:
        r.flags |= FE_INVALID
        return <int64_t>(0 - most)
    e = normal(a, &m)
    if e < BIAS - 1:
        m = 0
        low = 1
        e = BIAS - 1
    m = rounded(mode, sign, m, low, <uint32_t>(BIAS + 63 - e), &up, &inexact, &carry)
    if carry:
        if e == BIAS + 63:
            r.flags |= FE_INVALID
            return <int64_t>(0 - most)
        m = TOP
        e += 1
    if m:
        m >>= BIAS + 63 - e
    if m > most - (not sign):
        r.flags |= FE_INVALID
        return <int64_t>(0 - most)
    r.up = up
    if inexact:
        r.flags |= FE_PRECISION
    return <int64_t>(0 - m if sign else m)
