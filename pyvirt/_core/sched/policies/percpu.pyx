"""One run queue for each CPU, fair by virtual time, with balancing between them."""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from pyvirt._core.arrays cimport as_int
from pyvirt._core.sched.balance cimport pull_nearest, push_apart
from pyvirt._core.sched.hooks cimport allowed
from pyvirt._core.sched.numa cimport (
    at_home,
    home_mask,
    home_of,
    numa_begin,
    numa_change,
    numa_place,
    numa_remove,
    numa_t,
    numa_timed,
    numa_vm_t,
    numa_vms_at,
    numa_vms_t,
    read_numa,
)
from pyvirt._core.sched.ordered cimport (
    node_t,
    nodes_at,
    nodes_t,
    ordered_first,
    ordered_insert,
    ordered_next,
    ordered_remove,
)
from pyvirt._core.sched.placement cimport idle_cpu_among
from pyvirt._core.sched.plug cimport Plug, ask
from pyvirt._core.sched.state cimport (
    NEVER,
    NO_CPU,
    NO_NODE,
    NO_WORLD,
    READY,
    RUN,
    WHY_PREEMPT,
    WHY_SLICE,
    sched_t,
)
from pyvirt._core.types cimport ns_t

cdef enum:
    PAGES_PER_MB = 256

ctypedef struct mine_t:             # of a world
    node_t node                     # by virtual time
    ns_t v                          # virtual time of its queue; while it does not compete, its lead
    uint32_t rem                    # virtual time is v + rem / weight
    uint16_t cpu                    # its queue
    bint competes

ctypedef struct line_t:             # of a CPU
    uint32_t root
    ns_t v                          # of the world that was picked last
    int64_t weight                  # of those that wait

ctypedef struct own_t:
    ns_t timeslice
    ns_t balance_ns
    ns_t next_balance
    uint32_t percent
    bint with_numa
    uint64_t pulls                  # worlds that an idle CPU took
    uint64_t pushes                 # that were moved to even out
    numa_t numa


cdef inline own_t *own(sched_t *s) noexcept nogil:
    return <own_t *>s.plug.own


cdef inline mine_t *mine(sched_t *s, uint32_t id) noexcept nogil:
    return &(<mine_t *>s.plug.worlds)[id]


cdef inline line_t *line(sched_t *s, uint32_t cpu) noexcept nogil:
    return &(<line_t *>s.plug.cpus)[cpu]


cdef inline nodes_t nodes(sched_t *s) noexcept nogil:
    return nodes_at(&mine(s, 0).node, sizeof(mine_t))


cdef inline numa_vms_t homes(sched_t *s) noexcept nogil:
    return numa_vms_at(<numa_vm_t *>s.plug.vms, sizeof(numa_vm_t))


# --- queues ---


cdef void insert(sched_t *s, uint32_t id, uint32_t cpu) noexcept nogil:
    """By its virtual time in this queue. An idle CPU picks."""
    cdef mine_t *m = mine(s, id)
    m.cpu = <uint16_t>cpu
    ordered_insert(&line(s, cpu).root, nodes(s), id, m.v)
    line(s, cpu).weight += s.worlds[id].weight
    if s.idle[cpu >> 6] >> (cpu & 63) & 1:
        ask(s, cpu)


cdef void take_out(sched_t *s, uint32_t id) noexcept nogil:
    cdef uint32_t cpu = mine(s, id).cpu
    ordered_remove(&line(s, cpu).root, nodes(s), id)
    line(s, cpu).weight -= s.worlds[id].weight


cdef int64_t load_of(sched_t *s, uint32_t cpu) noexcept nogil:
    """Weights of who waits and who runs."""
    cdef uint32_t id = s.cpus[cpu].running
    return line(s, cpu).weight + (0 if id == NO_WORLD else s.worlds[id].weight)


cdef uint32_t choose(sched_t *s, uint32_t id) noexcept nogil:
    """An idle CPU of its home, else the least loaded one: its last one, or the lowest."""
    cdef uint32_t cpu = idle_cpu_among(s, id, home_mask(s, id)), last = s.worlds[id].cpu, best, i
    if cpu != NO_CPU:
        return cpu
    best = last if last != NO_CPU and allowed(s, id, last) and at_home(s, id, last) else NO_CPU
    for i in range(s.cpu_count):
        if allowed(s, id, i) and at_home(s, id, i):
            if best == NO_CPU or load_of(s, i) < load_of(s, best):
                best = i
    return best


