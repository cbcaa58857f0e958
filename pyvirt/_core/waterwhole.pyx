"""Weighted max-min division in whole units, such as MHz, pages or nanoseconds.

As waterfill.pyx, with the level as a fraction of two integers and all comparisons exact. Clients
between floor and cap are rounded down; the units that are left over go one each to those that
rounding took most from (the method of largest remainders), the first of equal ones first. So the
result adds up, and is within one unit of the division without rounding.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc

import numpy as np

from pyvirt._core.arrays cimport as_int, as_output
from pyvirt._core.waterfill cimport FILL_OK, FILL_SCALED, fill_status
from pyvirt.errors import InvalidTypeError, InvalidValueError

cdef int64_t MOST_WHOLE = 1LL << 62
cdef int64_t MOST_WHOLE_SHARE = 1LL << 32
cdef int64_t MOST_WHOLE_CLIENTS = 1LL << 26
cdef int64_t NO_CAP = 0x7FFFFFFFFFFFFFFFLL

cdef enum:
    LEAST_DECIDED = 4               # a try that decides less than 1 / 4 was a poor one

cdef struct level_t:                # a fraction: units for one share
    int64_t units
    int64_t shares                  # 0: infinite


cdef level_t some_breakpoint(const whole_t *c, int64_t n, uint64_t *random) noexcept nogil:
    """The level at which a client that is drawn reaches a bound which may bind."""
    cdef const whole_t *drawn
    cdef level_t level
    random[0] = random[0] * 6364136223846793005ULL + 1442695040888963407ULL
    drawn = c + <int64_t>((random[0] >> 33) % <uint64_t>n)
    level.shares = drawn.share
    if drawn.cap == NO_CAP or (drawn.floor >= 0 and random[0] >> 32 & 1):
        level.units = drawn.floor
    else:
        level.units = drawn.cap
    return level


cdef inline bint below(level_t a, level_t b) noexcept nogil:
    return <wide_t>a.units * b.shares < <wide_t>b.units * a.shares


cdef level_t find_level(whole_t *c, int64_t n, int64_t inside, int64_t rest) noexcept nogil:
    """The level at which clients get `rest`, unrounded; `inside` are shares that have no bounds."""
    cdef level_t tried, low, high
    cdef int64_t total, i, kept
    cdef wide_t missing, x
    cdef uint64_t random = 0x9E3779B97F4A7C15ULL
    cdef bint by_draw = False
    low.units = 0
    low.shares = 1
    high.units = high.shares = 0
    while n:
        total = inside
        for i in range(n):
            total += c[i].share
        if by_draw:
            tried = some_breakpoint(c, n, &random)
        else:
            tried.units = rest
            tried.shares = total
        missing = <wide_t>rest * tried.shares - <wide_t>tried.units * total
        for i in range(n):
            x = <wide_t>tried.units * c[i].share
            if c[i].cap < NO_CAP and x > <wide_t>c[i].cap * tried.shares:
                missing += x - <wide_t>c[i].cap * tried.shares
            elif x < <wide_t>c[i].floor * tried.shares:
                missing -= <wide_t>c[i].floor * tried.shares - x
        if missing == 0:
            return tried
        kept = 0
        if missing < 0:
            if high.shares == 0 or below(tried, high):
                high = tried
        elif below(low, tried):
            low = tried
        for i in range(n):
            x = <wide_t>tried.units * c[i].share
            if missing < 0:
                if x <= <wide_t>c[i].floor * tried.shares:
                    rest -= c[i].floor
                    continue
                if c[i].cap < NO_CAP and x <= <wide_t>c[i].cap * tried.shares:
                    c[i].cap = NO_CAP
            else:
                if c[i].cap < NO_CAP and x >= <wide_t>c[i].cap * tried.shares:
                    rest -= c[i].cap
                    continue
                if x >= <wide_t>c[i].floor * tried.shares:
                    c[i].floor = -1
            if c[i].floor < 0 and c[i].cap == NO_CAP:
                inside += c[i].share
                continue
            c[kept] = c[i]
            kept += 1
        by_draw = not by_draw and n - kept < n // LEAST_DECIDED
        n = kept
    if inside > 0:
        tried.units = rest
        tried.shares = inside
        return tried
    # All are at a bound, wherever between these two the level is.
    return low if high.shares == 0 else high


cdef inline bint before(const remainder_t *a, const remainder_t *b) noexcept nogil:
    """Whether `a` gets a unit sooner than `b`."""
    return a.left > b.left or (a.left == b.left and a.client < b.client)


cdef void select(remainder_t *r, int64_t n, int64_t k) noexcept nogil:
    """Move the k that come first to the front, in any order: Hoare's quickselect."""
    cdef int64_t low = 0, high = n - 1, i, j
    cdef remainder_t pivot, kept
    cdef uint64_t random = 0x9E3779B97F4A7C15ULL
    while low < high:
        random = random * 6364136223846793005ULL + 1442695040888963407ULL
        pivot = r[low + <int64_t>((random >> 33) % <uint64_t>(high - low + 1))]
        i, j = low, high
        while i <= j:
            while before(&r[i], &pivot):
                i += 1
            while before(&pivot, &r[j]):
                j -= 1
            if i <= j:
                kept = r[i]
                r[i] = r[j]
                r[j] = kept
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            return


