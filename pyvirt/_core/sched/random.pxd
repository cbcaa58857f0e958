# Random numbers: xorshift64* (Vigna 2016); each world and the policy have a state of their own, so
# that what one draws does not depend on the others.

from libc.math cimport log
from libc.stdint cimport int64_t, uint8_t, uint64_t

from pyvirt._core.sched.state cimport EXPONENTIAL, UNIFORM
from pyvirt._core.types cimport ns_t


cdef inline uint64_t draw(uint64_t *state) noexcept nogil:
    cdef uint64_t x = state[0]
    x ^= x >> 12
    x ^= x << 25
    x ^= x >> 27
    state[0] = x
    return x * 0x2545F4914F6CDD1DULL


cdef inline ns_t draw_time(uint64_t *state, uint8_t kind, ns_t mean) noexcept nogil:
    """A time of this distribution, at least 1 ns."""
    cdef double value
    if kind == EXPONENTIAL:
        # (0, 1], so that the logarithm is finite
        value = -log(<double>((draw(state) >> 11) + 1) * (1.0 / 9007199254740992.0)) * mean
    elif kind == UNIFORM:
        value = <double>(draw(state) >> 11) * (1.0 / 9007199254740992.0) * (2.0 * mean)
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
