/* Least recently used, exactly. Four ways keep their order as one of 24 states, a touch being a
   look into a table. From five to sixteen keep their ranks, a touch being a compare and a
   subtraction of vectors, and the victim a compare. Fewer ways, and more, are in a list. */

#ifndef PYVIRT_LRU_H
#define PYVIRT_LRU_H

#include "cache.h"

/* Four ways can be in 24 orders. A state is the way that was used last in bits 1:0, the way that was
   used longest ago in bits 3:2, and whether of the other two the higher one was used later in bit 4;
   at [state << 2 | way] stands the state after a use of `way`. 0 is none of them: of a set that was
   never used, and then as if its ways had been used in descending order. */
static const uint8_t PYVIRT_FOUR[128] = {
    12, 13, 14, 11, 12, 1, 2, 3, 28, 1, 2, 19, 24, 17, 18, 3,
    4, 13, 6, 7, 0, 0, 0, 0, 4, 29, 6, 23, 20, 25, 22, 7,
    8, 9, 14, 11, 8, 9, 30, 27, 0, 0, 0, 0, 24, 25, 22, 11,
    12, 13, 14, 11, 12, 13, 30, 27, 28, 29, 14, 23, 0, 0, 0, 0,
    0, 0, 0, 0, 8, 17, 2, 3, 4, 1, 18, 19, 20, 17, 18, 19,
    20, 9, 6, 7, 0, 0, 0, 0, 4, 1, 22, 23, 20, 17, 22, 23,
    24, 9, 6, 11, 8, 25, 2, 27, 0, 0, 0, 0, 24, 25, 18, 27,
    28, 13, 14, 7, 12, 29, 30, 3, 28, 29, 30, 19, 0, 0, 0, 0,
};

PYVIRT_INLINE void four_touch(uint8_t *order, uint32_t way)
{
    *order = PYVIRT_FOUR[(uint32_t)*order << 2 | way];
}

/* The way that was used last. */
PYVIRT_INLINE uint32_t four_latest(uint8_t order)
{
    return order & 3;
}

/* The way that was used longest ago. */
PYVIRT_INLINE uint32_t four_last(uint8_t order)
{
    return order >> 2 & 3;
}

/* The least recently used way, which becomes the latest. */
PYVIRT_INLINE uint32_t four_turn(uint8_t *order)
{
    const uint32_t way = four_last(*order);
    four_touch(order, way);
    return way;
}

#define PYVIRT_RANKS 16          /* bytes of a set; the ways that do not exist have 127 */

/* `rank` is that of the way, which becomes 0; those below it move up. */
PYVIRT_INLINE void rank_touch(int8_t *ranks, uint32_t way, int8_t rank)
{
#if PYVIRT_X86
    const __m128i ways = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m128i x = _mm_load_si128((const __m128i *)ranks);
    x = _mm_sub_epi8(x, _mm_cmplt_epi8(x, _mm_set1_epi8(rank)));
    x = _mm_andnot_si128(_mm_cmpeq_epi8(ways, _mm_set1_epi8((char)way)), x);
    _mm_store_si128((__m128i *)ranks, x);
#else
    for (uint32_t i = 0; i < PYVIRT_RANKS; i++)
        ranks[i] = (int8_t)(ranks[i] + (ranks[i] < rank));
    ranks[way] = 0;
#endif
}

PYVIRT_INLINE uint32_t rank_last(const int8_t *ranks, uint32_t ways)
{
#if PYVIRT_X86
    const __m128i x = _mm_load_si128((const __m128i *)ranks);
    const __m128i last = _mm_set1_epi8((char)(ways - 1));
    return PYVIRT_CTZ((unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(x, last)) | 0x10000);
#else
    uint32_t way = 0;
    while (way + 1 < ways && ranks[way] != (int8_t)(ways - 1))
        way++;
    return way;
#endif
}

/* The list of a set is a ring through its ways and an end, which has the number of ways: the link
   after the end's is the latest's, that before it the oldest's. */
PYVIRT_INLINE link_t *list_of(const cache_t *c, uint32_t set)
{
    return c->links + (uint64_t)set * (c->ways + 1);
}

PYVIRT_INLINE void list_touch(link_t *list, uint32_t end, uint32_t way)
{
    const link_t old = list[way];
    const uint32_t first = list[end].next;
    if (first == way)
        return;
    list[old.before].next = old.next;
    list[old.next].before = old.before;
    list[way].next = first;
    list[way].before = end;
    list[first].before = way;
    list[end].next = way;
}

/* The oldest way, which becomes the latest: it and the end change places. */
PYVIRT_INLINE uint32_t list_turn(link_t *list, uint32_t end)
{
    const uint32_t way = list[end].before, before = list[way].before, first = list[end].next;
    if (first == way)
        return way;
    list[before].next = end;
    list[end].before = before;
    list[end].next = way;
    list[way].before = end;
    list[way].next = first;
    list[first].before = way;
    return way;
}

PYVIRT_INLINE void lru_touch(cache_t *c, uint32_t set, uint32_t way)
{
    if (c->orders)
        four_touch(&c->orders[set], way);
    else if (c->ranks)
        rank_touch(c->ranks + (uint64_t)set * PYVIRT_RANKS, way,
                   c->ranks[(uint64_t)set * PYVIRT_RANKS + way]);
    else
        list_touch(list_of(c, set), c->ways, way);
}

PYVIRT_INLINE uint32_t lru_victim(const cache_t *c, uint32_t set)
{
    if (c->orders)
        return four_last(c->orders[set]);
    if (c->ranks)
        return rank_last(c->ranks + (uint64_t)set * PYVIRT_RANKS, c->ways);
    return list_of(c, set)[c->ways].before;
}

/* The least recently used way, which becomes the latest. */
PYVIRT_INLINE uint32_t lru_turn(cache_t *c, uint32_t set)
{
    uint32_t way;
    if (c->orders)
        return four_turn(&c->orders[set]);
    if (!c->ranks)
        return list_turn(list_of(c, set), c->ways);
    way = rank_last(c->ranks + (uint64_t)set * PYVIRT_RANKS, c->ways);
    rank_touch(c->ranks + (uint64_t)set * PYVIRT_RANKS, way, (int8_t)(c->ways - 1));
    return way;
}

/* A new entry in the lowest invalid way, or the least recently used one's; its slot. `evicted`
   receives the tag that made room, or 0. */
PYVIRT_INLINE uint64_t lru_put(cache_t *c, uint32_t set, uint64_t tag, uint64_t value,
                               uint64_t *evicted)
{
    const uint64_t first = (uint64_t)set * c->stride;
    uint64_t *const tags = c->tags + first;
    uint32_t way = c->ways;
    uint64_t old;
    if (!PYVIRT_LIKELY(is_full(c))) {
        way = 0;
        while (way < c->ways && tags[way])
            way++;
    }
    if (PYVIRT_LIKELY(way == c->ways))
        way = lru_turn(c, set);
    else
        lru_touch(c, set, way);
    *evicted = old = tags[way];
    if (!old) {
        c->state->valid++;
        c->state->present[tag >> 1 & 3]++;
    } else if ((old ^ tag) & 6) {
        c->state->present[old >> 1 & 3]--;
        c->state->present[tag >> 1 & 3]++;
    }
    cache_write(c, set, way, tag, value);
    return first + way;
}

#endif