cdef void write_rounded(
    const int64_t *shares, const int64_t *floors, const int64_t *caps, int64_t n, int64_t amount,
    level_t level, int64_t *out, remainder_t *r
) noexcept nogil:
    """What each gets at the level, clipped and rounded so that all get `amount`."""
    cdef int64_t i, count = 0, left = amount
    cdef wide_t x
    for i in range(n):
        x = <wide_t>level.units * shares[i]
        if x <= <wide_t>floors[i] * level.shares:
            out[i] = floors[i]
        elif x >= <wide_t>caps[i] * level.shares:
            out[i] = caps[i]
        else:
            out[i] = <int64_t>(x / level.shares)
            r[count].left = <int64_t>(x - <wide_t>out[i] * level.shares)
            r[count].client = i
            count += 1
        left -= out[i]
    if left > 0:
        select(r, count, left)
        for i in range(left):
            out[r[i].client] += 1


cdef void fill_at_level(
    const int64_t *shares, const int64_t *floors, const int64_t *caps, int64_t n, int64_t amount,
    int64_t rest, int64_t *out, void *scratch
) noexcept nogil:
    """Divide `rest` among those that have shares; the others get their floors."""
    cdef whole_t *c = <whole_t *>scratch
    cdef int64_t i, count = 0
    for i in range(n):
        if shares[i] > 0:
            c[count].share = shares[i]
            c[count].floor = floors[i] if floors[i] > 0 else -1
            c[count].cap = caps[i]
            count += 1
    write_rounded(shares, floors, caps, n, amount, find_level(c, count, 0, rest), out,
                  <remainder_t *>scratch)


cdef void fill_shareless(
    const int64_t *shares, const int64_t *floors, const int64_t *caps, int64_t n, int64_t rest,
    int64_t *out, void *scratch
) noexcept nogil:
    """Those with shares are at their caps: the others divide `rest` as if each had one share."""
    cdef whole_t *c = <whole_t *>scratch
    cdef remainder_t *r = <remainder_t *>scratch
    cdef level_t level
    cdef int64_t i, count = 0, left = rest
    for i in range(n):
        if shares[i] == 0:
            c[count].share = 1
            c[count].floor = floors[i] if floors[i] > 0 else -1
            c[count].cap = caps[i]
            count += 1
    level = find_level(c, count, 0, rest)
    count = 0
    for i in range(n):
        if shares[i] > 0:
            out[i] = caps[i]
            continue
        out[i] = level.units // level.shares
        if out[i] < floors[i]:
            out[i] = floors[i]
        elif out[i] >= caps[i]:
            out[i] = caps[i]
        elif level.units % level.shares:
            r[count].left = 1           # all equal: the first ones get a unit
            r[count].client = i
            count += 1
        left -= out[i]
    for i in range(left):
        out[r[i].client] += 1


cdef fill_status fill_whole(
    const int64_t *shares, const int64_t *floors, const int64_t *caps, int64_t n, int64_t amount,
    int64_t *out, void *scratch
) noexcept nogil:
    """Divide `amount` among n clients, at most 2**26, in whole units.

    Shares are 0 to 2**32, and 0 <= floor <= cap <= 2**63 - 1, floors and the amount at most 2**62;
    the callers see to that. A cap at or above the amount does not bind. `out` is none of the
    inputs; `scratch` has 24 bytes for each client. Without shares, and with floors that exceed the
    amount, as `waterfill.fill`.
    """
    cdef int64_t coarse
    cdef wide_t floor_sum = 0, cap_sum = 0, shared_caps = 0, shareless = 0
    cdef int64_t i, left
    cdef remainder_t *r = <remainder_t *>scratch
    for i in range(n):
        floor_sum += floors[i]
        cap_sum += caps[i]
        if shares[i] > 0:
            shared_caps += caps[i]
        else:
            shareless += floors[i]
    if cap_sum <= amount:
        for i in range(n):
            out[i] = caps[i]
        return FILL_OK
    if floor_sum > amount:
        left = amount
        # Remainders of a sum that is longer than 62 bits lose their last 26.
        coarse = 1 if floor_sum <= MOST_WHOLE else 1 << 26
        for i in range(n):
            out[i] = <int64_t>(<wide_t>floors[i] * amount / floor_sum)
            r[i].left = <int64_t>(<wide_t>floors[i] * amount % floor_sum / coarse)
            r[i].client = i
            left -= out[i]
        if left > 0:
            select(r, n, left)
            for i in range(left):
                out[r[i].client] += 1
        return FILL_SCALED
    if floor_sum == amount:
        for i in range(n):
            out[i] = floors[i]
    elif shared_caps + shareless <= amount:
        fill_shareless(shares, floors, caps, n, <int64_t>(amount - shared_caps), out, scratch)
    else:
        fill_at_level(shares, floors, caps, n, amount, <int64_t>(amount - shareless), out, scratch)
    return FILL_OK


