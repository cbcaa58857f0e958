"""Run queues of credit2: their loads, who belongs to them, who waits, and whom to ask."""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from pyvirt._core.sched.ordered cimport (
    fifo_first,
    fifo_next,
    fifo_push,
    fifo_remove,
    ordered_insert,
    ordered_remove,
)
from pyvirt._core.sched.plug cimport allowed, ask
from pyvirt._core.sched.policies.credit2_state cimport (
    LOAD_ONE,
    cpu_of,
    credit,
    credit2_queue_t,
    credit2_world_t,
    credit_now,
    links,
    own,
    places,
    queue_of,
    set_credit,
    weight,
    world,
)
from pyvirt._core.sched.state cimport MASK_WORDS, NO_CPU, NO_WORLD, sched_t
from pyvirt._core.types cimport ns_t
from pyvirt._core.waterwhole cimport wide_t

# --- load: the mean number of competing worlds over a window ---


cdef inline int64_t mixed(const sched_t *s, int64_t load, int64_t present, ns_t dt) noexcept nogil:
    """The mean, where the present number held for the last `dt`."""
    cdef wide_t window = own(s).window
    if dt >= own(s).window:
        return present * LOAD_ONE
    return <int64_t>((load * (window - dt) + <wide_t>present * LOAD_ONE * dt) // window)


cdef void update(sched_t *s, credit2_queue_t *q) noexcept nogil:
    q.load = mixed(s, q.load, q.competing, s.now - q.since)
    q.since = s.now


cdef void update_world(sched_t *s, credit2_world_t *w) noexcept nogil:
    w.load = mixed(s, w.load, w.competes, s.now - w.load_since)
    w.load_since = s.now


cdef void compete(sched_t *s, uint32_t id, bint competes) noexcept nogil:
    """Note whether it wants the CPU."""
    cdef credit2_world_t *w = world(s, id)
    cdef credit2_queue_t *q = queue_of(s, w.queue)
    if w.competes == competes:
        return
    if own(s).queues > 1:
        update(s, q)
        update_world(s, w)
    w.competes = competes
    if competes:
        q.competing += 1
    else:
        q.competing -= 1


cdef bint meets(const sched_t *s, uint32_t id, uint32_t queue) noexcept nogil:
    """Whether it may run on a CPU of this run queue."""
    cdef const uint64_t *mask = s.queues[s.worlds[id].queue].mask
    cdef uint32_t i
    for i in range(MASK_WORDS):
        if mask[i] & queue_of(s, queue).mask[i]:
            return True
    return False


cdef uint32_t least_loaded(sched_t *s, uint32_t id) noexcept nogil:
    cdef uint32_t queue, best = NO_CPU
    for queue in range(own(s).queues):
        if not meets(s, id, queue):
            continue
        update(s, queue_of(s, queue))
        if best == NO_CPU or queue_of(s, queue).load < queue_of(s, best).load:
            best = queue
    return best


cdef void find_most(sched_t *s, credit2_queue_t *q) noexcept nogil:
    """The largest weight, after one went or changed."""
    cdef uint32_t id = fifo_first(&q.worlds)
    q.most = 1
    while id != NO_WORLD:
        if weight(s, id) > q.most:
            q.most = weight(s, id)
        id = fifo_next(links(s), id)


cdef void assign(sched_t *s, uint32_t id, uint32_t queue) noexcept nogil:
    """Let it belong to another run queue, or to none; it does not wait."""
    cdef credit2_world_t *w = world(s, id)
    cdef credit2_queue_t *q
    update_world(s, w)
    if w.queue != NO_CPU:
        q = queue_of(s, w.queue)
        w.credit = credit(s, id)
        update(s, q)
        q.competing -= w.competes
        q.load = q.load - w.load if q.load > w.load else 0
        fifo_remove(&q.worlds, links(s), id)
        if weight(s, id) == q.most:
            find_most(s, q)
    w.queue = <uint16_t>queue
    if queue != NO_CPU:
        q = queue_of(s, queue)
        w.added = q.added
        update(s, q)
        q.competing += w.competes
        q.load += w.load
        fifo_push(&q.worlds, links(s), id)
        if weight(s, id) > q.most:
            q.most = weight(s, id)


# --- run queues, in the order of credits ---


cdef void put(sched_t *s, uint32_t id) noexcept nogil:
    cdef credit2_world_t *w = world(s, id)
    set_credit(s, id, credit(s, id))
    ordered_insert(&queue_of(s, w.queue).waiting, places(s), id, w.added - w.credit)


cdef void take(sched_t *s, uint32_t id) noexcept nogil:
    ordered_remove(&queue_of(s, world(s, id).queue).waiting, places(s), id)


cdef bint serves(const sched_t *s, uint32_t id, uint32_t cpu) noexcept nogil:
    return cpu_of(s, cpu).queue == world(s, id).queue and allowed(s, id, cpu)


cdef uint32_t idle_cpu(const sched_t *s, uint32_t id) noexcept nogil:
    """Of its run queue's that are not about to pick its last CPU, or the lowest that is idle."""
    cdef const uint64_t *mask = s.queues[s.worlds[id].queue].mask
    cdef const uint64_t *ours = queue_of(s, world(s, id).queue).mask
    cdef uint32_t i, cpu, best = NO_CPU, last = s.worlds[id].cpu
    cdef uint64_t free
    if s.idle_count <= <uint32_t>(own(s).serving != NO_CPU):
        return NO_CPU               # the one that picks counts as idle
    for i in range((s.cpu_count + 63) >> 6):
        free = s.idle[i] & mask[i] & ours[i] & ~s.asked[i]
        cpu = 64 * i
        while free:
            if free & 1 and cpu != own(s).serving:
                if cpu == last:
                    return cpu
                if best == NO_CPU:
                    best = cpu
            free >>= 1
            cpu += 1
    return best


cdef inline bint asked(const sched_t *s, uint32_t cpu) noexcept nogil:
    return s.asked[cpu >> 6] >> (cpu & 63) & 1


cdef void tickle(sched_t *s, uint32_t id) noexcept nogil:
    """Have an idle CPU pick, or that of the world that has least credit, if less enough."""
    cdef uint32_t cpu = idle_cpu(s, id), best = NO_CPU, last = s.worlds[id].cpu
    cdef int64_t mine, score, most = 0
    if cpu != NO_CPU:
        ask(s, cpu)
        return
    mine = credit(s, id)
    for cpu in range(s.cpu_count):
        if s.cpus[cpu].running == NO_WORLD or asked(s, cpu) or not serves(s, id, cpu):
            continue
        if s.now - s.cpus[cpu].began < own(s).ratelimit:
            continue
        score = mine - credit_now(s, s.cpus[cpu].running)
        if cpu != last:
            score -= own(s).resist
        if score > most or (score == most and score > 0 and cpu == last):
            best, most = cpu, score
    if best != NO_CPU:
        ask(s, best)
