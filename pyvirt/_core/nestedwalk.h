/* Short walks of two dimensions: through a guest's tables, with the nested TLB and short walks
   of the host's tables for what lies between.

   The host's caches change on the way, so such a walk cannot be taken back. Where it cannot go
   on it leaves the place in a `rest_t`, and `pyvirt._core.walks` does. */

#ifndef PYVIRT_NESTEDWALK_H
#define PYVIRT_NESTEDWALK_H

#include "shortwalk.h"

typedef struct {                /* where a walk of the guest's tables stands */
    uint64_t next[6];           /* for levels above `level`: the next table in the host | rights */
    uint64_t second[6];         /* and its guest-physical address */
    uint64_t rights;            /* so far */
    uint64_t base;              /* guest-physical address of the table at `level` */
    uint64_t direct;            /* host-physical, if `known` */
    unsigned refs;              /* entries read so far */
    int8_t first;               /* level of the first table; 0: there is no such walk */
    int8_t level;
    int8_t known;
} rest_t;

typedef struct {                /* two dimensions */
    shortwalk_t guest;          /* its caches lead to tables in the host */
    shortwalk_t host;
    ask_t access;               /* of the guest's leaf */
    ask_t table;                /* of the host's, by reading a table of the guest */
    ask_t page;                 /* and by the access */
    cache_t *tlb;               /* nested TLB, or NULL */
    uint64_t beyond;            /* bits that a guest-physical address does not have */
    uint64_t dirty;             /* bits of the host's value without which the page is clean */
    uint64_t host_nx;           /* NPT: NX, if in force */
    uint64_t *tlb_hits;         /* counters */
    uint64_t *host_walks;
    rest_t *rest;
    uint8_t ept;
} nested_t;

