"""Hyper-V's classic and core schedulers."""

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
from pyvirt._core.sched.placement cimport core_idle
from pyvirt._core.sched.plug cimport Plug, allowed, ask, next_sibling, park, unpark
from pyvirt._core.sched.state cimport (
    GONE,
    MOST_SLICE,
    NO_CPU,
    NO_WORLD,
    READY,
    VIRTUAL_SHIFT,
    WHY_NEW,
    WHY_PREEMPT,
    WHY_SLICE,
    WHY_WAKE,
    sched_t,
    vm_t,
)
from pyvirt._core.sched.topology cimport distance
from pyvirt._core.sched.virtual cimport ahead, wrapping
from pyvirt._core.types cimport ns_t

from pyvirt.errors import AdmissionError, InvalidTypeError, InvalidValueError

cdef enum:                          # of a machine's parameters
    RESERVE = 0
    MAXIMUM = 1
    THREADS = 2

cdef enum:                          # hyperv_world_t.capped
    CAPPED = 1
    FREED = 2                       # the next period began


cdef inline hyperv_t *own_of(sched_t *s) noexcept nogil:
    return <hyperv_t *>s.plug.own


cdef inline hyperv_cpu_t *cpu_of(sched_t *s, uint32_t cpu) noexcept nogil:
    return &(<hyperv_cpu_t *>s.plug.cpus)[cpu]


cdef inline hyperv_world_t *of(sched_t *s, uint32_t id) noexcept nogil:
    return &(<hyperv_world_t *>s.plug.worlds)[id]


cdef inline hyperv_group_t *group_of(sched_t *s, uint32_t g) noexcept nogil:
    return &(<hyperv_world_t *>s.plug.worlds)[g].group


cdef inline nodes_t nodes(sched_t *s) noexcept nogil:
    return nodes_at(&(<hyperv_world_t *>s.plug.worlds).node, sizeof(hyperv_world_t))


cdef inline int64_t parameter(sched_t *s, uint32_t id, uint32_t which) noexcept nogil:
    return s.vms[s.worlds[id].vm].param[which]


cdef inline bint is_group(sched_t *s, uint32_t id) noexcept nogil:
    return s.worlds[id].state != GONE and of(s, id).lead == id


# --- accounts ---


