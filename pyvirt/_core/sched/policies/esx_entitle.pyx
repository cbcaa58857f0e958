"""Entitlements of the VMs on a host: its capacity, divided over the tree of pools.

A VM demands a CPU for each of its worlds that would run, within its limit, and keeps its
reservation as far as it demands that much; its worlds that would run have equal parts of what it
gets. The division is that of `pyvirt.entitlement.solve`.
"""

from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport free, malloc

from pyvirt._core.pooltree cimport distribute, division_t, gather, pooltree_t
from pyvirt._core.sched.policies.esx_state cimport (
    LEAST_ENTITLED,
    ONE_CPU,
    UNIT,
    esx_pool_t,
    host_of,
    pools_of,
    vm_of,
    world_of,
)
from pyvirt._core.sched.state cimport NO_WORLD, WAIT, sched_t
from pyvirt._core.waterfill cimport undecided_t

# Entitlements are rounded to the nearest integer. What lies in the middle, which simple shares
# give, goes upwards whatever the rounding of the division was.
cdef double NEAREST = 0.515625


ctypedef struct plan_t:             # the tree as the solver wants it; arrays of one block
    double *shares
    double *reservation
    double *limit
    double *floor
    double *cap
    double *given
    double *level
    int64_t *first
    undecided_t *scratch
    uint32_t *who                   # pool or VM that each node is; VMs count from the last pool
    uint32_t *wants                 # worlds of each VM that would run
    uint32_t *next                  # VM in the same pool
    uint32_t *head                  # first VM of each pool


cdef bint make_room(plan_t *p, size_t pools, size_t vms) noexcept nogil:
    cdef size_t n = pools + vms
    cdef char *block = <char *>malloc(
        7 * n * sizeof(double) + (n + 1) * sizeof(int64_t) + n * sizeof(undecided_t)
        + (n + 2 * vms + pools) * sizeof(uint32_t))
    if block == NULL:
        return False
    p.shares = <double *>block
    p.reservation = p.shares + n
    p.limit = p.reservation + n
    p.floor = p.limit + n
    p.cap = p.floor + n
    p.given = p.cap + n
    p.level = p.given + n
    p.first = <int64_t *>(p.level + n)
    p.scratch = <undecided_t *>(p.first + n + 1)
    p.who = <uint32_t *>(p.scratch + n)
    p.wants = p.who + n
    p.next = p.wants + vms
    p.head = p.next + vms
    return True


cdef inline double bound(int64_t limit) noexcept nogil:
    return INFINITY if limit < 0 else <double>limit


cdef void count_wants(sched_t *s, plan_t *p) noexcept nogil:
    """How many worlds of each VM would run, and which VMs each pool holds, the last first."""
    cdef uint32_t id, vm
    for vm in range(s.vm_count):
        p.wants[vm] = 0
    for id in range(s.world_count):
        if world_of(s, id).known:
            p.wants[s.worlds[id].vm] += s.worlds[id].state != WAIT
    for vm in range(host_of(s).pool_count):
        p.head[vm] = NO_WORLD
    for vm in range(s.vm_count):
        if vm_of(s, vm).worlds:
            p.next[vm] = p.head[vm_of(s, vm).pool]
            p.head[vm_of(s, vm).pool] = vm


cdef int64_t lay_out(sched_t *s, plan_t *p) noexcept nogil:
    """Nodes in breadth-first order: the root, then the pools and VMs in each pool; their number."""
    cdef esx_pool_t *pools = pools_of(s)
    cdef uint32_t pool_count = host_of(s).pool_count, pool, child, vm
    cdef int64_t node = 0, count = 1
    cdef double cap
    p.who[0] = 0
    while node < count:
        p.first[node] = count
        pool = p.who[node]
        if pool < pool_count:
            p.shares[node] = pools[pool].shares
            p.reservation[node] = <double>pools[pool].reservation
            p.limit[node] = bound(pools[pool].limit)
            p.floor[node] = p.cap[node] = 0
            for child in range(pools[pool].first, pools[pool].first + pools[pool].count):
                p.who[count] = child
                count += 1
            vm = p.head[pool]
            while vm != NO_WORLD:
                p.who[count] = pool_count + vm
                count += 1
                vm = p.next[vm]
        else:
            vm = pool - pool_count
            p.shares[node] = s.vms[vm].weight
            p.reservation[node] = <double>s.vms[vm].reservation
            p.limit[node] = bound(s.vms[vm].limit)
            cap = p.wants[vm] * <double>ONE_CPU
            p.cap[node] = cap if cap < p.limit[node] else p.limit[node]
            p.floor[node] = (
                p.cap[node] if p.cap[node] < p.reservation[node] else p.reservation[node])
        node += 1
    p.first[count] = count
    return count


cdef void adopt(sched_t *s, const plan_t *p, int64_t count) noexcept nogil:
    """What each VM got becomes the rate of its worlds' virtual time."""
    cdef uint32_t pool_count = host_of(s).pool_count, vm, id
    cdef int64_t node, each
    for node in range(1, count):
        if p.who[node] < pool_count:
            continue
        vm = p.who[node] - pool_count
        each = <int64_t>(p.given[node] / (p.wants[vm] if p.wants[vm] else 1) + NEAREST)
        if each < LEAST_ENTITLED:
            each = LEAST_ENTITLED
        vm_of(s, vm).entitled = p.wants[vm] > 0
        vm_of(s, vm).rate = UNIT * <double>ONE_CPU / each
    for id in range(s.world_count):
        if world_of(s, id).known:
            world_of(s, id).rate = vm_of(s, s.worlds[id].vm).rate


cdef bint solve_entitlements(sched_t *s) noexcept nogil:
    """Entitlements for what is demanded now; False if there is no memory to compute them."""
    cdef plan_t p
    cdef pooltree_t tree
    cdef division_t division
    cdef double capacity = s.cpu_count * <double>ONE_CPU
    cdef int64_t count, where = -1
    if not make_room(&p, host_of(s).pool_count, s.vm_count):
        return False
    count_wants(s, &p)
    count = lay_out(s, &p)
    tree.n, tree.roots, tree.first = count, 1, p.first
    tree.shares, tree.reservation, tree.limit = p.shares, p.reservation, p.limit
    division.floor, division.cap = p.floor, p.cap
    division.given, division.level, division.scratch = p.given, p.level, p.scratch
    gather(&tree, &division)
    distribute(&tree, &capacity, True, &division, &where)
    adopt(s, &p, count)
    free(p.shares)
    return True
