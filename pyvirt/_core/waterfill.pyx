"""Weighted max-min division with floors and caps: the solver behind every entitlement.

Client i gets e_i = clip(level * s_i, f_i, c_i) for its share s, floor f and cap c, and the level is
where the e_i add up to the amount, or to the sum of the caps if that is less. Their sum grows with
the level along a line that bends at the 2n breakpoints f_i / s_i and c_i / s_i.

No sorting: a level is tried, and the sign of what is then missing decides bounds of many clients at
once, for good. Tried first is the level at which all undecided clients would be inside their bounds
(Bitran and Hax, 1981); it decides one client at least, and in practice most of them. Where it
decides few, the next level tried is the breakpoint of a client drawn at random, as in quickselect,
so that the expected work is linear for every input. The draws come from a fixed seed.
"""

from libc.math cimport INFINITY, fabs
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc

import numpy as np

from pyvirt._core.arrays cimport as_output
from pyvirt.errors import InvalidTypeError, InvalidValueError

SCRATCH_BYTES = sizeof(undecided_t)

cdef enum:
    LEAST_DECIDED = 4               # a try that decides less than 1 / 4 was a poor one
    MOST_CORRECTIONS = 4

cdef double LEAST_SHARE = 1e-12
cdef double MOST_SHARE = 1e15
cdef double EPSILON = 2.220446049250313e-16


cdef inline double larger(double a, double b) noexcept nogil:
    return a if a > b else b


cdef inline double smaller(double a, double b) noexcept nogil:
    return a if a < b else b


cdef inline double clip(double x, double floor, double cap) noexcept nogil:
    return smaller(larger(x, floor), cap)


cdef double some_breakpoint(const undecided_t *c, int64_t n, uint64_t *random) noexcept nogil:
    """The level at which a client that is drawn reaches a bound which may bind."""
    cdef const undecided_t *drawn
    random[0] = random[0] * 6364136223846793005ULL + 1442695040888963407ULL
    drawn = c + <int64_t>((random[0] >> 33) % <uint64_t>n)
    if drawn.cap == INFINITY or (drawn.floor >= 0 and random[0] >> 32 & 1):
        return drawn.floor / drawn.share
    return drawn.cap / drawn.share


cdef double find_level(undecided_t *c, int64_t n, double inside, double rest) noexcept nogil:
    """The level at which clients get `rest`; `inside` are shares that have no bounds.

    `c` is used up. What is decided about a bound holds for the level that is sought: below a level
    that gives too much, a client at its floor stays there and one below its cap never reaches it.
    """
    cdef double low = 0, high = INFINITY, total, tried, missing, over, under, x, share, floor, cap
    cdef int64_t i, kept
    cdef int fixed, loose           # at a bound for good; known to be inside
    cdef uint64_t random = 0x9E3779B97F4A7C15ULL
    cdef bint by_draw = False
    while n:
        total = inside
        for i in range(n):
            total += c[i].share
        tried = some_breakpoint(c, n, &random) if by_draw else rest / total
        over = under = 0
        for i in range(n):
            x = tried * c[i].share
            over += larger(x - c[i].cap, 0)
            under += larger(c[i].floor - x, 0)
        # What the clients would lack of `rest`, where `tried * total` is equal to it but for draws.
        missing = over - under
        if by_draw:
            missing -= tried * total - rest
        if missing == 0:
            return tried
        kept = 0
        # Without branches on the clients, which no one could predict.
        if missing < 0:
            high = smaller(high, tried)
            for i in range(n):
                share, floor, cap = c[i].share, c[i].floor, c[i].cap
                x = tried * share
                fixed = x <= floor
                loose = (x <= cap) & (floor < 0)
                rest -= floor if fixed else 0
                inside += share if loose else 0
                c[kept].share = share
                c[kept].floor = floor
                c[kept].cap = INFINITY if x <= cap else cap
                kept += not (fixed | loose)
        else:
            low = larger(low, tried)
            for i in range(n):
                share, floor, cap = c[i].share, c[i].floor, c[i].cap
                x = tried * share
                fixed = x >= cap
                loose = (x >= floor) & (cap == INFINITY)
                rest -= cap if fixed else 0
                inside += share if loose else 0
                c[kept].share = share
                c[kept].floor = -INFINITY if x >= floor else floor
                c[kept].cap = cap
                kept += not (fixed | loose)
        by_draw = not by_draw and n - kept < n // LEAST_DECIDED
        n = kept
    if inside > 0:
        return rest / inside
    return low if high == INFINITY else high