/* The value of a guest's page, or 0 with what was done so far in `*t->rest`. */
#define PYVIRT_NESTED_WALK(FORM, TARGET)                                                          \
TARGET PYVIRT_INLINE uint64_t nestedwalk_host_##FORM(nested_t *t, uint64_t gpa, const ask_t *ask, \
                                            unsigned *refs)                                       \
{                                                                                                 \
    cache_t *const c = t->tlb;                                                                    \
    const uint64_t key = gpa >> 12 << 19 | t->host.low;                                           \
    uint64_t value, evicted;                                                                      \
    uint32_t set = 0;                                                                             \
    if (!PYVIRT_LIKELY(!(gpa & t->beyond)))                                                       \
        return 0;                                                                                 \
    if (c) {                                                                                      \
        const uint64_t number = gpa >> 12;                                                        \
        set = (uint32_t)((number ^ number >> c->fold) & c->set_mask);                             \
        const int way = find_in_##FORM(c, set, key, key);                                         \
        if (way >= 0) {                                                                           \
            value = c->values[(uint64_t)set * c->stride + (uint32_t)way];                         \
            if ((value & (ask->mask | ask->dirty)) != (ask->wanted | ask->dirty))                 \
                return 0;                                                                         \
            lru_touch(c, set, (uint32_t)way);                                                     \
            ++*t->tlb_hits;                                                                       \
            return value;                                                                         \
        }                                                                                         \
    }                                                                                             \
    value = t->host.fours ? shortwalk_in_##FORM(&t->host, gpa, ask, refs, 1)                      \
                          : shortwalk_in_##FORM(&t->host, gpa, ask, refs, 0);                     \
    if (!value)                                                                                   \
        return 0;                                                                                 \
    ++*t->host_walks;                                                                             \
    if (c)                                                                                        \
        lru_put(c, set, key, value, &evicted);                                                    \
    return value;                                                                                 \
}                                                                                                 \
TARGET PYVIRT_INLINE uint64_t nestedwalk_in_##FORM(nested_t *t, uint64_t va, unsigned *refs,      \
                                                   const int fours)                               \
{                                                                                                 \
    shortwalk_t *const g = &t->guest;                                                             \
    rest_t *const r = t->rest;                                                                    \
    const ask_t *ask = &t->table;                                                                 \
    uint64_t rights = g->start & ~PYVIRT_ADDRESS, gpa = g->start & PYVIRT_ADDRESS;                \
    uint64_t base = 0, direct = 0, host, entry, value = 0, allowed;                               \
    const uint8_t *frame;                                                                         \
    uint32_t set;                                                                                 \
    int level, first, way = -1, known = 0;                                                        \
    if (t->tlb && (t->tlb->state->present[1] | t->tlb->state->present[2]))                        \
        return 0;                       /* entries of other sizes */                              \
    for (level = 2; level <= g->levels; level++) {                                                \
        way = shortwalk_probe_##FORM(g, va, level, &set, fours);                                  \
        if (way >= 0)                                                                             \
            break;                                                                                \
    }                                                                                             \
    if (way >= 0) {                                                                               \
        cache_t *const hit = &g->caches[level];                                                   \
        const uint64_t slot = (uint64_t)set * (fours ? 4 : hit->stride) + (uint32_t)way;          \
        rights = hit->values[slot] & ~PYVIRT_ADDRESS;                                             \
        direct = hit->values[slot] & PYVIRT_ADDRESS;                                              \
        base = hit->second[slot];                                                                 \
        if (fours)                                                                                \
            four_touch(&hit->orders[set], (uint32_t)way);                                         \
        else                                                                                      \
            lru_touch(hit, set, (uint32_t)way);                                                   \
        g->cache_hits[level]++;                                                                   \
        known = 1;                                                                                \
    }                                                                                             \
    first = --level;                                                                              \
    for (;;) {                                                                                    \
        if (!known) {                                                                             \
            host = nestedwalk_host_##FORM(t, gpa, ask, refs);                                     \
            if (!host || level == 0)                                                              \
                break;                                                                            \
            base = gpa;                                                                           \
            direct = host & PYVIRT_ADDRESS;                                                       \
            if (level < first) {                                                                  \
                r->next[level + 1] = rights | direct;                                             \
                r->second[level + 1] = base;                                                      \
            }                                                                                     \
        }                                                                                         \
        known = 1;                                                                                \
        host = 0;                                                                                 \
        frame = frame_at(g, direct);                                                              \
        if (!frame)                                                                               \
            break;                                                                                \
        memcpy(&entry, frame + (va >> (9 * level) & 0xFF8), 8);                                   \
        if (level == 1) {                                                                         \
            value = (entry & (rights | ~g->rights_and) & g->kept) | (rights & g->rights_or)       \
                    | g->added;                                                                   \
            if ((entry & t->access.leaf_mask) != t->access.leaf_wanted                            \
                || (value & t->access.mask) != t->access.wanted)                                  \
                break;                                                                            \
            gpa = entry & g->leaf_address;                                                        \
            ask = &t->page;                                                                       \
        } else {                                                                                  \
            if ((entry & g->table_mask[level]) != g->table_wanted)                                \
                break;                                                                            \
            ++*refs;                                                                              \
            g->level_refs[level]++;                                                               \
            rights = (rights & entry & g->rights_and) | ((rights | entry) & g->rights_or);        \
            gpa = entry & g->table_address;                                                       \
        }                                                                                         \
        known = 0;                                                                                \
        level--;                                                                                  \
    }                                                                                             \
    if (!host) {                                                                                  \
        if (!known && level && level < first) {         /* the table itself is not known yet */   \
            r->next[level + 1] = rights;                                                          \
            r->second[level + 1] = gpa;                                                           \
        }                                                                                         \
        r->rights = rights;                                                                       \
        r->base = known || !level ? base : gpa;                                                   \
        r->direct = direct;                                                                       \
        r->refs = *refs;                                                                          \
        r->first = (int8_t)first;                                                                 \
        r->level = (int8_t)(level ? level : 1);                                                   \
        r->known = (int8_t)(known || !level);                                                     \
        return 0;                                                                                 \
    }                                                                                             \
    ++*refs;                                                                                      \
    g->level_refs[1]++;                                                                           \
    for (level = first; level > 1; level--) {                                                     \
        const uint64_t number = va >> (9 * level + 3);                                            \
        region_fill_##FORM(&g->caches[level], number, number << 19 | g->low, r->next[level],      \
                    r->second[level], fours);                                                     \
    }                                                                                             \
    allowed = t->ept ? host & 7                                                                   \
                     : (host & 4) >> 2 | (host & 2) | (host & t->host_nx ? 0 : 4);                \
    return ((host & t->dirty) == t->dirty ? value : value & ~(uint64_t)PYVIRT_DIRTY)              \
           | (host & PYVIRT_ADDRESS) | allowed << PYVIRT_NESTED_SHIFT;                            \
}                                                                                                 \
TARGET PYVIRT_NOINLINE uint64_t nestedwalk_##FORM(nested_t *t, uint64_t va, unsigned *refs)       \
{                                                                                                 \
    return t->guest.fours ? nestedwalk_in_##FORM(t, va, refs, 1)                                  \
            : nestedwalk_in_##FORM(t, va, refs, 0);                                               \
}

PYVIRT_NESTED_WALK(plain, )
#if PYVIRT_X86
PYVIRT_NESTED_WALK(avx2, PYVIRT_AVX2)
#endif

#endif
