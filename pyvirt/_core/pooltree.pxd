# Division of capacities over trees of pools.

from libc.stdint cimport int64_t

from pyvirt._core.waterfill cimport fill_status

cdef struct pooltree_t:         # trees of pools; what it points to belongs to the caller
    # Nodes stand in breadth-first order: the roots, then the children of node 0, of node 1, ...
    int64_t n                   # nodes
    int64_t roots
    const int64_t *first        # [n + 1]: the children of node i are first[i] .. first[i + 1] - 1
    const double *shares        # [n]
    const double *reservation   # [n]
    const double *limit         # [n]; inf: none

cdef struct division_t:         # what solving needs and yields; [n] each
    double *floor               # in, of clients: what they keep of their reservation at least
    double *cap                 # in, of clients: their demand
    double *given               # the entitlement
    double *level               # what a share is worth among the children of a pool
    void *scratch               # room for n `undecided_t`

cdef void gather(const pooltree_t *t, division_t *d) noexcept nogil
cdef fill_status distribute(
    const pooltree_t *t, const double *capacity, bint scale, division_t *d,
    int64_t *where) noexcept nogil
