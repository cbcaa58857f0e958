# The queue of each CPU: the worlds that wait there, by key and number.
#
# Worlds are spread over bins, and a winner tree over the bins names the first of all. A bin is a
# pairing heap, whose links stand in the worlds' records: to insert is to compare with the root; to take
# out any world is to cut it off and to merge its children in pairs. So a queue needs no memory of its
# own that would grow, and as long as there are not more worlds than bins, each has its own, and the
# work is one short way through the tree, without a branch on keys. The order depends on keys and
# numbers alone.

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t

from pyvirt._core.sched.hooks cimport allowed
from pyvirt._core.sched.numa cimport at_home
from pyvirt._core.sched.pairs cimport pairs_set
from pyvirt._core.sched.policies.esx_heap cimport merge, merge_children
from pyvirt._core.sched.policies.esx_state cimport (
    BIN_BITS,
    BINS,
    NOWHERE,
    cpu_of,
    esx_cpu_t,
    esx_t,
    esx_world_t,
    host_of,
    world_of,
)
from pyvirt._core.sched.state cimport FULL_SPEED, sched_t
from pyvirt._core.sched.topology cimport lowest_bit
from pyvirt._core.types cimport ns_t

# No world's virtual time is farther ahead of the host's.
cdef extern from * nogil:
    """
    #define MOST_AHEAD ((int64_t)1 << 60)
    """
    const int64_t MOST_AHEAD

cdef uint32_t pull_from_others(
    sched_t *s, uint32_t cpu, int64_t below, bint part_siblings) noexcept nogil
cdef uint32_t first_waiting(
    sched_t *s, uint32_t source, uint32_t cpu, bint part_siblings) noexcept nogil
cdef void settle(sched_t *s, uint32_t id, uint32_t cpu) noexcept nogil
cdef uint32_t idle_cpu_for(sched_t *s, uint32_t id) noexcept nogil
cdef uint32_t place_world(sched_t *s, uint32_t id, bint part_siblings) noexcept nogil
cdef bint is_idle(sched_t *s, uint32_t cpu) noexcept nogil
cdef int64_t find_least(sched_t *s) noexcept nogil
cdef int64_t least_time(sched_t *s) noexcept nogil
cdef void advance_host(sched_t *s) noexcept nogil
cdef void drop(sched_t *s, uint32_t id) noexcept nogil
cdef void shift_times(sched_t *s, int64_t by) noexcept nogil


cdef inline int64_t key_of(sched_t *s, uint32_t id) noexcept nogil:
    """Virtual time, of a laggard somewhat less."""
    cdef esx_world_t *w = world_of(s, id)
    return w.vt - (host_of(s).favour if w.laggard else 0)


cdef inline double rate_of(sched_t *s, uint32_t id) noexcept nogil:
    """How fast the virtual time of a running world grows: less beside busy threads of its core."""
    if host_of(s).by_use and s.paces != NULL:
        return world_of(s, id).rate * (s.topology.speed[s.paces[id].threads] * (1.0 / FULL_SPEED))
    return world_of(s, id).rate


cdef inline int64_t passed_after(sched_t *s, uint32_t id, ns_t dt) noexcept nogil:
    """Virtual time of a running world when it is charged for `dt` ns more."""
    cdef int64_t passed = world_of(s, id).vt + <int64_t>(dt * rate_of(s, id))
    cdef int64_t most = host_of(s).v + MOST_AHEAD
    return passed if passed < most else most


cdef inline int64_t runs_with(sched_t *s, uint32_t id) noexcept nogil:
    """Virtual time of a running world, with what it has used and was not charged for."""
    return world_of(s, id).vt + <int64_t>((s.now - s.worlds[id].since) * rate_of(s, id))


cdef inline bint may_run(const sched_t *s, uint32_t id, uint32_t cpu) noexcept nogil:
    """Whether a CPU is of a world's affinity, and of its home node."""
    return allowed(s, id, cpu) and at_home(s, id, cpu)


cdef inline uint32_t bin_for(const esx_cpu_t *c, uint32_t id) noexcept nogil:
    """An empty bin, if there is one.

    Numbers at equal distances, as worlds of one CPU often have, go to different bins.
    """
    cdef uint32_t bin = (id * <uint32_t>0x9E3779B1) >> (32 - BIN_BITS)
    if c.vacant and not c.vacant >> bin & 1:
        return lowest_bit(c.vacant)
    return bin


