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

/* What an entry that leads to a table makes of the value that led to it, in the host; */
PYVIRT_INLINE uint64_t host_down(const shortwalk_t *h, uint64_t value, uint64_t entry)
{
    return (entry & h->table_address) | (value & entry & h->rights_and)
           | ((value | entry) & h->rights_or);
}

/* and of the rights, in the guest. */
PYVIRT_INLINE uint64_t guest_down(const shortwalk_t *g, uint64_t rights, uint64_t entry)
{
    return (rights & entry & g->rights_and) | ((rights | entry) & g->rights_or);
}

/* The value of a page by the host's leaf; `*wrong` is not 0 if it is not plain or does not allow
   what is asked, be it in the nested TLB or not. */
PYVIRT_INLINE uint64_t host_leaf(const shortwalk_t *h, uint64_t value, uint64_t leaf,
                                 const ask_t *ask, uint64_t *wrong)
{
    const uint64_t page = (leaf & (value | ~h->rights_and) & h->kept) | (value & h->rights_or)
                          | (leaf & h->leaf_address) | h->added;
    *wrong |= ((leaf & ask->leaf_mask) ^ ask->leaf_wanted)
              | ((page & (ask->mask | ask->dirty)) ^ (ask->wanted | ask->dirty)) | !page;
    return page;
}

/* Leave what was done before the table at `level`, which is not walked. `known`: it was translated. */
PYVIRT_COLD uint64_t nestedwalk_leave(const nested_t *t, uint64_t rights, uint64_t base,
                                      uint64_t direct, unsigned refs, int first, int level, int known)
{
    rest_t *const r = t->rest;
    if (!known && level < first) {
        r->next[level + 1] = rights;
        r->second[level + 1] = base;
    }
    r->rights = rights;
    r->base = base;
    r->direct = direct;
    r->refs = refs;
    r->first = (int8_t)first;
    r->level = (int8_t)level;
    r->known = (int8_t)known;
    return 0;
}

/* A guest-physical address through the nested TLB or the host's tables: the host's value, or 0.
   All entries of the nested TLB are 4 KiB pages.

   The value of a guest's page by its tables, or 0 with what was done so far in `*t->rest`; of the
   entries that are cached, the one at level `known` is used, at `way` of its set. One level more
   than there are and -1: none. */
