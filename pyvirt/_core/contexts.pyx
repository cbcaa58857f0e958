"""Contexts: (VPID, PCID or global, EP4TA) as small integers, so that a tag is one word.

The three tags are those of SDM vol. 3, 30.4.1 (28.3.1 in older editions): linear mappings carry
VPID and PCID, guest-physical ones EP4TA, combined ones all three.
"""

from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset


cdef inline uint64_t hash_of(
    uint16_t vpid, uint16_t pcid, uint64_t ep4ta, uint16_t flags
) noexcept nogil:
    cdef uint64_t x = ep4ta >> 12 ^ <uint64_t>vpid << 40 ^ <uint64_t>pcid << 20 ^ flags
    x *= 0x9E3779B97F4A7C15ULL
    return x ^ x >> 32


cdef void enter(contexts_t *t, int32_t id) noexcept nogil:
    cdef const context_t *c = &t.items[id]
    cdef uint64_t i = hash_of(c.vpid, c.pcid, c.ep4ta, c.flags)
    while t.buckets[i & (2 * t.capacity - 1)] >= 0:
        i += 1
    t.buckets[i & (2 * t.capacity - 1)] = id


cdef bint rebuild(contexts_t *t, uint32_t capacity) noexcept nogil:
    """The buckets anew, for `capacity` items; false if the host has no memory."""
    cdef context_t *items = <context_t *>realloc(t.items, capacity * sizeof(context_t))
    cdef int32_t *buckets
    cdef uint32_t id
    if items == NULL:
        return False
    t.items = items
    buckets = <int32_t *>realloc(t.buckets, 2 * capacity * sizeof(int32_t))
    if buckets == NULL:
        return False
    t.buckets = buckets
    t.capacity = capacity
    memset(buckets, 0xFF, 2 * capacity * sizeof(int32_t))
    for id in range(t.count):
        if items[id].used:
            enter(t, id)
    return True


cdef int contexts_find(
    contexts_t *t, uint16_t vpid, uint16_t pcid, uint64_t ep4ta, uint16_t flags
) noexcept nogil:
    """The id of a context, a new one if need be; -1: all are taken; -2: no memory."""
    cdef uint64_t i
    cdef int32_t id
    cdef context_t *c
    if t.capacity == 0 and not rebuild(t, 64):
        return -2
    i = hash_of(vpid, pcid, ep4ta, flags)
    while True:
        id = t.buckets[i & (2 * t.capacity - 1)]
        if id < 0:
            break
        c = &t.items[id]
        if c.vpid == vpid and c.pcid == pcid and c.ep4ta == ep4ta and c.flags == flags:
            return id
        i += 1
    id = t.count
    if t.count == t.capacity:
        if t.live < t.count:
            while t.items[t.next_free].used:
                t.next_free += 1
            id = t.next_free
        elif t.capacity == MAX_CONTEXTS:
            return -1
        elif not rebuild(t, 2 * t.capacity):
            return -2
    t.count = max(t.count, <uint32_t>id + 1)
    t.live += 1
    c = &t.items[id]
    c.vpid, c.pcid, c.ep4ta, c.flags, c.used = vpid, pcid, ep4ta, flags, 1
    enter(t, id)
    return id


cdef void contexts_sweep(contexts_t *t, const unsigned char *in_use) noexcept nogil:
    """Give back the ids that are not marked."""
    cdef uint32_t id
    for id in range(t.count):
        if t.items[id].used and not in_use[id]:
            t.items[id].used = 0
            t.live -= 1
    t.next_free = 0
    rebuild(t, t.capacity)          # the same size: cannot fail


cdef bint contexts_restore(
    contexts_t *t, const context_t *items, uint32_t count
) noexcept nogil:
    """Make the table hold `items`, ids being their places; false if the host has no memory."""
    cdef contexts_t fresh
    cdef uint32_t id, capacity = 64
    memset(&fresh, 0, sizeof(contexts_t))
    while capacity < count:
        capacity *= 2
    if not rebuild(&fresh, capacity):
        contexts_free(&fresh)
        return False
    memcpy(fresh.items, items, count * sizeof(context_t))
    fresh.count = count
    for id in range(count):
        fresh.live += items[id].used
    rebuild(&fresh, capacity)       # the same size: cannot fail
    contexts_free(t)
    t[0] = fresh
    return True


cdef void contexts_free(contexts_t *t) noexcept nogil:
    free(t.items)
    free(t.buckets)
    memset(t, 0, sizeof(contexts_t))
