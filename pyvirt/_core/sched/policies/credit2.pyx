"""Xen's credit2 scheduler.

The rules are those of Xen's documentation (wiki, "Credit2 Scheduler"; xl(1), sched-credit2; the
hypervisor's command line) and of its behaviour; nothing here is Xen's code.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from pyvirt._core.arrays cimport as_int
from pyvirt._core.sched.ordered cimport ordered_first, ordered_next
from pyvirt._core.sched.plug cimport Plug, account, allowed, ask, next_sibling, park, unpark
from pyvirt._core.sched.policies.credit2_balance cimport balance
from pyvirt._core.sched.policies.credit2_leap cimport leaps
from pyvirt._core.sched.policies.credit2_queue cimport (
    assign,
    compete,
    find_most,
    idle_cpu,
    least_loaded,
    meets,
    put,
    serves,
    take,
    tickle,
)
from pyvirt._core.sched.policies.credit2_state cimport (
    ALL_CPUS,
    EACH_CORE,
    EACH_CPU,
    EACH_LLC,
    EACH_NODE,
    EACH_SOCKET,
    LOAD_ONE,
    after,
    cpu_of,
    credit,
    credit2_cpu_t,
    credit2_own_t,
    credit2_place_t,
    credit2_queue_t,
    credit2_vm_t,
    credit2_world_t,
    own,
    places,
    queue_of,
    set_credit,
    vm_of,
    weight,
    world,
)
from pyvirt._core.sched.state cimport (
    NEVER,
    NO_CPU,
    NO_WORLD,
    RUN,
    WHY_PREEMPT,
    WHY_SLICE,
    sched_t,
    topology_t,
)
from pyvirt._core.types cimport ns_t
from pyvirt.errors import InvalidValueError


# --- credits ---


cdef void burn(sched_t *s, uint32_t id, ns_t dt) noexcept nogil:
    cdef int64_t residue
    set_credit(s, id, after(s, id, dt, &residue))
    world(s, id).residue = residue
    world(s, id).budget -= dt


cdef void reset(sched_t *s, uint32_t id) noexcept nogil:
    """The first has no credit left: more for all of the run queue. Who waits keeps his place."""
    cdef uint32_t queue = world(s, id).queue, cpu, other
    cdef ns_t more = own(s).credit
    if credit(s, id) <= -more:
        more *= 2
    for cpu in range(s.cpu_count):
        other = s.cpus[cpu].running
        if other != NO_WORLD and world(s, other).queue == queue and s.worlds[other].state == RUN:
            account(s, cpu)
    queue_of(s, queue).added += more


# --- caps: a pool of CPU time for each VM and period, from which its worlds take parts ---


cdef inline ns_t total(const sched_t *s, const credit2_vm_t *v) noexcept nogil:
    return v.cap * own(s).cap_period // 100


cdef void spend(sched_t *s, uint32_t id) noexcept nogil:
    """The pool of the world's VM is to be refilled at the end of the period."""
    cdef credit2_vm_t *v = vm_of(s, id)
    if not v.spent:
        v.spent, v.next = True, own(s).spent
        own(s).spent = s.worlds[id].vm
    if s.plug.timer == NEVER:
        s.plug.timer = (s.now // own(s).cap_period + 1) * own(s).cap_period


cdef bint has_budget(sched_t *s, uint32_t id) noexcept nogil:
    """Take a part of the pool if there is need and any is left."""
    cdef credit2_vm_t *v = vm_of(s, id)
    cdef credit2_world_t *w = world(s, id)
    cdef ns_t part
    if not v.cap:
        return True
    if w.budget <= 0:
        spend(s, id)
        part = total(s, v) // s.vms[s.worlds[id].vm].worlds
        if part < own(s).min_run:
            part = own(s).min_run
        w.budget = part if part < v.pool else v.pool
        v.pool -= w.budget
    return w.budget > 0


cdef void give_back(sched_t *s, uint32_t id) noexcept nogil:
    cdef credit2_world_t *w = world(s, id)
    cdef ns_t rest = w.budget
    w.budget = 0
    if vm_of(s, id).cap and rest > 0:
        vm_of(s, id).pool += rest
        release(s, s.worlds[id].vm)


cdef void release(sched_t *s, uint32_t vm) noexcept nogil:
    """Let the VM's parked worlds compete again."""
    cdef uint32_t id = s.vms[vm].first
    while id != NO_WORLD:
        if world(s, id).parked:
            world(s, id).parked = False
            unpark(s, id)
        id = next_sibling(s, id)


cdef void timed(sched_t *s) noexcept nogil:
    """A period ends: pools are refilled, what is left of them is lost."""
    cdef uint32_t vm = own(s).spent, next, id
    cdef credit2_vm_t *v
    own(s).spent = NO_WORLD
    s.plug.timer = NEVER
    while vm != NO_WORLD:
        v = &(<credit2_vm_t *>s.plug.vms)[vm]
        next = v.next               # it may be spent at once
        v.spent = False
        v.pool = total(s, v)
        id = s.vms[vm].first
        while id != NO_WORLD:
            if s.worlds[id].state == RUN:
                account(s, s.worlds[id].cpu)
            world(s, id).budget = 0
            if s.worlds[id].state == RUN and not has_budget(s, id):
                ask(s, s.worlds[id].cpu)
            id = next_sibling(s, id)
        release(s, vm)
        vm = next


# --- queues ---


cdef void enqueue(sched_t *s, uint32_t id, uint32_t why) noexcept nogil:
    cdef credit2_world_t *w = world(s, id)
    cdef bint again = why == WHY_PREEMPT or why == WHY_SLICE
    cdef uint32_t cpu = s.worlds[id].cpu
    if again:
        own(s).serving = cpu
        cpu_of(s, cpu).was, cpu_of(s, cpu).sliced = id + 1, why == WHY_SLICE
    if w.queue == NO_CPU or not meets(s, id, w.queue):
        assign(s, id, least_loaded(s, id))
    w.parked = False
    compete(s, id, True)
    put(s, id)
    if not again or cpu_of(s, cpu).queue != w.queue:
        tickle(s, id)
    elif s.idle_count > 1 and not alone(s, id):
        cpu = idle_cpu(s, id)
        if cpu != NO_CPU:
            ask(s, cpu)


cdef bint alone(const sched_t *s, uint32_t id) noexcept nogil:
    """No other world waits in its run queue."""
    cdef uint32_t first = ordered_first(&queue_of(s, world(s, id).queue).waiting, places(s))
    return first == id and ordered_next(places(s), id) == NO_WORLD


cdef void dequeue(sched_t *s, uint32_t id) noexcept nogil:
    take(s, id)
    compete(s, id, False)


cdef void stopped(sched_t *s, uint32_t id, uint32_t why) noexcept nogil:
    compete(s, id, False)
    give_back(s, id)


# --- the choice ---


cdef uint32_t best(const sched_t *s, uint32_t cpu, uint32_t was) noexcept nogil:
    """Whom to run, if there is budget: `was` if nobody has more credit."""
    cdef credit2_cpu_t *c = cpu_of(s, cpu)
    cdef const uint32_t *root = &queue_of(s, c.queue).waiting
    cdef uint32_t id
    cdef int64_t had = 0
    if was != NO_WORLD:
        if not c.sliced and s.now - s.cpus[cpu].began < own(s).ratelimit:
            return was
        had = credit(s, was)
    id = ordered_first(root, places(s))
    while id != NO_WORLD:
        if id != was and allowed(s, id, cpu):
            if was == NO_WORLD:
                return id
            if credit(s, id) <= had:
                break
            if s.worlds[id].cpu == cpu or credit(s, id) >= had + own(s).resist:
                return id
        id = ordered_next(places(s), id)
    return was


cdef uint32_t choose(sched_t *s, uint32_t cpu, uint32_t was) noexcept nogil:
    """Park those for whom there is no budget until there is one for whom there is."""
    cdef uint32_t id
    if was != NO_WORLD and not serves(s, was, cpu):
        was = NO_WORLD
    while True:
        id = best(s, cpu, was)
        if id == NO_WORLD or has_budget(s, id):
            return id
        if id == was:
            was = NO_WORLD
        world(s, id).parked = True
        park(s, id)


cdef void offer(sched_t *s, uint32_t queue) noexcept nogil:
    """An idle CPU took one: another that still waits may have an idle CPU of its own."""
    cdef const uint32_t *root = &queue_of(s, queue).waiting
    cdef uint32_t id, idle
    if s.idle_count < 2:
        return                      # the one that picks counts as idle
    id = ordered_first(root, places(s))
    while id != NO_WORLD:
        idle = idle_cpu(s, id)
        if idle != NO_CPU:
            ask(s, idle)
            return
        id = ordered_next(places(s), id)


cdef void begin_run(sched_t *s, uint32_t cpu, uint32_t id, uint32_t was) noexcept nogil:
    """It is chosen, after `was`, and waits no more."""
    cdef uint32_t queue = world(s, id).queue, before = s.worlds[id].cpu
    if was == NO_WORLD:
        offer(s, queue)
    if credit(s, id) <= 0:
        reset(s, id)
        if own(s).queues > 1:
            balance(s, queue, id)
    if id != was and before != NO_CPU and before != cpu:
        set_credit(s, id, credit(s, id) + own(s).compensation)


cdef uint32_t pick(sched_t *s, uint32_t cpu) noexcept nogil:
    cdef credit2_cpu_t *c = cpu_of(s, cpu)
    cdef uint32_t id, was = c.was - 1 if c.was else NO_WORLD
    c.was = 0
    own(s).serving = cpu
    id = choose(s, cpu, was)
    if was != NO_WORLD and id != was:
        give_back(s, was)
    if id != NO_WORLD:
        take(s, id)
        begin_run(s, cpu, id, was)
    own(s).serving = NO_CPU
    return id


cdef ns_t timeslice(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil:
    """Until the next one has as much credit, or none is left."""
    cdef credit2_own_t *o = own(s)
    cdef credit2_queue_t *q = queue_of(s, world(s, id).queue)
    cdef uint32_t next = ordered_first(&q.waiting, places(s))
    cdef ns_t least = s.cpus[cpu].began + o.ratelimit - s.now, most = o.max_run, time
    cdef int64_t credits = credit(s, id), until = 0
    if least < o.min_run:
        least = o.min_run
    if most < least:
        most = least
    if next != NO_WORLD and credit(s, next) > 0:
        until = credit(s, next)
    time = credits - until if credits > until else least
    if credits > until and weight(s, id) != q.most:
        time = time * weight(s, id) // q.most
    if time < least:
        time = least
    if time > most:
        time = most
    if vm_of(s, id).cap and world(s, id).budget < time:
        time = world(s, id).budget
    return time


# --- machine, worlds, VMs ---


cdef uint32_t queue_at(const sched_t *s, uint32_t cpu) noexcept nogil:
    """The number of the run queue that serves a CPU."""
    cdef const topology_t *t = &s.topology
    cdef uint32_t kind = own(s).kind
    if kind == EACH_CPU:
        return cpu
    if kind == EACH_CORE:
        return t.core[cpu]
    if kind == EACH_LLC:
        return t.llc[cpu]
    if kind == EACH_NODE:
        return t.node[cpu]
    return t.socket[cpu] if kind == EACH_SOCKET else 0


cdef void begin(sched_t *s) noexcept nogil:
    """Arrange the CPUs in run queues."""
    cdef credit2_queue_t *q
    cdef uint32_t cpu, queue
    for cpu in range(s.cpu_count):
        queue = queue_at(s, cpu)
        q = queue_of(s, queue)
        cpu_of(s, cpu).queue = <uint16_t>queue
        q.mask[cpu >> 6] |= <uint64_t>1 << (cpu & 63)
        q.cpus += 1
        q.most = 1
        if queue >= own(s).queues:
            own(s).queues = queue + 1


cdef void add(sched_t *s, uint32_t id) noexcept nogil:
    cdef credit2_world_t *w = world(s, id)
    w.credit = own(s).credit
    w.load, w.load_since = LOAD_ONE // 2, s.now
    w.queue = NO_CPU
    if s.vms[s.worlds[id].vm].worlds == 1:
        vm_of(s, id).cap = s.vms[s.worlds[id].vm].param[0]
        vm_of(s, id).pool = total(s, vm_of(s, id))


cdef void remove(sched_t *s, uint32_t id) noexcept nogil:
    cdef uint32_t vm = s.worlds[id].vm
    cdef uint32_t *link = &own(s).spent
    if world(s, id).queue != NO_CPU:
        assign(s, id, NO_CPU)
    if s.vms[vm].worlds == 1 and vm_of(s, id).spent:
        while link[0] != vm:
            link = &(<credit2_vm_t *>s.plug.vms)[link[0]].next
        link[0] = vm_of(s, id).next
        vm_of(s, id).spent = False


cdef void change(sched_t *s, uint32_t id) noexcept nogil:
    cdef credit2_vm_t *v = vm_of(s, id)
    cdef uint32_t vm = s.worlds[id].vm, each = s.vms[vm].first
    world(s, id).residue = 0
    while each != NO_WORLD:
        if world(s, each).queue != NO_CPU:
            find_most(s, queue_of(s, world(s, each).queue))
        each = next_sibling(s, each)
    if v.cap == s.vms[vm].param[0]:
        return
    v.cap = s.vms[vm].param[0]
    v.pool = total(s, v)
    each = s.vms[vm].first
    while each != NO_WORLD:
        world(s, each).budget = 0
        if s.worlds[each].state == RUN:
            ask(s, s.worlds[each].cpu)
        each = next_sibling(s, each)
    release(s, vm)


_KINDS = {
    "cpu": EACH_CPU,
    "core": EACH_CORE,
    "llc": EACH_LLC,
    "node": EACH_NODE,
    "socket": EACH_SOCKET,
    "all": ALL_CPUS,
}


cdef class Credit2(Plug):
    """Xen's credit2 scheduler.

    Parameters
    ----------
    runqueue : {"cpu", "core", "llc", "node", "socket", "all"}, default "llc"
        Whose CPUs share a run queue, by the scheduler's topology.
    credit_ns : int, default 10 ms
        Credit that a world begins with and that a reset adds; debts end there.
    carryover_ns : int, default 0.5 ms
        Credit beyond that which a world may have after a reset.
    min_run_ns, max_run_ns : int, default 0.5 ms and 10 ms
        Bounds of a timeslice.
    ratelimit_ns : int, default 1 ms
        For so long a world is not interrupted; 0: it always may be.
    cap_period_ns : int, default 10 ms
        Period in which a cap holds.
    migrate_resist_ns : int, default 0.5 ms
        Credit that a world which ran on another CPU must have more to be preferred.
    migrate_compensation_ns : int, default 0.05 ms
        Credit that a world gets for coming from another CPU.
    load_window_ns : int, default 2**30
        Window of the average loads of run queues.
    balance_under, balance_over : int, default 0 and -3
        Run queues are left alone whose loads differ by less than this power of two of a CPU's, while
        the larger load leaves CPUs free, and otherwise.

    Notes
    -----
    Parameters of a VM: ``cap``, percent of one CPU that its worlds get together, 0 for no cap; and
    its weight (Xen's default is 256), which each of its worlds has. The rules are those of Xen's
    documentation (wiki, "Credit2 Scheduler"; xl(1), ``sched-credit2``; ``credit2_*`` of the
    hypervisor's command line), of the messages that introduced them and of its behaviour:

    A run queue is in the order of credits. A world pays for the time that it runs as if it had the
    largest weight of the queue: time times that weight over its own; what the division leaves over
    is kept. A CPU runs the world with the most credit; the one that ran is preferred to worlds of
    other CPUs that do not have `migrate_resist_ns` more. It runs until its credit is what the next
    one has, or 0, within the bounds. If the best one has no credit left, all of the run queue get
    `credit_ns`, twice if its debt is the largest, up to `credit_ns` + `carryover_ns`; whoever waits
    keeps his place. A world that begins to compete gets an idle CPU of its run queue, the one it ran
    on last before the others; or else that of the running world which has least credit, counted with
    `migrate_resist_ns`, if that is less than its own and it ran for `ratelimit_ns`.

    A capped VM has a pool of CPU time, full at the start of each period, of which a world takes an
    equal part, at least `min_run_ns`, when it is to run, and gives back the rest when another one runs
    instead. Without, it is parked until there is some. So no VM exceeds its cap in any period.

    Loads are the mean numbers of competing worlds over the window, all of which a full window
    replaces. A new world, and one whose affinity calls for another run queue, joins the one of least
    load. After each reset the run queue is compared with that whose load differs most: one world is
    pushed, one pulled or two are swapped, whatever brings the two loads closest together.

    Soft affinity, reservations and yielding are not modelled. A run queue never leaves a CPU idle
    beside a world of its that may run there; a CPU of another may be idle until the next balance. The
    periods of caps are the same for all VMs and begin at multiples of `cap_period_ns`. Xen's own
    default of `runqueue` is "socket", and it splits large ones. The defaults of
    `migrate_resist_ns`, `balance_under` and `balance_over` are not in Xen's documentation. Where two
    may be meant, the lowest number is.
    """

    def __init__(
        self, *, runqueue="llc", credit_ns=10_000_000, carryover_ns=500_000, min_run_ns=500_000,
        max_run_ns=10_000_000, ratelimit_ns=1_000_000, cap_period_ns=10_000_000,
        migrate_resist_ns=500_000, migrate_compensation_ns=50_000, load_window_ns=1 << 30,
        balance_under=0, balance_over=-3
    ):
        cdef credit2_own_t o
        memset(&o, 0, sizeof(o))
        if not isinstance(runqueue, str) or runqueue not in _KINDS:
            raise InvalidValueError(
                f"runqueue must be one of {', '.join(_KINDS)}, got {runqueue!r:.80}")
        o.kind = _KINDS[runqueue]
        o.credit = as_int(credit_ns, "credit_ns", 1, 1 << 30)
        o.most_credit = credit_ns + as_int(carryover_ns, "carryover_ns", 0, 1 << 30)
        o.min_run = as_int(min_run_ns, "min_run_ns", 1, 1 << 30)
        o.max_run = as_int(max_run_ns, "max_run_ns", min_run_ns, 1 << 30)
        o.ratelimit = as_int(ratelimit_ns, "ratelimit_ns", 0, 1 << 30)
        o.cap_period = as_int(cap_period_ns, "cap_period_ns", 1, 1 << 30)
        o.resist = as_int(migrate_resist_ns, "migrate_resist_ns", 0, 1 << 30)
        o.compensation = as_int(
            migrate_compensation_ns, "migrate_compensation_ns", 0, 1 << 30)
        o.window = as_int(load_window_ns, "load_window_ns", 1, 1 << 40)
        under = as_int(balance_under, "balance_under", -18, 18)
        over = as_int(balance_over, "balance_over", -18, 18)
        o.under = 1 << (18 + under)
        o.over = 1 << (18 + over)
        o.spent, o.serving = NO_WORLD, NO_CPU
        self.fill_own(&o, sizeof(o))
        self.table.cpu_size = sizeof(credit2_place_t)
        self.table.world_size = sizeof(credit2_world_t)
        self.table.vm_size = sizeof(credit2_vm_t)
        self.table.begin, self.table.add = begin, add
        self.table.remove, self.table.change = remove, change
        self.table.enqueue, self.table.dequeue = enqueue, dequeue
        self.table.pick, self.table.timeslice = pick, timeslice
        self.table.charge, self.table.stopped, self.table.timed = burn, stopped, timed
        self.table.leaps = &leaps
        super().__init__(
            "credit2",
            {
                "runqueue": runqueue, "credit_ns": credit_ns, "carryover_ns": carryover_ns,
                "min_run_ns": min_run_ns, "max_run_ns": max_run_ns, "ratelimit_ns": ratelimit_ns,
                "cap_period_ns": cap_period_ns, "migrate_resist_ns": migrate_resist_ns,
                "migrate_compensation_ns": migrate_compensation_ns,
                "load_window_ns": load_window_ns, "balance_under": balance_under,
                "balance_over": balance_over,
            },
            {"cap": (0, 0, 1_000_000)},
        )
