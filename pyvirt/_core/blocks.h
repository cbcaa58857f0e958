/* Streams that walk two dimensions, block by block: the misses of one (mixed.h) are walked level by
   level (blockwalk.h), and between that the tables are walked for the next one (sight.h), a step at
   a time, so that what a step reads was asked for some loops before. */

#ifndef PYVIRT_BLOCKS_H
#define PYVIRT_BLOCKS_H

#include "blockwalk.h"
#include "mixed.h"

#if PYVIRT_X86
#define BLOCKS_REST (64 * AHEAD_BLOCK)  /* accesses until blocks are tried again after one failed */

/* A block of accesses, and what is seen of the one after it; 0 if one of them is out of the
   ordinary. */
PYVIRT_AVX2 PYVIRT_INLINE int block_run(hits_t *h, mixed_t *m, block_t *b, sight_t *now,
                                        sight_t *next, const uint64_t *vas, uint16_t *codes,
                                        const uint64_t *next_vas)
{
    nested_t *const t = &h->tables;
    sights_t *const a = &h->ahead->sights;
    unsigned n;
    see_1(a, t, next, next_vas);
    mixed_first(h, m, vas, AHEAD_BLOCK);
    see_2(a, t, next, next_vas);
    mixed_second(h, m, vas, codes, HITS_NESTED);
    see_8(a, t, now, vas);
    if (now->wrong)
        return 0;
    n = m->walks;
    for (unsigned j = 0; j < n; j++) {
        b->va[j] = vas[m->walk[j]];
        m->walked[j] = now->value[m->walk[j]];
    }
    see_3(a, t, next, next_vas);
    if (!block_regions_of(&t->guest, b->guest, b->va, n))
        return 0;
    block_pages(b, now, m->walk, n);
    see_4(a, t, next, next_vas);
    block_nested(t->tlb, b, t->host.low);
    see_5(a, t, next, next_vas);
    if (!block_regions_of(&t->host, b->host, b->walked, b->walks))
        return 0;
    see_6(a, t, next, next_vas);
    block_count(t, b, m->walk, n, codes);
    see_7(a, t, next, next_vas);
    return 1;
}

/* Whole blocks up to one of which an access is out of the ordinary; the access that is next. */
PYVIRT_AVX2 PYVIRT_NOINLINE uint64_t blocks(hits_t *h, const uint64_t *vas, uint64_t i, uint64_t n,
                                            uint64_t *pas, uint16_t *codes)
{
    const cache_t *const c = h->first;
    sights_t *const a = &h->ahead->sights;
    const uint64_t begin = i;
    mixed_t m;
    block_t b;
    if (a->next != i) {
        sights_start(a);
        if (!block_same(&h->tables)) {
            a->again = i + BLOCKS_REST;
            return i;
        }
    }
    for (; i + AHEAD_BLOCK <= n; i += AHEAD_BLOCK) {
        sight_t *const now = &a->sight[i / AHEAD_BLOCK & 1];
        sight_t *const next = &a->sight[now == a->sight];
        const int more = i + 2 * AHEAD_BLOCK <= h->total;
        if (mixed_within(h, vas + i, AHEAD_BLOCK) < AHEAD_BLOCK)
            break;
        if (now->first != i) {
            now->wrong = 0;
            see_at_once(a, &h->tables, now, vas + i);
        }
        for (unsigned at = 0; at < AHEAD_BLOCK; at += 8) {
            PYVIRT_PREFETCH(vas + i + 2 * AHEAD_BLOCK + at);
            PYVIRT_PREFETCH_TO(pas + i + AHEAD_BLOCK + at);
        }
        PYVIRT_PREFETCH_TO(codes + i + AHEAD_BLOCK);
        PYVIRT_PREFETCH_TO(codes + i + AHEAD_BLOCK + AHEAD_BLOCK / 2);
        memcpy(m.old_tags, c->tags, (c->set_mask + 1ULL) * 32);
        memcpy(m.old_orders, c->orders, c->set_mask + 1ULL);
        block_keep(&b.old, &h->tables);
        next->first = more ? i + AHEAD_BLOCK : ~(uint64_t)0;
        next->wrong = 0;
        if (!block_run(h, &m, &b, now, next, vas + i, codes + i,
                       vas + i + (more ? AHEAD_BLOCK : 0))) {
            block_undo(&b.old, &h->tables);
            mixed_undo(h, &m);
            for (unsigned k = 0; k < AHEAD_BLOCK; k++)
                codes[i + k] = 0x10;    /* as they are before the loop */
            a->again = i + BLOCKS_REST;
            break;
        }
        mixed_values(h, &m, vas + i, AHEAD_BLOCK, pas + i);
        h->walks += m.walks;
        h->second_hits += m.misses - m.walks;
    }
    if (i > begin)
        block_write(&h->tables);
    a->next = i;
    return i;
}

/* Whether accesses from the i-th on can go this way. */
PYVIRT_INLINE int blocks_can(const hits_t *h, uint64_t i, uint64_t n, const uint64_t *pas,
                             const uint16_t *codes)
{
    return h->asks && h->walk == HITS_NESTED && i >= h->ahead->sights.again
           && block_can(&h->tables) && mixed_can(h, n - i, pas, codes);
}
#endif

#endif
