# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A stride policy for pyvirt.sched in Cython; the same as stride.c."""

from libc.stdint cimport int64_t, uint32_t

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
)

ctypedef struct own_t:
    int64_t now                 # pass of what was picked last
    uint32_t count              # of ready worlds

ctypedef struct world_t:
    int64_t pass_
    uint32_t heap               # of record i: the world at place i of a binary heap


cdef class CyStride(Plug):
    """The ready world of least pass runs, wherever it may."""

    def __init__(self):
        super().__init__("cystride", {})
        self.table.own_size = sizeof(own_t)
        self.table.world_size = sizeof(world_t)
        self.table.enqueue = enqueue
        self.table.dequeue = dequeue
        self.table.charge = charge
        self.table.pick = pick
        self.table.timeslice = timeslice


cdef inline bint before(const world_t *w, uint32_t a, uint32_t b) noexcept nogil:
    # without branches, which no predictor would guess
    return (w[a].pass_ < w[b].pass_) | ((w[a].pass_ == w[b].pass_) & (a < b))


cdef void sift(world_t *w, uint32_t count, uint32_t i, uint32_t id) noexcept nogil:
    """Put a world at place `i`, and up or down to where it belongs."""
    cdef uint32_t child
    while i and before(w, id, w[(i - 1) // 2].heap):
        w[i].heap = w[(i - 1) // 2].heap
        i = (i - 1) // 2
    while 2 * i + 1 < count:
        child = 2 * i + 1
        if child + 1 < count:
            child += before(w, w[child + 1].heap, w[child].heap)
        if not before(w, w[child].heap, id):
            break
        w[i].heap = w[child].heap
        i = child
    w[i].heap = id


cdef inline void take(sched_t *s, uint32_t i) noexcept nogil:
    cdef world_t *w = <world_t *>s.plug.worlds
    cdef own_t *own = <own_t *>s.plug.own
    own.count -= 1
    if i < own.count:
        sift(w, own.count, i, w[own.count].heap)


cdef void enqueue(sched_t *s, uint32_t id, uint32_t why) noexcept nogil:
    cdef world_t *w = <world_t *>s.plug.worlds
    cdef own_t *own = <own_t *>s.plug.own
    cdef uint32_t cpu
    if why != WHY_SLICE and why != WHY_PREEMPT and w[id].pass_ < own.now:
        w[id].pass_ = own.now
    own.count += 1
    sift(w, own.count, own.count - 1, id)
    if why == WHY_SLICE or not s.idle_count:
        return                  # its CPU picks anyway
    for cpu in range(s.cpu_count):
        if s.cpus[cpu].running == NO_WORLD and not asked(s, cpu) and allowed(s, id, cpu):
            ask(s, cpu)
            return


cdef void dequeue(sched_t *s, uint32_t id) noexcept nogil:
    cdef world_t *w = <world_t *>s.plug.worlds
    cdef uint32_t i = 0
    while w[i].heap != id:
        i += 1
    take(s, i)


cdef void charge(sched_t *s, uint32_t id, ns_t dt) noexcept nogil:
    (<world_t *>s.plug.worlds)[id].pass_ += dt * 1024 // s.worlds[id].weight


cdef uint32_t pick(sched_t *s, uint32_t cpu) noexcept nogil:
    cdef const world_t *w = <world_t *>s.plug.worlds
    cdef own_t *own = <own_t *>s.plug.own
    cdef uint32_t best = NO_WORLD, at = 0, i
    for i in range(own.count):
        if (best == NO_WORLD or before(w, w[i].heap, best)) and allowed(s, w[i].heap, cpu):
            best, at = w[i].heap, i
            if not i:
                break           # the least of all
    if best != NO_WORLD:
        own.now = w[best].pass_
        take(s, at)
    return best


cdef ns_t timeslice(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil:
    return s.worlds[id].slice