cdef uint32_t waiter(sched_t *s, uint32_t source, uint32_t cpu, int64_t most) noexcept nogil:
    """The one of least virtual time that may run on `cpu`."""
    cdef uint32_t id = ordered_first(&line(s, source).root, nodes(s))
    while id != NO_WORLD:
        if allowed(s, id, cpu) and at_home(s, id, cpu) and s.worlds[id].weight <= most:
            return id
        id = ordered_next(nodes(s), id)
    return NO_WORLD


cdef void shift(sched_t *s, uint32_t id, uint32_t source, uint32_t cpu) noexcept nogil:
    """To another queue: it stays as far ahead of the queue's virtual time as it was."""
    mine(s, id).v += line(s, cpu).v - line(s, source).v


cdef void move(sched_t *s, uint32_t id, uint32_t source, uint32_t cpu) noexcept nogil:
    take_out(s, id)
    shift(s, id, source, cpu)
    insert(s, id, cpu)


# --- hooks ---


cdef void begin(sched_t *s) noexcept nogil:
    own(s).next_balance = s.now + own(s).balance_ns if own(s).balance_ns else NEVER
    if own(s).with_numa:
        numa_begin(s, &own(s).numa)
    else:
        own(s).numa.due = NEVER
    set_timer(s)


cdef void set_timer(sched_t *s) noexcept nogil:
    s.plug.timer = min(own(s).next_balance, own(s).numa.due)


cdef void remove(sched_t *s, uint32_t id) noexcept nogil:
    if own(s).with_numa:
        numa_remove(s, &own(s).numa, homes(s), id)


cdef void change(sched_t *s, uint32_t id) noexcept nogil:
    mine(s, id).rem = 0
    if own(s).with_numa:
        numa_change(s, &own(s).numa, homes(s), s.worlds[id].vm)


cdef void enqueue(sched_t *s, uint32_t id, uint32_t why) noexcept nogil:
    cdef mine_t *m = mine(s, id)
    cdef uint32_t cpu = s.worlds[id].cpu, vm = s.worlds[id].vm, other = NO_CPU
    cdef bint alone
    if why == WHY_SLICE or why == WHY_PREEMPT:
        if not at_home(s, id, cpu):
            cpu = choose(s, id)
            shift(s, id, m.cpu, cpu)
        alone = not line(s, cpu).root
    else:
        alone = True
        if own(s).with_numa and home_of(s, id) == NO_NODE:
            numa_place(s, &own(s).numa, homes(s), vm,
                       <uint32_t>s.vms[vm].param[0] * PAGES_PER_MB)
        cpu = choose(s, id)
        m.v = line(s, cpu).v + (m.v if m.v > 0 else 0)
    m.competes = True
    insert(s, id, cpu)
    if not alone:                   # who waited here may keep it from running: then another pulls it
        other = idle_cpu_among(s, id, home_mask(s, id))
    if other != NO_CPU:
        ask(s, other)


cdef void leave(sched_t *s, uint32_t id) noexcept nogil:
    """What it is ahead of its queue is kept."""
    mine(s, id).competes = False
    mine(s, id).v -= line(s, mine(s, id).cpu).v


cdef void dequeue(sched_t *s, uint32_t id) noexcept nogil:
    take_out(s, id)
    leave(s, id)


cdef void stopped(sched_t *s, uint32_t id, uint32_t why) noexcept nogil:
    if mine(s, id).competes:
        leave(s, id)


cdef void charge(sched_t *s, uint32_t id, ns_t dt) noexcept nogil:
    cdef mine_t *m = mine(s, id)
    cdef ns_t total = dt + m.rem
    m.v += total // s.worlds[id].weight
    m.rem = <uint32_t>(total % s.worlds[id].weight)


