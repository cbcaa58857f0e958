"""Limits of VMs and pools: so much CPU time in each period, for all worlds below together.

While k worlds run, a limit with r ns left ends r // k ns later: then all worlds below that would
run are parked until the next period. What is left by then, less than k ns, is lost.

There is an alarm only for a limit that may end before those that run are picked again.
"""

from libc.stdint cimport int64_t, uint32_t

from pyvirt._core.sched.plug cimport park, unpark
from pyvirt._core.sched.policies.esx_alarm cimport set_alarm, set_timer
from pyvirt._core.sched.policies.esx_queue cimport drop
from pyvirt._core.sched.policies.esx_state cimport (
    ONE_CPU,
    bucket_t,
    bucket_end,
    ends_soon,
    esx_pool_t,
    esx_t,
    esx_vm_t,
    host_of,
    pools_of,
    vm_of,
)
from pyvirt._core.sched.state cimport NEVER, NO_WORLD, PARKED, READY, RUN, sched_t
from pyvirt._core.types cimport ns_t


cdef ns_t quota_of(sched_t *s, int64_t limit) noexcept nogil:
    """CPU time in a period, at least a nanosecond; -1: no limit."""
    cdef ns_t period = host_of(s).period, quota
    if limit < 0:
        return -1
    # without overflow of the product
    quota = limit // ONE_CPU * period + limit % ONE_CPU * (period // ONE_CPU)
    quota += limit % ONE_CPU * (period % ONE_CPU) // ONE_CPU
    return quota if quota else 1


cdef void find_pool_alarm(sched_t *s) noexcept nogil:
    """When the first limit of a pool is used up, if that is soon."""
    cdef esx_t *e = host_of(s)
    cdef esx_pool_t *pools = pools_of(s)
    cdef uint32_t pool
    cdef ns_t end
    e.pool_alarm = NEVER
    for pool in range(e.pool_count):
        end = bucket_end(&pools[pool].bucket, e.quantum)
        if end < e.pool_alarm:
            e.pool_alarm = end


cdef void count_in_pools(sched_t *s, uint32_t pool, int by) noexcept nogil:
    """So many worlds more, or less, run in a pool and in those above it."""
    cdef esx_t *e = host_of(s)
    cdef esx_pool_t *pools = pools_of(s)
    cdef bint soon = e.pool_alarm != NEVER
    if not pools[pool].limited:
        return
    while True:
        advance(&pools[pool].bucket, s.now)
        pools[pool].bucket.running += <uint32_t>by
        soon |= ends_soon(&pools[pool].bucket, e.quantum)
        if pool == 0:
            break
        pool = pools[pool].parent
    if soon:
        find_pool_alarm(s)
        set_timer(s)


cdef bint is_spent(sched_t *s, uint32_t vm) noexcept nogil:
    """Whether a limit over the VM is used up."""
    cdef esx_vm_t *v = vm_of(s, vm)
    cdef esx_pool_t *pools = pools_of(s)
    cdef uint32_t pool = v.pool
    if not v.limited:
        return False
    if v.bucket.spent:
        return True
    while True:
        if pools[pool].bucket.spent:
            return True
        if pool == 0:
            return False
        pool = pools[pool].parent


cdef void park_spent(sched_t *s, uint32_t vm) noexcept nogil:
    """Park those of a VM that would run, if a limit over it is used up."""
    cdef uint32_t id
    if not is_spent(s, vm):
        return
    host_of(s).parking = True
    id = s.vms[vm].first
    while id != NO_WORLD:
        if s.worlds[id].state == RUN or s.worlds[id].state == READY:
            drop(s, id)
            park(s, id)
        id = s.siblings[id]
    host_of(s).parking = False


cdef void unpark_rest(sched_t *s) noexcept nogil:
    """Unpark who is parked and under no limit that is used up."""
    cdef uint32_t id
    for id in range(s.world_count):
        if s.worlds[id].marks & PARKED and not is_spent(s, s.worlds[id].vm):
            unpark(s, id)


cdef inline bint use_up(bucket_t *b, ns_t now) noexcept nogil:
    """Whether it has not another nanosecond for each world that runs."""
    advance(b, now)
    if b.quota >= 0 and b.running and b.quota - b.used < b.running:
        b.spent = True
        return True
    return False


cdef void refill(sched_t *s) noexcept nogil:
    """A period begins."""
    cdef esx_pool_t *pools = pools_of(s)
    cdef uint32_t i
    for i in range(s.vm_count):
        if vm_of(s, i).bucket.quota >= 0:
            restart(&vm_of(s, i).bucket, s.now)
            set_alarm(s, i)
    for i in range(host_of(s).pool_count):
        restart(&pools[i].bucket, s.now)
    find_pool_alarm(s)
    unpark_rest(s)


cdef void end_pool_limits(sched_t *s) noexcept nogil:
    """Park all worlds in pools whose limits are used up."""
    cdef esx_pool_t *pools = pools_of(s)
    cdef uint32_t i
    cdef bint some = False
    for i in range(host_of(s).pool_count):
        some |= use_up(&pools[i].bucket, s.now)
    if some:
        for i in range(s.vm_count):
            if s.vms[i].worlds:
                park_spent(s, i)
    find_pool_alarm(s)


cdef void end_limit(sched_t *s, uint32_t vm) noexcept nogil:
    """Park the worlds of a VM if its limit is used up."""
    if use_up(&vm_of(s, vm).bucket, s.now):
        park_spent(s, vm)


cdef void change_limit(sched_t *s, uint32_t vm) noexcept nogil:
    """Another limit of a VM, in the midst of a period: what it used stays used."""
    cdef bucket_t *b = &vm_of(s, vm).bucket
    cdef ns_t quota = quota_of(s, s.vms[vm].limit)
    if quota == b.quota:
        return
    advance(b, s.now)
    if b.quota < 0:
        b.used = 0
    host_of(s).limits += (quota >= 0) - (b.quota >= 0)
    b.quota = quota
    b.spent = quota >= 0 and quota - b.used < (b.running if b.running else 1)
    vm_of(s, vm).limited = quota >= 0 or pools_of(s)[vm_of(s, vm).pool].limited
    set_alarm(s, vm)
    park_spent(s, vm)
    unpark_rest(s)


cdef void change_pool(sched_t *s, uint32_t vm, uint32_t pool) noexcept nogil:
    """Let a VM belong to another pool, whose limit counts what it uses from now on."""
    cdef esx_vm_t *v = vm_of(s, vm)
    if pool == v.pool:
        return
    count_in_pools(s, v.pool, -<int>v.bucket.running)
    v.pool = pool
    count_in_pools(s, pool, <int>v.bucket.running)
    v.limited = v.bucket.quota >= 0 or pools_of(s)[pool].limited
    set_timer(s)
    park_spent(s, vm)
    unpark_rest(s)
