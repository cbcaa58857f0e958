/* Walks with nothing out of the ordinary: tables whose frames memory owns, 4 KiB leaves, nothing
   to set, rights that suffice, split walk caches with LRU at every level. This is the walk of
   one dimension; that of two is in nestedwalk.h.

   What a walk does to the caches it does all at once at its end, so that one that turns out not
   to be short has changed nothing, and `pyvirt._core.walks` can start anew. */

#ifndef PYVIRT_SHORTWALK_H
#define PYVIRT_SHORTWALK_H

#include <string.h>

#include "cache.h"
#include "policies/lru.h"

#define PYVIRT_ADDRESS 0x000FFFFFFFFFF000ULL    /* of a value: the physical page */
#define PYVIRT_DIRTY 0x40ULL                    /* nothing to set for a write */
#define PYVIRT_NESTED_SHIFT 52                  /* what nested tables allow */

typedef struct {                /* what an access asks of a dimension's leaves */
    uint64_t leaf_mask;         /* a leaf is plain if leaf & leaf_mask == leaf_wanted */
    uint64_t leaf_wanted;
    uint64_t mask;              /* a value allows the access if value & mask == wanted */
    uint64_t wanted;
    uint64_t dirty;             /* what a value in the nested TLB must have beside */
} ask_t;

typedef struct {                /* one dimension, its rules as masks */
    cache_t *caches;            /* walk caches by level of the entries */
    uint64_t low;               /* bits 18:0 of their tags */
    uint64_t start;             /* root, with all rights */
    uint8_t ***root;            /* of the memory's directory */
    uint64_t limit;             /* end of memory */
    uint64_t table_mask[6];     /* an entry leads to a table if entry & mask == table_wanted */
    uint64_t table_wanted;
    uint64_t table_address;
    uint64_t leaf_address;
    uint64_t kept;              /* rights and attributes of a leaf that a value has */
    uint64_t added;             /* bits of every value */
    uint64_t rights_and;        /* bits that count only if set in every entry */
    uint64_t rights_or;         /* bits that count if set in any */
    uint64_t *cache_hits;       /* counters, by level */
    uint64_t *level_refs;
    uint8_t levels;
    uint8_t fours;              /* of every walk cache is known: ANY, FOURS, SETTLED */
} shortwalk_t;

/* The lowest invalid way of a set, which will be filled; `ways` if there is none. */
PYVIRT_COLD uint32_t invalid_way(cache_state_t *state, const uint64_t *tags, uint32_t ways)
{
    uint32_t way = 0;
    while (way < ways && tags[way])
        way++;
    if (way < ways) {
        state->valid++;
        state->present[0]++;
    }
    return way;
}

/* A table's frame in the host, or NULL where it is not owned. Once owned it never moves. */
PYVIRT_INLINE const uint8_t *frame_at(const shortwalk_t *h, uint64_t pa)
{
    uint8_t **node;
    if (pa >= h->limit || !(node = h->root[pa >> 32]))
        return NULL;
    return node[pa >> 12 & 0xFFFFF];
}

/* How the walk caches are known to be when this is compiled: all of four ways with their order; and
   those of levels 2 to 4 without a hash, those of 2 and 3 full. */
enum { ANY, FOURS, SETTLED };

PYVIRT_INLINE uint32_t region_set(const cache_t *c, uint64_t number, int fours)
{
    if (fours == SETTLED)
        return (uint32_t)number & c->set_mask;
    return (uint32_t)((number ^ number >> c->fold) & c->set_mask);
}

/* Into a walk cache, as the entry for a new region. The second word: of a guest's tables in two
   dimensions, the guest-physical address of the next one; else where that lies in this process, 0
   if it is not known. */
