"""Entitlements of the VMs on a host: its capacity, divided over the tree of pools.

A VM demands a CPU for each of its worlds that would run, within its limit, and keeps its
reservation as far as it demands that much; its worlds that would run have equal parts of what it
gets. The division is that of `pyvirt.entitlement.solve`.

Demands are whole numbers, so that what pools demand can be kept up to date. As long as nobody
demands more than there is, each gets what it demands, and only who demands something else than
before is looked at. Else all is divided anew, among those that demand something.
"""

from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport free, malloc

from pyvirt._core.pooltree cimport distribute, division_t, gather, pooltree_t
from pyvirt._core.sched.policies.esx_state cimport (
    LEAST_ENTITLED,
    NOWHERE,
    ONE_CPU,
    UNIT,
    esx_pool_t,
    esx_t,
    esx_vm_t,
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
    uint32_t *next                  # VM in the same pool
    uint32_t *head                  # first VM of each pool


cdef bint make_room(plan_t *p, size_t pools, size_t vms) noexcept nogil:
    cdef size_t n = pools + vms
    cdef char *block = <char *>malloc(
        7 * n * sizeof(double) + (n + 1) * sizeof(int64_t) + n * sizeof(undecided_t)
        + (n + vms + pools) * sizeof(uint32_t))
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
    p.next = p.who + n
    p.head = p.next + vms
    return True


cdef inline double bound(int64_t limit) noexcept nogil:
    return INFINITY if limit < 0 else <double>limit


cdef void list_members(sched_t *s, plan_t *p) noexcept nogil:
    """Which VMs that demand something each pool holds, the last first."""
    cdef uint32_t vm
    for vm in range(host_of(s).pool_count):
        p.head[vm] = NO_WORLD
    for vm in range(s.vm_count):
        if vm_of(s, vm).worlds and vm_of(s, vm).demand:
            p.next[vm] = p.head[vm_of(s, vm).pool]
            p.head[vm_of(s, vm).pool] = vm


cdef int64_t lay_out(sched_t *s, plan_t *p) noexcept nogil:
    """Nodes in breadth-first order: the root, then the pools and VMs in each pool; their number."""
    cdef esx_pool_t *pools = pools_of(s)
    cdef uint32_t pool_count = host_of(s).pool_count, pool, child, vm
    cdef int64_t node = 0, count = 1
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
            p.cap[node] = <double>vm_of(s, vm).demand
            p.floor[node] = (
                p.cap[node] if p.cap[node] < p.reservation[node] else p.reservation[node])
        node += 1
    p.first[count] = count
    return count


cdef void adopt(sched_t *s, uint32_t vm, double given) noexcept nogil:
    """What a VM gets becomes the rate of its worlds' virtual time."""
    cdef esx_vm_t *v = vm_of(s, vm)
    cdef int64_t each = <int64_t>((given / v.wants if v.wants > 1 else given) + NEAREST)
    cdef uint32_t id = s.vms[vm].first
    if each < LEAST_ENTITLED:
        each = LEAST_ENTITLED
    v.given = given
    v.entitled = v.wants > 0
    v.rate = UNIT * <double>ONE_CPU / each
    while id != NO_WORLD:
        world_of(s, id).rate = v.rate
        id = s.siblings[id]


cdef void give_all(sched_t *s) noexcept nogil:
    """Each gets what it demands."""
    cdef uint32_t vm
    for vm in range(s.vm_count):
        if vm_of(s, vm).worlds:
            adopt(s, vm, <double>vm_of(s, vm).demand)


cdef bint divide(sched_t *s) noexcept nogil:
    """Divide the capacity among all; False if there is no memory to compute that."""
    cdef plan_t p
    cdef pooltree_t tree
    cdef division_t division
    cdef double capacity = s.cpu_count * <double>ONE_CPU
    cdef uint32_t pool_count = host_of(s).pool_count, vm
    cdef int64_t node, where = -1
    if not make_room(&p, pool_count, s.vm_count):
        return False
    list_members(s, &p)
    tree.n, tree.roots, tree.first = lay_out(s, &p), 1, p.first
    tree.shares, tree.reservation, tree.limit = p.shares, p.reservation, p.limit
    division.floor, division.cap = p.floor, p.cap
    division.given, division.level, division.scratch = p.given, p.level, p.scratch
    gather(&tree, &division)
    distribute(&tree, &capacity, True, &division, &where)
    for node in range(1, tree.n):
        if p.who[node] >= pool_count:
            vm = p.who[node] - pool_count
            if vm_of(s, vm).given != p.given[node]:
                adopt(s, vm, p.given[node])
    free(p.shares)
    return True


# --- what is demanded ---


cdef inline int64_t within(int64_t demand, int64_t limit) noexcept nogil:
    return limit if 0 <= limit < demand else demand


cdef inline int64_t most_of(sched_t *s, uint32_t pool) noexcept nogil:
    """What a pool may have, or -1: as much as it demands."""
    cdef int64_t limit = pools_of(s)[pool].limit
    return within(s.cpu_count * <int64_t>ONE_CPU, limit) if pool == 0 else limit


cdef inline void count_demand(sched_t *s, uint32_t vm) noexcept nogil:
    """How many worlds of a VM would run, and what it demands for them."""
    cdef esx_vm_t *v = vm_of(s, vm)
    cdef uint32_t id = s.vms[vm].first
    v.wants = 0
    while id != NO_WORLD:
        if world_of(s, id).known:
            v.wants += s.worlds[id].state != WAIT
        id = s.siblings[id]
    v.demand = within(v.wants * <int64_t>ONE_CPU, s.vms[vm].limit)


cdef void count_all(sched_t *s) noexcept nogil:
    """Demands of all VMs and pools."""
    cdef esx_t *e = host_of(s)
    cdef esx_pool_t *pools = pools_of(s)
    cdef uint32_t i
    for i in range(e.pool_count):
        pools[i].demand = 0
    for i in range(s.vm_count):
        vm_of(s, i).counts = False
        if vm_of(s, i).worlds:
            count_demand(s, i)
            pools[vm_of(s, i).pool].demand += vm_of(s, i).demand
    e.scarce = 0
    for i in range(e.pool_count - 1, -1, -1):
        e.scarce += 0 <= most_of(s, i) < pools[i].demand
        if i:
            pools[pools[i].parent].demand += within(pools[i].demand, pools[i].limit)
    e.changed = NOWHERE
    e.anew = False
    e.unseen = s.unseen


cdef void count_again(sched_t *s, uint32_t vm) noexcept nogil:
    """Demand of a VM, and what that changes in the pools above it."""
    cdef esx_t *e = host_of(s)
    cdef esx_vm_t *v = vm_of(s, vm)
    cdef esx_pool_t *pool
    cdef uint32_t i = v.pool
    cdef int64_t by = -v.demand, before, most
    count_demand(s, vm)
    by += v.demand
    while by:
        pool = pools_of(s) + i
        most = most_of(s, i)
        before = pool.demand
        pool.demand += by
        e.scarce += (0 <= most < pool.demand) - (0 <= most < before)
        if i == 0:
            return
        by = within(pool.demand, pool.limit) - within(before, pool.limit)
        i = pool.parent


cdef bint solve_entitlements(sched_t *s) noexcept nogil:
    """Entitlements for what is demanded now; False if there is no memory to compute them."""
    cdef esx_t *e = host_of(s)
    cdef esx_vm_t *v
    cdef uint32_t vm, wants
    cdef bint scarce = e.scarce, other = False
    if e.anew or e.unseen != s.unseen:
        count_all(s)
        give_all(s)
        return divide(s) if e.scarce else True
    while e.changed != NOWHERE:
        vm = e.changed
        v = vm_of(s, vm)
        wants = v.wants
        e.changed = v.changed
        v.counts = False
        count_again(s, vm)
        if v.wants != wants:
            other = True
            adopt(s, vm, <double>v.demand)      # if there is enough
    if not other:
        return True
    if e.scarce:
        return divide(s)
    if scarce:
        give_all(s)
    return True