cdef inline void join_bin(esx_world_t *worlds, esx_cpu_t *c, uint32_t id, uint32_t root) noexcept nogil:
    """A world comes to a bin of which `root` is the first, or NOWHERE; the bin's number is set."""
    cdef esx_world_t *w = worlds + id
    w.child = w.next = w.prev = NOWHERE
    if root != NOWHERE:
        root = merge(worlds, root, id)
        worlds[root].next = worlds[root].prev = NOWHERE
        if root != id and c.who[BINS + w.bin] == root:
            return
        id = root
    pairs_set(c.key, c.who, BINS, w.bin, worlds[id].key, id)


cdef inline void put(sched_t *s, uint32_t id, uint32_t cpu) noexcept nogil:
    """Let a world wait for a CPU."""
    cdef esx_cpu_t *c = cpu_of(s, cpu)
    cdef esx_t *e = host_of(s)
    cdef esx_world_t *worlds = world_of(s, 0)
    cdef esx_world_t *w = worlds + id
    w.key = key_of(s, id)
    w.queue = cpu
    w.bin = <uint8_t>bin_for(c, id)
    c.vacant &= ~(<uint32_t>1 << w.bin)
    c.count += 1
    e.active += 1
    if w.key < e.least:
        e.least = w.key
    join_bin(worlds, c, id, c.who[BINS + w.bin])


cdef inline void take(sched_t *s, uint32_t id) noexcept nogil:
    """A world no longer waits."""
    cdef esx_world_t *worlds = world_of(s, 0)
    cdef esx_world_t *w = worlds + id
    cdef esx_cpu_t *c = cpu_of(s, w.queue)
    cdef uint32_t rest = merge_children(worlds, w.child), root
    cdef int64_t key
    w.queue = NOWHERE
    c.count -= 1
    host_of(s).active -= 1
    if c.who[BINS + w.bin] == id:
        if rest == NOWHERE:
            c.vacant |= <uint32_t>1 << w.bin
        key = INT64_MAX if rest == NOWHERE else worlds[rest].key
        pairs_set(c.key, c.who, BINS, w.bin, key, rest)
        return
    # cut it off where it hangs
    if worlds[w.prev].child == id:
        worlds[w.prev].child = w.next
    else:
        worlds[w.prev].next = w.next
    if w.next != NOWHERE:
        worlds[w.next].prev = w.prev
    if rest != NOWHERE:
        root = merge(worlds, c.who[BINS + w.bin], rest)     # the same: it was first before
        worlds[root].next = worlds[root].prev = NOWHERE


cdef inline bint goes_first(const esx_cpu_t *c, int64_t key, uint32_t id) noexcept nogil:
    """Whether a world comes before all that wait for a CPU."""
    return key < c.key[1] or (key == c.key[1] and id < c.who[1])


cdef inline bint may_pull(sched_t *s, int64_t best) noexcept nogil:
    """Whether one that waits elsewhere may be so far behind that a CPU pulls it."""
    cdef int64_t below = best - host_of(s).pull
    return host_of(s).least < below and find_least(s) < below


cdef inline void swap_first(
    esx_t *e, esx_world_t *worlds, esx_cpu_t *c, uint32_t cpu, uint32_t id, int64_t key
) noexcept nogil:
    """The first that waits for a CPU goes, and a world comes in its place.

    It comes to the same bin: one way through the tree.
    """
    cdef esx_world_t *first = worlds + c.who[1]
    cdef esx_world_t *w = worlds + id
    cdef uint32_t child = first.child
    w.key = key
    w.queue = cpu
    first.queue = NOWHERE
    if key < e.least:
        e.least = key
    w.bin = first.bin
    join_bin(worlds, c, id, merge_children(worlds, child))


cdef inline uint32_t exchange(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil:
    """A world waits for a CPU again, which takes the first that waits: that world.

    NOWHERE, and nothing is done, if the CPU may pull one that waits elsewhere.
    """
    cdef esx_cpu_t *c = cpu_of(s, cpu)
    cdef uint32_t first = c.who[1]
    cdef int64_t key = world_of(s, id).vt
    cdef bint stays = goes_first(c, key, id)
    if may_pull(s, key if stays else c.key[1]):
        return NOWHERE
    if stays:
        world_of(s, id).queue = NOWHERE
        return id
    swap_first(host_of(s), world_of(s, 0), c, cpu, id, key)
    return first
