"""The timer of the ESX policy: periods, entitlements, limits and skews, at their times."""

from libc.stdint cimport INT64_MAX, uint32_t

from pyvirt._core.sched.cosched cimport keep_together
from pyvirt._core.sched.pairs cimport pairs_clear
from pyvirt._core.sched.policies.esx_alarm cimport (
    first_alarm,
    lowest_alarm,
    set_alarm,
    set_timer,
)
from pyvirt._core.sched.policies.esx_gang cimport ask_idle
from pyvirt._core.sched.policies.esx_home cimport begin_homes, tend_homes
from pyvirt._core.sched.policies.esx_limit cimport end_limit, end_pool_limits, quota_of, refill
from pyvirt._core.sched.policies.esx_queue cimport advance_host, shift_times
from pyvirt._core.sched.policies.esx_state cimport (
    BINS,
    MOST_V,
    NOWHERE,
    bucket_end,
    cpu_of,
    esx_pool_t,
    esx_t,
    host_of,
    pools_of,
    vm_of,
)
from pyvirt._core.sched.state cimport NEVER, NO_WORLD, sched_t
from pyvirt._core.types cimport ns_t


cdef void begin(sched_t *s) noexcept nogil:
    cdef esx_t *e = host_of(s)
    cdef esx_pool_t *pools = pools_of(s)
    cdef uint32_t i
    e.least = INT64_MAX
    for i in range(s.cpu_count):
        pairs_clear(cpu_of(s, i).key, cpu_of(s, i).who, BINS)
        cpu_of(s, i).vacant = <uint32_t>-1
        cpu_of(s, i).reserved = cpu_of(s, i).first = cpu_of(s, i).back = NOWHERE
    for i in range(e.pool_count):
        pools[i].bucket.quota = quota_of(s, pools[i].limit)
        pools[i].limited = pools[i].limit >= 0 or (i and pools[pools[i].parent].limited)
        e.limits += pools[i].limit >= 0
    e.stale = e.anew = True
    e.changed = NOWHERE
    e.gangs = NO_WORLD
    e.pool_alarm = e.next_refill = NEVER
    e.next_solve = s.now + e.resolve
    e.by_use = e.charge_used and s.topology.smt
    begin_homes(s)
    tend_refill(s)


cdef void tend_refill(sched_t *s) noexcept nogil:
    """Periods are multiples of their length; they are counted while there is a limit."""
    cdef esx_t *e = host_of(s)
    if e.limits and e.next_refill == NEVER:
        e.next_refill = (s.now // e.period + 1) * e.period
    set_timer(s)


cdef void timed(sched_t *s) noexcept nogil:
    cdef esx_t *e = host_of(s)
    cdef uint32_t vm, first = NO_WORLD, last = NO_WORLD
    cdef ns_t now = s.now
    if now >= e.next_refill:
        e.next_refill = NEVER
        if e.limits:
            refill(s)
        tend_refill(s)
    if e.pool_alarm <= now:
        end_pool_limits(s)
    # limits first, then skews, each in the order of the VMs
    while first_alarm(s) <= now:
        vm = lowest_alarm(s)
        if bucket_end(&vm_of(s, vm).bucket, e.quantum) <= now:
            end_limit(s, vm)
        if vm_of(s, vm).due <= now:
            vm_of(s, vm).due = NEVER
            vm_of(s, vm).later = NO_WORLD
            if first == NO_WORLD:
                first = vm
            else:
                vm_of(s, last).later = vm
            last = vm
        set_alarm(s, vm)
    if now >= e.next_solve:
        advance_host(s)
        e.stale = True
        e.next_solve += e.resolve
        if e.v > MOST_V:
            shift_times(s, e.v - (MOST_V >> 2))
    while first != NO_WORLD:
        keep_together(s, first)
        first = vm_of(s, first).later
    if e.next_home <= now:
        tend_homes(s)
    ask_idle(s)
    set_timer(s)