cdef double settle(
    const double *shares, const double *floors, const double *caps, int64_t n, double amount,
    double level, double *out
) noexcept nogil:
    """Write what each gets at the level, which is first corrected for the rounding on the way."""
    cdef sum_t given
    cdef double inside, gap
    cdef int64_t i
    cdef int _
    for _ in range(MOST_CORRECTIONS):
        given.high = given.low = inside = 0
        for i in range(n):
            if shares[i] > 0:
                out[i] = clip(level * shares[i], floors[i], caps[i])
                if floors[i] < out[i] < caps[i]:
                    inside += shares[i]
            else:
                out[i] = floors[i]
            add(&given, out[i])
        gap = (amount - given.high) - given.low
        if inside == 0 or fabs(gap) <= EPSILON * amount:
            break
        level += gap / inside
    return level


cdef void fill_shareless(
    const double *shares, const double *floors, const double *caps, int64_t n, double rest,
    double *out, undecided_t *c
) noexcept nogil:
    """Those with shares are at their caps: the others divide `rest` as if each had one share."""
    cdef int64_t i, count = 0
    cdef double level
    for i in range(n):
        if shares[i] == 0:
            c[count].share = 1
            c[count].floor = floors[i]
            c[count].cap = caps[i]
            count += 1
    level = find_level(c, count, 0, rest)
    for i in range(n):
        out[i] = caps[i] if shares[i] > 0 else clip(level, floors[i], caps[i])


cdef fill_status fill(
    const double *shares, const double *floors, const double *caps, int64_t n, double amount,
    double *out, double *level, void *scratch
) noexcept nogil:
    """Divide `amount` among n clients.

    Shares are 0 or at least 1e-12 and at most 1e15, and 0 <= floor <= cap, with finite floors; the
    callers see to that. `out` is none of the inputs; `scratch` has room for n `undecided_t`. `level`
    may be NULL; it is infinite where all that have shares are at their caps.

    A client without shares gets its floor, and more only when all others are at their caps; then
    those without shares are equal among themselves. If the floors exceed the amount, which admission
    control rules out, each gets its floor times amount / sum of floors.
    """
    cdef undecided_t *c = <undecided_t *>scratch
    cdef sum_t floor_sum, cap_sum, shareless
    cdef double inside = 0, with_shares, found = INFINITY, factor
    cdef int64_t i, count = 0, unlimited = 0, shared_unlimited = 0
    floor_sum.high = floor_sum.low = cap_sum.high = cap_sum.low = 0
    shareless.high = shareless.low = with_shares = 0
    for i in range(n):
        add(&floor_sum, floors[i])
        if caps[i] == INFINITY:
            unlimited += 1
            shared_unlimited += shares[i] > 0
        else:
            add(&cap_sum, caps[i])
        if shares[i] == 0:
            add(&shareless, floors[i])
        else:
            if caps[i] < INFINITY:
                with_shares += caps[i]
            if floors[i] == 0 and caps[i] == INFINITY:
                inside += shares[i]
                continue
            c[count].share = shares[i]
            c[count].floor = floors[i] if floors[i] > 0 else -INFINITY
            c[count].cap = caps[i]
            count += 1
    if unlimited == 0 and cap_sum.high + cap_sum.low <= amount:
        for i in range(n):
            out[i] = caps[i]
    elif amount == INFINITY:
        return FILL_UNBOUNDED
    elif floor_sum.high + floor_sum.low >= amount:
        found = 0
        factor = amount / (floor_sum.high + floor_sum.low) if amount > 0 else 0
        for i in range(n):
            out[i] = floors[i] * factor if factor < 1 else floors[i]
        if level != NULL:
            level[0] = found
        return FILL_SCALED if factor < 1 and floor_sum.high > 0 else FILL_OK
    elif shared_unlimited == 0 and with_shares <= amount - shareless.high - shareless.low:
        fill_shareless(shares, floors, caps, n, amount - with_shares, out, c)
    else:
        found = find_level(c, count, inside, amount - shareless.high - shareless.low)
        found = settle(shares, floors, caps, n, amount, found, out)
    if level != NULL:
        level[0] = found
    return FILL_OK


