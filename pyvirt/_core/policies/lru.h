/* Least recently used, exactly. Four ways keep their order as one of 24 states, a touch being a
   look into a table. From five to sixteen keep their ranks, a touch being a compare and a
   subtraction of vectors, and the victim a compare. Fewer ways, and more, are in a list. */

#ifndef PYVIRT_LRU_H
#define PYVIRT_LRU_H

#include "cache.h"

/* Four ways can be in 24 orders. A state is the number of one, shifted by two, with the way that
   was used longest ago in bits 1:0; at [state & ~3 | way] stands the state after a use of `way`.
   Orders are counted by their last way first, so 0 is one: 1, 2, 3, 0 from the latest on. */
static const uint8_t PYVIRT_FOUR[96] = {
    75, 0, 8, 16, 50, 4, 8, 16, 79, 0, 8, 20, 25, 0, 12, 20,
    54, 4, 12, 16, 29, 4, 12, 20, 25, 83, 33, 41, 29, 58, 33, 41,
    25, 87, 33, 45, 25, 0, 37, 45, 29, 62, 37, 41, 29, 4, 37, 45,
    50, 58, 91, 66, 54, 58, 33, 66, 50, 58, 95, 70, 50, 62, 8, 70,
    54, 62, 37, 66, 54, 62, 12, 70, 75, 83, 91, 66, 79, 83, 91, 41,
    75, 83, 95, 70, 75, 87, 95, 16, 79, 87, 91, 45, 79, 87, 95, 20,
};

PYVIRT_INLINE void four_touch(uint8_t *order, uint32_t way)
{
    *order = PYVIRT_FOUR[(*order & 0x7C) | way];
}

/* The least recently used way, which becomes the latest. */
PYVIRT_INLINE uint32_t four_turn(uint8_t *order)
{
    const uint8_t state = *order;
    *order = PYVIRT_FOUR[state];
    return state & 3;
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
        return c->orders[set] & 3;
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
