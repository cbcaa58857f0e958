"""Linux's completely fair scheduler, up to Linux 6.5."""

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
from pyvirt._core.sched.plug cimport Plug, allowed, ask, next_sibling
from pyvirt._core.sched.state cimport (
    MASK_WORDS,
    NEVER,
    NO_CPU,
    NO_WORLD,
    RUN,
    WHY_MOVE,
    WHY_NEW,
    WHY_PREEMPT,
    WHY_SLICE,
    WHY_WAKE,
    sched_t,
    world_t,
)
from pyvirt._core.types cimport ns_t

cdef extern from *:
    """
    /* (a * b + rem) / c, rounded down, and what is left over */
    static inline int64_t pv_mul_div(int64_t a, int64_t b, int64_t *rem, int64_t c)
    {
        const __int128 whole = (__int128)a * b + *rem;
        if (whole >> 62 == 0) {
            const int64_t small = (int64_t)whole;
            *rem = small % c;
            return small / c;
        }
        *rem = (int64_t)(whole % c);
        return (int64_t)(whole / c);
    }
    """
    int64_t pv_mul_div(int64_t a, int64_t b, int64_t *rem, int64_t c) nogil


cdef inline int64_t mul_div(int64_t a, int64_t b, int64_t c) noexcept nogil:
    cdef int64_t rem = 0
    return pv_mul_div(a, b, &rem, c)


cdef inline cfs_t *own_of(sched_t *s) noexcept nogil:
    return <cfs_t *>s.plug.own


cdef inline cfs_cpu_t *cpu_of(sched_t *s, uint32_t cpu) noexcept nogil:
    return &(<cfs_cpu_t *>s.plug.cpus)[cpu]


cdef inline cfs_world_t *of(sched_t *s, uint32_t id) noexcept nogil:
    return &(<cfs_world_t *>s.plug.worlds)[id]


cdef inline nodes_t nodes(sched_t *s) noexcept nogil:
    return nodes_at(&(<cfs_world_t *>s.plug.worlds).node, sizeof(cfs_world_t))


# --- virtual runtimes ---


cdef inline int64_t scaled(sched_t *s, uint32_t id, ns_t time) noexcept nogil:
    """CPU time as virtual runtime, rounded down."""
    return mul_div(time, NICE_0 << SHARE_BITS, of(s, id).share)


cdef inline void advance(sched_t *s, uint32_t id, ns_t time) noexcept nogil:
    cdef cfs_world_t *f = of(s, id)
    f.v += pv_mul_div(time, NICE_0 << SHARE_BITS, &f.rem, f.share)


cdef inline ns_t progress(sched_t *s, uint32_t id) noexcept nogil:
    """CPU time that `v` does not contain yet."""
    cdef const world_t *w = &s.worlds[id]
    return s.now - w.since - of(s, id).paid if w.state == RUN else 0


cdef inline int64_t runtime(sched_t *s, uint32_t id) noexcept nogil:
    cdef const cfs_world_t *f = of(s, id)
    cdef int64_t rem = f.rem
    return f.v + pv_mul_div(progress(s, id), NICE_0 << SHARE_BITS, &rem, f.share)


cdef inline uint32_t running(sched_t *s, uint32_t cpu) noexcept nogil:
    """Who runs there and competes, or NO_WORLD."""
    cdef uint32_t id = s.cpus[cpu].running
    if id == NO_WORLD or s.worlds[id].state != RUN or not of(s, id).competes:
        return NO_WORLD
    return id


cdef void refresh(sched_t *s, uint32_t cpu) noexcept nogil:
    """Bring min_vruntime up to the least of who runs and who waits; it never goes back."""
    cdef cfs_cpu_t *c = cpu_of(s, cpu)
    cdef uint32_t first = ordered_first(&c.root, nodes(s)), id = running(s, cpu)
    cdef int64_t v
    if first == NO_WORLD and id == NO_WORLD:
        return
    if first == NO_WORLD:
        v = runtime(s, id)
    else:
        v = of(s, first).v
        if id != NO_WORLD and runtime(s, id) < v:
            v = runtime(s, id)
    if v > c.least:
        c.least = v


