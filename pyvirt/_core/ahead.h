/* Prefetching for streams that walk. The tables of accesses to come are walked ahead of them, a
   step in each round, so that what a step reads was asked for a round before. Nothing that is
   simulated changes: the steps read tables and memory's directory alone, and end where an entry is
   not plain. */

#ifndef PYVIRT_AHEAD_H
#define PYVIRT_AHEAD_H

#include "nestedwalk.h"

#define AHEAD_GROUP 8           /* accesses in a round */
#define AHEAD_RING 64           /* the steps of a walk and one more, times AHEAD_GROUP */
#define AHEAD_FAR 128           /* accesses ahead that their addresses are fetched, */
#define AHEAD_TO 64             /* and where the results go */
#define AHEAD_TOPS 256
#define AHEAD_BLOCK 64          /* accesses whose walks take each step together */
#define SIGHT_TOPS 256

typedef struct {                /* a walk on its way: a line of the processor's cache */
    const uint8_t *at[7];       /* what the step after it reads, by step; NULL: it ended before */
    uint64_t gpa;
} step_t;

typedef struct {                /* level-2 tables, by the 1 GiB that they map */
    uint64_t region[AHEAD_TOPS];        /* + 1; 0: none */
    const uint8_t *table[AHEAD_TOPS];
} tops_t;

typedef struct {                /* walks of a block of accesses, see sight.h */
    const uint8_t *at[AHEAD_BLOCK];     /* what the next step reads; NULL: it ended before */
    uint64_t bases[3][AHEAD_BLOCK];     /* guest-physical: the page, and the tables of levels 1, 2 */
    uint64_t hosts[3][AHEAD_BLOCK];     /* their values in the host, so far */
    uint64_t value[AHEAD_BLOCK];        /* of the page in the guest, so far */
    uint64_t wrong;             /* not 0: something is out of the ordinary */
    uint64_t first;             /* access; all ones: none */
} sight_t;

typedef struct {                /* a level-2 table */
    uint64_t region;            /* of 1 GiB that it maps, + 1; 0: none */
    const uint8_t *table;
    uint64_t value;             /* what leads to it, or of the guest's the rights */
    uint64_t base;              /* of a guest's: its guest-physical address */
    uint64_t host;              /* and the host's value of that */
} top_t;

typedef struct {
    top_t guest[SIGHT_TOPS], host[SIGHT_TOPS];
    sight_t sight[2];           /* of the block that goes on, and of the one after it */
    uint64_t next;              /* the access up to which nothing but blocks came */
    uint64_t again;             /* the access before which no block is tried */
} sights_t;

typedef struct {
    step_t walk[AHEAD_RING];    /* by the number of the access */
    tops_t guest, host;
    uint64_t due;               /* the access that the next round begins with */
    sights_t sights;
} ahead_t;

PYVIRT_INLINE uint64_t word_at(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, 8);
    return word;
}

/* Where the directory of memory keeps a frame's place. */
PYVIRT_INLINE const uint8_t *place_of(const shortwalk_t *h, uint64_t pa)
{
    uint8_t **node;
    if (pa >= h->limit || !(node = h->root[pa >> 32]))
        return NULL;
    return (const uint8_t *)&node[pa >> 12 & 0xFFFFF];
}

PYVIRT_INLINE const uint8_t *frame_in(const uint8_t *place)
{
    const uint8_t *frame;
    memcpy(&frame, place, sizeof frame);
    return frame;
}

/* Guest-physical to host-physical by the tables alone; all ones if it is not a plain mapping. */
PYVIRT_COLD uint64_t through_host(const shortwalk_t *h, uint64_t gpa)
{
    uint64_t pa = h->start & PYVIRT_ADDRESS;
    for (int level = h->levels; level > 0; level--) {
        const uint8_t *frame = frame_at(h, pa);
        uint64_t entry;
        if (!frame)
            return ~(uint64_t)0;
        entry = word_at(frame + (gpa >> (9 * level) & 0xFF8));
        if (!(entry & 1))
            return ~(uint64_t)0;
        if (level > 1 && (entry & h->table_mask[level]) != h->table_wanted) {
            const uint64_t offset = ((uint64_t)1 << (9 * level + 3)) - 1;
            return level > 3 ? ~(uint64_t)0 : (entry & h->table_address & ~offset) | (gpa & offset);
        }
        pa = entry & (level > 1 ? h->table_address : h->leaf_address);
    }
    return pa | (gpa & 4095);
}

