/* Accesses of which no one can tell where the next one hits: some in the first array, some in the
   second, some in neither. One by one they cost mispredicted branches. So all of a block are looked
   up in the first array, then what is not there in the second, then what is in neither is walked,
   and at last the values go to where they belong; in each of these loops every turn is like the
   last.

   The arrays change as they do one by one: the first array's tags depend on the addresses alone,
   the second's on which of them the first one misses, and walks on which of those the second one
   misses. A walk that is not a short one ends the block, whose tags are taken back for that. */

#ifndef PYVIRT_MIXED_H
#define PYVIRT_MIXED_H

#include "blockwalk.h"
#include "lane.h"

#if PYVIRT_X86
#define MIXED_BLOCK AHEAD_BLOCK /* accesses */
#define MIXED_SETS 32           /* of the first array, at most */

typedef struct {                /* of a set of the second array, before an access to it */
    __m128i ranks;
    uint64_t tag;               /* of the way that it used */
    uint64_t slot;
} mixed_old_t;

typedef struct {
    uint64_t *from[MIXED_BLOCK];        /* by access: where its value is found, */
    uint64_t *to[MIXED_BLOCK];          /* where that belongs beside the first array, */
    uint8_t slot[MIXED_BLOCK];          /* and where there */
    uint8_t miss[MIXED_BLOCK];          /* accesses that miss the first array */
    uint8_t walk[MIXED_BLOCK];          /* and those that miss both */
    uint64_t walked[MIXED_BLOCK];       /* by walk: the value that it found */
    unsigned misses, walks;
    mixed_old_t old[MIXED_BLOCK];       /* by miss */
    uint64_t old_tags[MIXED_SETS * 4];  /* of the first array, before the block */
    uint8_t old_orders[MIXED_SETS];
    uint64_t nowhere;
} mixed_t;

/* Look n accesses up in the first array, and make room for those that are not there. */
PYVIRT_AVX2 PYVIRT_INLINE void mixed_first(const hits_t *h, mixed_t *m, const uint64_t *vas,
                                           uint64_t n)
{
    uint64_t *const tags = h->first->tags, *const values = h->first->values;
    uint8_t *const orders = h->first->orders;
    const uint64_t low = h->low, set_mask = h->first->set_mask;
    uint64_t misses = 0;
    for (uint64_t k = 0; k < n; k++) {
        const uint64_t va = vas[k], key = (va << 7 & ~PYVIRT_CONTEXT) | low;
        const uint64_t set = va >> 12 & set_mask, order = orders[set];
        const __m256i keys = _mm256_set1_epi64x((long long)key);
        const uint64_t in = match_avx2(tags + set * 4, keys, keys);
        /* a bit beyond the four ways: the number of zeros below a 1 is asked for, in each case */
        const uint64_t hit = PYVIRT_CTZ64(in | 16);
        const uint64_t way = pick(in, hit, order >> 2 & 3), slot = set * 4 + way;
        write4_avx2(tags + set * 4, (uint32_t)way, key);
        orders[set] = PYVIRT_FOUR[order << 2 | way];
        m->from[k] = m->to[k] = &values[slot];
        m->slot[k] = (uint8_t)slot;
        m->miss[misses] = (uint8_t)k;
        misses += !in;
    }
    m->misses = (unsigned)misses;
}

/* Likewise those that missed it in the second one. `codes` are NULL if they are written already. */
PYVIRT_AVX2 PYVIRT_INLINE void mixed_second(const hits_t *h, mixed_t *m, const uint64_t *vas,
                                            uint16_t *codes, const int walk)
{
    uint64_t *const tags = h->second->tags, *const values = h->second->values;
    int8_t *const ranks = h->second->ranks;
    const uint64_t low = h->low, set_mask = h->second->set_mask, n = m->misses;
    uint64_t walks = 0;
    for (uint64_t miss = 0; miss < n; miss++) {
        const uint64_t k = m->miss[miss], va = vas[k], key = (va << 7 & ~PYVIRT_CONTEXT) | low;
        const uint64_t set = va >> 12 & set_mask;
        uint64_t *const row = tags + set * 12;
        int8_t *const rank = ranks + set * PYVIRT_RANKS;
        const __m256i keys = _mm256_set1_epi64x((long long)key);
        const uint64_t in = match_avx2(row, keys, keys) | match_avx2(row + 4, keys, keys) << 4
                            | match_avx2(row + 8, keys, keys) << 8;
        const __m128i old = _mm_load_si128((const __m128i *)rank);
        const unsigned last = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(old, _mm_set1_epi8(11)));
        const uint64_t way = PYVIRT_CTZ64(pick(in, in, last)), slot = set * 12 + way;
        if (walk == HITS_IDENTITY)
            m->walked[walks] = (va & PYVIRT_ADDRESS) | h->identity;
        else {
            m->old[miss].ranks = old;
            m->old[miss].tag = row[way];
            m->old[miss].slot = slot;
        }
        rank_touch(rank, (uint32_t)way, rank[way]);
        /* a tag that is there is not written again: a vector that is read next would wait for it */
        *(uint64_t *)pick(in, (uintptr_t)&m->nowhere, (uintptr_t)&row[way]) = key;
        m->from[k] = (uint64_t *)pick(in, (uintptr_t)&values[slot], (uintptr_t)&m->walked[walks]);
        m->to[k] = &values[slot];
        if (codes)
            codes[k] = (uint16_t)(walk == HITS_IDENTITY ? pick(in, 0x20, 0) : 0x20);
        m->walk[walks] = (uint8_t)k;
        walks += !in;
    }
    m->walks = (unsigned)walks;
}