cdef ns_t slice_of(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil:
    """Its part of the period by weight, at least the granularity."""
    cdef cfs_t *o = own_of(s)
    cdef cfs_cpu_t *c = cpu_of(s, cpu)
    cdef ns_t period = o.latency, slice
    if c.count > o.latency // o.granularity:
        period = c.count * o.granularity
    slice = mul_div(period, of(s, id).share, c.load)
    return slice if slice > o.granularity else o.granularity


# --- shares ---


cdef void set_share(sched_t *s, uint32_t id, int64_t share) noexcept nogil:
    cdef cfs_world_t *f = of(s, id)
    cdef ns_t time
    if share == f.share:
        return
    time = progress(s, id)
    if time:
        advance(s, id, time)
        f.paid += time
    f.rem = 0
    if f.competes:
        cpu_of(s, f.home).load += share - f.share
    f.share = share


cdef void reweigh(sched_t *s, uint32_t id) noexcept nogil:
    """Shares of the worlds of its VM that compete, after that or a weight changed."""
    cdef uint32_t each, first = s.vms[s.worlds[id].vm].first
    cdef int64_t total = 0, share
    if not own_of(s).groups:
        set_share(s, id, <int64_t>s.worlds[id].weight << SHARE_BITS)
        return
    each = first
    while each != NO_WORLD:
        if of(s, each).competes:
            total += s.worlds[each].weight
        each = next_sibling(s, each)
    each = first
    while each != NO_WORLD:
        if of(s, each).competes:
            share = mul_div(
                <int64_t>s.vms[s.worlds[id].vm].weight << SHARE_BITS, s.worlds[each].weight, total)
            set_share(s, each, share if share > 1 else 1)
        each = next_sibling(s, each)


# --- queues ---


cdef void put(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil:
    ordered_insert(&cpu_of(s, cpu).root, nodes(s), id, of(s, id).v)


cdef void take(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil:
    ordered_remove(&cpu_of(s, cpu).root, nodes(s), id)


cdef void join(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil:
    """Belong to a CPU: from another one, what it is ahead of min_vruntime stays the same."""
    cdef cfs_world_t *f = of(s, id)
    refresh(s, cpu)
    if f.home == NO_CPU:
        f.v = cpu_of(s, cpu).least
    elif f.home != cpu:
        refresh(s, f.home)
        f.v += cpu_of(s, cpu).least - cpu_of(s, f.home).least
    f.home = cpu
    cpu_of(s, cpu).count += 1
    cpu_of(s, cpu).load += f.share


cdef void leave(sched_t *s, uint32_t id) noexcept nogil:
    cdef cfs_world_t *f = of(s, id)
    cdef cfs_cpu_t *c = cpu_of(s, f.home)
    f.competes = False
    c.count -= 1
    c.load -= f.share
    refresh(s, f.home)
    reweigh(s, id)


cdef void preempt(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil:
    """Ask the CPU if who runs there is ahead of a new world by more than the granularity."""
    cdef uint32_t other = running(s, cpu)
    if other != NO_WORLD and runtime(s, other) - of(s, id).v > scaled(s, id, own_of(s).wakeup):
        ask(s, cpu)


# --- balancing ---


cdef uint32_t movable(sched_t *s, uint32_t source, uint32_t cpu) noexcept nogil:
    """The first that waits at `source` and may run on the CPU; or NO_WORLD."""
    cdef uint32_t id = ordered_first(&cpu_of(s, source).root, nodes(s))
    while id != NO_WORLD and not allowed(s, id, cpu):
        id = ordered_next(nodes(s), id)
    return id


cdef uint32_t busiest(sched_t *s, uint32_t cpu) noexcept nogil:
    """Of the CPUs with something for this one, that with the greatest load; or NO_CPU."""
    cdef uint32_t each, best = NO_CPU
    cdef int64_t most = -1
    for each in range(s.cpu_count):
        if (
            each != cpu and cpu_of(s, each).load > most
            and movable(s, each, cpu) != NO_WORLD
        ):
            best, most = each, cpu_of(s, each).load
    return best


cdef void move(sched_t *s, uint32_t id, uint32_t cpu) noexcept nogil:
    """A waiting world, to another CPU's queue."""
    cdef cfs_world_t *f = of(s, id)
    cdef uint32_t source = f.home
    join(s, cpu, id)
    cpu_of(s, source).count -= 1
    cpu_of(s, source).load -= f.share
    take(s, source, id)
    refresh(s, source)
    put(s, cpu, id)


cdef uint32_t pull(sched_t *s, uint32_t cpu) noexcept nogil:
    """For a CPU that would idle: the first of the busiest queue that may run here; or NO_WORLD."""
    cdef uint32_t source = busiest(s, cpu), id
    if source == NO_CPU:
        return NO_WORLD
    id = movable(s, source, cpu)
    move(s, id, cpu)
    return id


cdef void timed(sched_t *s) noexcept nogil:
    """Each CPU pulls from the busiest one, up to half of the difference in load."""
    cdef cfs_t *o = own_of(s)
    cdef uint32_t cpu, source, id, next, moved
    cdef int64_t rest
    s.plug.timer = s.now + o.balance
    for cpu in range(s.cpu_count):
        source = busiest(s, cpu)
        if source == NO_CPU:
            continue
        rest = cpu_of(s, source).load - cpu_of(s, cpu).load
        if 100 * cpu_of(s, source).load <= o.imbalance * cpu_of(s, cpu).load:
            continue
        rest //= 2
        moved = 0
        id = ordered_first(&cpu_of(s, source).root, nodes(s))
        while id != NO_WORLD and moved < MOST_MOVED:
            next = ordered_next(nodes(s), id)
            if allowed(s, id, cpu) and of(s, id).share <= rest:
                rest -= of(s, id).share
                moved += 1
                move(s, id, cpu)
                preempt(s, cpu, id)
            id = next


# --- hooks ---


cdef void begin(sched_t *s) noexcept nogil:
    """Values that were not given depend on the number of CPUs."""
    cdef cfs_t *o = own_of(s)
    cdef uint32_t cpu, factor = 1
    while factor < 4 and s.cpu_count >> factor:
        factor += 1
    if not o.latency:
        o.latency = factor * LATENCY
    if not o.granularity:
        o.granularity = factor * GRANULARITY
    if o.wakeup < 0:
        o.wakeup = factor * WAKEUP
    if not o.balance:
        o.balance = s.cpu_count * BALANCE
    for cpu in range(s.cpu_count):
        cpu_of(s, cpu).last = NO_WORLD
    s.plug.timer = o.balance if s.cpu_count > 1 else NEVER


cdef void add(sched_t *s, uint32_t id) noexcept nogil:
    of(s, id).home = NO_CPU
    of(s, id).share = <int64_t>s.worlds[id].weight << SHARE_BITS


cdef uint32_t find_idle(sched_t *s, uint32_t id) noexcept nogil:
    """A CPU without a world that runs or waits; or NO_CPU."""
    cdef uint64_t among[MASK_WORDS]
    cdef uint32_t cpu
    if not s.idle_count:
        return NO_CPU
    memset(among, 0, sizeof(among))
    for cpu in range(s.cpu_count):
        among[cpu >> 6] |= <uint64_t>(cpu_of(s, cpu).count == 0) << (cpu & 63)
    return idle_cpu_among(s, id, among)


cdef uint32_t choose(sched_t *s, uint32_t id) noexcept nogil:
    """For a world that comes to compete: an idle CPU, its last one, the one with the least load."""
    cdef uint32_t cpu = find_idle(s, id), best = NO_CPU
    if cpu != NO_CPU:
        return cpu
    if of(s, id).home != NO_CPU and allowed(s, id, of(s, id).home):
        return of(s, id).home
    for cpu in range(s.cpu_count):
        if allowed(s, id, cpu) and (
            best == NO_CPU or cpu_of(s, cpu).load < cpu_of(s, best).load
        ):
            best = cpu
    return best


cdef void enqueue(sched_t *s, uint32_t id, uint32_t why) noexcept nogil:
    cdef cfs_world_t *f = of(s, id)
    cdef cfs_cpu_t *c
    cdef uint32_t cpu
    cdef int64_t floor
    if why == WHY_SLICE or why == WHY_PREEMPT:
        c = cpu_of(s, f.home)
        c.last, c.why = id, why
        return
    cpu = choose(s, id)
    c = cpu_of(s, cpu)
    join(s, cpu, id)
    f.competes = True
    reweigh(s, id)
    if why == WHY_NEW:
        f.v, f.rem = c.least + scaled(s, id, slice_of(s, cpu, id)), 0
    elif why != WHY_MOVE:
        floor = c.least - own_of(s).latency // 2
        if f.v < floor:
            f.v, f.rem = floor, 0
    put(s, cpu, id)
    if c.count == 1:
        ask(s, cpu)
    elif why == WHY_WAKE or why == WHY_NEW:
        preempt(s, cpu, id)


cdef void dequeue(sched_t *s, uint32_t id) noexcept nogil:
    refresh(s, of(s, id).home)
    take(s, of(s, id).home, id)
    leave(s, id)


cdef void stopped(sched_t *s, uint32_t id, uint32_t why) noexcept nogil:
    cdef cfs_world_t *f = of(s, id)
    cdef cfs_cpu_t *c
    if not f.competes:
        return
    c = cpu_of(s, f.home)
    if not c.root and f.v > c.least:
        c.least = f.v
    leave(s, id)


cdef void change(sched_t *s, uint32_t id) noexcept nogil:
    reweigh(s, id)


cdef void charge(sched_t *s, uint32_t id, ns_t dt) noexcept nogil:
    advance(s, id, dt - of(s, id).paid)
    of(s, id).paid = 0


cdef bint expired(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil:
    """What a tick asks: its slice is over, or it is ahead of the first by more than a slice."""
    cdef uint32_t first = ordered_first(&cpu_of(s, cpu).root, nodes(s))
    cdef ns_t ran = s.now - s.cpus[cpu].began, slice
    if first == NO_WORLD:
        return False
    slice = slice_of(s, cpu, id)
    if ran > slice:
        return True
    return ran >= own_of(s).granularity and of(s, id).v - of(s, first).v > slice


cdef uint32_t pick(sched_t *s, uint32_t cpu) noexcept nogil:
    cdef cfs_cpu_t *c = cpu_of(s, cpu)
    cdef uint32_t last = c.last, best, idle
    c.last = NO_WORLD
    if last != NO_WORLD:
        if c.why == WHY_SLICE and not expired(s, cpu, last):
            return last
        put(s, cpu, last)
    refresh(s, cpu)
    best = ordered_first(&c.root, nodes(s))
    if best == NO_WORLD:
        best = pull(s, cpu)
    if best != NO_WORLD:
        take(s, cpu, best)
    if last != NO_WORLD and last != best:
        idle = find_idle(s, last)
        if idle != NO_CPU:
            ask(s, idle)
    return best


cdef ns_t timeslice(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil:
    """Up to the next tick, which comes to all CPUs at the same time."""
    return own_of(s).tick - s.now % own_of(s).tick


# --- the class ---


cdef class Cfs(Plug):
    """Linux's completely fair scheduler, as it was up to Linux 6.5.

    Parameters
    ----------
    latency_ns, granularity_ns, wakeup_ns : int, optional
        ``sched_latency``, ``sched_min_granularity`` and ``sched_wakeup_granularity``; default: 6,
        0.75 and 1 ms, each times 1 + log2 of the number of CPUs, of which 8 count at most.
    tick_ns : int, default 4 ms
        The clock is looked at at its multiples (250 Hz), on all CPUs at once.
    balance_ns : int, optional
        How often load is balanced; default: 16 ms for each CPU (recalled, for busy CPUs).
    imbalance : int, default 117
        Per cent of a CPU's load beyond which that of another one is too much (recalled).
    groups : bool, default False
        Group scheduling: those of a VM's worlds that compete divide its weight, by their own ones.
        Else each world counts by its own weight alone.

    Notes
    -----
    Each CPU has a queue in the order of virtual runtime, ns of CPU time times 1024 / weight, and
    runs the first (of equal ones the lowest number). Weights are the kernel's, 1024 for nice 0
    (`nice_weight`): credits and granularities are small next to the virtual time of weights near 1.

    *Slices.* The period is the latency, or, for more worlds than fit in, the granularity times the
    worlds of the CPU. A world's slice is its part of that by weight, and at least the granularity
    (as from 5.13 on, recalled). A tick takes the CPU from a world that has had it for more than its
    slice, or that has had it for the granularity and is more than a slice ahead of the first one
    who waits; it gets it again if it is itself the first.

    *Sleepers.* The queue's ``min_vruntime`` follows the least virtual runtime and never goes back.
    Who wakes, or returns from a limit, gets at least that minus half the latency; who is new starts
    a slice behind it. Who wakes or is new preempts the world that runs if that is ahead of it by
    more than the wake-up granularity, in virtual time of the one that comes.

    *CPUs.* Who comes to compete goes to an idle CPU as `Scheduler` says; else it stays with its
    last one, or takes the one with the least load. A CPU that would idle pulls the first one
    that may run there from the queue with the greatest load. Every `balance_ns` each CPU, in order,
    pulls from the most loaded one what is at most half the difference, 32 worlds at most. Between
    queues what a world is ahead of ``min_vruntime`` stays the same. That is a simple form of what
    the kernel does over its scheduling domains.

    Limits are those of `Scheduler`: quota and period, without the slices in which the kernel hands
    them out. Virtual runtimes are exact where the kernel multiplies with rounded inverses; they are
    good for 104 days of CPU time at weight 1. Buddies, ``SCHED_BATCH`` and ``SCHED_IDLE``, load
    averages, cache and NUMA affinity and ticks apart are not modelled. Groups are flat: a world's
    share is what the kernel's two levels come to, but there is no virtual runtime for each level.

    References
    ----------
    Linux 6.5, Documentation/scheduler: sched-design-CFS.rst, sched-nice-design.rst, sched-bwc.rst;
    constants and rules of kernel/sched (facts, no code).

    Examples
    --------
    >>> from pyvirt.sched import Cfs, Scheduler, nice_weight
    >>> host = Scheduler(policy=Cfs())
    >>> worlds = [host.add(weight=nice_weight(nice)) for nice in (0, 5)]
    >>> _ = host.run(10**10)
    >>> (host.counters()["run"] / 10**10).round(2)
    array([0.75, 0.25])
    """

    def __init__(
        self, latency_ns=None, granularity_ns=None, wakeup_ns=None, tick_ns=4_000_000,
        balance_ns=None, imbalance=117, groups=False
    ):
        cdef cfs_t own
        memset(&own, 0, sizeof(own))
        if latency_ns is not None:
            own.latency = as_int(latency_ns, "latency_ns", 1, 1 << 40)
        if granularity_ns is not None:
            own.granularity = as_int(granularity_ns, "granularity_ns", 1, 1 << 40)
        own.wakeup = -1 if wakeup_ns is None else as_int(wakeup_ns, "wakeup_ns", 0, 1 << 40)
        own.tick = as_int(tick_ns, "tick_ns", 1, 1 << 40)
        if balance_ns is not None:
            own.balance = as_int(balance_ns, "balance_ns", 1, 1 << 50)
        own.imbalance = as_int(imbalance, "imbalance", 100, 1 << 20)
        own.groups = bool(groups)
        super().__init__("cfs", {
            "latency_ns": latency_ns, "granularity_ns": granularity_ns, "wakeup_ns": wakeup_ns,
            "tick_ns": own.tick, "balance_ns": balance_ns, "imbalance": own.imbalance,
            "groups": bool(groups),
        })
        self.fill_own(&own, sizeof(own))
        self.table.world_size, self.table.cpu_size = sizeof(cfs_world_t), sizeof(cfs_cpu_t)
        self.table.begin, self.table.add, self.table.change = begin, add, change
        self.table.enqueue, self.table.dequeue = enqueue, dequeue
        self.table.charge, self.table.stopped = charge, stopped
        self.table.pick, self.table.timeslice = pick, timeslice
        self.table.timed = timed
