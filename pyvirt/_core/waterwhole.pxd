# Weighted max-min division in whole units: exact sums, the same on every machine.

from libc.stdint cimport int64_t, uint64_t

from pyvirt._core.waterfill cimport fill_status

cdef extern from *:
    """
    typedef __int128 pv_wide;       /* a product of two amounts or shares */
    """
    ctypedef long long wide_t "pv_wide"

cdef enum:
    WHOLE_SCRATCH_BYTES = 24        # for each client

# So that products of amounts and sums of shares stay within 128 bits:
cdef int64_t MOST_WHOLE             # amounts: 2**62
cdef int64_t MOST_WHOLE_SHARE       # of one client: 2**32
cdef int64_t MOST_WHOLE_CLIENTS     # 2**26

cdef struct whole_t:                # a client that may still be at a bound
    int64_t share
    int64_t floor                   # -1: known not to bind
    int64_t cap                     # 2**63 - 1: likewise

cdef struct remainder_t:            # of a client between its bounds
    int64_t left                    # numerator of what rounding down took from it
    int64_t client

cdef fill_status fill_whole(
    const int64_t *shares, const int64_t *floors, const int64_t *caps, int64_t n, int64_t amount,
    int64_t *out, void *scratch) noexcept nogil
