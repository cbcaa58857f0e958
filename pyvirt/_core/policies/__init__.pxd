# Replacement policies of the set-associative arrays, one file each, and the choice between them.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.cache cimport cache_put_slowly, cache_t
from pyvirt._core.policies.bit_plru cimport bit_touch, bit_victim
from pyvirt._core.policies.fifo cimport fifo_filled, fifo_victim
from pyvirt._core.policies.lru cimport lru_put, lru_touch, lru_victim
from pyvirt._core.policies.random cimport random_victim
from pyvirt._core.policies.tree_plru cimport tree_touch, tree_victim

cdef enum policy_t:
    POLICY_LRU = 0
    POLICY_TREE_PLRU = 1
    POLICY_BIT_PLRU = 2
    POLICY_FIFO = 3
    POLICY_RANDOM = 4


cdef inline void touch(cache_t *c, uint32_t set, uint32_t way) noexcept nogil:
    """A hit."""
    if c.policy == POLICY_LRU:
        lru_touch(c, set, way)
    elif c.policy == POLICY_TREE_PLRU:
        tree_touch(c, set, way)
    elif c.policy == POLICY_BIT_PLRU:
        bit_touch(c, set, way)


cdef inline void filled(cache_t *c, uint32_t set, uint32_t way) noexcept nogil:
    """A new entry."""
    if c.policy == POLICY_FIFO:
        fifo_filled(c, set, way)
    else:
        touch(c, set, way)


cdef inline uint32_t victim(cache_t *c, uint32_t set) noexcept nogil:
    """Which way of a full set to evict from."""
    if c.policy == POLICY_LRU:
        return lru_victim(c, set)
    if c.policy == POLICY_TREE_PLRU:
        return tree_victim(c, set)
    if c.policy == POLICY_BIT_PLRU:
        return bit_victim(c, set)
    if c.policy == POLICY_FIFO:
        return fifo_victim(c, set)
    return random_victim(c)


cdef inline uint64_t put(
    cache_t *c, uint32_t set, uint64_t tag, uint64_t value, uint64_t *evicted
) noexcept nogil:
    """A new entry in the lowest invalid way, or the policy's victim's; returns its slot.

    `evicted` receives the tag that made room, or 0.
    """
    if c.policy == POLICY_LRU:
        return lru_put(c, set, tag, value, evicted)
    return cache_put_slowly(c, set, tag, value, evicted)
