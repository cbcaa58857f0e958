# Set-associative arrays: what TLBs, paging-structure caches, nested TLBs and data caches are.

from libc.stdint cimport int8_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "cache.h" nogil:
    ctypedef struct cache_state_t:
        uint64_t random
        uint64_t valid
        uint64_t present[4]

    ctypedef struct link_t:
        uint32_t next
        uint32_t before

    ctypedef struct cache_t:
        uint64_t *tags
        uint64_t *values
        uint64_t *second
        uint64_t *bits
        uint8_t *orders
        int8_t *ranks
        link_t *links
        uint16_t *marks
        cache_state_t *state
        uint64_t entries
        uint32_t sets
        uint32_t ways
        uint32_t stride
        uint32_t mark_stride
        uint32_t set_mask
        uint8_t fold
        uint8_t policy

    uint32_t cache_set(const cache_t *c, uint64_t number)
    void cache_write(cache_t *c, uint32_t set, uint32_t way, uint64_t tag, uint64_t value)
    uint8_t is_full(const cache_t *c)
    int cache_find(const cache_t *c, uint32_t set, uint64_t key, uint64_t twin)
    void PYVIRT_PREFETCH(const void *p)

# A tag: bit 0 set (0 is an invalid entry), bits 2:1 the size of the page, 18:3 the context, the
# page's number above. Caches of physical addresses have no context: the number starts at bit 3.
cdef enum:
    TAG_SIZE_SHIFT = 1
    TAG_CONTEXT_SHIFT = 3
    TAG_CONTEXT_MASK = 0x7FFF8
    TAG_NUMBER_SHIFT = 19


cdef inline uint64_t cache_slot(const cache_t *c, uint32_t set, uint32_t way) noexcept nogil:
    return <uint64_t>set * c.stride + way


cdef object cache_describe(cache_t *c, object spec)
cdef uint64_t cache_place(cache_t *c, char *arena, uint64_t offset, bint second,
                          bint pages) noexcept nogil
cdef void cache_clear(cache_t *c, uint64_t seed) noexcept nogil
cdef void cache_drop(cache_t *c, uint64_t slot) noexcept nogil
cdef uint64_t cache_put_slowly(cache_t *c, uint32_t set, uint64_t tag, uint64_t value,
                               uint64_t *evicted) noexcept nogil