#define PYVIRT_REGION_FILL(FORM, TARGET)                                                          \
TARGET PYVIRT_INLINE void region_fill_##FORM(cache_t *c, uint64_t number, uint64_t tag,           \
                                             uint64_t value,                                      \
                               uint64_t second, int fours)                                        \
{                                                                                                 \
    const uint32_t set = region_set(c, number, fours);                                            \
    const uint64_t slot = (uint64_t)set * (fours ? 4 : c->stride);                                \
    const uint32_t ways = fours ? 4 : c->ways;                                                    \
    uint32_t way = ways;                                                                          \
    if (fours != SETTLED && !PYVIRT_LIKELY(is_full(c)))                                           \
        way = invalid_way(c->state, c->tags + slot, ways);                                        \
    if (!PYVIRT_LIKELY(way == ways))                                                              \
        lru_touch(c, set, way);                                                                   \
    else                                                                                          \
        way = fours ? four_turn(&c->orders[set]) : lru_turn(c, set);                              \
    if (fours)                                                                                    \
        write4_##FORM(c->tags + slot, way, tag);                                                  \
    else                                                                                          \
        c->tags[slot + way] = tag;                                                                \
    c->values[slot + way] = value;                                                                \
    c->second[slot + way] = second;                                                               \
}

/* The value of a page by the walk caches and the tables, all levels of which have an array; 0,
   with nothing changed, if that is not all there is to it. `*refs` grows by the entries read.
   The lowest level whose entry is cached is `known`; above them all it is one more than there
   are, and `way` is -1. Where `known` is a constant, the loops over levels fold. */
