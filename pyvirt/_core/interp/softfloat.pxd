# Numbers of the x87's 80-bit format, and arithmetic on them, exact to the bit.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

cdef enum:                      # exceptions: bits of the status and of the control word
    FE_INVALID = 1
    FE_DENORMAL = 2
    FE_ZERO = 4
    FE_OVERFLOW = 8
    FE_UNDERFLOW = 16
    FE_PRECISION = 32

cdef enum:                      # rounding, as the control word has it in bits 11:10
    NEAREST = 0
    DOWN = 1
    UP = 2
    CHOP = 3

cdef enum:                      # x_compare
    EQUAL = 0
    LESS = 1
    GREATER = 2
    UNORDERED = 3

cdef struct x80_t:
    uint64_t m                  # significand, its integer bit is bit 63
    uint16_t se                 # sign and exponent

cdef struct rounding_t:         # what an operation is to do, and what came of it
    uint16_t control            # the control word
    uint16_t flags              # FE_, gathered
    uint16_t up                 # whether the last rounding went away from zero

cdef x80_t x_add(rounding_t *r, x80_t a, x80_t b, bint subtract) noexcept nogil
cdef x80_t x_multiply(rounding_t *r, x80_t a, x80_t b) noexcept nogil
cdef x80_t x_divide(rounding_t *r, x80_t a, x80_t b) noexcept nogil
cdef x80_t x_root(rounding_t *r, x80_t a) noexcept nogil
cdef x80_t x_whole(rounding_t *r, x80_t a) noexcept nogil
cdef int x_compare(rounding_t *r, x80_t a, x80_t b, bint quiet) noexcept nogil
cdef x80_t x_of_integer(int64_t v) noexcept nogil
cdef x80_t x_of_float(rounding_t *r, uint64_t v, bint double_) noexcept nogil
cdef uint64_t x_to_float(rounding_t *r, x80_t a, bint double_) noexcept nogil
cdef int64_t x_to_integer(rounding_t *r, x80_t a, uint32_t bits) noexcept nogil
cdef bint x_is_nan(x80_t a) noexcept nogil
cdef bint x_unsupported(x80_t a) noexcept nogil
cdef x80_t x_indefinite() noexcept nogil