/* The tags and orders as they were before the block. */
PYVIRT_COLD void mixed_undo(const hits_t *h, const mixed_t *m)
{
    const cache_t *const c = h->first, *const d = h->second;
    memcpy(c->tags, m->old_tags, (c->set_mask + 1ULL) * 32);
    memcpy(c->orders, m->old_orders, c->set_mask + 1ULL);
    for (unsigned k = m->misses; k-- > 0;) {
        const mixed_old_t *const o = &m->old[k];
        _mm_store_si128((__m128i *)(d->ranks + o->slot / 12 * PYVIRT_RANKS), o->ranks);
        d->tags[o->slot] = o->tag;
    }
}

/* The leaves that walks will read, asked for. */
PYVIRT_INLINE void mixed_fetch(ahead_t *a, const shortwalk_t *h, const mixed_t *m,
                               const uint64_t *vas)
{
    for (unsigned j = 0; j < m->walks; j++) {
        const uint64_t va = vas[m->walk[j]];
        const uint8_t *at = top_entry(&a->guest, h, NULL, va);
        if (at && (at = step_to_place(h, at)) && (at = step_to_leaf(at, va)))
            PYVIRT_PREFETCH(at);
    }
}

/* Walk for those that missed both, up to one whose walk is not short, or whose page is global; how
   many were walked. */
PYVIRT_AVX2 PYVIRT_INLINE unsigned mixed_walk(hits_t *h, mixed_t *m, const uint64_t *vas,
                                              uint16_t *codes, const int walk)
{
    shortwalk_t *const guest = &h->tables.guest;
    for (unsigned j = 0; j < m->walks; j++) {
        const unsigned k = m->walk[j];
        unsigned refs = 0;
        const uint64_t value =
            walk == HITS_NESTED ? nestedwalk_avx2(&h->tables, vas[k], &refs)
            : guest->fours == SETTLED ? shortwalk_in_avx2(guest, vas[k], &h->tables.access, &refs,
                                                          SETTLED)
                                      : shortwalk_avx2(guest, vas[k], &h->tables.access, &refs);
        m->walked[j] = value;
        codes[k] = (uint16_t)(refs << 7);
        if (!PYVIRT_LIKELY(value && !(value & 0x100)))
            return j;
    }
    return m->walks;
}

/* End a block of `all` at its j-th walk, before that access if the walk was none; its length. */
PYVIRT_AVX2 PYVIRT_COLD uint64_t mixed_cut(hits_t *h, mixed_t *m, const uint64_t *vas,
                                           uint64_t all, uint16_t *codes, unsigned j)
{
    const uint64_t k = m->walk[j], n = m->walked[j] ? k + 1 : k;
    mixed_undo(h, m);
    mixed_first(h, m, vas, n);
    mixed_second(h, m, vas, NULL, HITS_NATIVE);
    for (uint64_t later = n; later < all; later++)
        codes[later] = 0x10;    /* as they are before the loop */
    if (n == k)
        h->why = HITS_MISS;
    else {                      /* from here on both tags must be compared */
        const uint64_t tag = (vas[k] << 7 & ~PYVIRT_CONTEXT) | h->global_low;
        h->first->tags[m->slot[k]] = tag;
        h->second->tags[m->to[k] - h->second->values] = tag;
        h->globals = 1;
        h->why = HITS_END;
    }
    return n;
}

/* The values of n accesses, in their order. */
PYVIRT_INLINE void mixed_values(const hits_t *h, mixed_t *m, const uint64_t *vas, uint64_t n,
                                uint64_t *pas)
{
    uint64_t *const values = h->first->values;
    for (uint64_t k = 0; k < n; k++) {
        const uint64_t value = *m->from[k];
        *m->to[k] = values[m->slot[k]] = value;
        pas[k] = (value & PYVIRT_ADDRESS) | (vas[k] & 4095);
    }
}

