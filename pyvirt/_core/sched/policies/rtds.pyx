"""Xen's RTDS: each world is a deferrable server, and the earliest deadline runs.

The rules are those of Xen's documentation (wiki, "RTDS-Based-Scheduler"; xl(1), sched-rtds) and of
the messages that introduced them; nothing here is Xen's code.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from pyvirt._core.sched.ordered cimport (
    nodes_at,
    nodes_t,
    ordered_first,
    ordered_insert,
    ordered_next,
    ordered_remove,
)
from pyvirt._core.sched.plug cimport Plug, account, allowed, ask, park, unpark
from pyvirt._core.sched.state cimport (
    NEVER,
    NO_CPU,
    NO_WORLD,
    RUN,
    WAIT,
    WHY_PARK,
    WHY_PREEMPT,
    WHY_SLICE,
    sched_t,
    vm_t,
)
from pyvirt._core.types cimport ns_t


cdef inline rtds_own_t *own(const sched_t *s) noexcept nogil:
    return <rtds_own_t *>s.plug.own


cdef inline rtds_world_t *world(const sched_t *s, uint32_t id) noexcept nogil:
    return &(<rtds_world_t *>s.plug.worlds)[id]


cdef inline nodes_t places(const sched_t *s) noexcept nogil:
    return nodes_at(&(<rtds_world_t *>s.plug.worlds).place, sizeof(rtds_world_t))


cdef inline nodes_t dues(const sched_t *s) noexcept nogil:
    return nodes_at(&(<rtds_world_t *>s.plug.worlds).due, sizeof(rtds_world_t))


cdef inline ns_t budget_of(const sched_t *s, uint32_t id) noexcept nogil:
    """In each period, of which it is at most the whole."""
    cdef const vm_t *v = &s.vms[s.worlds[id].vm]
    return v.param[BUDGET] if v.param[BUDGET] < v.param[PERIOD] else v.param[PERIOD]


# --- periods ---


cdef void refill(sched_t *s, uint32_t id) noexcept nogil:
    """Begin the present period; what is left of the last one's budget is lost."""
    cdef rtds_world_t *w = world(s, id)
    cdef ns_t period = s.vms[s.worlds[id].vm].param[PERIOD]
    if w.deadline <= s.now:
        w.deadline += ((s.now - w.deadline) // period + 1) * period
    w.budget = budget_of(s, id)
    w.level = 0


cdef void serve(sched_t *s, uint32_t id) noexcept nogil:
    """It competes: its budget is refilled in time from now on."""
    cdef rtds_world_t *w = world(s, id)
    w.serves = True
    ordered_insert(&own(s).servers, dues(s), id, w.deadline)
    set_timer(s)


cdef void leave(sched_t *s, uint32_t id) noexcept nogil:
    """What sleeps needs no refills: a period that is over by then is made up for when it wakes."""
    cdef rtds_world_t *w = world(s, id)
    if w.serves:
        w.serves = False
        ordered_remove(&own(s).servers, dues(s), id)
        set_timer(s)


cdef void set_timer(sched_t *s) noexcept nogil:
    cdef uint32_t id = ordered_first(&own(s).servers, dues(s))
    s.plug.timer = NEVER if id == NO_WORLD else world(s, id).deadline


cdef void timed(sched_t *s) noexcept nogil:
    """Periods end."""
    cdef uint32_t id
    while True:
        id = ordered_first(&own(s).servers, dues(s))
        if id == NO_WORLD or world(s, id).deadline > s.now:
            break
        end_period(s, id)
    set_timer(s)


cdef void end_period(sched_t *s, uint32_t id) noexcept nogil:
    cdef rtds_world_t *w = world(s, id)
    cdef bint depleted = w.depleted
    ordered_remove(&own(s).servers, dues(s), id)
    w.serves = w.depleted = False
    if s.worlds[id].state == WAIT:
        return                      # it blocked while it was parked
    if w.place.contained:
        take(s, id)
        refill(s, id)
        put(s, id)
        tickle(s, id)
    elif s.worlds[id].state == RUN:
        account(s, s.worlds[id].cpu)
        refill(s, id)
        ask(s, s.worlds[id].cpu)
    else:
        refill(s, id)
    serve(s, id)
    if depleted:
        unpark(s, id)


# --- the run queue ---


cdef inline int64_t urgency(const sched_t *s, uint32_t id) noexcept nogil:
    """What orders worlds: level, then deadline."""
    cdef const rtds_world_t *w = world(s, id)
    return <int64_t>w.level << DEADLINE_BITS | (w.deadline - own(s).base)


cdef void put(sched_t *s, uint32_t id) noexcept nogil:
    if s.now - own(s).base >= <ns_t>1 << (DEADLINE_BITS - 1):
        move_base(s)
    ordered_insert(&own(s).queue, places(s), id, urgency(s, id))


cdef void take(sched_t *s, uint32_t id) noexcept nogil:
    ordered_remove(&own(s).queue, places(s), id)


cdef void move_base(sched_t *s) noexcept nogil:
    """Once in 39 hours: the keys of all that wait change by the same, which keeps the tree."""
    cdef rtds_own_t *o = own(s)
    cdef ns_t by = s.now - o.base
    cdef uint32_t id
    o.base = s.now
    for id in range(s.world_count):
        if world(s, id).place.contained:
            world(s, id).place.key -= by


cdef uint32_t idle_cpu(const sched_t *s, uint32_t id) noexcept nogil:
    """Of those not about to pick its last CPU, or the lowest that is idle, or NO_CPU."""
    cdef const uint64_t *mask = s.queues[s.worlds[id].queue].mask
    cdef uint32_t i, cpu, best = NO_CPU
    cdef uint64_t free
    if s.idle_count <= <uint32_t>(own(s).serving != NO_CPU):
        return NO_CPU               # the one that picks counts as idle
    for i in range((s.cpu_count + 63) >> 6):
        free = s.idle[i] & mask[i] & ~s.asked[i]
        cpu = 64 * i
        while free:
            if free & 1 and cpu != own(s).serving:
                if cpu == s.worlds[id].cpu:
                    return cpu
                if best == NO_CPU:
                    best = cpu
            free >>= 1
            cpu += 1
    return best


cdef void tickle(sched_t *s, uint32_t id) noexcept nogil:
    """Have an idle CPU pick, or that of the least urgent world, if this one is more urgent."""
    cdef uint32_t cpu, best = idle_cpu(s, id)
    cdef int64_t worst = urgency(s, id)
    if best != NO_CPU:
        ask(s, best)
        return
    for cpu in range(s.cpu_count):
        if s.cpus[cpu].running == NO_WORLD or s.asked[cpu >> 6] >> (cpu & 63) & 1:
            continue
        if allowed(s, id, cpu) and urgency(s, s.cpus[cpu].running) > worst:
            best, worst = cpu, urgency(s, s.cpus[cpu].running)
    if best != NO_CPU:
        ask(s, best)


cdef void enqueue(sched_t *s, uint32_t id, uint32_t why) noexcept nogil:
    cdef rtds_world_t *w = world(s, id)
    if why == WHY_PREEMPT or why == WHY_SLICE:
        own(s).serving = s.worlds[id].cpu
    if not w.serves:
        if w.deadline <= s.now:
            refill(s, id)
        serve(s, id)
    if w.budget <= 0:
        if not s.vms[s.worlds[id].vm].param[EXTRATIME]:
            w.depleted = True
            park(s, id)
            return
        if w.level < MOST_LEVEL:
            w.level += 1
        w.budget = budget_of(s, id)
    put(s, id)
    tickle(s, id)


cdef void dequeue(sched_t *s, uint32_t id) noexcept nogil:
    take(s, id)
    leave(s, id)


cdef void stopped(sched_t *s, uint32_t id, uint32_t why) noexcept nogil:
    if why != WHY_PARK:
        world(s, id).depleted = False
        leave(s, id)


cdef void offer(sched_t *s) noexcept nogil:
    """An idle CPU took one: another that still waits may have an idle CPU of its own."""
    cdef uint32_t id, idle
    if s.idle_count < 2:
        return                      # the one that picks counts as idle
    id = ordered_first(&own(s).queue, places(s))
    while id != NO_WORLD:
        idle = idle_cpu(s, id)
        if idle != NO_CPU:
            ask(s, idle)
            return
        id = ordered_next(places(s), id)


cdef uint32_t pick(sched_t *s, uint32_t cpu) noexcept nogil:
    cdef uint32_t id = ordered_first(&own(s).queue, places(s))
    cdef bint ran = own(s).serving == cpu
    own(s).serving = cpu
    while id != NO_WORLD and not allowed(s, id, cpu):
        id = ordered_next(places(s), id)
    if id != NO_WORLD:
        take(s, id)
        if not ran:
            offer(s)
    own(s).serving = NO_CPU
    return id


cdef void spend(sched_t *s, uint32_t id, ns_t dt) noexcept nogil:
    world(s, id).budget -= dt


cdef ns_t timeslice(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil:
    return world(s, id).budget


cdef void add(sched_t *s, uint32_t id) noexcept nogil:
    """Its first period begins now."""
    world(s, id).deadline = s.now


cdef void remove(sched_t *s, uint32_t id) noexcept nogil:
    leave(s, id)


cdef class Rtds(Plug):
    """Xen's RTDS: each world is a deferrable server, under global earliest deadline first.

    Notes
    -----
    Parameters of a VM, the same for each of its worlds: ``period_ns`` (default 10 ms),
    ``budget_ns`` (4 ms; more than the period counts as the period) and ``extratime`` (0 or 1). The
    rules are those of Xen's documentation (wiki, "RTDS-Based-Scheduler"; xl(1), ``sched-rtds``) and
    of the messages that introduced them:

    A world's first period begins when it is added; its deadline is the end of its period. At the
    start of a period its budget is full, and what is left of the last one is lost. While it runs it
    uses up its budget; while it sleeps it keeps it until the period ends. A world without budget is
    parked until its next period, or, with ``extratime``, gets its budget once more at a level below
    all worlds that are at an earlier one. The world of the least level, then of the earliest deadline,
    then of the lowest number, runs, on whatever CPU it may.

    A world that begins to compete gets an idle CPU, the one it ran on last before the others, or else
    the CPU of the world that is least urgent, if that is less urgent. New parameters count from the
    next period on. Weights mean nothing here, and nothing refuses a VM for which there is no room.
    """

    def __init__(self):
        cdef rtds_own_t o
        memset(&o, 0, sizeof(o))
        o.serving = NO_CPU
        self.fill_own(&o, sizeof(o))
        self.table.world_size = sizeof(rtds_world_t)
        self.table.add, self.table.remove = add, remove
        self.table.enqueue, self.table.dequeue = enqueue, dequeue
        self.table.pick, self.table.timeslice = pick, timeslice
        self.table.charge, self.table.stopped, self.table.timed = spend, stopped, timed
        super().__init__(
            "rtds",
            {},
            {
                "period_ns": (10_000_000, 1, 1 << 46),
                "budget_ns": (4_000_000, 1, 1 << 46),
                "extratime": (0, 0, 1),
            },
        )
