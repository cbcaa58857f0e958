"""Borrowed virtual time."""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from pyvirt._core.arrays cimport as_int
from pyvirt._core.sched.ordered cimport (
    nodes_at,
    nodes_t,
    ordered_first,
    ordered_insert,
    ordered_next,
    ordered_remove,
)
from pyvirt._core.sched.placement cimport idle_cpu_among
from pyvirt._core.sched.plug cimport Plug, allowed, ask
from pyvirt._core.sched.state cimport (
    MASK_WORDS,
    MOST_SLICE,
    NEVER,
    NO_CPU,
    NO_WORLD,
    RUN,
    VIRTUAL_SHIFT,
    WHY_MOVE,
    WHY_NEW,
    WHY_PREEMPT,
    WHY_SLICE,
    WHY_WAKE,
    sched_t,
    world_t,
)
from pyvirt._core.sched.virtual cimport ahead, wrapping
from pyvirt._core.types cimport ns_t

cdef enum:                          # of a machine's parameters
    WARP = 0
    WARP_LIMIT = 1
    UNWARP = 2

cdef int64_t MOST_WARP = 1 << 50    # ns


cdef inline bvt_t *own_of(sched_t *s) noexcept nogil:
    return <bvt_t *>s.plug.own


cdef inline bvt_world_t *of(sched_t *s, uint32_t id) noexcept nogil:
    return &(<bvt_world_t *>s.plug.worlds)[id]


cdef inline bvt_cpu_t *cpu_of(sched_t *s, uint32_t cpu) noexcept nogil:
    return &(<bvt_cpu_t *>s.plug.cpus)[cpu]


cdef inline nodes_t by_effective(sched_t *s) noexcept nogil:
    return nodes_at(&(<bvt_world_t *>s.plug.worlds).by_effective, sizeof(bvt_world_t))


cdef inline nodes_t by_actual(sched_t *s) noexcept nogil:
    return nodes_at(&(<bvt_world_t *>s.plug.worlds).by_actual, sizeof(bvt_world_t))


cdef inline int64_t parameter(sched_t *s, uint32_t id, uint32_t which) noexcept nogil:
    return s.vms[s.worlds[id].vm].param[which]


# --- virtual times ---