# --- from Python ------------------------------------------------------------------------------

cdef object as_whole(object values, str name):
    """`values` as a one-dimensional contiguous array of int64."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise InvalidTypeError(f"{name} must be a one-dimensional array, not {values!r:.80}")
    if array.size == 0:
        return np.zeros(0, dtype=np.int64)
    if array.dtype.kind not in "iu":
        raise InvalidTypeError(f"{name} must hold integers below 2**63, got {array.dtype}")
    if array.dtype.kind == "u" and array.max() > NO_CAP:
        raise InvalidValueError(f"{name} must be below 2**63, got {array.max()}")
    return np.ascontiguousarray(array, dtype=np.int64)


cdef int64_t first_bad(
    const int64_t *shares, const int64_t *floors, const int64_t *caps, int64_t n
) noexcept nogil:
    """The first client that `fill_whole` must not see, or n."""
    cdef int64_t i
    for i in range(n):
        if not (0 <= shares[i] <= MOST_WHOLE_SHARE and 0 <= floors[i] <= caps[i]
                and floors[i] <= MOST_WHOLE):
            return i
    return n


def divide_whole(shares, floors, caps, amount, *, out=None):
    """Divide an amount in whole units by shares, with a floor and a cap for each client.

    Parameters
    ----------
    shares : array of int, shape (n,)
        0 to 2**32.
    floors, caps : array of int, shape (n,)
        0 <= floor <= cap; floors up to 2**62. A cap at or above the amount does not bind.
    amount : int
        What is divided, up to 2**62.
    out : ndarray of int64, optional
        Receives the result.

    Returns
    -------
    given : ndarray of int64
        What each client gets. It adds up to the amount, or to the sum of the caps if that is less.
    scaled : bool
        Whether the floors exceeded the amount and were all cut in proportion.
    """
    s, f, c = as_whole(shares, "shares"), as_whole(floors, "floors"), as_whole(caps, "caps")
    if not len(s) == len(f) == len(c):
        raise InvalidTypeError("shares, floors and caps must be equally long, "
                               f"got {len(s)}, {len(f)} and {len(c)}")
    if len(s) > MOST_WHOLE_CLIENTS:
        raise InvalidValueError(f"at most {MOST_WHOLE_CLIENTS} clients, got {len(s)}")
    cdef int64_t total = as_int(amount, "amount", 0, MOST_WHOLE)
    result = as_output(out, np.int64, s.shape, "out")
    for array, name in ((s, "shares"), (f, "floors"), (c, "caps")):
        if np.may_share_memory(result, array):
            raise InvalidValueError(f"out must not overlap {name}")
    cdef const int64_t[::1] share_view = s, floor_view = f, cap_view = c
    cdef int64_t[::1] out_view = result
    cdef int64_t n = len(s), bad
    cdef fill_status status
    cdef void *scratch
    if n == 0:
        return result, False
    bad = first_bad(&share_view[0], &floor_view[0], &cap_view[0], n)
    if bad < n:
        raise InvalidValueError(
            "each client must have shares in [0, 2**32] and 0 <= floor <= cap with a floor of at "
            f"most 2**62, got shares {s[bad]}, floor {f[bad]}, cap {c[bad]} at index {bad}")
    scratch = malloc(n * WHOLE_SCRATCH_BYTES)
    if scratch == NULL:
        raise MemoryError
    with nogil:
        status = fill_whole(&share_view[0], &floor_view[0], &cap_view[0], n, total, &out_view[0],
                            scratch)
    free(scratch)
    return result, status == FILL_SCALED
