"""Worlds and VMs come, go, and get other parameters."""

from libc.stdint cimport int64_t, uint32_t

from pyvirt._core.sched.cosched cimport keep_together
from pyvirt._core.sched.policies.esx_alarm cimport set_alarm
from pyvirt._core.sched.policies.esx_clock cimport tend_refill
from pyvirt._core.sched.policies.esx_gang cimport ask_idle, fits_host, leave_gang
from pyvirt._core.sched.policies.esx_home cimport change_home, leave_home
from pyvirt._core.sched.policies.esx_limit cimport (
    advance,
    change_limit,
    change_pool,
    find_pool_alarm,
    park_spent,
    quota_of,
    unpark_rest,
)
from pyvirt._core.sched.policies.esx_progress cimport least_progress, ran, sync_progress
from pyvirt._core.sched.policies.esx_state cimport (
    COSCHED_STRICT,
    IDLE,
    NOWHERE,
    RUNNING,
    bucket_t,
    esx_pool_t,
    esx_t,
    esx_vm_t,
    esx_world_t,
    host_of,
    is_together,
    pools_of,
    vm_of,
    world_of,
)
from pyvirt._core.sched.state cimport NEVER, NO_WORLD, sched_t
from pyvirt._core.types cimport ns_t


cdef void add(sched_t *s, uint32_t id) noexcept nogil:
    cdef uint32_t vm = s.worlds[id].vm
    cdef esx_t *e = host_of(s)
    cdef esx_vm_t *v = vm_of(s, vm)
    cdef esx_world_t *w = world_of(s, id)
    cdef ns_t least = 0
    if v.worlds == 0:
        v.since = v.bucket.since = s.now
        v.due = v.alarm = NEVER
        v.pool = <uint32_t>s.vms[vm].param[0]
        v.bucket.quota = quota_of(s, s.vms[vm].limit)
        v.limited = v.bucket.quota >= 0 or pools_of(s)[v.pool].limited
        e.leaves = 0                # its node may be one of a zeroed record
        if v.bucket.quota >= 0:
            e.limits += 1
            tend_refill(s)
    elif v.worlds == 1:
        # what one world alone did is no progress of a VM
        v.since = s.now
        world_of(s, s.vms[vm].first).offset = -ran(s, s.vms[vm].first)
    else:
        sync_progress(s, vm)
        least = least_progress(s, vm)
    w.offset = v.floor = least
    w.rate = v.rate
    w.queue = w.child = w.next = w.prev = NOWHERE
    w.pace = IDLE
    v.idles = v.watch = True
    w.known = True
    v.worlds += 1
    e.stale = e.anew = True
    v.fits = e.cosched != COSCHED_STRICT or fits_host(s, vm)
    set_plain(s, vm)


cdef void set_plain(sched_t *s, uint32_t vm) noexcept nogil:
    """After limits, or the number of worlds, changed: what of a VM matters at each slice."""
    cdef esx_vm_t *v = vm_of(s, vm)
    cdef uint32_t id = s.vms[vm].first
    cdef bint plain = not v.limited and not is_together(s, vm)
    while id != NO_WORLD:
        world_of(s, id).plain = plain
        id = s.siblings[id]


cdef void count_again(sched_t *s, uint32_t vm) noexcept nogil:
    """How many of a VM's worlds run, which is followed from now on, until `set_plain`."""
    cdef esx_vm_t *v = vm_of(s, vm)
    cdef uint32_t id = s.vms[vm].first
    advance(&v.bucket, s.now)
    v.bucket.running = 0
    while id != NO_WORLD:
        v.bucket.running += world_of(s, id).pace == RUNNING
        world_of(s, id).plain = False
        id = s.siblings[id]


cdef void remove(sched_t *s, uint32_t id) noexcept nogil:
    cdef uint32_t vm = s.worlds[id].vm
    cdef esx_t *e = host_of(s)
    cdef esx_vm_t *v = vm_of(s, vm)
    leave_home(s, id)
    if is_together(s, vm):
        sync_progress(s, vm)
    world_of(s, id).known = False
    v.worlds -= 1
    e.stale = e.anew = True
    if v.worlds:
        set_plain(s, vm)
        v.fits = e.cosched != COSCHED_STRICT or fits_host(s, vm)
        keep_together(s, vm)
    else:
        e.limits -= v.bucket.quota >= 0
        v.bucket.quota = -1
        leave_gang(s, vm)
        v.due = NEVER
        set_alarm(s, vm)
    ask_idle(s)


cdef void change(sched_t *s, uint32_t id) noexcept nogil:
    cdef uint32_t vm = s.worlds[id].vm
    host_of(s).stale = host_of(s).anew = True
    change_home(s, vm)
    count_again(s, vm)
    change_limit(s, vm)
    change_pool(s, vm, <uint32_t>s.vms[vm].param[0])
    vm_of(s, vm).fits = host_of(s).cosched != COSCHED_STRICT or fits_host(s, vm)
    set_plain(s, vm)
    tend_refill(s)


cdef void change_bounds(
    sched_t *s, uint32_t pool, double shares, int64_t reservation, int64_t limit
) noexcept nogil:
    """Other shares, reservation and limit of a pool; what it used of a period stays used."""
    cdef esx_t *e = host_of(s)
    cdef esx_pool_t *pools = pools_of(s)
    cdef bucket_t *b = &pools[pool].bucket
    cdef ns_t quota = quota_of(s, limit)
    cdef uint32_t i
    for i in range(e.pool_count):
        advance(&pools[i].bucket, s.now)
    pools[pool].shares, pools[pool].reservation, pools[pool].limit = shares, reservation, limit
    e.stale = e.anew = True
    if quota == b.quota:
        return
    if b.quota < 0:
        b.used = 0
    e.limits += (quota >= 0) - (b.quota >= 0)
    b.quota = quota
    follow_limits(s)
    b.spent = quota >= 0 and quota - b.used < (b.running if b.running else 1)
    for i in range(s.vm_count):
        if vm_of(s, i).worlds:
            park_spent(s, i)
            set_alarm(s, i)
    unpark_rest(s)
    find_pool_alarm(s)
    tend_refill(s)


cdef void follow_limits(sched_t *s) noexcept nogil:
    """Count anew how many worlds run under each limit, and which VMs and pools are under one."""
    cdef esx_t *e = host_of(s)
    cdef esx_pool_t *pools = pools_of(s)
    cdef esx_vm_t *v
    cdef uint32_t i, pool
    for i in range(e.pool_count):
        pools[i].limited = pools[i].limit >= 0 or (i and pools[pools[i].parent].limited)
        pools[i].bucket.running = 0
    for i in range(s.vm_count):
        v = vm_of(s, i)
        if v.worlds == 0:
            continue
        count_again(s, i)
        v.limited = v.bucket.quota >= 0 or pools[v.pool].limited
        pool = v.pool
        while pools[v.pool].limited:
            pools[pool].bucket.running += v.bucket.running
            if pool == 0:
                break
            pool = pools[pool].parent
        set_plain(s, i)