#define PYVIRT_NESTED_WALK(FORM, TARGET)                                                          \
TARGET PYVIRT_INLINE uint64_t nestedwalk_page_##FORM(nested_t *t, uint64_t gpa, const ask_t *ask, \
                                                     unsigned *refs, const int fours)             \
{                                                                                                 \
    cache_t *const c = t->tlb;                                                                    \
    const uint64_t number = gpa >> 12, key = number << 19 | t->host.low;                          \
    uint64_t value;                                                                               \
    uint32_t set = 0;                                                                             \
    if (!PYVIRT_LIKELY(!(gpa & t->beyond)))                                                       \
        return 0;                                                                                 \
    if (fours == SETTLED || c) {                                                                  \
        int way;                                                                                  \
        set = region_set(c, number, fours);                                                       \
        way = fours == SETTLED ? find_group_##FORM(c, set, key)                                   \
                               : find_in_##FORM(c, set, key, key);                                \
        if (way >= 0) {                                                                           \
            value = c->values[(uint64_t)set * c->stride + (uint32_t)way];                         \
            if ((value & (ask->mask | ask->dirty)) != (ask->wanted | ask->dirty))                 \
                return 0;                                                                         \
            if (fours == SETTLED)                                                                 \
                list_touch(list_of(c, set), c->ways, (uint32_t)way);                              \
            else                                                                                  \
                lru_touch(c, set, (uint32_t)way);                                                 \
            ++*t->tlb_hits;                                                                       \
            return value;                                                                         \
        }                                                                                         \
    }                                                                                             \
    value = shortwalk_in_##FORM(&t->host, gpa, ask, refs, fours);                                 \
    if (!value)                                                                                   \
        return 0;                                                                                 \
    ++*t->host_walks;                                                                             \
    if (fours == SETTLED) {                                                                       \
        const uint32_t way = list_turn(list_of(c, set), c->ways);                                 \
        c->tags[(uint64_t)set * c->stride + way] = key;                                           \
        c->values[(uint64_t)set * c->stride + way] = value;                                       \
        mark_##FORM(c->marks + (uint64_t)set * 64, way, key);                                     \
    } else if (c) {                                                                               \
        const uint64_t slot = (uint64_t)set * c->stride;                                          \
        uint32_t way = c->ways;                                                                   \
        if (!PYVIRT_LIKELY(is_full(c)))                                                           \
            way = invalid_way(c->state, c->tags + slot, c->ways);                                 \
        if (PYVIRT_LIKELY(way == c->ways))                                                        \
            way = lru_turn(c, set);                                                               \
        else                                                                                      \
            lru_touch(c, set, way);                                                               \
        c->tags[slot + way] = key;                                                                \
        c->values[slot + way] = value;                                                            \
        if (c->marks)                                                                             \
            mark_##FORM(c->marks + (uint64_t)set * c->mark_stride, way, key);                     \
    }                                                                                             \
    return value;                                                                                 \
}                                                                                                 \
TARGET PYVIRT_NOINLINE uint64_t nestedwalk_settled_##FORM(nested_t *t, uint64_t gpa,              \
                                                          const ask_t *ask, unsigned *refs)       \
{                                                                                                 \
    return nestedwalk_page_##FORM(t, gpa, ask, refs, SETTLED);                                    \
}                                                                                                 \
TARGET PYVIRT_NOINLINE uint64_t nestedwalk_any_##FORM(nested_t *t, uint64_t gpa,                  \
                                                      const ask_t *ask, unsigned *refs)           \
{                                                                                                 \
    return t->host.fours ? nestedwalk_page_##FORM(t, gpa, ask, refs, FOURS)                       \
                         : nestedwalk_page_##FORM(t, gpa, ask, refs, ANY);                        \
}                                                                                                 \
TARGET PYVIRT_INLINE uint64_t nestedwalk_host_##FORM(nested_t *t, uint64_t gpa, const ask_t *ask, \
                                                     unsigned *refs, const int fours)             \
{                                                                                                 \
    return fours == SETTLED ? nestedwalk_settled_##FORM(t, gpa, ask, refs)                        \
                            : nestedwalk_any_##FORM(t, gpa, ask, refs);                           \
}                                                                                                 \
TARGET PYVIRT_INLINE uint64_t nestedwalk_from_##FORM(nested_t *t, uint64_t va, unsigned *refs,    \
                                                     const int known, const uint32_t cached_set,  \
                                                     const int way, const int fours)              \
{                                                                                                 \
    shortwalk_t *const g = &t->guest;                                                             \
    rest_t *const r = t->rest;                                                                    \
    const int first = known - 1;                                                                  \
    uint64_t rights, base, direct, host, entry, value, allowed;                                   \
    const uint8_t *frame;                                                                         \
    int level;                                                                                    \
    if (way >= 0) {                                                                               \
        cache_t *const hit = &g->caches[known];                                                   \
        const uint64_t slot = (uint64_t)cached_set * (fours ? 4 : hit->stride) + (uint32_t)way;   \
        rights = hit->values[slot] & ~PYVIRT_ADDRESS;                                             \
        direct = hit->values[slot] & PYVIRT_ADDRESS;                                              \
        base = hit->second[slot];                                                                 \
        if (fours)                                                                                \
            four_touch(&hit->orders[cached_set], (uint32_t)way);                                  \
        else                                                                                      \
            lru_touch(hit, cached_set, (uint32_t)way);                                            \
        PYVIRT_COUNT(g->cache_hits[known]);                                                       \
    } else {                                                                                      \
        rights = g->start & ~PYVIRT_ADDRESS;                                                      \
        base = g->start & PYVIRT_ADDRESS;                                                         \
        host = nestedwalk_host_##FORM(t, base, &t->table, refs, fours);                           \
        if (!host)                                                                                \
            return nestedwalk_leave(t, rights, base, 0, *refs, first, first, 0);                  \
        direct = host & PYVIRT_ADDRESS;                                                           \
    }                                                                                             \
    PYVIRT_UNROLL                                                                                 \
    for (level = first; level > 1; level--) {                                                     \
        frame = frame_at(g, direct);                                                              \
        if (!frame)                                                                               \
            return nestedwalk_leave(t, rights, base, direct, *refs, first, level, 1);             \
        memcpy(&entry, frame + (va >> (9 * level) & 0xFF8), 8);                                   \
        if ((entry & g->table_mask[level]) != g->table_wanted)                                    \
            return nestedwalk_leave(t, rights, base, direct, *refs, first, level, 1);             \
        ++*refs;                                                                                  \
        PYVIRT_COUNT(g->level_refs[level]);                                                       \
        rights = (rights & entry & g->rights_and) | ((rights | entry) & g->rights_or);            \
        base = entry & g->table_address;                                                          \
        host = nestedwalk_host_##FORM(t, base, &t->table, refs, fours);                           \
        if (!host)                                                                                \
            return nestedwalk_leave(t, rights, base, direct, *refs, first, level - 1, 0);         \
        direct = host & PYVIRT_ADDRESS;                                                           \
        r->next[level] = rights | direct;                                                         \
        r->second[level] = base;                                                                  \
    }                                                                                             \
    frame = frame_at(g, direct);                                                                  \
    if (!frame)                                                                                   \
        return nestedwalk_leave(t, rights, base, direct, *refs, first, 1, 1);                     \
    memcpy(&entry, frame + (va >> 9 & 0xFF8), 8);                                                 \
    value = (entry & (rights | ~g->rights_and) & g->kept) | (rights & g->rights_or) | g->added;   \
    if ((entry & t->access.leaf_mask) != t->access.leaf_wanted                                    \
        || (value & t->access.mask) != t->access.wanted                                           \
        || !(host = nestedwalk_host_##FORM(t, entry & g->leaf_address, &t->page, refs, fours)))   \
        return nestedwalk_leave(t, rights, base, direct, *refs, first, 1, 1);                     \
    ++*refs;                                                                                      \
    PYVIRT_COUNT(g->level_refs[1]);                                                               \
    PYVIRT_UNROLL                                                                                 \
    for (level = first; level > 1; level--) {                                                     \
        const uint64_t region = va >> (9 * level + 3);                                            \
        region_fill_##FORM(&g->caches[level], region, region << 19 | g->low, r->next[level],      \
                    r->second[level], fours);                                                     \
    }                                                                                             \
    allowed = t->ept ? host & 7                                                                   \
                     : (host & 4) >> 2 | (host & 2) | (host & t->host_nx ? 0 : 4);                \
    return ((host & t->dirty) == t->dirty ? value : value & ~(uint64_t)PYVIRT_DIRTY)              \
           | (host & PYVIRT_ADDRESS) | allowed << PYVIRT_NESTED_SHIFT;                            \
}                                                                                                 \
TARGET PYVIRT_NOINLINE uint64_t nestedwalk_high_##FORM(nested_t *t, uint64_t va, unsigned *refs)  \
{                                                                                                 \
    uint32_t set = 0;                                                                             \
    int known = 5, way = -1;                                                                      \
    while (known <= t->guest.levels                                                               \
           && (way = shortwalk_probe_##FORM(&t->guest, va, known, &set, 0)) < 0)                  \
        known++;                                                                                  \
    return nestedwalk_from_##FORM(t, va, refs, known, set, way, 0);                               \
}                                                                                                 \
TARGET PYVIRT_INLINE uint64_t nestedwalk_in_##FORM(nested_t *t, uint64_t va, unsigned *refs,      \
                                                   const int fours)                               \
{                                                                                                 \
    uint32_t set;                                                                                 \
    int way;                                                                                      \
    if (t->tlb && (t->tlb->state->present[1] | t->tlb->state->present[2]))                        \
        return 0;                       /* entries of other sizes */                              \
    if ((way = shortwalk_probe_##FORM(&t->guest, va, 2, &set, fours)) >= 0)                       \
        return nestedwalk_from_##FORM(t, va, refs, 2, set, way, fours);                           \
    if ((way = shortwalk_probe_##FORM(&t->guest, va, 3, &set, fours)) >= 0)                       \
        return nestedwalk_from_##FORM(t, va, refs, 3, set, way, fours);                           \
    if ((way = shortwalk_probe_##FORM(&t->guest, va, 4, &set, fours)) >= 0)                       \
        return nestedwalk_from_##FORM(t, va, refs, 4, set, way, fours);                           \
    return nestedwalk_high_##FORM(t, va, refs);                                                   \
}                                                                                                 \
TARGET PYVIRT_NOINLINE uint64_t nestedwalk_##FORM(nested_t *t, uint64_t va, unsigned *refs)       \
{                                                                                                 \
    return t->guest.fours == SETTLED ? nestedwalk_in_##FORM(t, va, refs, SETTLED)                 \
           : t->guest.fours ? nestedwalk_in_##FORM(t, va, refs, FOURS)                            \
                            : nestedwalk_in_##FORM(t, va, refs, ANY);                             \
}

PYVIRT_NESTED_WALK(plain, )
#if PYVIRT_X86
PYVIRT_NESTED_WALK(avx2, PYVIRT_AVX2)
#endif

/* Whether the caches of both dimensions are settled now, and the nested TLB is: full, without a hash,
   of up to 64 ways that are found by their marks. Walks alone leave it so. */
PYVIRT_INLINE void nestedwalk_settle(nested_t *t)
{
    const cache_t *const c = t->tlb;
    shortwalk_settle(&t->guest);
    shortwalk_settle(&t->host);
    if (t->host.fours != SETTLED || !c || c->mark_stride != 64 || !c->links || c->fold != 63
        || !is_full(c) || t->guest.fours != SETTLED) {
        t->host.fours = t->host.fours ? FOURS : ANY;
        t->guest.fours = t->guest.fours ? FOURS : ANY;
    }
}

#endif
