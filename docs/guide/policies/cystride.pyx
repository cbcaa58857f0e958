# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A stride policy for pyvirt.sched in Cython; the same as stride.c.

The folder that `pyvirt.sched.get_include()` names is to be searched for headers.
"""

from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t

from pyvirt.capi cimport (
    NO_WORLD,
    WHY_PREEMPT,
    WHY_SLICE,
    Plug,
    allowed,
    ask,
    asked,
    ns_t,
    sched_t,
    stretch_t,
    turns,
)

cdef extern from "pyvirt/winner.h" nogil:
    const uint64_t PV_EMPTY
    void winner_set(uint64_t *node, uint32_t leaves, uint32_t slot, uint64_t key)
    void winner_build(uint64_t *node, uint32_t leaves)

cdef enum:
    ID_BITS = 20

cdef int64_t SPREAD = <int64_t>1 << 43  # of passes that a key tells apart

ctypedef struct own_t:
    int64_t now                 # pass of what was picked last
    int64_t base                # pass of key 0

ctypedef struct world_t:
    int64_t pass_
    int64_t step                # of a whole slice
    uint64_t ahead              # whether it runs, and is in the tree with its pass after the slice


cdef class CyStride(Plug):
    """The ready world of least pass runs, wherever it may."""

    def __init__(self):
        super().__init__("cystride", {})
        self.table.own_size = sizeof(own_t)
        self.table.world_size = sizeof(world_t)
        self.table.trees = 1
        self.table.add = add
        self.table.change = change
        self.table.enqueue = enqueue
        self.table.dequeue = leave
        self.table.stopped = stopped
        self.table.charge = charge
        self.table.pick = pick
        self.table.timeslice = timeslice
        self.table.requeue = requeue
        self.table.turns = all_turns


cdef inline own_t *own_of(sched_t *s) noexcept nogil:
    return <own_t *>s.plug.own


cdef inline world_t *mine(sched_t *s, uint32_t id) noexcept nogil:
    return &(<world_t *>s.plug.worlds)[id]


cdef inline void set_key(sched_t *s, uint32_t id, uint64_t key) noexcept nogil:
    winner_set(s.plug.tree, s.plug.leaves, id, key)


cdef inline uint64_t key_of(const own_t *own, int64_t pass_, uint32_t id) noexcept nogil:
    """What is further ahead than keys can say is put in order when its turn may have come."""
    cdef int64_t rank = pass_ - own.base
    return <uint64_t>(rank if rank < SPREAD else SPREAD) << ID_BITS | id


cdef void move_base(sched_t *s) noexcept nogil:
    """Let keys count from the least pass of the worlds in the tree."""
    cdef own_t *own = own_of(s)
    cdef uint64_t *leaf = &s.plug.tree[s.plug.leaves]
    cdef world_t *w
    cdef uint32_t id
    own.base = INT64_MAX
    for id in range(s.world_count):
        if leaf[id] != PV_EMPTY and mine(s, id).pass_ < own.base:
            own.base = mine(s, id).pass_
    for id in range(s.world_count):
        if leaf[id] != PV_EMPTY:
            w = mine(s, id)
            leaf[id] = key_of(own, w.pass_ + (w.step if w.ahead else 0), id)
    winner_build(s.plug.tree, s.plug.leaves)


cdef inline void enter(sched_t *s, uint32_t id) noexcept nogil:
    cdef world_t *w = mine(s, id)
    w.ahead = 0
    if w.pass_ < own_of(s).base:
        set_key(s, id, id)
        move_base(s)
    else:
        set_key(s, id, key_of(own_of(s), w.pass_, id))


cdef void leave(sched_t *s, uint32_t id) noexcept nogil:
    mine(s, id).ahead = 0
    set_key(s, id, PV_EMPTY)


cdef uint32_t search(sched_t *s, uint32_t cpu) noexcept nogil:
    """The least of those that may run there: the first one cannot."""
    cdef const uint64_t *leaf = &s.plug.tree[s.plug.leaves]
    cdef uint32_t best = NO_WORLD, id
    for id in range(s.world_count):
        if leaf[id] != PV_EMPTY and not mine(s, id).ahead and allowed(s, id, cpu):
            if best == NO_WORLD or mine(s, id).pass_ < mine(s, best).pass_:
                best = id
    return best


cdef void add(sched_t *s, uint32_t id) noexcept nogil:
    mine(s, id).step = <int64_t>s.worlds[id].slice * 1024 // s.worlds[id].weight


cdef void change(sched_t *s, uint32_t id) noexcept nogil:
    if mine(s, id).ahead:
        leave(s, id)            # it will not be where it was expected
    add(s, id)


cdef void enqueue(sched_t *s, uint32_t id, uint32_t why) noexcept nogil:
    cdef world_t *w = mine(s, id)
    cdef uint32_t cpu
    if why != WHY_SLICE and why != WHY_PREEMPT and w.pass_ < own_of(s).now:
        w.pass_ = own_of(s).now
    enter(s, id)
    if why == WHY_SLICE or not s.idle_count:
        return                  # its CPU picks anyway
    for cpu in range(s.cpu_count):
        if s.cpus[cpu].running == NO_WORLD and not asked(s, cpu) and allowed(s, id, cpu):
            ask(s, cpu)
            return


cdef void stopped(sched_t *s, uint32_t id, uint32_t why) noexcept nogil:
    leave(s, id)


cdef inline void use(sched_t *s, uint32_t id, ns_t dt) noexcept nogil:
    cdef world_t *w = mine(s, id)
    w.pass_ += w.step if dt == s.worlds[id].slice else dt * 1024 // s.worlds[id].weight


cdef void charge(sched_t *s, uint32_t id, ns_t dt) noexcept nogil:
    use(s, id, dt)


cdef inline uint32_t take(sched_t *s, uint32_t cpu) noexcept nogil:
    cdef own_t *own = own_of(s)
    cdef world_t *w
    cdef uint64_t key
    cdef uint32_t id
    while True:
        key = s.plug.tree[1]
        if key == PV_EMPTY:
            return NO_WORLD
        id = <uint32_t>key & ((1 << ID_BITS) - 1)
        if mine(s, id).ahead:
            leave(s, id)        # others were faster
        elif <int64_t>(key >> ID_BITS) == SPREAD:
            move_base(s)
        else:
            break
    if not allowed(s, id, cpu):
        id = search(s, cpu)
        if id == NO_WORLD:
            return id
    w = mine(s, id)
    own.now = w.pass_
    w.ahead = 1
    set_key(s, id, key_of(own, w.pass_ + w.step, id))
    return id


cdef uint32_t pick(sched_t *s, uint32_t cpu) noexcept nogil:
    return take(s, cpu)


cdef ns_t timeslice(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil:
    return s.worlds[id].slice


cdef inline uint32_t requeue(sched_t *s, uint32_t cpu, uint32_t id, ns_t dt, ns_t *slice) noexcept nogil:
    """The four in one, for the case that comes again and again."""
    cdef world_t *w = mine(s, id)
    use(s, id, dt)
    if w.ahead and dt == s.worlds[id].slice:
        w.ahead = 0             # it is in the tree with that pass
    else:
        enter(s, id)
    id = take(s, cpu)
    if id != NO_WORLD:
        slice[0] = s.worlds[id].slice
    return id


cdef void all_turns(sched_t *s, stretch_t *t) noexcept nogil:
    """And a stretch of these."""
    turns(s, t, requeue)