/* The level-2 table for an address; `host`: tables are at guest-physical addresses, or NULL. */
PYVIRT_COLD const uint8_t *walk_top(const shortwalk_t *h, const shortwalk_t *host, uint64_t address)
{
    uint64_t pa = h->start & PYVIRT_ADDRESS;
    for (int level = h->levels;; level--) {
        const uint8_t *frame;
        uint64_t entry;
        if (host)
            pa = through_host(host, pa);
        frame = frame_at(h, pa);
        if (level == 2 || !frame)
            return frame;
        entry = word_at(frame + (address >> (9 * level) & 0xFF8));
        if ((entry & h->table_mask[level]) != h->table_wanted)
            return NULL;
        pa = entry & h->table_address;
    }
}

PYVIRT_INLINE const uint8_t *top_entry(tops_t *tops, const shortwalk_t *h, const shortwalk_t *host,
                                       uint64_t address)
{
    const uint64_t region = address >> 30, i = region % AHEAD_TOPS;
    if (!PYVIRT_LIKELY(tops->region[i] == region + 1)) {
        tops->region[i] = region + 1;
        tops->table[i] = walk_top(h, host, address);
    }
    return tops->table[i] ? tops->table[i] + (address >> 18 & 0xFF8) : NULL;
}

/* The three steps from an entry of level 2 to the leaf. */

PYVIRT_INLINE const uint8_t *step_to_place(const shortwalk_t *h, const uint8_t *entry_at)
{
    const uint64_t entry = word_at(entry_at);
    return (entry & h->table_mask[2]) == h->table_wanted ? place_of(h, entry & h->table_address)
                                                         : NULL;
}

PYVIRT_INLINE const uint8_t *step_to_leaf(const uint8_t *place, uint64_t address)
{
    const uint8_t *const frame = frame_in(place);
    return frame ? frame + (address >> 9 & 0xFF8) : NULL;
}

/* From the guest's entry of level 2 to the host's leaf for the guest's leaf table. Few of the
   host's tables map those of a guest, so they are at hand. Where the host has a large page, to
   the place of the guest's table at once: with bit 0 set. */
PYVIRT_INLINE const uint8_t *step_to_host(ahead_t *a, const nested_t *t, const uint8_t *entry_at)
{
    const uint64_t entry = word_at(entry_at), gpa = entry & t->guest.table_address;
    const uint8_t *at, *place;
    uint64_t middle;
    if ((entry & t->guest.table_mask[2]) != t->guest.table_wanted || gpa & t->beyond
        || !(at = top_entry(&a->host, &t->host, NULL, gpa)))
        return NULL;
    middle = word_at(at);
    if (!(middle & 1))
        return NULL;
    if ((middle & t->host.table_mask[2]) != t->host.table_wanted) {
        place = place_of(&t->host, (middle & t->host.table_address & ~(uint64_t)0x1FFFFF)
                                   | (gpa & 0x1FFFFF));
        return place ? place + 1 : NULL;
    }
    place = place_of(&t->host, middle & t->host.table_address);
    return place ? step_to_leaf(place, gpa) : NULL;
}

PYVIRT_INLINE const uint8_t *step_from_host(const nested_t *t, const uint8_t *leaf_at)
{
    uint64_t leaf;
    if ((uintptr_t)leaf_at & 1)
        return leaf_at - 1;
    leaf = word_at(leaf_at);
    return leaf & 1 ? place_of(&t->host, leaf & t->host.leaf_address) : NULL;
}

#define AHEAD_NATIVE 3          /* steps */
#define AHEAD_NESTED 7

/* Nothing is known of any tables: they may have changed. */
PYVIRT_INLINE void ahead_start(ahead_t *a)
{
    memset(a->guest.region, 0, sizeof a->guest.region);
    memset(a->host.region, 0, sizeof a->host.region);
    a->due = a->sights.next = ~(uint64_t)0;
    a->sights.again = 0;
}

PYVIRT_INLINE void begin_round(ahead_t *a, uint64_t i)
{
    if (i != a->due)            /* walks on their way are of other accesses */
        memset(a->walk, 0, sizeof a->walk);
    a->due = i + AHEAD_GROUP;
}