cdef uint32_t pick(sched_t *s, uint32_t cpu) noexcept nogil:
    """The least virtual time of its own queue; from an empty one, it pulls."""
    cdef uint32_t id = ordered_first(&line(s, cpu).root, nodes(s)), source
    if id == NO_WORLD:
        id = pull_nearest(s, cpu, waiter, &source)
        if id == NO_WORLD:
            return NO_WORLD
        own(s).pulls += 1
        take_out(s, id)
        shift(s, id, source, cpu)
        mine(s, id).cpu = <uint16_t>cpu
    else:
        take_out(s, id)
    if mine(s, id).v > line(s, cpu).v:
        line(s, cpu).v = mine(s, id).v
    return id


cdef ns_t timeslice(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil:
    return own(s).timeslice


cdef void rehomed(sched_t *s, uint32_t id) noexcept nogil:
    """A ready world goes to a queue of its new home; a running one when its CPU picks again."""
    if s.worlds[id].state == READY:
        move(s, id, mine(s, id).cpu, choose(s, id))
    elif s.worlds[id].state == RUN:
        ask(s, s.worlds[id].cpu)


cdef void timed(sched_t *s) noexcept nogil:
    if own(s).next_balance == s.now:
        own(s).pushes += push_apart(s, load_of, waiter, move, own(s).percent)
        own(s).next_balance = s.now + own(s).balance_ns
    if own(s).numa.due == s.now:
        numa_timed(s, &own(s).numa, homes(s), NULL, rehomed)
    set_timer(s)


cdef class PerCpu(Plug):
    """A run queue for each CPU, in which the least virtual time runs; CPUs pull and push.

    Rules: a world's virtual time is its CPU time over its weight, whole nanoseconds at weight 1, with
    what is left over kept. A queue's is the largest that was picked from it. A world that becomes
    ready gets the idle CPU that suits it best (its last one, a core for itself, the nearest), else
    the CPU with the least weight to run; there it is as far ahead of the queue as it was when it
    stopped, and never behind. A CPU takes the least virtual time of its queue, and none interrupts
    another before its timeslice ends. A CPU without a waiting world pulls one from the nearest CPU
    that has one for it. From time to time the queues are evened out by weight: in each
    last-level cache, node, socket and the host the CPU with most gives worlds to the one with least.
    A world with a NUMA home runs on that node alone, and starts there in a queue of it.

    Parameters
    ----------
    timeslice_ns : int, default 10 ms
        How long a world runs at a time, up to 2**50.
    balance_ns : int, default 100 ms
        Time between two looks at all queues, up to 2**50; 0: none.
    imbalance_percent : int, default 25
        What the most loaded queue may have more than the least loaded one, in each cache, node,
        socket and the host, up to 10,000.
    numa : Numa, optional
        Home nodes; default: none. Where a VM's memory is counts with its parameter ``memory_mb``
        (of `Scheduler.add_vm`, default 0: it has none that could be remote).

    Notes
    -----
    The policy is of no published system: it has the parts that real ones share (Linux's load
    balancing between scheduling domains, VMware's home nodes) in their simplest form. Queues
    order virtual times by whole nanoseconds at weight 1.
    """

    def __init__(
        self, timeslice_ns=10_000_000, balance_ns=100_000_000, imbalance_percent=25, numa=None
    ):
        cdef own_t made
        memset(&made, 0, sizeof(made))
        made.timeslice = as_int(timeslice_ns, "timeslice_ns", 1, 1 << 50)
        made.balance_ns = as_int(balance_ns, "balance_ns", 0, 1 << 50)
        made.percent = as_int(imbalance_percent, "imbalance_percent", 0, 10_000)
        made.with_numa = numa is not None
        if numa is not None:
            read_numa(&made.numa, numa)
        Plug.__init__(
            self,
            "percpu",
            {"timeslice_ns": timeslice_ns, "balance_ns": balance_ns,
             "imbalance_percent": imbalance_percent, "numa": numa},
            {"memory_mb": (0, 0, (1 << 24) - 1)},
        )
        self.fill_own(&made, sizeof(made))
        self.table.cpu_size, self.table.world_size = sizeof(line_t), sizeof(mine_t)
        self.table.vm_size = sizeof(numa_vm_t) if numa is not None else 0
        self.table.begin, self.table.remove, self.table.change = begin, remove, change
        self.table.enqueue, self.table.dequeue, self.table.stopped = enqueue, dequeue, stopped
        self.table.charge, self.table.pick = charge, pick
        self.table.timeslice, self.table.timed = timeslice, timed