# --- from Python ------------------------------------------------------------------------------

cdef object as_doubles(object values, str name):
    """`values` as a one-dimensional contiguous array of doubles."""
    try:
        array = np.ascontiguousarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(
            f"{name} must be an array of numbers, not {values!r:.80}") from error
    if np.ndim(values) != 1:
        raise InvalidTypeError(f"{name} must be a one-dimensional array, not {values!r:.80}")
    return array


cdef int64_t first_bad(
    const double *shares, const double *floors, const double *caps, int64_t n
) noexcept nogil:
    """The first client that `fill` must not see, or n. NaN fails each comparison."""
    cdef int64_t i
    for i in range(n):
        if not (shares[i] == 0 or LEAST_SHARE <= shares[i] <= MOST_SHARE):
            return i
        if not (0 <= floors[i] <= caps[i] and floors[i] < INFINITY):
            return i
    return n


def divide(shares, floors, caps, amount, *, out=None):
    """Divide an amount by shares, with a floor and a cap for each client.

    Parameters
    ----------
    shares : array of float, shape (n,)
        0, or 1e-12 to 1e15.
    floors, caps : array of float, shape (n,)
        0 <= floor <= cap; caps may be infinite.
    amount : float
        What is divided, in the unit of floors and caps; infinite only if no cap is.
    out : ndarray of float64, optional
        Receives the result.

    Returns
    -------
    given : ndarray of float64
        What each client gets.
    level : float
        What a share is worth to clients between floor and cap; infinite if all that have shares
        are at their caps, 0 if no more than the floors is there.
    scaled : bool
        Whether the floors exceeded the amount and were all cut by one factor.
    """
    s, f, c = as_doubles(shares, "shares"), as_doubles(floors, "floors"), as_doubles(caps, "caps")
    if not len(s) == len(f) == len(c):
        raise InvalidTypeError("shares, floors and caps must be equally long, "
                               f"got {len(s)}, {len(f)} and {len(c)}")
    cdef double total
    try:
        total = amount
    except TypeError as error:
        raise InvalidTypeError(f"amount must be a number, not {amount!r:.80}") from error
    if not total >= 0:
        raise InvalidValueError(f"amount must not be negative, got {amount!r:.80}")
    cdef object result = as_output(out, np.float64, s.shape, "out")
    for array, name in ((s, "shares"), (f, "floors"), (c, "caps")):
        if np.may_share_memory(result, array):
            raise InvalidValueError(f"out must not overlap {name}")
    cdef const double[::1] share_view = s, floor_view = f, cap_view = c
    cdef double[::1] out_view = result
    cdef int64_t n = len(s), bad
    cdef double level = INFINITY
    cdef fill_status status
    cdef void *scratch
    if n == 0:
        return result, level, False
    bad = first_bad(&share_view[0], &floor_view[0], &cap_view[0], n)
    if bad < n:
        raise InvalidValueError(
            "each client must have shares of 0 or in [1e-12, 1e15], and 0 <= floor <= cap with a "
            f"finite floor, got shares {s[bad]}, floor {f[bad]}, cap {c[bad]} at index {bad}")
    scratch = malloc(n * sizeof(undecided_t))
    if scratch == NULL:
        raise MemoryError
    with nogil:
        status = fill(&share_view[0], &floor_view[0], &cap_view[0], n, total, &out_view[0], &level,
                      scratch)
    free(scratch)
    if status == FILL_UNBOUNDED:
        raise InvalidValueError("amount must be finite unless all caps are, got inf")
    return result, level, status == FILL_SCALED
