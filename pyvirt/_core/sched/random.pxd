# Random numbers: xorshift64* (Vigna 2016); each world and the policy have a state of their own, so
# that what one draws does not depend on the others.

from libc.math cimport cos, exp, log, pow, sqrt
from libc.stdint cimport int64_t, uint8_t, uint64_t

from pyvirt._core.sched.state cimport EXPONENTIAL, UNIFORM
from pyvirt._core.sched.work cimport (
    BETWEEN,
    EMPIRICAL,
    LOGNORMAL,
    PARETO,
    dist_t,
    table_t,
)
from pyvirt._core.types cimport ns_t

cdef enum:
    MOST_TIME_BITS = 50             # of a drawn time: 13 days


cdef inline uint64_t draw(uint64_t *state) noexcept nogil:
    cdef uint64_t x = state[0]
    x ^= x >> 12
    x ^= x << 25
    x ^= x >> 27
    state[0] = x
    return x * 0x2545F4914F6CDD1DULL


cdef inline uint64_t other_seed(uint64_t seed) noexcept nogil:
    """A second state from one: a step of splitmix64 (Steele, Lea, Flood 2014), never 0."""
    cdef uint64_t z = seed + 0x9E3779B97F4A7C15ULL
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL
    z ^= z >> 31
    return z if z else 1


cdef inline double draw_part(uint64_t *state) noexcept nogil:
    """From 0 to less than 1."""
    return <double>(draw(state) >> 11) * (1.0 / 9007199254740992.0)


cdef inline double draw_log(uint64_t *state) noexcept nogil:
    """The negative logarithm of (0, 1], which is finite."""
    return -log(<double>((draw(state) >> 11) + 1) * (1.0 / 9007199254740992.0))


cdef inline ns_t draw_time(uint64_t *state, uint8_t kind, ns_t mean) noexcept nogil:
    """A time of this distribution, at least 1 ns."""
    cdef double value
    if kind == EXPONENTIAL:
        value = draw_log(state) * mean
    elif kind == UNIFORM:
        value = draw_part(state) * (2.0 * mean)
    else:
        return mean
    return <ns_t>value if value >= 1.0 else 1


cdef inline uint64_t draw_below(uint64_t *state, uint64_t bound) noexcept nogil:
    """Below `bound`, each as likely: bits that are too large are drawn again."""
    cdef uint64_t mask = bound - 1, x
    mask |= mask >> 1
    mask |= mask >> 2
    mask |= mask >> 4
    mask |= mask >> 8
    mask |= mask >> 16
    mask |= mask >> 32
    while True:
        # not the lowest bits, which are the weakest; weights of all worlds are below 2**40
        x = draw(state) >> 24 & mask
        if x < bound:
            return x


cdef inline ns_t draw_dist(uint64_t *state, const dist_t *d, const table_t *tables) noexcept nogil:
    """A time of any distribution, at least 1 ns."""
    cdef double value, angle
    if d.kind == LOGNORMAL:
        # Box and Muller (1958), one of the two. No sum of products, which could be fused and rounded
        # otherwise on some machines.
        value = sqrt(2.0 * draw_log(state))
        angle = draw_part(state) * 6.283185307179586
        value = exp(d.a * (value * cos(angle))) * d.c
    elif d.kind == PARETO:
        # the inverse of 1 - (least / x)**alpha, up to the most
        value = d.a * pow(1.0 - draw_part(state) * d.b, d.c)
    elif d.kind == EMPIRICAL:
        return tables[d.table].values[draw_below(state, tables[d.table].count)]
    elif d.kind == BETWEEN:
        return d.mean + <int64_t>draw_below(state, d.range)
    else:
        return draw_time(state, d.kind, d.mean)
    if value >= <double>(<int64_t>1 << MOST_TIME_BITS):
        return <int64_t>1 << MOST_TIME_BITS
    return <ns_t>value if value >= 1.0 else 1
