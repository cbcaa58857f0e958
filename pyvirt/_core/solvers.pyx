"""The solver of entitlements for callers that are neither Python nor Cython.

Its functions with flat arguments, of C types alone: a table for C, in a capsule, and addresses for
Numba and ctypes. `pyvirt/entitlement.h` says what they may be given.
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int64_t

from pyvirt._core.pooltree cimport distribute, division_t, gather, pooltree_t
from pyvirt._core.waterfill cimport fill, undecided_t
from pyvirt._core.waterwhole cimport WHOLE_SCRATCH_BYTES, fill_whole

# one size for all three, so that callers need to know one number
SCRATCH_BYTES = max(sizeof(undecided_t), WHOLE_SCRATCH_BYTES)

cdef solvers_t TABLE


cdef int divide(
    const double *shares, const double *floors, const double *caps, int64_t n, double amount,
    double *out, double *level, void *scratch
) noexcept nogil:
    return fill(shares, floors, caps, n, amount, out, level, scratch)


cdef int divide_whole(
    const int64_t *shares, const int64_t *floors, const int64_t *caps, int64_t n, int64_t amount,
    int64_t *out, void *scratch
) noexcept nogil:
    return fill_whole(shares, floors, caps, n, amount, out, scratch)


cdef int divide_trees(
    int64_t n, const int64_t *first, const double *shares, const double *reservation,
    const double *limit, const double *capacity, int scale, double *floor, double *cap,
    double *given, double *level, void *scratch, int64_t *where
) noexcept nogil:
    cdef pooltree_t t
    cdef division_t d
    t.n, t.roots, t.first = n, first[0], first
    t.shares, t.reservation, t.limit = shares, reservation, limit
    d.floor, d.cap, d.given, d.level, d.scratch = floor, cap, given, level, scratch
    where[0] = -1
    gather(&t, &d)
    return distribute(&t, capacity, scale, &d, where)


TABLE.version = 1
TABLE.size = sizeof(solvers_t)
TABLE.divide = divide
TABLE.divide_whole = divide_whole
TABLE.divide_trees = divide_trees


def addresses():
    """Give the addresses of the solver's C functions, for Numba, ctypes and the like.

    Returns
    -------
    dict of str to int
        ``"divide"``, ``"divide_whole"`` and ``"divide_trees"``, whose arguments and limits stand
        in the header ``pyvirt/entitlement.h``. An address is good for the life of this process.

    See Also
    --------
    pyvirt.entitlement.jit : Calls by address from Numba's kernels.

    Examples
    --------
    >>> from pyvirt.entitlement import addresses
    >>> sorted(addresses())
    ['divide', 'divide_trees', 'divide_whole']
    """
    return {
        "divide": <size_t>TABLE.divide,
        "divide_whole": <size_t>TABLE.divide_whole,
        "divide_trees": <size_t>TABLE.divide_trees,
    }


def capsule():
    """Give the solver's C functions as a capsule, for extension modules in C.

    Returns
    -------
    capsule
        Named ``pyvirt.entitlement.v1``. It holds a ``pyvirt_entitlement`` of the header
        ``pyvirt/entitlement.h``, in the folder that `pyvirt.sched.get_include` names.
    """
    return PyCapsule_New(&TABLE, "pyvirt.entitlement.v1", NULL)
