"""Entitlement over trees of pools: demands and floors go up, capacity comes down.

Up: a pool demands what its children do, within its limit, and keeps the larger of its own
reservation and its children's floors, as far as it demands that much. Down: each node divides what
it gets among its children by waterfill.pyx.
"""

from libc.math cimport NAN, isnan
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc

import numpy as np

from pyvirt._core.waterfill cimport (
    FILL_OK,
    FILL_SCALED,
    FILL_UNBOUNDED,
    fill,
    fill_status,
    undecided_t,
)


cdef inline double smaller(double a, double b) noexcept nogil:
    return a if a < b else b


cdef void gather(const pooltree_t *t, division_t *d) noexcept nogil:
    """Floors and caps of all nodes from those of the clients, the leaves that stand there already.

    A pool without children demands nothing.
    """
    cdef int64_t node, child
    cdef double cap, floor
    for node in range(t.n - 1, -1, -1):
        if t.first[node] < t.first[node + 1]:
            cap = floor = 0
            for child in range(t.first[node], t.first[node + 1]):
                cap += d.cap[child]
                floor += d.floor[child]
            d.cap[node] = smaller(cap, t.limit[node])
            d.floor[node] = smaller(
                t.reservation[node] if t.reservation[node] > floor else floor, d.cap[node])


cdef fill_status distribute(
    const pooltree_t *t, const double *capacity, bint scale, division_t *d, int64_t *where
) noexcept nogil:
    """Entitlements of all nodes, for one capacity for each root.

    Where floors exceed what there is, the children get parts of their floors if `scale`; else it
    stops there, and `where` is the pool.
    """
    cdef int64_t node, start, count
    cdef fill_status status, result = FILL_OK
    for node in range(t.roots):
        d.given[node] = smaller(capacity[node], d.cap[node])
    for node in range(t.n):
        start = t.first[node]
        count = t.first[node + 1] - start
        d.level[node] = NAN
        if count == 0:
            continue
        status = fill(t.shares + start, d.floor + start, d.cap + start, count, d.given[node],
                      d.given + start, &d.level[node], d.scratch)
        if status == FILL_UNBOUNDED or (status == FILL_SCALED and not scale and short(t, d, node)):
            where[0] = node
            return status
        if status == FILL_SCALED:
            result = FILL_SCALED
    return result


cdef bint short(const pooltree_t *t, const division_t *d, int64_t node) noexcept nogil:
    """Whether the floors exceed what the node has by more than rounding explains."""
    cdef double floors = 0
    cdef int64_t child
    for child in range(t.first[node], t.first[node + 1]):
        floors += d.floor[child]
    return floors - d.given[node] > 1e-12 * floors


def solve_trees(first, shares, reservation, limit, clients, demand, touched, capacity, scale):
    """Solve the same trees for several demands; the arguments are checked by the caller.

    Parameters
    ----------
    first : ndarray of int64, shape (n + 1,)
        As in pooltree.pxd; the number of roots stands first.
    shares, reservation, limit : ndarray of float64, shape (n,)
        Of each node.
    clients : ndarray of int64, shape (m,)
        Nodes that are clients.
    demand, touched : ndarray of float64, shape (rows, m)
        A row for each case; NaN in `touched`: the floor goes by the demand.
    capacity : ndarray of float64, shape (rows, roots)
        What each tree divides.
    scale : bool
        Whether floors that exceed what there is are cut in proportion.

    Returns
    -------
    given, floor, cap, level : ndarray of float64, shape (rows, n)
        Of each node; `level` is NaN where a node divides nothing.

    row, node : int
        Unless `scale`, the first case and node whose children's floors exceed what it has; -1 if
        there is none.
    """
    cdef const int64_t[::1] first_view = first, client_view = clients
    cdef const double[::1] share_view = shares, reserved = reservation, limits = limit
    cdef const double[:, ::1] demands = demand, touched_view = touched, capacities = capacity
    cdef int64_t rows = demands.shape[0], n = share_view.shape[0], m = client_view.shape[0]
    cdef pooltree_t t
    cdef division_t d
    cdef int64_t row, k, node, where = -1, failed = -1
    cdef double wanted, kept
    results = [np.zeros((rows, n)) for _ in range(4)]
    if rows == 0 or n == 0:
        return *results, -1, -1
    cdef double[:, ::1] given = results[0], floor = results[1], cap = results[2], level = results[3]
    cdef bint scaling = scale
    t.n = n
    t.first = &first_view[0]
    t.roots = first_view[0]
    t.shares, t.reservation, t.limit = &share_view[0], &reserved[0], &limits[0]
    d.scratch = malloc(n * sizeof(undecided_t))
    if d.scratch == NULL:
        raise MemoryError
    with nogil:
        for row in range(rows):
            d.given, d.floor = &given[row, 0], &floor[row, 0]
            d.cap, d.level = &cap[row, 0], &level[row, 0]
            for k in range(m):
                node = client_view[k]
                wanted = smaller(demands[row, k], limits[node])
                kept = demands[row, k] if isnan(touched_view[row, k]) else touched_view[row, k]
                kept = smaller(kept, reserved[node])
                d.floor[node] = kept
                d.cap[node] = wanted if wanted > kept else kept
            gather(&t, &d)
            distribute(&t, &capacities[row, 0], scaling, &d, &where)
            if where >= 0:
                failed = row
                break
    free(d.scratch)
    return *results, failed, where
