"""An outsider's loops over pyvirt's walker and solver: what a simulator in Cython would do."""

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc

from pyvirt.capi cimport (
    ACCESS_READ,
    FILL_OK,
    WHOLE_SCRATCH_BYTES,
    Walker,
    distribute,
    division_t,
    fill,
    fill_whole,
    gather,
    pooltree_t,
    undecided_t,
    walk_t,
)


def translate(Walker walker not None, const uint64_t[::1] vas, uint64_t[::1] pas):
    """Translate `vas` into `pas` (0 where it fails) and count what succeeded."""
    if pas.shape[0] < vas.shape[0]:
        raise ValueError(f"pas must have {vas.shape[0]} elements, got {pas.shape[0]}")
    cdef walk_t walk
    cdef Py_ssize_t i
    cdef Py_ssize_t succeeded = 0
    with nogil:
        for i in range(vas.shape[0]):
            if walker.translate_one_c(vas[i], ACCESS_READ, &walk) == 0:
                pas[i] = walk.pa
                succeeded += 1
            else:
                pas[i] = 0
    return succeeded


def share(
    const double[::1] shares not None, const double[::1] floors not None,
    const double[::1] caps not None, const double[::1] amounts not None, double[:, ::1] out not None
):
    """Divide each of several amounts; return how many could be."""
    cdef Py_ssize_t n = shares.shape[0], i, done = 0
    cdef void *scratch = malloc(n * sizeof(undecided_t))
    if scratch == NULL:
        raise MemoryError
    with nogil:
        for i in range(amounts.shape[0]):
            done += fill(&shares[0], &floors[0], &caps[0], n, amounts[i], &out[i, 0], NULL,
                         scratch) == FILL_OK
    free(scratch)
    return done


def share_whole(
    const int64_t[::1] shares not None, const int64_t[::1] floors not None,
    const int64_t[::1] caps not None, int64_t amount, int64_t[::1] out not None
):
    """Divide an amount in whole units."""
    cdef char scratch[8 * WHOLE_SCRATCH_BYTES]
    if not 0 < shares.shape[0] <= 8:
        raise ValueError("up to 8 clients")
    return fill_whole(&shares[0], &floors[0], &caps[0], shares.shape[0], amount, &out[0], scratch)


def share_trees(
    const int64_t[::1] first not None, const double[::1] shares not None,
    const double[::1] reservation not None, const double[::1] limit not None,
    const double[::1] capacity not None, double[::1] floor not None, double[::1] cap not None,
    double[::1] given not None, double[::1] level not None
):
    """Divide over trees of pools; return the node that could not keep its floors, or -1."""
    cdef pooltree_t t
    cdef division_t d
    cdef int64_t where = -1
    t.n, t.roots, t.first = shares.shape[0], first[0], &first[0]
    t.shares, t.reservation, t.limit = &shares[0], &reservation[0], &limit[0]
    d.floor, d.cap, d.given, d.level = &floor[0], &cap[0], &given[0], &level[0]
    d.scratch = malloc(t.n * sizeof(undecided_t))
    if d.scratch == NULL:
        raise MemoryError
    with nogil:
        gather(&t, &d)
        distribute(&t, &capacity[0], False, &d, &where)
    free(d.scratch)
    return where
