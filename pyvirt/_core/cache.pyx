"""Set-associative arrays: their memory, filling and dropping entries.

Every array of a simulated machine lives in one arena, so that a snapshot is one copy.
"""

from libc.stdint cimport int8_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from pyvirt._core.policies cimport (
    POLICY_BIT_PLRU,
    POLICY_FIFO,
    POLICY_LRU,
    POLICY_RANDOM,
    POLICY_TREE_PLRU,
    filled,
    victim,
)

cdef enum:
    RANKED = 16                     # ways that have ranks at most
    MARKED = 16                     # and that are found without marks

POLICIES = {"lru": POLICY_LRU, "tree-plru": POLICY_TREE_PLRU, "bit-plru": POLICY_BIT_PLRU,
            "fifo": POLICY_FIFO, "random": POLICY_RANDOM}


cdef object cache_describe(cache_t *c, object spec):
    """Fill in the geometry from a checked `pyvirt.mmu.geometry.Cache`."""
    cdef str hash_name = spec.hash
    memset(c, 0, sizeof(cache_t))
    c.ways = spec.ways
    c.sets = spec.entries // spec.ways
    c.stride = (c.ways + 3) & ~3
    c.entries = spec.entries
    c.policy = POLICIES[spec.policy]
    c.fold = 63 if hash_name == "linear" else int(hash_name.removeprefix("xor-"))
    if c.sets & (c.sets - 1) == 0:
        c.set_mask = c.sets - 1


cdef void *take(char *arena, uint64_t *offset, uint64_t size) noexcept nogil:
    """The next piece of the arena, on a cache line of the host; NULL while it is only measured."""
    cdef void *place = NULL if arena == NULL else arena + offset[0]
    offset[0] += (size + 63) & ~<uint64_t>63
    return place


cdef uint64_t cache_place(
    cache_t *c, char *arena, uint64_t offset, bint second, bint pages
) noexcept nogil:
    """Lay the arrays out from `offset` on; returns where they end. `pages`: tags are of pages."""
    cdef uint64_t slots = <uint64_t>c.sets * c.stride
    c.state = <cache_state_t *>take(arena, &offset, sizeof(cache_state_t))
    c.tags = <uint64_t *>take(arena, &offset, slots * 8)
    c.values = <uint64_t *>take(arena, &offset, slots * 8)
    if second:
        c.second = <uint64_t *>take(arena, &offset, slots * 8)
    if pages and c.ways > MARKED:
        c.mark_stride = (c.ways + 63) & ~63
        c.marks = <uint16_t *>take(arena, &offset, <uint64_t>c.sets * c.mark_stride * 2)
    if c.policy == POLICY_TREE_PLRU or c.policy == POLICY_BIT_PLRU:
        c.bits = <uint64_t *>take(arena, &offset, <uint64_t>c.sets * 8)
    elif c.policy == POLICY_LRU and c.ways == 4:
        c.orders = <uint8_t *>take(arena, &offset, c.sets)
    elif c.policy == POLICY_LRU and 4 < c.ways <= RANKED:
        c.ranks = <int8_t *>take(arena, &offset, <uint64_t>c.sets * RANKED)
    elif c.policy != POLICY_RANDOM:
        c.links = <link_t *>take(arena, &offset,
                                 <uint64_t>c.sets * (c.ways + 1) * sizeof(link_t))
    return offset


cdef void cache_clear(cache_t *c, uint64_t seed) noexcept nogil:
    """Empty, as after power-on; the arena is zero already."""
    cdef uint64_t set
    cdef uint32_t way
    cdef link_t *list
    c.state.random = seed | 1       # xorshift's state is never 0
    for set in range(c.sets):
        if c.ranks != NULL:
            for way in range(RANKED):
                c.ranks[set * RANKED + way] = <int8_t>(way if way < c.ways else 127)
        elif c.links != NULL:
            list = c.links + set * (c.ways + 1)
            for way in range(c.ways + 1):
                list[way].next = way + 1 if way < c.ways else 0
                list[way].before = way - 1 if way > 0 else c.ways


cdef void cache_drop(cache_t *c, uint64_t slot) noexcept nogil:
    """Make one entry invalid. The policy's state stays."""
    c.state.valid -= 1
    c.state.present[c.tags[slot] >> 1 & 3] -= 1
    c.tags[slot] = 0


cdef uint64_t cache_put_slowly(
    cache_t *c, uint32_t set, uint64_t tag, uint64_t value, uint64_t *evicted
) noexcept nogil:
    """`put` for any policy."""
    cdef uint64_t first = <uint64_t>set * c.stride, slot
    cdef uint32_t way = c.ways
    if not is_full(c):
        way = 0
        while way < c.ways and c.tags[first + way]:
            way += 1
    if way == c.ways:
        way = victim(c, set)
    slot = first + way
    evicted[0] = c.tags[slot]
    if evicted[0]:
        c.state.present[evicted[0] >> 1 & 3] -= 1
    else:
        c.state.valid += 1
    c.state.present[tag >> 1 & 3] += 1
    cache_write(c, set, way, tag, value)
    filled(c, set, way)
    return slot