/* Where a walk has ended, something that is near: to ask for no address at all takes long. */
PYVIRT_INLINE void fetch(const uint8_t *at, const step_t *near)
{
    PYVIRT_PREFETCH(at ? at : (const uint8_t *)near);
}

/* A round is a step of each walk of the accesses after `i`, the same for those of a group.
   Addresses lie `stride` bytes apart; the last ones of a stream, fewer than a group, are not
   walked ahead. */
#define AHEAD_STEP(STEP, STEPS, DO)                                                               \
    for (uint64_t k = i + (STEPS + 1 - (STEP)) * AHEAD_GROUP, j = 0;                              \
         j < AHEAD_GROUP && k + AHEAD_GROUP <= n; j++) {                                          \
        step_t *const s = &a->walk[(k + j) % AHEAD_RING];                                         \
        const uint64_t va = word_at((const uint8_t *)vas + (k + j) * stride);                     \
        const uint8_t *const last = s->at[(STEP) > 1 ? (STEP) - 2 : 0];                           \
        (void)va;                                                                                 \
        s->at[(STEP) - 1] = (STEP) == 1 || last ? (DO) : NULL;                                    \
        fetch(s->at[(STEP) - 1], s);                                                              \
    }

/* What the steps of the group at `i` read has left the nearest cache since, for one that is not
   far: it is fetched again for the walks themselves. */
PYVIRT_INLINE void fetch_again(const ahead_t *a, uint64_t i, int steps)
{
    for (uint64_t j = 0; j < AHEAD_GROUP; j++) {
        const step_t *const s = &a->walk[(i + j) % AHEAD_RING];
        PYVIRT_UNROLL
        for (int step = 0; step < steps; step++)
            fetch((const uint8_t *)((uintptr_t)s->at[step] & ~(uintptr_t)1), s);
    }
}

/* The addresses of the round that is AHEAD_FAR away. The processor does not: between two lines of
   them are hundreds of other ones. */
PYVIRT_INLINE void fetch_addresses(const char *vas, uint64_t stride, uint64_t i)
{
    for (uint64_t at = 0; at < AHEAD_GROUP * stride; at += 64)
        PYVIRT_PREFETCH(vas + (i + AHEAD_FAR) * stride + at);
}

PYVIRT_NOINLINE void ahead_native(ahead_t *a, const shortwalk_t *h, const char *vas,
                                  uint64_t stride, uint64_t i, uint64_t n)
{
    begin_round(a, i);
    fetch_addresses(vas, stride, i);
    AHEAD_STEP(3, AHEAD_NATIVE, step_to_leaf(last, va))
    AHEAD_STEP(2, AHEAD_NATIVE, step_to_place(h, last))
    AHEAD_STEP(1, AHEAD_NATIVE, top_entry(&a->guest, h, NULL, va))
    fetch_again(a, i, AHEAD_NATIVE - 1);
}

PYVIRT_NOINLINE void ahead_nested(ahead_t *a, const nested_t *t, const char *vas,
                                  uint64_t stride, uint64_t i, uint64_t n)
{
    begin_round(a, i);
    fetch_addresses(vas, stride, i);
    /* The steps of a round are of different accesses. Those to leaves stand together: these are the
       farthest from each other, and this processor's own walks for them overlap. */
    AHEAD_STEP(7, AHEAD_NESTED, step_to_leaf(last, s->gpa))
    AHEAD_STEP(4, AHEAD_NESTED, step_to_leaf(last, va))
    AHEAD_STEP(6, AHEAD_NESTED, step_to_place(&t->host, last))
    AHEAD_STEP(5, AHEAD_NESTED, (s->gpa = word_at(last) & t->guest.leaf_address) & t->beyond
                                ? NULL : top_entry(&a->host, &t->host, NULL, s->gpa))
    AHEAD_STEP(3, AHEAD_NESTED, step_from_host(t, last))
    AHEAD_STEP(2, AHEAD_NESTED, step_to_host(a, t, last))
    AHEAD_STEP(1, AHEAD_NESTED, top_entry(&a->guest, &t->guest, &t->host, va))
    fetch_again(a, i, AHEAD_NESTED - 1);
}

#endif
