"""The ESX policy: the world that has had least of what it is entitled to runs."""

from libc.stdint cimport INT64_MAX, int64_t, uint32_t
from libc.stdlib cimport calloc, free

from pyvirt._core.arrays cimport as_int
from pyvirt._core.sched.cosched cimport (
    ask_idle,
    fits_host,
    has_stopped,
    keep_together,
    look_later,
    look_now,
    skew_of,
    start_gang,
    sync_progress,
)
from pyvirt._core.sched.plug cimport Plug, ask, costop, park
from pyvirt._core.sched.policies.esx_alarm cimport (
    first_alarm,
    lowest_alarm,
    set_alarm,
    set_timer,
)
from pyvirt._core.sched.policies.esx_entitle cimport solve_entitlements
from pyvirt._core.sched.policies.esx_limit cimport (
    advance,
    change_limit,
    change_pool,
    count_running,
    end_limit,
    end_pool_limits,
    is_spent,
    quota_of,
    refill,
)
from pyvirt._core.sched.policies.esx_queue cimport (
    advance_host,
    drop,
    idle_cpu_for,
    is_idle,
    key_of,
    least_key,
    place_world,
    pull_from_others,
    put,
    runs_with,
    shift_times,
    take,
)
from pyvirt._core.sched.policies.esx_state cimport (
    COSCHED_BALANCE,
    COSCHED_NONE,
    COSCHED_RELAXED,
    COSCHED_STRICT,
    IDLE,
    NOWHERE,
    RUNNING,
    STALLED,
    UNIT,
    bucket_end,
    cpu_of,
    esx_cpu_t,
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
from pyvirt._core.sched.state cimport (
    MOST_SLICE,
    NEVER,
    NO_CPU,
    NO_WORLD,
    WAIT,
    WHY_NEW,
    WHY_PREEMPT,
    WHY_REFILL,
    WHY_SLICE,
    WHY_WAKE,
    sched_t,
)
from pyvirt._core.types cimport ns_t
from pyvirt.errors import InvalidTypeError, InvalidValueError

COSCHED = {
    "none": COSCHED_NONE,
    "balance": COSCHED_BALANCE,
    "strict": COSCHED_STRICT,
    "relaxed": COSCHED_RELAXED,
}

# No world's virtual time is farther ahead of the host's, and that is set back long before it
# overflows.
cdef int64_t MOST_AHEAD = <int64_t>1 << 60
cdef int64_t MOST_V = <int64_t>1 << 60


# --- coming and going ---


cdef void begin(sched_t *s) noexcept nogil:
    cdef esx_t *e = host_of(s)
    cdef esx_pool_t *pools = pools_of(s)
    cdef uint32_t i
    for i in range(s.cpu_count):
        cpu_of(s, i).head = cpu_of(s, i).node = INT64_MAX
        cpu_of(s, i).root = cpu_of(s, i).reserved = cpu_of(s, i).first = NOWHERE
    for i in range(e.pool_count):
        pools[i].bucket.quota = quota_of(s, pools[i].limit)
        pools[i].limited = pools[i].limit >= 0 or (i and pools[pools[i].parent].limited)
        e.limits += pools[i].limit >= 0
    e.stale = True
    e.pool_alarm = e.next_refill = NEVER
    e.next_solve = s.now + e.resolve
    tend_refill(s)


cdef void tend_refill(sched_t *s) noexcept nogil:
    """Periods are multiples of their length; they are counted while there is a limit."""
    cdef esx_t *e = host_of(s)
    if e.limits and e.next_refill == NEVER:
        e.next_refill = (s.now // e.period + 1) * e.period
    set_timer(s)


cdef void add(sched_t *s, uint32_t id) noexcept nogil:
    cdef uint32_t vm = s.worlds[id].vm, each
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
        world_of(s, s.vms[vm].first).progress = 0
    else:
        sync_progress(s, vm)
        least = INT64_MAX
        each = s.vms[vm].first
        while each != NO_WORLD:
            if world_of(s, each).known and world_of(s, each).progress < least:
                least = world_of(s, each).progress
            each = s.siblings[each]
    w.progress = least
    w.rate = v.rate
    w.queue = w.child = w.next = w.prev = NOWHERE
    w.pace = IDLE
    w.known = True
    v.worlds += 1
    e.stale = True
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
    """How many of a VM's worlds run, which is not followed while they are plain."""
    cdef esx_vm_t *v = vm_of(s, vm)
    cdef uint32_t id = s.vms[vm].first
    advance(&v.bucket, s.now)
    v.bucket.running = 0
    while id != NO_WORLD:
        v.bucket.running += world_of(s, id).pace == RUNNING
        id = s.siblings[id]


cdef void remove(sched_t *s, uint32_t id) noexcept nogil:
    cdef uint32_t vm = s.worlds[id].vm
    cdef esx_t *e = host_of(s)
    cdef esx_vm_t *v = vm_of(s, vm)
    if is_together(s, vm):
        sync_progress(s, vm)
    world_of(s, id).known = False
    v.worlds -= 1
    e.stale = True
    if v.worlds:
        set_plain(s, vm)
        v.fits = e.cosched != COSCHED_STRICT or fits_host(s, vm)
        keep_together(s, vm)
    else:
        e.limits -= v.bucket.quota >= 0
        v.bucket.quota = -1
        v.due = NEVER
        set_alarm(s, vm)
    ask_idle(s)


cdef void change(sched_t *s, uint32_t id) noexcept nogil:
    cdef uint32_t vm = s.worlds[id].vm
    host_of(s).stale = True
    count_again(s, vm)
    change_limit(s, vm)
    change_pool(s, vm, <uint32_t>s.vms[vm].param[0])
    vm_of(s, vm).fits = host_of(s).cosched != COSCHED_STRICT or fits_host(s, vm)
    set_plain(s, vm)
    tend_refill(s)


# --- queues ---


cdef void leave(sched_t *s, uint32_t id, uint32_t pace) noexcept nogil:
    """A world no longer runs."""
    cdef uint32_t vm = s.worlds[id].vm
    host_of(s).active -= 1
    if world_of(s, id).plain:
        world_of(s, id).pace = <unsigned char>pace
        return
    if is_together(s, vm):
        sync_progress(s, vm)
    world_of(s, id).pace = <unsigned char>pace
    count_running(s, vm, -1)


cdef void arrive(sched_t *s, uint32_t id, uint32_t why) noexcept nogil:
    """A world competes again, or is kept from it."""
    cdef esx_t *e = host_of(s)
    cdef uint32_t vm = s.worlds[id].vm, cpu, running
    cdef esx_vm_t *v = vm_of(s, vm)
    cdef esx_world_t *w = world_of(s, id)
    if why == WHY_WAKE or why == WHY_NEW or why == WHY_REFILL:
        advance_host(s)
        if w.vt < e.v - e.credit:
            w.vt = e.v - e.credit
    if is_together(s, vm):
        sync_progress(s, vm)
    w.pace = STALLED
    if why == WHY_WAKE or why == WHY_NEW:
        w.rate = v.rate
        if e.resolve_on_wake or not v.entitled:
            e.stale = True
    if is_spent(s, vm):
        park(s, id)
    elif is_together(s, vm) and (
            skew_of(s, id) >= e.skew_stop if e.cosched == COSCHED_RELAXED else has_stopped(s, vm)):
        costop(s, id)
    else:
        cpu = place_world(s, id, e.cosched == COSCHED_BALANCE)
        if is_idle(s, cpu):
            cpu_of(s, cpu).first = id
        put(s, id, cpu)
        running = s.cpus[cpu].running
        if running == NO_WORLD or key_of(s, id) + e.wake < runs_with(s, running):
            ask(s, cpu)


cdef void enqueue(sched_t *s, uint32_t id, uint32_t why) noexcept nogil:
    cdef uint32_t vm = s.worlds[id].vm, cpu = s.worlds[id].cpu
    if host_of(s).starting:
        return                      # a gang: its CPU is reserved already
    if why == WHY_SLICE or why == WHY_PREEMPT:
        leave(s, id, STALLED)
        put(s, id, cpu)
        cpu_of(s, cpu).first = id
    else:
        arrive(s, id, why)
    if not world_of(s, id).plain and is_together(s, vm):
        keep_together(s, vm)


cdef void dequeue(sched_t *s, uint32_t id) noexcept nogil:
    cdef uint32_t vm = s.worlds[id].vm
    cdef esx_t *e = host_of(s)
    drop(s, id)
    if not e.parking and not vm_of(s, vm).busy:
        # it may be about to wait, which is seen when that is done
        if e.resolve_on_wake:
            e.stale = True
        look_now(s, vm)


cdef void charge(sched_t *s, uint32_t id, ns_t dt) noexcept nogil:
    cdef esx_t *e = host_of(s)
    cdef esx_world_t *w = world_of(s, id)
    if e.stale:
        e.stale = False
        solve_entitlements(s)
    w.vt += <int64_t>(dt * w.rate)
    if w.vt > e.v + MOST_AHEAD:
        w.vt = e.v + MOST_AHEAD


cdef void stopped(sched_t *s, uint32_t id, uint32_t why) noexcept nogil:
    cdef uint32_t vm = s.worlds[id].vm
    cdef esx_t *e = host_of(s)
    cdef esx_world_t *w = world_of(s, id)
    cdef bint waits = s.worlds[id].state == WAIT
    if w.pace == RUNNING:
        leave(s, id, IDLE if waits else STALLED)
    else:
        if is_together(s, vm):
            sync_progress(s, vm)
        w.pace = IDLE if waits else STALLED
    if e.active == 0 and w.vt > e.v:
        e.v = w.vt
    if waits:
        if e.resolve_on_wake:
            e.stale = True
        ask_idle(s)
    if is_together(s, vm):
        keep_together(s, vm)


cdef uint32_t choose(sched_t *s, uint32_t cpu) noexcept nogil:
    """The best that waits here, or one elsewhere that is far behind it, or one of a gang."""
    cdef esx_t *e = host_of(s)
    cdef esx_cpu_t *c = cpu_of(s, cpu)
    cdef uint32_t best = c.root, other
    cdef int64_t below = INT64_MAX if best == NOWHERE else c.head - e.pull
    if least_key(s) < below:
        other = pull_from_others(s, cpu, below, e.cosched == COSCHED_BALANCE)
        if other != NO_WORLD:
            best = other
    if e.cosched == COSCHED_STRICT:
        other = start_gang(s, cpu, INT64_MAX if best == NOWHERE else world_of(s, best).key)
        if other != NO_WORLD:
            return other
    if best == NOWHERE:
        return NO_WORLD
    take(s, best)
    return best


cdef uint32_t pick(sched_t *s, uint32_t cpu) noexcept nogil:
    cdef esx_cpu_t *c = cpu_of(s, cpu)
    cdef uint32_t id = c.reserved, before = c.first, other, vm
    if id != NOWHERE:
        c.reserved = NOWHERE
        world_of(s, id).queue = NOWHERE
        host_of(s).active -= 1
    else:
        id = choose(s, cpu)
    c.first = NOWHERE
    if before != NOWHERE and before != id and world_of(s, before).queue == cpu and s.idle_count > 1:
        other = idle_cpu_for(s, before)
        if other != NO_CPU:
            take(s, before)
            put(s, before, other)
            cpu_of(s, other).first = before
            ask(s, other)
    if id == NO_WORLD:
        return NO_WORLD
    host_of(s).active += 1
    if world_of(s, id).plain:
        world_of(s, id).pace = RUNNING
        return id
    vm = s.worlds[id].vm
    if is_together(s, vm):
        sync_progress(s, vm)
    world_of(s, id).laggard = False
    world_of(s, id).pace = RUNNING
    count_running(s, vm, 1)
    if is_together(s, vm):
        look_later(s, vm)
    return id


cdef ns_t timeslice(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil:
    return host_of(s).quantum


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
        if bucket_end(&vm_of(s, vm).bucket) <= now:
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
    ask_idle(s)
    set_timer(s)


# --- the policy ---


cdef class Esx(Plug):
    """VMs by shares, reservations and limits over a tree of pools, as ESX does it.

    Parameters
    ----------
    quantum_ns, resolve_ns, resolve_on_wake, limit_period_ns, credit_ns, wake_ns, pull_ns, cosched, \
skew_stop_ns, \
skew_start_ns, laggard_ns
        See `pyvirt.sched.Esx`.
    pools : sequence of (int, float, int, int)
        The number of each pool's parent, shares, reservation and limit in ns of CPU time a second
        (-1: none), in breadth-first order. The first is the root, its own parent.
    """

    def __init__(
        self,
        quantum_ns=50_000_000,
        resolve_ns=1_000_000_000,
        resolve_on_wake=True,
        limit_period_ns=100_000_000,
        credit_ns=0,
        wake_ns=0,
        pull_ns=50_000_000,
        cosched="relaxed",
        skew_stop_ns=3_000_000,
        skew_start_ns=2_000_000,
        laggard_ns=50_000_000,
        pools=((0, 1.0, 0, -1),),
    ):
        cdef esx_t *e
        cdef size_t size
        pools = check_pools(pools)
        if not isinstance(cosched, str) or cosched not in COSCHED:
            raise InvalidValueError(
                f"cosched must be one of {', '.join(COSCHED)}, got {cosched!r:.80}")
        if not isinstance(resolve_on_wake, bool):
            raise InvalidTypeError(f"resolve_on_wake must be a bool, not {resolve_on_wake!r:.80}")
        Plug.__init__(self, "esx", dict(
            quantum_ns=as_int(quantum_ns, "quantum_ns", 1, MOST_SLICE),
            resolve_ns=as_int(resolve_ns, "resolve_ns", 1, 1 << 50),
            resolve_on_wake=resolve_on_wake,
            limit_period_ns=as_int(limit_period_ns, "limit_period_ns", 1, 1 << 50),
            credit_ns=as_int(credit_ns, "credit_ns", 0, 1 << 40),
            wake_ns=as_int(wake_ns, "wake_ns", 0, 1 << 40),
            pull_ns=as_int(pull_ns, "pull_ns", 0, 1 << 40),
            cosched=cosched,
            skew_stop_ns=as_int(skew_stop_ns, "skew_stop_ns", 1, 1 << 50),
            skew_start_ns=as_int(skew_start_ns, "skew_start_ns", 0, 1 << 50),
            laggard_ns=as_int(laggard_ns, "laggard_ns", 0, 1 << 40),
            pools=pools,
        ), {"pool": (0, 0, len(pools) - 1)})
        if skew_start_ns >= skew_stop_ns and cosched == "relaxed":
            raise InvalidValueError("skew_start_ns must be less than skew_stop_ns, "
                                    f"got {skew_start_ns:,} and {skew_stop_ns:,}")
        size = sizeof(esx_t) + len(pools) * sizeof(esx_pool_t)
        e = <esx_t *>calloc(1, size)
        if e == NULL:
            raise MemoryError
        e.quantum, e.resolve, e.period = quantum_ns, resolve_ns, limit_period_ns
        e.resolve_on_wake = resolve_on_wake
        e.credit = credit_ns * UNIT
        e.wake, e.pull, e.favour = wake_ns * UNIT, pull_ns * UNIT, laggard_ns * UNIT
        e.cosched = COSCHED[cosched]
        e.skew_stop, e.skew_start = skew_stop_ns, skew_start_ns
        e.pool_count = <uint32_t>len(pools)
        set_pools(<esx_pool_t *>(<char *>e + sizeof(esx_t)), pools)
        self.fill_own(e, size)
        free(e)
        self.table.cpu_size = sizeof(esx_cpu_t)
        self.table.world_size = sizeof(esx_world_t)
        self.table.vm_size = sizeof(esx_vm_t)
        self.table.begin = begin
        self.table.add = add
        self.table.remove = remove
        self.table.change = change
        self.table.enqueue = enqueue
        self.table.dequeue = dequeue
        self.table.charge = charge
        self.table.pick = pick
        self.table.timeslice = timeslice
        self.table.stopped = stopped
        self.table.timed = timed


cdef object check_pools(object pools):
    """The same as tuples, if they are pools in breadth-first order."""
    result = []
    for number, pool in enumerate(pools):
        try:
            parent, shares, reservation, limit = pool
            shares = float(shares)
        except (TypeError, ValueError):
            raise InvalidTypeError("a pool must be (parent, shares, reservation, limit), "
                                   f"got {pool!r:.80}") from None
        low = result[len(result) - 1][0] if result else 0
        parent = as_int(parent, f"parent of pool {number}", low, max(0, number - 1))
        if not (shares == 0 or 1e-12 <= shares <= 1e15):
            raise InvalidValueError(
                f"shares of pool {number} must be 0, or 1e-12 to 1e15, got {shares!r}")
        reservation = as_int(reservation, f"reservation of pool {number}", 0, 1 << 50)
        limit = as_int(limit, f"limit of pool {number}", -1, 1 << 50)
        if 0 <= limit < reservation:
            raise InvalidValueError(f"reservation of pool {number} must not exceed its limit, "
                                    f"got {reservation:,} > {limit:,} ns a second")
        result.append((parent, shares, reservation, limit))
    if not 1 <= len(result) <= 1 << 16:
        raise InvalidValueError(f"pools must be 1 to 65,536, got {len(result)}")
    return tuple(result)


cdef void set_pools(esx_pool_t *into, tuple pools):
    cdef uint32_t i = 0
    for parent, shares, reservation, limit in pools:
        into[i].parent, into[i].shares = parent, shares
        into[i].reservation, into[i].limit = reservation, limit
        into[i].first = i + 1
        if i:
            if into[parent].count == 0:
                into[parent].first = i
            into[parent].count += 1
        i += 1
