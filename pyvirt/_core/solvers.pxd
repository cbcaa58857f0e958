# The solver of entitlements as a table of functions: pyvirt/include/pyvirt/entitlement.h in Cython.

from libc.stdint cimport int64_t, uint32_t

cdef struct solvers_t:
    uint32_t version        # 1
    uint32_t size           # of the structure
    int (*divide)(
        const double *shares, const double *floors, const double *caps, int64_t n, double amount,
        double *out, double *level, void *scratch) noexcept nogil
    int (*divide_whole)(
        const int64_t *shares, const int64_t *floors, const int64_t *caps, int64_t n,
        int64_t amount, int64_t *out, void *scratch) noexcept nogil
    int (*divide_trees)(
        int64_t n, const int64_t *first, const double *shares, const double *reservation,
        const double *limit, const double *capacity, int scale, double *floor, double *cap,
        double *given, double *level, void *scratch, int64_t *where) noexcept nogil