cdef inline int64_t actual(sched_t *s, uint32_t id) noexcept nogil:
    """A, with what is in progress, rounded down."""
    cdef const world_t *w = &s.worlds[id]
    cdef const bvt_world_t *b = of(s, id)
    if w.state != RUN:
        return b.v
    return wrapping(
        b.v, <int64_t>((<uint64_t>(s.now - w.since) << VIRTUAL_SHIFT) + b.rem) // w.weight)


cdef inline int64_t warp(sched_t *s, uint32_t id) noexcept nogil:
    return parameter(s, id, WARP) << VIRTUAL_SHIFT if of(s, id).is_warped else 0


cdef inline int64_t effective(sched_t *s, uint32_t id) noexcept nogil:
    return ahead(actual(s, id), warp(s, id))


cdef inline int64_t margin(sched_t *s, uint32_t id) noexcept nogil:
    """C in a world's virtual time."""
    return (own_of(s).allowance << VIRTUAL_SHIFT) // s.worlds[id].weight


cdef ns_t lasts(sched_t *s, uint32_t id, uint32_t other) noexcept nogil:
    """How long a world runs until it is C beyond another, from when it was last charged."""
    cdef const bvt_world_t *b = of(s, id)
    cdef int64_t weight = s.worlds[id].weight
    cdef int64_t goal = wrapping(effective(s, other), warp(s, id) + margin(s, id))
    cdef int64_t need = ahead(goal, b.v)
    cdef ns_t time
    if need <= 0:
        return 0
    if need > (MOST_SLICE << VIRTUAL_SHIFT) // weight + 1:
        return MOST_SLICE
    time = (need * weight - b.rem + (1 << VIRTUAL_SHIFT) - 1) >> VIRTUAL_SHIFT
    return time if time < MOST_SLICE else MOST_SLICE


cdef int64_t scheduler_time(sched_t *s) noexcept nogil:
    """SVT: the least A of those that wait or run."""
    cdef bvt_t *o = own_of(s)
    cdef int64_t v, least = o.svt
    cdef uint32_t cpu, id = ordered_first(&o.plain, by_effective(s))
    cdef bint some = False
    if id != NO_WORLD:
        least, some = of(s, id).v, True
    id = ordered_first(&o.warped, by_actual(s))
    if id != NO_WORLD and (not some or ahead(of(s, id).v, least) < 0):
        least, some = of(s, id).v, True
    for cpu in range(s.cpu_count):
        id = s.cpus[cpu].running
        if id != NO_WORLD:
            v = actual(s, id)
            if not some or ahead(v, least) < 0:
                least, some = v, True
    return least


# --- who waits, in order ---


cdef void put(sched_t *s, uint32_t id) noexcept nogil:
    cdef bvt_t *o = own_of(s)
    if of(s, id).is_warped:
        ordered_insert(&o.early, by_effective(s), id, effective(s, id))
        ordered_insert(&o.warped, by_actual(s), id, of(s, id).v)
    else:
        ordered_insert(&o.plain, by_effective(s), id, of(s, id).v)


cdef void take(sched_t *s, uint32_t id) noexcept nogil:
    cdef bvt_t *o = own_of(s)
    if of(s, id).is_warped:
        ordered_remove(&o.early, by_effective(s), id)
        ordered_remove(&o.warped, by_actual(s), id)
    else:
        ordered_remove(&o.plain, by_effective(s), id)


cdef inline uint32_t first_allowed(sched_t *s, const uint32_t *root, uint32_t cpu) noexcept nogil:
    cdef uint32_t id = ordered_first(root, by_effective(s))
    while id != NO_WORLD and not allowed(s, id, cpu):
        id = ordered_next(by_effective(s), id)
    return id


cdef uint32_t earliest(sched_t *s, uint32_t cpu) noexcept nogil:
    """Who waits, may run on the CPU and has the least E; or NO_WORLD."""
    cdef uint32_t one = first_allowed(s, &own_of(s).plain, cpu)
    cdef uint32_t other = first_allowed(s, &own_of(s).early, cpu)
    cdef int64_t gap
    if one == NO_WORLD or other == NO_WORLD:
        return one if other == NO_WORLD else other
    gap = ahead(effective(s, one), effective(s, other))
    return one if gap < 0 or (gap == 0 and one < other) else other


# --- hooks ---


cdef void add(sched_t *s, uint32_t id) noexcept nogil:
    of(s, id).v = scheduler_time(s)
    of(s, id).woken = NEVER


cdef uint32_t find_idle(sched_t *s, uint32_t id, uint32_t left) noexcept nogil:
    """An idle CPU that is not about to pick, but not `left`; or NO_CPU."""
    cdef uint64_t among[MASK_WORDS]
    if not s.idle_count:
        return NO_CPU
    memset(among, 0xFF, sizeof(among))
    if left != NO_CPU:
        among[left >> 6] &= ~(<uint64_t>1 << (left & 63))
    return idle_cpu_among(s, id, among)


cdef void look_for_cpu(sched_t *s, uint32_t id, uint32_t left) noexcept nogil:
    """An idle CPU; or the one that it preempts; or one that must look again sooner.

    `left` is the CPU that it had and lost just now, or NO_CPU.
    """
    cdef uint32_t cpu, other, best = NO_CPU
    cdef int64_t most = 0
    cdef ns_t end, first_end = NEVER
    cpu = find_idle(s, id, left)
    if cpu != NO_CPU:
        ask(s, cpu)
        return
    if of(s, id).woken == s.now:
        for cpu in range(s.cpu_count):
            other = s.cpus[cpu].running
            if other != NO_WORLD and cpu != left and allowed(s, id, cpu) and (
                best == NO_CPU or ahead(effective(s, other), most) > 0
            ):
                best, most = cpu, effective(s, other)
        if best != NO_CPU and ahead(effective(s, id), most) < 0:
            ask(s, best)
            return
        best = NO_CPU
    for cpu in range(s.cpu_count):
        other = s.cpus[cpu].running
        if other != NO_WORLD and cpu != left and allowed(s, id, cpu):
            end = s.worlds[other].since + lasts(s, other, id)
            if end < s.cpus[cpu].slice_end and end < first_end:
                best, first_end = cpu, end
    if best != NO_CPU:
        ask(s, best)


cdef void enqueue(sched_t *s, uint32_t id, uint32_t why) noexcept nogil:
    cdef bvt_world_t *b = of(s, id)
    cdef int64_t svt
    b.woken = NEVER
    if why == WHY_SLICE or why == WHY_PREEMPT:
        cpu_of(s, s.worlds[id].cpu).last = id + 1
        put(s, id)
        return
    if why == WHY_WAKE or why == WHY_NEW:
        svt = scheduler_time(s)
        if ahead(svt, b.v) > 0:
            b.v, b.rem = svt, 0
        b.is_warped = parameter(s, id, WARP) > 0 and s.now >= b.unwarped_until
        b.warp_left = parameter(s, id, WARP_LIMIT)
        b.woken = s.now
    b.competes = True
    own_of(s).competing += 1
    put(s, id)
    look_for_cpu(s, id, NO_CPU)


cdef void stopped(sched_t *s, uint32_t id, uint32_t why) noexcept nogil:
    cdef bvt_t *o = own_of(s)
    if of(s, id).competes:
        of(s, id).competes = False
        o.competing -= 1
        if not o.competing:
            o.svt = of(s, id).v


cdef void dequeue(sched_t *s, uint32_t id) noexcept nogil:
    take(s, id)
    stopped(s, id, WHY_MOVE)


cdef void change(sched_t *s, uint32_t id) noexcept nogil:
    """Of another weight the remainder means nothing."""
    of(s, id).rem = 0


cdef void charge(sched_t *s, uint32_t id, ns_t dt) noexcept nogil:
    cdef bvt_world_t *b = of(s, id)
    cdef uint64_t scaled = (<uint64_t>dt << VIRTUAL_SHIFT) + b.rem
    b.v = wrapping(b.v, <int64_t>(scaled // s.worlds[id].weight))
    b.rem = <uint32_t>(scaled % s.worlds[id].weight)
    if b.is_warped and parameter(s, id, WARP_LIMIT):
        b.warp_left -= dt
        if b.warp_left <= 0:
            b.is_warped = False
            b.unwarped_until = s.now + parameter(s, id, UNWARP)


cdef uint32_t pick(sched_t *s, uint32_t cpu) noexcept nogil:
    """The least E; who ran here until now goes on unless it is C beyond that, or that just woke."""
    cdef uint32_t best = earliest(s, cpu), last = cpu_of(s, cpu).last, idle
    cdef int64_t gap
    cpu_of(s, cpu).last = 0
    if last and last - 1 != best:
        last -= 1
        gap = ahead(effective(s, last), effective(s, best))
        if gap < margin(s, last) and not (gap > 0 and of(s, best).woken == s.now):
            best = last
        elif s.now < s.cpus[cpu].slice_end:
            look_for_cpu(s, last, cpu)
        else:
            idle = find_idle(s, last, cpu)
            if idle != NO_CPU:
                ask(s, idle)
    if best != NO_WORLD:
        take(s, best)
    return best


cdef ns_t timeslice(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil:
    cdef const bvt_world_t *b = of(s, id)
    cdef uint32_t other = earliest(s, cpu)
    cdef ns_t most = MOST_SLICE
    if other != NO_WORLD:
        most = lasts(s, id, other)
    if b.is_warped and parameter(s, id, WARP_LIMIT) and b.warp_left < most:
        most = b.warp_left
    return most if most > 1 else 1


# --- the class ---


cdef class Bvt(Plug):
    """Borrowed virtual time (Duda and Cheriton, SOSP 1999).

    Parameters
    ----------
    allowance_ns : int, default 10 ms
        The context switch allowance C: how much longer than its due a world runs on, so that
        switches are not too many. 100 ms is typical in the paper (recalled).

    Notes
    -----
    A world's *actual virtual time* A grows with its CPU time over its weight. Its *effective* one,
    E, is A, or A - W while it is warped. The least E runs; at equal E the lowest number. Who runs
    keeps its CPU until its E is C over its weight beyond that of the first who waits; but a world
    that wakes preempts at once if its E is less, of several CPUs the one with the greatest E.

    Who wakes or is new gets an A of at least the scheduler's virtual time, the least A of those
    that wait or run (if there are none, that of the last one to stop): sleep is not saved up. What
    returns from a limit did not sleep, and keeps its A.

    Parameters of a virtual machine, for each of its worlds: ``warp``, W in ns of virtual time, that
    is of CPU time at weight 1; ``warp_limit``, L, the CPU time in ns after which a warp ends (0: it
    does not); ``unwarp``, U, for how many ns from then on no other warp begins. A world is warped
    when it wakes or is new, if U allows it, until L is over or it wakes again. For a world that
    runs other values count from the end of its slice on.

    Virtual times are exact, remainders are kept; they are good for 104 days of CPU time at weight
    1. All CPUs share one queue, of which each takes the first that may run there: who may not costs
    the search a step. Charges of whole units of time and the paper's ways with several
    processors are not modelled, nor warps that a world asks for while it runs.

    References
    ----------
    K. J. Duda and D. R. Cheriton, Borrowed-virtual-time (BVT) scheduling: supporting
    latency-sensitive threads in a general-purpose scheduler, SOSP 1999.

    Examples
    --------
    >>> from pyvirt.sched import Bvt, Periodic, Scheduler
    >>> host = Scheduler(policy=Bvt(allowance_ns=20_000_000))
    >>> batch = host.add()
    >>> audio = host.add_vm(1, Periodic(1_000_000, 10_000_000, start_ns=1), warp=50_000_000)
    >>> _ = host.run(10**9)
    >>> int(host.counters()["wake_most"][audio.worlds[0]])
    0
    """

    def __init__(self, allowance_ns=10_000_000):
        cdef bvt_t own
        memset(&own, 0, sizeof(own))
        own.allowance = as_int(allowance_ns, "allowance_ns", 1, MOST_SLICE)
        super().__init__(
            "bvt", {"allowance_ns": own.allowance},
            {
                "warp": (0, 0, MOST_WARP),
                "warp_limit": (0, 0, MOST_WARP),
                "unwarp": (0, 0, MOST_WARP),
            })
        self.fill_own(&own, sizeof(own))
        self.table.world_size, self.table.cpu_size = sizeof(bvt_world_t), sizeof(bvt_cpu_t)
        self.table.add, self.table.change = add, change
        self.table.enqueue, self.table.dequeue = enqueue, dequeue
        self.table.charge, self.table.stopped = charge, stopped
        self.table.pick, self.table.timeslice = pick, timeslice