cdef void settle(sched_t *s, uint32_t g) noexcept nogil:
    """Book what a group had of its seat up to now."""
    cdef hyperv_group_t *h = group_of(s, g)
    cdef ns_t dt = s.now - h.settled
    cdef uint64_t scaled
    h.settled = s.now
    if h.seat == NO_CPU or not dt:
        return
    scaled = (<uint64_t>dt << VIRTUAL_SHIFT) + h.rem
    h.v = wrapping(h.v, <int64_t>(scaled // h.weight))
    h.rem = <uint32_t>(scaled % h.weight)
    h.reserve -= dt
    h.limit -= dt


cdef inline ns_t part(sched_t *s, uint32_t id, uint32_t which, ns_t time) noexcept nogil:
    """Per cent of a time."""
    return time * parameter(s, id, which) // 100


cdef int64_t virtual_time(sched_t *s) noexcept nogil:
    """The least of those that sit, or wait without a reserve; it never goes back."""
    cdef hyperv_t *o = own_of(s)
    cdef uint32_t g = ordered_first(&o.plain, nodes(s)), cpu
    cdef int64_t least = 0
    cdef bint some = g != NO_WORLD
    if some:
        least = group_of(s, g).v
    for cpu in range(s.cpu_count):
        g = cpu_of(s, cpu).group
        if g != NO_WORLD:
            settle(s, g)
            if not some or ahead(group_of(s, g).v, least) < 0:
                least, some = group_of(s, g).v, True
    if some and ahead(least, o.v) > 0:
        o.v = least
    return o.v


# --- who sits where ---


cdef inline bint is_active(sched_t *s, uint32_t g, uint32_t place) noexcept nogil:
    return place < group_of(s, g).places and group_of(s, g).active >> place & 1


cdef inline bint fits_at(sched_t *s, uint32_t g, uint32_t cpu) noexcept nogil:
    """Whether the group has a member that would use this CPU of a seat."""
    cdef uint32_t place = cpu_of(s, cpu).place
    return is_active(s, g, place) and allowed(s, group_of(s, g).members[place], cpu)


cdef bint fits(sched_t *s, uint32_t g, uint32_t seat) noexcept nogil:
    cdef uint32_t cpu = seat
    while cpu != NO_CPU:
        if fits_at(s, g, cpu):
            return True
        cpu = cpu_of(s, cpu).next
    return False


cdef void put(sched_t *s, uint32_t g) noexcept nogil:
    cdef hyperv_group_t *h = group_of(s, g)
    h.urgent = h.reserve > 0
    if h.urgent:
        ordered_insert(&own_of(s).urgent, nodes(s), g, -h.reserve)
    else:
        ordered_insert(&own_of(s).plain, nodes(s), g, h.v)


cdef inline bint is_waiting(sched_t *s, uint32_t g) noexcept nogil:
    return of(s, g).node.contained


cdef void take(sched_t *s, uint32_t g) noexcept nogil:
    ordered_remove(
        &own_of(s).urgent if group_of(s, g).urgent else &own_of(s).plain, nodes(s), g)


cdef uint32_t first_in(sched_t *s, const uint32_t *root, uint32_t seat) noexcept nogil:
    cdef uint32_t g = ordered_first(root, nodes(s))
    while g != NO_WORLD and not fits(s, g, seat):
        g = ordered_next(nodes(s), g)
    return g


cdef uint32_t best_for(sched_t *s, uint32_t seat) noexcept nogil:
    """Of the groups that wait, the first that could use the seat, or NO_WORLD."""
    cdef uint32_t g = first_in(s, &own_of(s).urgent, seat)
    return g if g != NO_WORLD else first_in(s, &own_of(s).plain, seat)


cdef void sit(sched_t *s, uint32_t g, uint32_t seat) noexcept nogil:
    """A waiting group gets a free seat for a slice."""
    cdef hyperv_group_t *h = group_of(s, g)
    cdef hyperv_cpu_t *c = cpu_of(s, seat)
    cdef ns_t slice = own_of(s).quantum
    take(s, g)
    c.group, h.seat = g, seat
    c.over = False
    h.settled = s.now
    if h.reserve > 0 and h.reserve < slice:
        slice = h.reserve
    if parameter(s, g, MAXIMUM) < 100 and h.limit < slice:
        slice = h.limit
    c.until = s.now + (slice if slice > 1 else 1)


cdef void stand(sched_t *s, uint32_t g) noexcept nogil:
    """Off its seat, and into the queue if it has something to do."""
    cdef hyperv_group_t *h = group_of(s, g)
    settle(s, g)
    cpu_of(s, h.seat).group = NO_WORLD
    h.seat = NO_CPU
    if h.active:
        put(s, g)


cdef void sit_down(sched_t *s, uint32_t g, uint32_t seat) noexcept nogil:
    cdef uint32_t cpu = seat
    sit(s, g, seat)
    while cpu != NO_CPU:
        if fits_at(s, g, cpu):
            ask(s, cpu)
        cpu = cpu_of(s, cpu).next


cdef uint32_t last_cpu(sched_t *s, uint32_t g) noexcept nogil:
    """Where its first member that ever ran did so last, or NO_CPU."""
    cdef uint32_t i, id
    for i in range(group_of(s, g).places):
        id = group_of(s, g).members[i]
        if id != NO_WORLD and s.worlds[id].cpu != NO_CPU:
            return s.worlds[id].cpu
    return NO_CPU


cdef uint32_t free_seat(sched_t *s, uint32_t g) noexcept nogil:
    """Its last one, one on a wholly idle core, the nearest, the lowest; or NO_CPU.

    Not one that somebody waits for who comes first: that one is about to be taken.
    """
    cdef uint32_t seat, best = NO_CPU, last = last_cpu(s, g), cost, least = 0
    if not s.idle_count:
        return NO_CPU
    for seat in range(s.cpu_count):
        if (
            cpu_of(s, seat).seat != seat or cpu_of(s, seat).group != NO_WORLD
            or not fits(s, g, seat) or best_for(s, seat) != g
        ):
            continue
        cost = 0
        if last == NO_CPU or cpu_of(s, last).seat != seat:
            cost = 1 + 16 * (not core_idle(s, seat))
            cost += 0 if last == NO_CPU else distance(s, last, seat)
        if best == NO_CPU or cost < least:
            best, least = seat, cost
    return best


cdef void find_seat(sched_t *s, uint32_t g) noexcept nogil:
    """A free seat; or, for what is left of a reserve, that of a group that has none left."""
    cdef uint32_t seat = free_seat(s, g), best = NO_CPU
    cdef int64_t most = 0
    cdef hyperv_cpu_t *c
    if seat != NO_CPU:
        sit_down(s, g, seat)
        return
    if group_of(s, g).reserve <= 0:
        return
    for seat in range(s.cpu_count):
        c = cpu_of(s, seat)
        if c.seat == seat and c.group != NO_WORLD and not c.over and fits(s, g, seat):
            settle(s, c.group)
            if group_of(s, c.group).reserve <= 0 and (
                best == NO_CPU or ahead(group_of(s, c.group).v, most) > 0
            ):
                best, most = seat, group_of(s, c.group).v
    if best != NO_CPU:
        cpu_of(s, best).over = True
        ask(s, best)


# --- hooks ---


cdef void begin(sched_t *s) noexcept nogil:
    cdef hyperv_t *o = own_of(s)
    cdef uint32_t cpu, other
    cdef hyperv_cpu_t *c
    o.places = 1
    for cpu in range(s.cpu_count):
        c = cpu_of(s, cpu)
        c.seat, c.next, c.group = cpu, NO_CPU, NO_WORLD
        other = cpu
        while o.core and other and s.topology.core[cpu] != s.topology.core[other - 1]:
            other -= 1
        if not o.core or not other or cpu_of(s, other - 1).place + 1 == MOST_PLACES:
            continue
        other -= 1                  # the core's thread before this one
        c.seat, c.place = cpu_of(s, other).seat, cpu_of(s, other).place + 1
        cpu_of(s, other).next = cpu
        if c.place + 1 > o.places:
            o.places = c.place + 1
    s.plug.timer = s.now + o.period


cdef inline uint32_t free_place(sched_t *s, uint32_t g) noexcept nogil:
    cdef uint32_t i
    for i in range(group_of(s, g).places):
        if group_of(s, g).members[i] == NO_WORLD:
            return i
    return MOST_PLACES


cdef void add(sched_t *s, uint32_t id) noexcept nogil:
    """Take a free place in a group of its machine, of lowest number, or found one."""
    cdef hyperv_world_t *w = of(s, id)
    cdef hyperv_group_t *h = &w.group
    cdef uint32_t each = s.vms[s.worlds[id].vm].first, i
    cdef int64_t places = parameter(s, id, THREADS)
    cdef ns_t rest = s.plug.timer - s.now
    w.lead = NO_WORLD
    while each != NO_WORLD:
        if is_group(s, each) and free_place(s, each) < MOST_PLACES and each < w.lead:
            w.lead = each
        each = next_sibling(s, each)
    if w.lead != NO_WORLD:
        w.place = free_place(s, w.lead)
        group_of(s, w.lead).members[w.place] = id
        return
    w.lead = id
    h.seat, h.weight, h.settled = NO_CPU, s.vms[s.worlds[id].vm].weight, s.now
    h.places = <uint32_t>places if 0 < places < own_of(s).places else own_of(s).places
    for i in range(MOST_PLACES):
        h.members[i] = NO_WORLD
    h.members[0] = id
    h.reserve, h.limit = part(s, id, RESERVE, rest), part(s, id, MAXIMUM, rest)


cdef void remove(sched_t *s, uint32_t id) noexcept nogil:
    """Its place becomes free; if it was the first, the next one keeps the group's state."""
    cdef uint32_t g = of(s, id).lead, lead = NO_WORLD, i
    cdef hyperv_group_t *h = group_of(s, g)
    cdef bint waits
    h.members[of(s, id).place] = NO_WORLD
    of(s, id).lead = NO_WORLD
    for i in range(h.places):
        if h.members[i] != NO_WORLD:
            lead = h.members[i]
            break
    if id != g or lead == NO_WORLD:
        return
    waits = is_waiting(s, g)
    take(s, g)
    group_of(s, lead)[0] = h[0]
    for i in range(h.places):
        if h.members[i] != NO_WORLD:
            of(s, h.members[i]).lead = lead
    if h.seat != NO_CPU:
        cpu_of(s, h.seat).group = lead
    if waits:
        put(s, lead)


cdef void leave(sched_t *s, uint32_t id) noexcept nogil:
    cdef hyperv_t *o = own_of(s)
    cdef uint32_t g = of(s, id).lead
    cdef hyperv_group_t *h = group_of(s, g)
    settle(s, g)
    if not h.active >> of(s, id).place & 1:
        return
    h.active &= ~(<uint32_t>1 << of(s, id).place)
    if h.active:
        if is_used_up(s, g):
            cap(s, g)
        return
    if h.seat != NO_CPU:
        stand(s, g)
    take(s, g)
    o.busy -= 1
    if not o.busy and ahead(h.v, o.v) > 0:
        o.v = h.v


cdef inline bint is_used_up(sched_t *s, uint32_t g) noexcept nogil:
    return parameter(s, g, MAXIMUM) < 100 and group_of(s, g).limit <= 0


cdef void cap(sched_t *s, uint32_t g) noexcept nogil:
    """The limit is used up: nobody of the group runs until the period ends."""
    cdef hyperv_group_t *h = group_of(s, g)
    cdef uint32_t i, lowest, each
    h.capped = CAPPED
    while h.active:
        lowest = NO_WORLD
        for i in range(h.places):
            each = h.members[i]
            if h.active >> i & 1 and each < lowest:
                lowest = each
        park(s, lowest)
        leave(s, lowest)            # as its hook did, unless the policy is at fault


cdef void enqueue(sched_t *s, uint32_t id, uint32_t why) noexcept nogil:
    cdef uint32_t g = of(s, id).lead, cpu
    cdef hyperv_group_t *h = group_of(s, g)
    cdef ns_t rest
    cdef bint idle = not h.active
    settle(s, g)
    if h.capped != CAPPED and is_used_up(s, g):
        leave(s, id)
        cap(s, g)
    if h.capped == CAPPED:
        park(s, id)
        return
    if why == WHY_SLICE or why == WHY_PREEMPT:
        # Its group may have moved to another seat while it still ran here.
        cpu = h.seat
        while cpu != NO_CPU:
            if cpu != s.worlds[id].cpu and cpu_of(s, cpu).place == of(s, id).place:
                ask(s, cpu)
            cpu = cpu_of(s, cpu).next
        return
    if idle:
        if why == WHY_WAKE or why == WHY_NEW:
            if ahead(virtual_time(s), h.v) > 0:
                h.v, h.rem = own_of(s).v, 0
            rest = part(s, g, RESERVE, s.plug.timer - s.now)
            if rest < h.reserve:
                h.reserve = rest
        own_of(s).busy += 1
    h.active |= <uint32_t>1 << of(s, id).place
    if idle:
        put(s, g)
    if h.seat == NO_CPU:
        find_seat(s, g)
        return
    cpu = h.seat
    while cpu != NO_CPU:
        if cpu_of(s, cpu).place == of(s, id).place and allowed(s, id, cpu):
            ask(s, cpu)
        cpu = cpu_of(s, cpu).next


cdef void dequeue(sched_t *s, uint32_t id) noexcept nogil:
    leave(s, id)


cdef void stopped(sched_t *s, uint32_t id, uint32_t why) noexcept nogil:
    leave(s, id)


cdef void change(sched_t *s, uint32_t id) noexcept nogil:
    cdef hyperv_group_t *h = group_of(s, of(s, id).lead)
    cdef uint32_t weight = s.vms[s.worlds[id].vm].weight
    settle(s, of(s, id).lead)
    if h.weight != weight:
        h.weight, h.rem = weight, 0


cdef uint32_t pick(sched_t *s, uint32_t cpu) noexcept nogil:
    """The member at this thread's place of the group that sits here, or of the next one."""
    cdef uint32_t seat = cpu_of(s, cpu).seat, other
    cdef hyperv_cpu_t *c = cpu_of(s, seat)
    cdef uint32_t before = c.group, g = before
    if g == NO_WORLD or c.over or s.now >= c.until or not fits(s, g, seat):
        if g != NO_WORLD:
            stand(s, g)
        g = best_for(s, seat)
        if g != NO_WORLD:
            sit(s, g, seat)
        other = seat
        while other != NO_CPU:
            if other != cpu and (
                s.cpus[other].running != NO_WORLD or (g != NO_WORLD and fits_at(s, g, other))
            ):
                ask(s, other)
            other = cpu_of(s, other).next
        if before != NO_WORLD and is_waiting(s, before):
            find_seat(s, before)
    if g == NO_WORLD or not fits_at(s, g, cpu):
        return NO_WORLD
    other = group_of(s, g).members[cpu_of(s, cpu).place]
    # One that still runs where its group sat will ask for this CPU.
    return other if s.worlds[other].state == READY else NO_WORLD


cdef ns_t timeslice(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil:
    return cpu_of(s, cpu_of(s, cpu).seat).until - s.now


cdef void timed(sched_t *s) noexcept nogil:
    """A period begins: reserves and limits are whole again."""
    cdef hyperv_t *o = own_of(s)
    cdef hyperv_group_t *h
    cdef uint32_t g, id, next
    cdef ns_t reserve
    cdef bint rises                 # its place in the queue changes
    s.plug.timer = s.now + o.period
    for g in range(s.world_count):
        if is_group(s, g):
            h = group_of(s, g)
            settle(s, g)
            reserve = part(s, g, RESERVE, o.period)
            rises = is_waiting(s, g) and (reserve > 0 or h.urgent)
            if rises:
                take(s, g)
            h.reserve, h.limit = reserve, part(s, g, MAXIMUM, o.period)
            if rises:
                put(s, g)
            if h.capped:
                h.capped = FREED
    for id in range(s.world_count):
        if s.worlds[id].state != GONE and group_of(s, of(s, id).lead).capped == FREED:
            unpark(s, id)
    for g in range(s.world_count):
        if is_group(s, g) and group_of(s, g).capped == FREED:
            group_of(s, g).capped = 0
    g = ordered_first(&o.urgent, nodes(s))
    while g != NO_WORLD:
        next = ordered_next(nodes(s), g)
        find_seat(s, g)
        g = next


# --- the class ---


cdef class HyperV(Plug):
    """Hyper-V's classic scheduler, or its core scheduler.

    Parameters
    ----------
    scheduler : {"classic", "core"}, default "core"
        The core scheduler is Windows Server's default from 2019 on.
    quantum_ns : int, default 5 ms
        How long a virtual processor has a logical one at a time. Microsoft does not publish it.
    period_ns : int, default 50 ms
        Over which reserves and limits are kept: "typically on the order of hundredths of a second"
        and "purposely undefined".
    admission : bool, default True
        Whether reserves are refused that the documentation does not allow; see Notes. Without,
        what exceeds the host is not kept.

    Raises
    ------
    AdmissionError
        From `Scheduler.add_vm` and `set_vm`: the reserves of all virtual processors would be more
        than the logical ones; in percent of one. Nothing is changed then.

    Notes
    -----
    *Documented.* The classic scheduler is fair-share, preemptive and round robin. It puts a virtual
    processor on any logical one, so that machines may share a core. Under the core scheduler they
    never do: it puts groups of a machine's virtual processors on all threads of a core at once; a
    virtual processor of a machine without SMT has a whole core, whose other thread idles, as it
    does while another member of the group has nothing to do. Without SMT in the host it is the
    classic one. Each virtual processor has its machine's weight (1 to 10,000, typically 100), by
    which they share what is not reserved; its reserve, which it has when it wants it; and its
    limit, which it never exceeds.

    *Not documented*, so decided here: a group (in the classic scheduler one virtual processor) has
    a seat (a hardware thread, or a core) for a quantum. First come groups with a rest of their
    reserve for this period, the greatest rest first, then the least virtual time, that is time on
    seats over weight; at equal ones the lowest number. With equal weights that is round robin. A
    group with a rest of its reserve takes the seat of one without, of several that with the
    greatest virtual time, when it comes and when a period begins; nobody else is interrupted
    within a quantum. Who wakes gets a virtual time of at least the least of those that sit or
    wait without a reserve, and of its reserve the part for the rest of the period. Time on a seat
    counts while any member uses it. Who has used up its limit is parked (``mlmtd``) until the next
    period.

    Parameters of a virtual machine: ``reserve``, 0 to 100 % of a logical processor for each virtual
    one, default 0; ``maximum``, its limit, 1 to 100 %, default 100: none; both from the next period
    on. ``threads``, virtual processors to a core (``HwThreadCountPerCore``), default 0: as many as
    a core of the host has, at most 8; for worlds that are added from then on.

    *Admission* ("CPU Reserve"): the reserves of all virtual processors are together no more than
    the logical processors, and a machine's reserve is no more than its limit. Logical processors are
    hardware threads, whatever the scheduler: under the core scheduler a machine without SMT uses
    both threads of a core, so that reserves close to the whole host may not all be had.

    Not modelled: the root partition, CPU groups, the root scheduler, that the hypervisor may set the
    reserve of a machine with more virtual processors than the host has logical ones to zero, and that
    a machine with more virtual processors than the host has cores is always treated as one with SMT.
    Virtual times are good for 104 days on a seat at weight 1.

    References
    ----------
    Microsoft: "Manage Hyper-V hypervisor scheduler types" and "About Hyper-V hypervisor scheduler
    type selection" (Windows Server documentation); "Hypervisor Scheduler", "CPU Weight", "CPU
    Reserve" and "CPU Cap" (Windows hardware documentation, 2013).

    Examples
    --------
    >>> from pyvirt.sched import HyperV, Scheduler
    >>> host = Scheduler(policy=HyperV("classic"))
    >>> machines = [host.add_vm(1, weight=weight) for weight in (100, 200, 700)]
    >>> _ = host.run(10**10)
    >>> (host.counters()["run"] / 10**10).round(2)
    array([0.1, 0.2, 0.7])
    """

    def __init__(
        self, scheduler="core", quantum_ns=5_000_000, period_ns=50_000_000, admission=True
    ):
        cdef hyperv_t own
        memset(&own, 0, sizeof(own))
        if scheduler not in ("classic", "core"):
            raise InvalidValueError(
                f"scheduler must be 'classic' or 'core', got {scheduler!r:.80}")
        if not isinstance(admission, bool):
            raise InvalidTypeError(f"admission must be a bool, not {admission!r:.80}")
        own.core = scheduler == "core"
        own.quantum = as_int(quantum_ns, "quantum_ns", 1, MOST_SLICE)
        own.period = as_int(period_ns, "period_ns", 1, 1 << 50)
        super().__init__(
            "hyperv",
            {"scheduler": scheduler, "quantum_ns": own.quantum, "period_ns": own.period,
             "admission": admission},
            {"reserve": (0, 0, 100), "maximum": (100, 1, 100), "threads": (0, 0, MOST_PLACES)})
        self.fill_own(&own, sizeof(own))
        self.table.world_size, self.table.cpu_size = sizeof(hyperv_world_t), sizeof(hyperv_cpu_t)
        self.table.begin, self.table.add, self.table.remove = begin, add, remove
        self.table.change = change
        self.table.enqueue, self.table.dequeue = enqueue, dequeue
        self.table.stopped = stopped
        self.table.pick, self.table.timeslice = pick, timeslice
        self.table.timed = timed

    cdef object admit(self, const sched_t *s, uint32_t vm, const vm_t *values, uint32_t worlds):
        """Refuse reserves that the documentation does not allow; to ask for less is always allowed."""
        cdef int64_t reserve = values.param[RESERVE], most = values.param[MAXIMUM], others = 0
        cdef uint32_t i
        if not self.parameters["admission"]:
            return
        if reserve > most:
            raise InvalidValueError(
                f"reserve must be at most the maximum, {most} %, got {reserve}")
        if not reserve or (vm != NO_WORLD and reserve <= s.vms[vm].param[RESERVE]):
            return
        for i in range(s.vm_count):
            if i != vm:
                others += s.vms[i].param[RESERVE] * s.vms[i].worlds
        if others + reserve * worlds > 100 * <int64_t>s.cpu_count:
            raise AdmissionError(
                "host", float(reserve * worlds), float(100 * <int64_t>s.cpu_count - others),
                "" if vm == NO_WORLD else f"VM {vm}")
