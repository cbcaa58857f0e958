/* Walks of two dimensions for the misses of a block, all of them a level at a time.

   One by one, each walk waits for what it reads, and for branches that no one can predict: which
   cache holds how much of its path. But which regions and pages a cache holds, and their order,
   depends on the sequence of what is looked up in it alone; and that on which of those the cache
   before it missed. So all walks look into one cache, then those that missed into the next.

   What they find is known by then (sight.h): each entry of a cache says what the tables say. That
   is compared when blocks begin, and holds while there are no accesses but such. The values that
   belong to the tags of walk caches are written when blocks end. */

#ifndef PYVIRT_BLOCKWALK_H
#define PYVIRT_BLOCKWALK_H

#include "lane.h"
#include "sight.h"

#if PYVIRT_X86
#define BLOCK_REGIONS 64        /* entries of a walk cache of levels 2 and 3, at most */
#define BLOCK_NESTED 64         /* and of the nested TLB */
#define BLOCK_PAGES (3 * AHEAD_BLOCK)   /* guest-physical pages that are looked up, at most */

typedef struct {                /* a walk cache before the block */
    uint64_t tags[BLOCK_REGIONS];
    uint8_t orders[BLOCK_REGIONS / 4];
} region_old_t;

typedef struct {
    region_old_t guest[2], host[2];     /* of levels 2 and 3 */
    uint8_t tops[2];                    /* the order of the only set of level 4, by dimension */
    uint64_t tags[BLOCK_NESTED], values[BLOCK_NESTED];
    uint16_t marks[BLOCK_NESTED];
    link_t links[BLOCK_NESTED + 1];
} block_old_t;

typedef struct {                        /* how the look into a walk cache went */
    uint8_t in[BLOCK_PAGES];            /* not 0: it was there */
    uint8_t miss[BLOCK_PAGES];          /* those that were not, by number */
    unsigned misses;
} looked_t;

typedef struct {
    uint64_t va[AHEAD_BLOCK];           /* of walks */
    looked_t guest[4], host[4];         /* by level */
    uint64_t gpa[BLOCK_PAGES + 1];      /* pages to look up, in order */
    uint64_t value[BLOCK_PAGES + 1];    /* and what they are in the host */
    uint64_t walked[BLOCK_PAGES + 1];   /* those of them that the nested TLB does not hold */
    uint8_t in[BLOCK_PAGES];            /* not 0: it does */
    uint8_t page[AHEAD_BLOCK];          /* number of the access's own page among them, by walk */
    unsigned pages, walks;
    block_old_t old;
} block_t;

PYVIRT_INLINE void region_keep(region_old_t *old, const cache_t *c)
{
    memcpy(old->tags, c->tags, c->entries * 8);
    memcpy(old->orders, c->orders, c->sets);
}

PYVIRT_INLINE void region_undo(const region_old_t *old, cache_t *c)
{
    memcpy(c->tags, old->tags, c->entries * 8);
    memcpy(c->orders, old->orders, c->sets);
}

PYVIRT_NOINLINE void block_keep(block_old_t *old, const nested_t *t)
{
    const cache_t *const c = t->tlb;
    for (int level = 2; level < 4; level++) {
        region_keep(&old->guest[level - 2], &t->guest.caches[level]);
        region_keep(&old->host[level - 2], &t->host.caches[level]);
    }
    old->tops[0] = t->guest.caches[4].orders[0];
    old->tops[1] = t->host.caches[4].orders[0];
    memcpy(old->tags, c->tags, c->entries * 8);
    memcpy(old->values, c->values, c->entries * 8);
    memcpy(old->marks, c->marks, c->entries * 2);
    memcpy(old->links, c->links, (c->entries + 1) * sizeof(link_t));
}

PYVIRT_COLD void block_undo(const block_old_t *old, nested_t *t)
{
    cache_t *const c = t->tlb;
    for (int level = 2; level < 4; level++) {
        region_undo(&old->guest[level - 2], &t->guest.caches[level]);
        region_undo(&old->host[level - 2], &t->host.caches[level]);
    }
    t->guest.caches[4].orders[0] = old->tops[0];
    t->host.caches[4].orders[0] = old->tops[1];
    memcpy(c->tags, old->tags, c->entries * 8);
    memcpy(c->values, old->values, c->entries * 8);
    memcpy(c->marks, old->marks, c->entries * 2);
    memcpy(c->links, old->links, (c->entries + 1) * sizeof(link_t));
}

