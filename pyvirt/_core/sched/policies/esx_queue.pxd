# The queue of each CPU: a pairing heap of the worlds that wait there, by key and number.
#
# Links stand in the worlds' records. To insert is to compare with the root; to take out any world is
# to cut it off and to merge its children in pairs. The order depends on keys and numbers alone.
# A tree over the CPUs holds the least key of all queues.

from libc.stdint cimport INT64_MAX, int64_t, uint32_t

from pyvirt._core.sched.policies.esx_state cimport (
    NOWHERE,
    esx_cpu_t,
    esx_t,
    esx_world_t,
    host_of,
    world_of,
    cpu_of,
)
from pyvirt._core.sched.state cimport NO_WORLD, sched_t, world_t

cdef uint32_t pull_from_others(
    sched_t *s, uint32_t cpu, int64_t below, bint part_siblings) noexcept nogil
cdef uint32_t idle_cpu_for(sched_t *s, uint32_t id) noexcept nogil
cdef uint32_t place_world(sched_t *s, uint32_t id, bint part_siblings) noexcept nogil
cdef bint is_idle(sched_t *s, uint32_t cpu) noexcept nogil
cdef void advance_host(sched_t *s) noexcept nogil
cdef void drop(sched_t *s, uint32_t id) noexcept nogil
cdef void shift_times(sched_t *s, int64_t by) noexcept nogil


cdef inline int64_t key_of(sched_t *s, uint32_t id) noexcept nogil:
    """Virtual time, of a laggard somewhat less."""
    cdef esx_world_t *w = world_of(s, id)
    return w.vt - (host_of(s).favour if w.laggard else 0)


cdef inline int64_t runs_with(sched_t *s, uint32_t id) noexcept nogil:
    """Virtual time of a running world, with what it has used and was not charged for."""
    return world_of(s, id).vt + <int64_t>((s.now - s.worlds[id].since) * world_of(s, id).rate)


cdef inline uint32_t merge(esx_world_t *w, uint32_t a, uint32_t b) noexcept nogil:
    """Make one heap of two that are not empty; give its root, whose `next` is not set."""
    cdef uint32_t low = a, high = b
    if w[b].key < w[a].key or (w[b].key == w[a].key and b < a):
        low, high = b, a
    w[high].next = w[low].child
    if w[low].child != NOWHERE:
        w[w[low].child].prev = high
    w[high].prev = low
    w[low].child = high
    return low


cdef inline uint32_t merge_children(esx_world_t *w, uint32_t first) noexcept nogil:
    """Merge a chain of heaps: in pairs, and then the pairs from the last to the first."""
    cdef uint32_t pairs = NOWHERE, other, rest, root
    while first != NOWHERE:
        other = w[first].next
        if other == NOWHERE:
            w[first].next = pairs
            pairs = first
            break
        rest = w[other].next
        root = merge(w, first, other)
        w[root].next = pairs
        pairs = root
        first = rest
    if pairs == NOWHERE:
        return NOWHERE
    root = pairs
    rest = w[root].next
    while rest != NOWHERE:
        other = w[rest].next
        root = merge(w, root, rest)
        rest = other
    w[root].next = w[root].prev = NOWHERE
    return root


cdef inline void set_head(sched_t *s, uint32_t cpu) noexcept nogil:
    """After the root of the CPU's queue changed: the tree of least keys."""
    cdef esx_cpu_t *c = cpu_of(s, 0)
    cdef uint32_t i = s.cpu_count + cpu, root = c[cpu].root
    cdef int64_t key = INT64_MAX if root == NOWHERE else world_of(s, root).key, other
    c[cpu].head = key
    while i > 1:
        other = c[(i ^ 1) - s.cpu_count].head if (i ^ 1) >= s.cpu_count else c[i ^ 1].node
        key = other if other < key else key
        i >>= 1
        if c[i].node == key:
            break
        c[i].node = key


cdef inline int64_t least_key(sched_t *s) noexcept nogil:
    """Of all who wait."""
    return cpu_of(s, 0).head if s.cpu_count == 1 else cpu_of(s, 1).node


cdef inline void put(sched_t *s, uint32_t id, uint32_t cpu) noexcept nogil:
    """Let a world wait for a CPU."""
    cdef esx_cpu_t *c = cpu_of(s, cpu)
    cdef esx_world_t *worlds = world_of(s, 0)
    cdef esx_world_t *w = worlds + id
    w.key = key_of(s, id)
    w.queue = cpu
    w.child = w.next = w.prev = NOWHERE
    c.count += 1
    host_of(s).active += 1
    if c.root == NOWHERE:
        c.root = id
    else:
        c.root = merge(worlds, c.root, id)
        worlds[c.root].next = worlds[c.root].prev = NOWHERE
        if c.root != id:
            return
    set_head(s, cpu)


cdef inline void take(sched_t *s, uint32_t id) noexcept nogil:
    """A world no longer waits."""
    cdef esx_world_t *worlds = world_of(s, 0)
    cdef esx_world_t *w = worlds + id
    cdef uint32_t cpu = w.queue, rest
    cdef esx_cpu_t *c = cpu_of(s, cpu)
    rest = merge_children(worlds, w.child)
    w.queue = NOWHERE
    c.count -= 1
    host_of(s).active -= 1
    if c.root == id:
        c.root = rest
        set_head(s, cpu)
        return
    # cut it off where it hangs
    if worlds[w.prev].child == id:
        worlds[w.prev].child = w.next
    else:
        worlds[w.prev].next = w.next
    if w.next != NOWHERE:
        worlds[w.next].prev = w.prev
    if rest != NOWHERE:
        c.root = merge(worlds, c.root, rest)
        worlds[c.root].next = worlds[c.root].prev = NOWHERE