#define PYVIRT_SHORT_WALK(FORM, TARGET)                                                           \
PYVIRT_REGION_FILL(FORM, TARGET)                                                                  \
TARGET PYVIRT_INLINE uint64_t shortwalk_from_##FORM(shortwalk_t *h, uint64_t va, const ask_t *ask,\
                                          unsigned *refs, const int known, const uint32_t set,    \
                                          const int way, const int fours)                         \
{                                                                                                 \
    cache_t *const hit = &h->caches[known];                                                       \
    uint64_t next[6], value = h->start, leaf;                                                     \
    const uint8_t *frames[6], *frame = NULL;                                                      \
    int level;                                                                                    \
    if (way >= 0) {                                                                               \
        const uint64_t slot = (uint64_t)set * (fours ? 4 : hit->stride) + way;                    \
        value = hit->values[slot];                                                                \
        frame = (const uint8_t *)(uintptr_t)hit->second[slot];                                    \
        if (!PYVIRT_LIKELY(frame != NULL)) {                                                      \
            frame = frame_at(h, value & PYVIRT_ADDRESS);                                          \
            hit->second[slot] = (uint64_t)(uintptr_t)frame;                                       \
        }                                                                                         \
    } else                                                                                        \
        frame = frame_at(h, value & PYVIRT_ADDRESS);                                              \
    PYVIRT_UNROLL                                                                                 \
    for (level = known - 1; level > 1; level--) {                                                 \
        uint64_t entry;                                                                           \
        if (!frame)                                                                               \
            return 0;                                                                             \
        memcpy(&entry, frame + (va >> (9 * level) & 0xFF8), 8);                                   \
        if ((entry & h->table_mask[level]) != h->table_wanted)                                    \
            return 0;                                                                             \
        value = (entry & h->table_address) | (value & entry & h->rights_and)                      \
                | ((value | entry) & h->rights_or);                                               \
        frame = frame_at(h, value & PYVIRT_ADDRESS);                                              \
        next[level] = value;                                                                      \
        frames[level] = frame;                                                                    \
    }                                                                                             \
    if (!frame)                                                                                   \
        return 0;                                                                                 \
    memcpy(&leaf, frame + (va >> 9 & 0xFF8), 8);                                                  \
    if ((leaf & ask->leaf_mask) != ask->leaf_wanted)                                              \
        return 0;                                                                                 \
    leaf = (leaf & (value | ~h->rights_and) & h->kept) | (value & h->rights_or)                   \
           | (leaf & h->leaf_address) | h->added;                                                 \
    if ((leaf & ask->mask) != ask->wanted)                                                        \
        return 0;                                                                                 \
    if (way >= 0) {                                                                               \
        if (fours)                                                                                \
            four_touch(&hit->orders[set], (uint32_t)way);                                         \
        else                                                                                      \
            lru_touch(hit, set, (uint32_t)way);                                                   \
        PYVIRT_COUNT(h->cache_hits[known]);                                                       \
    }                                                                                             \
    PYVIRT_UNROLL                                                                                 \
    for (level = known - 1; level > 1; level--) {                                                 \
        const uint64_t number = va >> (9 * level + 3);                                            \
        region_fill_##FORM(&h->caches[level], number, number << 19 | h->low, next[level],         \
                    (uint64_t)(uintptr_t)frames[level], fours);                                   \
        PYVIRT_COUNT(h->level_refs[level]);                                                       \
    }                                                                                             \
    PYVIRT_COUNT(h->level_refs[1]);                                                               \
    *refs += (unsigned)known - 1;                                                                 \
    return leaf;                                                                                  \
}                                                                                                 \
TARGET PYVIRT_INLINE int shortwalk_probe_##FORM(const shortwalk_t *h, uint64_t va, int level,     \
                                      uint32_t *set, const int fours)                             \
{                                                                                                 \
    const cache_t *const c = &h->caches[level];                                                   \
    const uint64_t number = va >> (9 * level + 3), key = number << 19 | h->low;                   \
    *set = region_set(c, number, fours);                                                          \
    return fours ? find4_##FORM(c->tags + (uint64_t)*set * 4, key)                                \
                 : find_##FORM(c->tags + (uint64_t)*set * c->stride, c->stride, key, key);        \
}                                                                                                 \
TARGET PYVIRT_NOINLINE uint64_t shortwalk_high_##FORM(shortwalk_t *h, uint64_t va,                \
                                                      const ask_t *ask,                           \
                                            unsigned *refs)                                       \
{                                                                                                 \
    uint32_t set = 0;                                                                             \
    int known = 5, way = -1;                                                                      \
    while (known <= h->levels && (way = shortwalk_probe_##FORM(h, va, known, &set, 0)) < 0)       \
        known++;                                                                                  \
    return shortwalk_from_##FORM(h, va, ask, refs, known, set, way, 0);                           \
}                                                                                                 \
TARGET PYVIRT_INLINE uint64_t shortwalk_in_##FORM(shortwalk_t *h, uint64_t va, const ask_t *ask,  \
                                        unsigned *refs, const int fours)                          \
{                                                                                                 \
    uint32_t set;                                                                                 \
    int way = shortwalk_probe_##FORM(h, va, 2, &set, fours);                                      \
    if (way >= 0)                                                                                 \
        return shortwalk_from_##FORM(h, va, ask, refs, 2, set, way, fours);                       \
    way = shortwalk_probe_##FORM(h, va, 3, &set, fours);                                          \
    if (way >= 0)                                                                                 \
        return shortwalk_from_##FORM(h, va, ask, refs, 3, set, way, fours);                       \
    way = shortwalk_probe_##FORM(h, va, 4, &set, fours);                                          \
    if (way >= 0)                                                                                 \
        return shortwalk_from_##FORM(h, va, ask, refs, 4, set, way, fours);                       \
    return shortwalk_high_##FORM(h, va, ask, refs);                                               \
}                                                                                                 \
TARGET PYVIRT_NOINLINE uint64_t shortwalk_##FORM(shortwalk_t *h, uint64_t va, const ask_t *ask,   \
                                     unsigned *refs)                                              \
{                                                                                                 \
    return h->fours == SETTLED ? shortwalk_in_##FORM(h, va, ask, refs, SETTLED)                   \
           : h->fours ? shortwalk_in_##FORM(h, va, ask, refs, FOURS)                              \
                      : shortwalk_in_##FORM(h, va, ask, refs, ANY);                               \
}

PYVIRT_SHORT_WALK(plain, )
#if PYVIRT_X86
PYVIRT_SHORT_WALK(avx2, PYVIRT_AVX2)
#endif

/* Whether they are settled now; while there are only walks, they stay so. */
PYVIRT_INLINE void shortwalk_settle(shortwalk_t *h)
{
    if (h->fours != ANY)
        h->fours = h->levels > 3 && h->caches[4].fold == 63
                   && h->caches[3].fold == 63 && is_full(&h->caches[3])
                   && h->caches[2].fold == 63 && is_full(&h->caches[2]) ? SETTLED : FOURS;
}

/* For code that is compiled once only. */
PYVIRT_INLINE uint64_t shortwalk(shortwalk_t *h, uint64_t address, const ask_t *ask, unsigned *refs)
{
#if PYVIRT_X86
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2"))
        return shortwalk_avx2(h, address, ask, refs);
#endif
    return shortwalk_plain(h, address, ask, refs);
}

#endif