/* Whether the caches are of the form that is known here: settled (nestedwalk.h), and small. */
PYVIRT_INLINE int block_can(const nested_t *t)
{
    const cache_t *const g = t->guest.caches, *const h = t->host.caches, *const c = t->tlb;
    return t->guest.fours == SETTLED && t->host.fours == SETTLED && c->sets == 1
           && c->ways <= BLOCK_NESTED && !(c->state->present[1] | c->state->present[2])
           && g[2].entries <= BLOCK_REGIONS && g[3].entries <= BLOCK_REGIONS
           && h[2].entries <= BLOCK_REGIONS && h[3].entries <= BLOCK_REGIONS
           && g[4].sets == 1 && h[4].sets == 1;
}

/* What a walk cache holds of the tables now. With `write` it is written, else compared: whether
   they say the same. Entries of other contexts are not looked at: none of these walks finds them. */
PYVIRT_NOINLINE int block_regions(const nested_t *t, int level, int guest, int write)
{
    const shortwalk_t *const h = guest ? &t->guest : &t->host;
    const cache_t *const c = &h->caches[level];
    for (uint64_t slot = 0; slot < c->entries; slot++) {
        const uint64_t tag = c->tags[slot], address = tag >> 19 << (9 * level + 3);
        uint64_t value, second, host;
        const uint8_t *frame;
        if (!tag || (tag & 0x7FFFF) != h->low)
            continue;
        if (guest) {
            frame = guest_table(t, address, level - 1, &value, &second, &host);
            value |= host & PYVIRT_ADDRESS;
        } else {
            frame = host_table(h, address, level - 1, &value);
            second = (uint64_t)(uintptr_t)frame;
        }
        if (write) {
            c->values[slot] = value;
            c->second[slot] = second;
        } else if (!frame || c->values[slot] != value
                   || (c->second[slot] != second && (guest || c->second[slot])))
            return 0;
    }
    return 1;
}

/* Whether all entries that a walk may find say what the tables say. */
PYVIRT_COLD int block_same(const nested_t *t)
{
    const cache_t *const c = t->tlb;
    for (int level = 2; level < 5; level++)
        if (!block_regions(t, level, 1, 0) || !block_regions(t, level, 0, 0))
            return 0;
    for (uint64_t slot = 0; slot < c->entries; slot++)
        if ((c->tags[slot] & 0x7FFFF) == t->host.low
            && c->values[slot] != host_page(t, c->tags[slot] >> 19 << 12, &t->page)
            && c->values[slot] != host_page(t, c->tags[slot] >> 19 << 12, &t->table))
            return 0;
    return 1;
}

PYVIRT_NOINLINE void block_write(const nested_t *t)
{
    for (int level = 2; level < 4; level++) {
        block_regions(t, level, 1, 1);
        block_regions(t, level, 0, 1);
    }
}

/* Look the n regions of `level` that addresses lie in up: those that the level below missed. */
PYVIRT_AVX2 PYVIRT_INLINE void block_look(const shortwalk_t *h, looked_t *looked,
                                          const uint64_t *addresses, const looked_t *below,
                                          unsigned n, const int level)
{
    const cache_t *const c = &h->caches[level];
    uint64_t *const tags = c->tags;
    uint8_t *const orders = c->orders;
    const uint64_t low = h->low, set_mask = c->set_mask;
    unsigned misses = 0;
    for (unsigned k = 0; k < n; k++) {
        const unsigned which = below ? below->miss[k] : k;
        const uint64_t region = addresses[which] >> (9 * level + 3), key = region << 19 | low;
        const uint64_t set = region & set_mask, order = orders[set];
        const __m256i keys = _mm256_set1_epi64x((long long)key);
        const uint64_t in = match_avx2(tags + set * 4, keys, keys);
        const uint64_t way = pick(in, PYVIRT_CTZ64(in | 16), order >> 2 & 3);
        write4_avx2(tags + set * 4, (uint32_t)way, key);
        orders[set] = PYVIRT_FOUR[order << 2 | way];
        looked->in[k] = (uint8_t)in;
        looked->miss[misses] = (uint8_t)which;
        misses += !in;
    }
    looked->misses = misses;
}

/* Those that level 3 missed are in the only set of level 4; 0 if one is not. */
PYVIRT_AVX2 PYVIRT_INLINE int block_tops(const shortwalk_t *h, const uint64_t *addresses,
                                         const looked_t *three)
{
    for (unsigned k = 0; k < three->misses; k++) {
        uint32_t set;
        const int way = shortwalk_probe_avx2(h, addresses[three->miss[k]], 4, &set, SETTLED);
        if (!PYVIRT_LIKELY(way >= 0))
            return 0;
        four_touch(&h->caches[4].orders[0], (uint32_t)way);
    }
    return 1;
}