/* How many of n addresses come before one that is not sign-extended. */
PYVIRT_AVX2 PYVIRT_INLINE uint64_t mixed_within(const hits_t *h, const uint64_t *vas, uint64_t n)
{
    const uint64_t half = 1ULL << (63 - h->unused);
    uint64_t all = 0, k;
    for (k = 0; k < n; k++)
        all |= vas[k] + half;
    if (PYVIRT_LIKELY(all < 2 * half))
        return n;
    for (k = 0; vas[k] + half < 2 * half;)
        k++;
    return k;
}

PYVIRT_AVX2 PYVIRT_INLINE uint64_t mixed_blocks(hits_t *h, const uint64_t *vas, uint64_t i,
                                                uint64_t n, uint64_t *pas, uint16_t *codes,
                                                const int walk)
{
    const cache_t *const c = h->first;
    mixed_t m;
    h->why = HITS_END;
    while (i < n && h->why == HITS_END && !h->globals) {
        const uint64_t all = n - i < MIXED_BLOCK ? n - i : MIXED_BLOCK;
        uint64_t count = mixed_within(h, vas + i, all);
        unsigned j;
        if (count < all)
            h->why = HITS_RANGE;
        if (walk != HITS_IDENTITY) {
            memcpy(m.old_tags, c->tags, (c->set_mask + 1ULL) * 32);
            memcpy(m.old_orders, c->orders, c->set_mask + 1ULL);
        }
        mixed_first(h, &m, vas + i, count);
        mixed_second(h, &m, vas + i, codes + i, walk);
        if (walk == HITS_NATIVE && h->ahead)
            mixed_fetch(h->ahead, &h->tables.guest, &m, vas + i);
        if (walk != HITS_IDENTITY && (j = mixed_walk(h, &m, vas + i, codes + i, walk)) < m.walks)
            count = mixed_cut(h, &m, vas + i, all, codes + i, j);
        mixed_values(h, &m, vas + i, count, pas + i);
        h->walks += m.walks;
        h->second_hits += m.misses - m.walks;
        i += count;
    }
    return i;
}

PYVIRT_AVX2 PYVIRT_NOINLINE uint64_t mixed_native(hits_t *h, const uint64_t *vas, uint64_t i,
                                                  uint64_t n, uint64_t *pas, uint16_t *codes)
{
    return mixed_blocks(h, vas, i, n, pas, codes, HITS_NATIVE);
}

PYVIRT_AVX2 PYVIRT_NOINLINE uint64_t mixed_nested(hits_t *h, const uint64_t *vas, uint64_t i,
                                                  uint64_t n, uint64_t *pas, uint16_t *codes)
{
    return mixed_blocks(h, vas, i, n, pas, codes, HITS_NESTED);
}

PYVIRT_AVX2 PYVIRT_NOINLINE uint64_t mixed_identity(hits_t *h, const uint64_t *vas, uint64_t i,
                                                    uint64_t n, uint64_t *pas, uint16_t *codes)
{
    return mixed_blocks(h, vas, i, n, pas, codes, HITS_IDENTITY);
}

PYVIRT_INLINE uint64_t mixed(hits_t *h, const uint64_t *vas, uint64_t i, uint64_t n, uint64_t *pas,
                             uint16_t *codes)
{
    return h->walk == HITS_NATIVE   ? mixed_native(h, vas, i, n, pas, codes)
           : h->walk == HITS_NESTED ? mixed_nested(h, vas, i, n, pas, codes)
                                    : mixed_identity(h, vas, i, n, pas, codes);
}

/* Whether every value of an array allows the access: what a walk finds does, too. */
PYVIRT_AVX2 PYVIRT_NOINLINE int mixed_allowed(const hits_t *h, const cache_t *c)
{
    const uint64_t *const values = c->values, mask = h->mask, wanted = h->wanted, n = c->entries;
    uint64_t wrong = 0;
    for (uint64_t k = 0; k < n; k++)
        wrong |= (values[k] & mask) ^ wanted;
    return !wrong;
}

/* Whether n accesses can go this way: a block at least, of which none can be refused. */
PYVIRT_INLINE int mixed_can(const hits_t *h, uint64_t n, const uint64_t *pas, const uint16_t *codes)
{
    return n >= MIXED_BLOCK && h->walk != HITS_NO_WALK && lane_usual(h, pas, codes)
           && h->first->set_mask < MIXED_SETS && mixed_allowed(h, h->first)
           && mixed_allowed(h, h->second);
}
#endif

#endif
