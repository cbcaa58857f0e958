# Weighted max-min division of one amount, with a floor and a cap for each client.

from libc.stdint cimport int64_t, uint64_t

cdef enum fill_status:
    FILL_OK = 0
    FILL_SCALED = 1         # the floors exceed the amount: each is cut by the same factor
    FILL_UNBOUNDED = 2      # neither the amount nor the sum of caps is finite: nothing written

cdef struct undecided_t:    # a client that may still be at a bound
    double share
    double floor            # -inf: known not to bind
    double cap              # inf: likewise

cdef struct sum_t:          # of doubles, with what rounding lost
    double high
    double low

cdef fill_status fill(
    const double *shares, const double *floors, const double *caps, int64_t n, double amount,
    double *out, double *level, void *scratch) noexcept nogil

cdef inline void add(sum_t *s, double x) noexcept nogil:
    """Exact but for the rounding of `low` (Knuth's two-sum)."""
    cdef double high = s.high + x
    cdef double part = high - s.high
    s.low += (s.high - (high - part)) + (x - part)
    s.high = high
