"""Xen's credit scheduler.

The rules are those of Xen's documentation (wiki, "Credit Scheduler"; xl(1), sched-credit) and of its
behaviour; nothing here is Xen's code.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t
from libc.string cimport memset

from pyvirt._core.arrays cimport as_int
from pyvirt._core.sched.ordered cimport fifo_first
from pyvirt._core.sched.plug cimport Plug, account, ask, next_sibling, park, unpark
from pyvirt._core.sched.policies.credit_queue cimport (
    asked,
    find_home,
    idle_cpu,
    offer,
    put,
    sort,
    steal,
    take,
)
from pyvirt._core.sched.policies.credit_state cimport (
    BOOST,
    OVER,
    RANKS,
    UNDER,
    cpu_of,
    credit_cpu_t,
    credit_own_t,
    credit_vm_t,
    credit_world_t,
    own,
    vm_of,
    world,
)
from pyvirt._core.sched.state cimport (
    NEVER,
    NO_CPU,
    NO_WORLD,
    WHY_PREEMPT,
    WHY_SLICE,
    WHY_WAKE,
    sched_t,
)
from pyvirt._core.types cimport ns_t
from pyvirt._core.waterwhole cimport wide_t
from pyvirt.errors import InvalidValueError


# --- coming and going ---


cdef void requeue(sched_t *s, uint32_t id, uint32_t why) noexcept nogil:
    """A world that ran until now, and may go on; its CPU picks next."""
    cdef credit_own_t *o = own(s)
    cdef credit_world_t *w = world(s, id)
    cdef uint32_t cpu = s.worlds[id].cpu, idle
    o.serving = cpu
    cpu_of(s, cpu).was = id + 1
    find_home(s, id)
    put(s, id)
    if w.home != cpu:
        ask(s, w.home)
        return
    cpu_of(s, cpu).held = why == WHY_PREEMPT and s.now - s.cpus[cpu].began < o.ratelimit
    if o.waiting > 1:
        idle = idle_cpu(s, id)
        if idle != NO_CPU:
            ask(s, idle)


cdef void enqueue(sched_t *s, uint32_t id, uint32_t why) noexcept nogil:
    """Queue a world at its CPU, and have that CPU or an idle one look for it."""
    cdef credit_world_t *w = world(s, id)
    cdef uint32_t idle, other
    start_timer(s)
    if why == WHY_PREEMPT or why == WHY_SLICE:
        requeue(s, id, why)
        return
    if w.parked:
        park(s, id)
        return
    find_home(s, id)
    if why == WHY_WAKE and w.rank == UNDER:
        w.rank = BOOST
    put(s, id)
    other = s.cpus[w.home].running
    idle = idle_cpu(s, id)
    if other == NO_WORLD and not asked(s, w.home):
        ask(s, w.home)
    elif idle != NO_CPU:
        ask(s, idle)
    elif other != NO_WORLD and w.rank < world(s, other).rank:
        idle = idle_cpu(s, other)
        if idle != NO_CPU:
            world(s, other).home = <uint16_t>idle
        ask(s, w.home)


# --- credits ---


cdef inline int64_t up(wide_t a, wide_t b) noexcept nogil:
    """Quotient of what is not negative, rounded up."""
    return <int64_t>((a + b - 1) // b)


cdef void burn(sched_t *s, uint32_t id, ns_t dt) noexcept nogil:
    """Take whole credits, rounded to the nearest; the rest is kept."""
    cdef credit_world_t *w = world(s, id)
    cdef ns_t unit = own(s).credit
    cdef int64_t credits
    w.carry += dt
    # half a credit at most is owed, so the dividend is not negative
    credits = (2 * w.carry + unit) // (2 * unit)
    w.credit -= credits
    w.carry -= credits * unit


cdef void start_timer(sched_t *s) noexcept nogil:
    cdef ns_t tick = own(s).tick
    if s.plug.timer == NEVER:
        s.plug.timer = (s.now // tick + 1) * tick


cdef void activate(sched_t *s, uint32_t id) noexcept nogil:
    cdef uint32_t vm = s.worlds[id].vm
    cdef credit_vm_t *v = vm_of(s, vm)
    world(s, id).active = True
    if not v.active:
        push_vm(s, vm)
    v.active += 1


cdef void deactivate(sched_t *s, uint32_t id) noexcept nogil:
    cdef uint32_t vm = s.worlds[id].vm
    cdef credit_vm_t *v = vm_of(s, vm)
    world(s, id).active = False
    v.active -= 1
    if not v.active:
        unlink_vm(s, vm)


cdef void push_vm(sched_t *s, uint32_t vm) noexcept nogil:
    """To the head of the active VMs."""
    cdef credit_own_t *o = own(s)
    cdef credit_vm_t *v = vm_of(s, vm)
    v.before, v.next = NO_WORLD, o.first
    if o.first != NO_WORLD:
        vm_of(s, o.first).before = vm
    o.first = vm


cdef void unlink_vm(sched_t *s, uint32_t vm) noexcept nogil:
    cdef credit_vm_t *v = vm_of(s, vm)
    if v.before == NO_WORLD:
        own(s).first = v.next
    else:
        vm_of(s, v.before).next = v.next
    if v.next != NO_WORLD:
        vm_of(s, v.next).before = v.before


cdef void timed(sched_t *s) noexcept nogil:
    """The tick of all CPUs, and every so often the accounting."""
    cdef credit_own_t *o = own(s)
    cdef uint32_t cpu
    for cpu in range(s.cpu_count):
        if s.cpus[cpu].running != NO_WORLD:
            tick(s, cpu, s.cpus[cpu].running)
    if s.now // o.tick % o.ticks == 0:
        settle(s)
    s.plug.timer = NEVER
    if o.first != NO_WORLD or s.idle_count < s.cpu_count:
        start_timer(s)


cdef void tick(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil:
    """A world that is caught running loses its boost, earns from now on, and may move."""
    cdef credit_world_t *w = world(s, id)
    cdef uint32_t idle
    account(s, cpu)
    if w.rank == BOOST:
        w.rank = UNDER
    if not w.active:
        activate(s, id)
    elif cpu_of(s, cpu).waiting:
        idle = idle_cpu(s, id)
        if idle != NO_CPU:
            w.home = <uint16_t>idle
            ask(s, cpu)


cdef void settle(sched_t *s) noexcept nogil:
    """Give out the credits of a period by weight, as far as the active VMs can use them.

    What is beyond a VM's cap, or its worlds' CPUs, goes to those that come later; who has that is
    moved to the head, so that next time others come later.
    """
    cdef credit_own_t *o = own(s)
    cdef uint32_t vm = o.first, next, cpu
    cdef wide_t total = 0, left, mine, credits, fair, peak, whole
    cdef bint room = False
    cdef credit_vm_t *v
    cdef int64_t cap
    while vm != NO_WORLD:
        v = vm_of(s, vm)
        total += <wide_t>s.vms[vm].weight * v.active
        vm = v.next
    left = total
    credits = <wide_t>s.cpu_count * o.period - (o.balance if o.balance < 0 else 0)
    o.balance = 0
    vm = o.first
    while vm != NO_WORLD:
        v = vm_of(s, vm)
        next = v.next
        mine = <wide_t>s.vms[vm].weight * v.active
        left -= mine
        peak, whole = v.active * o.period, 0
        cap = s.vms[vm].param[0]
        if cap:
            whole = up(cap * o.period, 100)
            if whole < peak:
                peak = whole
        fair = (credits * mine + total - 1) // total
        if fair < peak:
            room = True
        else:
            if left:
                credits += ((fair - peak) * total + left - 1) // left
            if room:
                unlink_vm(s, vm)
                push_vm(s, vm)
            fair = peak
        if v.active > 1:
            fair, whole = up(fair, v.active), up(whole, v.active)
        pay(s, vm, <int64_t>fair, <int64_t>whole)
        vm = next
    for cpu in range(s.cpu_count):
        if cpu_of(s, cpu).unsorted:
            sort(s, cpu)


cdef void pay(sched_t *s, uint32_t vm, int64_t credits, int64_t cap) noexcept nogil:
    """Give each active world of the VM its credits, and see what it is worth now."""
    cdef credit_own_t *o = own(s)
    cdef uint32_t id = s.vms[vm].first
    cdef credit_world_t *w
    while id != NO_WORLD:
        w = world(s, id)
        if w.active:
            w.credit += credits
            if w.credit < 0:
                w.rank = OVER
                if cap and w.credit < -cap and not w.parked:
                    w.parked = True
                    park(s, id)
                if w.credit < -o.period:
                    w.credit = -o.period
            else:
                w.rank = UNDER
                if w.parked:
                    w.parked = False
                    unpark(s, id)
                if w.credit > o.period:
                    deactivate(s, id)
                    w.credit //= 2
            o.balance += w.credit
            if w.node.contained and w.rank != w.queued:
                cpu_of(s, w.home).unsorted = True
        id = next_sibling(s, id)


# --- the choice ---


cdef uint32_t choose(sched_t *s, uint32_t cpu) noexcept nogil:
    cdef credit_own_t *o = own(s)
    cdef credit_cpu_t *c = cpu_of(s, cpu)
    cdef uint32_t rank = 0, id = NO_WORLD, other
    c.rest = 0
    if c.held:
        c.held = False
        c.rest = s.cpus[cpu].began + o.ratelimit - s.now
        return c.was - 1
    while rank < RANKS and id == NO_WORLD:
        id = fifo_first(&c.queue[rank])
        rank += id == NO_WORLD
    if rank == RANKS or (rank == OVER and s.now >= c.balance):
        if rank == OVER:
            c.balance = s.now + o.balance_gap
        other = steal(s, cpu, rank)
        if other != NO_WORLD:
            return other
    return id


cdef uint32_t pick(sched_t *s, uint32_t cpu) noexcept nogil:
    cdef uint32_t id
    own(s).serving = cpu
    id = choose(s, cpu)
    if id != NO_WORLD:
        take(s, id)
        world(s, id).home = <uint16_t>cpu
        if not cpu_of(s, cpu).was:
            offer(s)
    cpu_of(s, cpu).was = 0
    own(s).serving = NO_CPU
    return id


cdef ns_t timeslice(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil:
    cdef ns_t rest = cpu_of(s, cpu).rest
    return rest if rest else own(s).timeslice


# --- worlds ---


cdef void add(sched_t *s, uint32_t id) noexcept nogil:
    world(s, id).home = NO_CPU
    world(s, id).rank = UNDER


cdef void remove(sched_t *s, uint32_t id) noexcept nogil:
    if world(s, id).active:
        deactivate(s, id)


cdef class Credit(Plug):
    """Xen's credit scheduler.

    Parameters
    ----------
    timeslice_ns : int, default 30 ms
        How long a world may run at a time, and the time from one accounting to the next.
    ticks_per_timeslice : int, default 3
        In a timeslice; what runs is charged at these ticks.
    credit_ns : int, default 0.1 ms
        CPU time of a credit: 300 in a timeslice.
    ratelimit_ns : int, default 1 ms
        For so long a world is not interrupted; 0: it always may be.
    balance_ns : int, default 1 ms
        A CPU with only worlds out of credits looks at the queues of the others no more often.

    Notes
    -----
    Parameters of a VM: ``cap``, percent of one CPU that its worlds get together, 0 for no cap; and
    its weight (Xen's default is 256), which counts once for each of its active worlds. The rules are
    those of Xen's documentation (wiki, "Credit Scheduler"; xl(1), ``sched-credit``) and of its
    behaviour:

    Each CPU has a queue in three ranks: BOOST before UNDER before OVER, and first in, first out in
    each. A world pays a credit for each `credit_ns` that it runs, rounded to the nearest; the rest is
    kept. At the end of each period the credits of all CPUs are given to the VMs with active worlds,
    by weight times the number of these, and at most what their worlds or their cap can use; more
    goes to the VMs that come later, and one that left some over while another had room is first next
    time. Who has credits is UNDER, who owes some is OVER. Debts end at a period's credits. Who has
    more than a period's credits keeps half and is no longer active, until a tick finds it running. A
    world of a capped VM that owes more than its part of the cap is parked until it owes nothing.

    A world that wakes from sleep UNDER becomes BOOST, until a tick finds it running or the next
    accounting. It preempts a world of a lower rank on its CPU, if no CPU of its is idle, unless that
    ran for less than `ratelimit_ns`; then it waits for the rest. A CPU whose best world is OVER, or
    that has none, takes the first world of a higher rank from the next CPU that has one. At a tick a
    world moves to an idle CPU if another one waits behind it.

    Shares are not exact: turns are whole timeslices, and who waits long loses credits. Worlds that are
    added at a multiple of the timeslice take turns in step with the accounting, and can be off by
    tens of percent; at other times small sets of similar weights come within a few.

    All CPUs tick together, at multiples of the tick; soft affinity, the delay before a migration and
    yielding are not modelled. A new world queues at an idle CPU or the one with the fewest worlds,
    and a world never waits while a CPU of its is idle. Where two may be meant, the lowest number is.
    """

    def __init__(
        self, *, timeslice_ns=30_000_000, ticks_per_timeslice=3, credit_ns=100_000,
        ratelimit_ns=1_000_000, balance_ns=1_000_000
    ):
        cdef credit_own_t o
        memset(&o, 0, sizeof(o))
        o.timeslice = as_int(timeslice_ns, "timeslice_ns", 1, 1 << 32)
        o.ticks = as_int(ticks_per_timeslice, "ticks_per_timeslice", 1, 1000)
        o.credit = as_int(credit_ns, "credit_ns", 1, timeslice_ns)
        o.ratelimit = as_int(ratelimit_ns, "ratelimit_ns", 0, 1 << 32)
        o.balance_gap = as_int(balance_ns, "balance_ns", 0, 1 << 32)
        if timeslice_ns % ticks_per_timeslice:
            raise InvalidValueError(
                f"timeslice_ns must be a multiple of ticks_per_timeslice ({ticks_per_timeslice}), "
                f"got {timeslice_ns}")
        o.tick = o.timeslice // o.ticks
        o.period = o.timeslice // o.credit
        o.first, o.serving = NO_WORLD, NO_CPU
        self.fill_own(&o, sizeof(o))
        self.table.cpu_size = sizeof(credit_cpu_t)
        self.table.world_size = sizeof(credit_world_t)
        self.table.vm_size = sizeof(credit_vm_t)
        self.table.add, self.table.remove = add, remove
        self.table.enqueue, self.table.dequeue = enqueue, take
        self.table.pick, self.table.timeslice = pick, timeslice
        self.table.charge, self.table.timed = burn, timed
        super().__init__(
            "credit",
            {
                "timeslice_ns": timeslice_ns, "ticks_per_timeslice": ticks_per_timeslice,
                "credit_ns": credit_ns, "ratelimit_ns": ratelimit_ns, "balance_ns": balance_ns,
            },
            {"cap": (0, 0, 1_000_000)},
        )