PYVIRT_AVX2 PYVIRT_NOINLINE int block_regions_of(const shortwalk_t *h, looked_t *looked,
                                                 const uint64_t *addresses, unsigned n)
{
    block_look(h, &looked[2], addresses, NULL, n, 2);
    block_look(h, &looked[3], addresses, &looked[2], looked[2].misses, 3);
    return block_tops(h, addresses, &looked[3]);
}

/* The guest-physical pages that walks look up, in order: tables that they reach, and their own. */
PYVIRT_NOINLINE void block_pages(block_t *b, const sight_t *s, const uint8_t *accesses, unsigned n)
{
    const uint8_t *const in2 = b->guest[2].in, *const in3 = b->guest[3].in;
    uint64_t *const gpas = b->gpa, *const values = b->value;
    unsigned q = 0, c = 0;
    for (unsigned j = 0; j < n; j++) {
        const unsigned k = accesses[j], is3 = !in2[j], is2 = is3 & !in3[c];
        gpas[q] = s->bases[2][k];
        values[q] = s->hosts[2][k];
        q += is2;
        gpas[q] = s->bases[1][k];
        values[q] = s->hosts[1][k];
        q += is3;
        gpas[q] = s->bases[0][k];
        values[q] = s->hosts[0][k];
        b->page[j] = (uint8_t)q++;
        c += is3;
    }
    b->pages = q;
}

/* Look them up in the nested TLB, into which go those that are not there. */
PYVIRT_AVX2 PYVIRT_NOINLINE void block_nested(cache_t *c, block_t *b, uint64_t low)
{
    uint64_t *const tags = c->tags, *const values = c->values;
    uint16_t *const marks = c->marks;
    link_t *const links = c->links;
    const uint32_t ways = c->ways;
    const unsigned n = b->pages;
    unsigned walks = 0;
    for (unsigned q = 0; q < n; q++) {
        const uint64_t gpa = b->gpa[q], key = gpa >> 12 << 19 | low;
        const int way = find_group_avx2(c, 0, key);
        b->in[q] = way >= 0;
        if (way >= 0)
            list_touch(links, ways, (uint32_t)way);
        else {
            const uint32_t turn = list_turn(links, ways);
            tags[turn] = key;
            values[turn] = b->value[q];
            mark_avx2(marks, turn, key);
            b->walked[walks++] = gpa;
        }
    }
    b->walks = walks;
}

/* What was counted; and of each walk, how many entries it read. */
PYVIRT_NOINLINE void block_count(nested_t *t, const block_t *b, const uint8_t *accesses, unsigned n,
                                 uint16_t *codes)
{
    const looked_t *const g = b->guest, *const h = b->host;
    uint8_t reads[BLOCK_PAGES + 1];     /* of the host's tables, by walk of them */
    uint16_t sums[BLOCK_PAGES + 1];     /* of pages before one */
    unsigned c = 0, walk = 0, sum = 0;
    for (unsigned k = 0; k < b->walks; k++) {
        const unsigned out = !h[2].in[k];
        reads[k] = (uint8_t)(1 + out + (out & !h[3].in[c]));
        c += out;
    }
    reads[b->walks] = 0;
    for (unsigned q = 0; q < b->pages; q++) {
        const unsigned out = !b->in[q];
        sum += reads[walk] & -out;
        walk += out;
        sums[q] = (uint16_t)sum;
    }
    c = sum = 0;
    for (unsigned j = 0; j < n; j++) {
        const unsigned out = !g[2].in[j], all = sums[b->page[j]];
        codes[accesses[j]] = (uint16_t)((1 + out + (out & !g[3].in[c]) + all - sum) << 7);
        c += out;
        sum = all;
    }
    t->guest.cache_hits[2] += n - g[2].misses;
    t->guest.cache_hits[3] += g[2].misses - g[3].misses;
    t->guest.cache_hits[4] += g[3].misses;
    t->guest.level_refs[1] += n;
    t->guest.level_refs[2] += g[2].misses;
    t->guest.level_refs[3] += g[3].misses;
    t->host.cache_hits[2] += b->walks - h[2].misses;
    t->host.cache_hits[3] += h[2].misses - h[3].misses;
    t->host.cache_hits[4] += h[3].misses;
    t->host.level_refs[1] += b->walks;
    t->host.level_refs[2] += h[2].misses;
    t->host.level_refs[3] += h[3].misses;
    *t->tlb_hits += b->pages - b->walks;
    *t->host_walks += b->walks;
}

#endif
#endif
