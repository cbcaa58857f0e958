"""Who waits, who runs: the turns of the worlds of the ESX policy."""

from libc.stdint cimport INT64_MAX, int64_t, uint32_t

from pyvirt._core.sched.cosched cimport (
    has_stopped,
    keep_together,
    look_now,
)
from pyvirt._core.sched.plug cimport ask, costop, park
from pyvirt._core.sched.policies.esx_entitle cimport solve_entitlements, wants_change
from pyvirt._core.sched.policies.esx_gang cimport ask_idle, start_gang
from pyvirt._core.sched.policies.esx_home cimport give_home, goes_home
from pyvirt._core.sched.policies.esx_leap cimport note_wake
from pyvirt._core.sched.policies.esx_limit cimport is_spent
from pyvirt._core.sched.policies.esx_progress cimport skew_of, sync_progress
from pyvirt._core.sched.policies.esx_queue cimport (
    advance_host,
    drop,
    exchange,
    find_least,
    idle_cpu_for,
    place_world,
    pull_from_others,
    passed_after,
    put,
    settle,
    take,
)
from pyvirt._core.sched.policies.esx_state cimport (
    COSCHED_BALANCE,
    COSCHED_RELAXED,
    COSCHED_STRICT,
    IDLE,
    NOWHERE,
    RUNNING,
    STALLED,
    cpu_of,
    esx_cpu_t,
    esx_t,
    esx_vm_t,
    esx_world_t,
    host_of,
    is_together,
    vm_of,
    world_of,
)
from pyvirt._core.sched.state cimport (
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
from pyvirt._core.sched.winner cimport PV_FETCH
from pyvirt._core.types cimport ns_t


cdef void arrive(sched_t *s, uint32_t id, uint32_t why) noexcept nogil:
    """A world competes again, or is kept from it."""
    cdef esx_t *e = host_of(s)
    cdef uint32_t vm = s.worlds[id].vm
    cdef esx_vm_t *v = vm_of(s, vm)
    cdef esx_world_t *w = world_of(s, id)
    if e.with_numa:
        give_home(s, id)
    if why == WHY_WAKE or why == WHY_NEW or why == WHY_REFILL:
        advance_host(s)
        note_wake(e)
        if w.vt < e.v - e.credit:
            w.vt = e.v - e.credit
    if is_together(s, vm):
        sync_progress(s, vm)
    w.pace = STALLED
    wants_change(s, vm)
    if why == WHY_WAKE or why == WHY_NEW:
        w.rate = v.rate
        if e.resolve_on_wake or not v.entitled:
            e.stale = True
    if is_spent(s, vm):
        park(s, id)
    elif is_together(s, vm) and (
            skew_of(s, id) >= e.skew_stop if e.cosched == COSCHED_RELAXED else has_stopped(s, vm)):
        v.watch = True
        costop(s, id)
    else:
        settle(s, id, place_world(s, id, e.cosched == COSCHED_BALANCE))


cdef void enqueue(sched_t *s, uint32_t id, uint32_t why) noexcept nogil:
    cdef uint32_t vm = s.worlds[id].vm, cpu = s.worlds[id].cpu
    cdef bint watch
    if host_of(s).starting:
        return                      # a gang: its CPU is reserved already
    if why == WHY_SLICE or why == WHY_PREEMPT:
        leave(s, world_of(s, id), vm, vm_of(s, vm), STALLED)
        watch = not world_of(s, id).plain and is_together(s, vm) and vm_of(s, vm).watch
        if not host_of(s).with_numa or not goes_home(s, id):
            cpu_of(s, cpu).first = id
            if watch:
                put(s, id, cpu)
            else:
                cpu_of(s, cpu).back = id    # which picks at once
    else:
        arrive(s, id, why)
        watch = is_together(s, vm) and vm_of(s, vm).watch
    if watch:
        keep_together(s, vm)


cdef void dequeue(sched_t *s, uint32_t id) noexcept nogil:
    cdef uint32_t vm = s.worlds[id].vm
    cdef esx_t *e = host_of(s)
    drop(s, id)
    if not e.parking and not vm_of(s, vm).busy:
        # it may be about to wait, which is seen when that is done
        wants_change(s, vm)
        if e.resolve_on_wake:
            e.stale = True
        look_now(s, vm)


cdef void charge(sched_t *s, uint32_t id, ns_t dt) noexcept nogil:
    cdef esx_t *e = host_of(s)
    cdef esx_world_t *w = world_of(s, id)
    cdef uint32_t next = cpu_of(s, s.worlds[id].cpu).who[1]
    if next != NOWHERE:             # which may run soon
        PV_FETCH(world_of(s, next))
        PV_FETCH(&s.worlds[next])
        PV_FETCH(&s.worlds[next].slot)
    if e.stale:
        e.stale = False
        solve_entitlements(s)
    w.vt = passed_after(s, id, dt)


cdef void stopped(sched_t *s, uint32_t id, uint32_t why) noexcept nogil:
    cdef uint32_t vm = s.worlds[id].vm
    cdef esx_t *e = host_of(s)
    cdef esx_world_t *w = world_of(s, id)
    cdef bint waits = s.worlds[id].state == WAIT
    if w.pace == RUNNING:
        leave(s, w, vm, vm_of(s, vm), IDLE if waits else STALLED)
    else:
        if is_together(s, vm):
            sync_progress(s, vm)
        w.pace = IDLE if waits else STALLED
        vm_of(s, vm).idles = True
    if e.active == 0 and w.vt > e.v:
        e.v = w.vt
    if waits:
        wants_change(s, vm)
        if e.resolve_on_wake:
            e.stale = True
        ask_idle(s)
    if is_together(s, vm) and vm_of(s, vm).watch:
        keep_together(s, vm)


cdef uint32_t choose(sched_t *s, uint32_t cpu) noexcept nogil:
    """The best that waits here, or one elsewhere that is far behind it, or one of a gang."""
    cdef esx_t *e = host_of(s)
    cdef esx_cpu_t *c = cpu_of(s, cpu)
    cdef uint32_t best = c.who[1], other
    cdef int64_t below = INT64_MAX if best == NOWHERE else c.key[1] - e.pull
    if e.least < below and find_least(s) < below:
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


cdef void move_on(sched_t *s, uint32_t id, uint32_t cpu) noexcept nogil:
    """A world that ran on the CPU, or came while it was idle, waits there: an idle one takes it."""
    cdef uint32_t other = idle_cpu_for(s, id)
    if other != NO_CPU:
        take(s, id)
        put(s, id, other)
        cpu_of(s, other).first = id
        ask(s, other)


cdef uint32_t pick_any(sched_t *s, uint32_t cpu, uint32_t before) noexcept nogil:
    """One of a gang that the CPU is kept for, or the choice; `before` ran here, or came."""
    cdef esx_cpu_t *c = cpu_of(s, cpu)
    cdef uint32_t id = c.reserved
    if id != NOWHERE:
        c.reserved = NOWHERE
        world_of(s, id).queue = NOWHERE
        host_of(s).active -= 1
    else:
        id = choose(s, cpu)
    if before != NOWHERE and before != id and world_of(s, before).queue == cpu and s.idle_count > 1:
        move_on(s, before, cpu)
    return id


cdef uint32_t pick(sched_t *s, uint32_t cpu) noexcept nogil:
    cdef esx_cpu_t *c = cpu_of(s, cpu)
    cdef esx_t *e = host_of(s)
    cdef uint32_t id = NOWHERE, before = c.first, back = c.back
    c.first = c.back = NOWHERE
    if back != NOWHERE:
        if c.reserved == NOWHERE and s.idle_count < 2 and e.cosched != COSCHED_STRICT:
            id = exchange(s, cpu, back)     # the usual case
        if id == NOWHERE:
            put(s, back, cpu)
    if id == NOWHERE:
        id = pick_any(s, cpu, before)
    if id != NO_WORLD:
        start(s, id, world_of(s, id))
    return id


cdef ns_t timeslice(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil:
    return host_of(s).quantum
