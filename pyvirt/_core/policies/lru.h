/* Least recently used, exactly. Four ways keep their order as one of 24 states, a touch being a look
   into a table. From five to 64 keep their ranks, a touch being a compare and a subtraction of
   vectors, and the victim a compare. Fewer ways, and more, keep time stamps. */

#ifndef PYVIRT_LRU_H
#define PYVIRT_LRU_H

#include "cache.h"

/* `rank` is that of the way, which becomes 0; those below it move up. */
PYVIRT_INLINE void rank_touch(int8_t *ranks, uint32_t stride, uint32_t way, int8_t rank)
{
#if PYVIRT_X86
    const __m128i old = _mm_set1_epi8(rank);
    __m128i ways = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m128i this_way = _mm_set1_epi8((char)way);
    for (uint32_t i = 0; i < stride; i += 16) {
        __m128i *place = (__m128i *)(ranks + i);
        __m128i x = _mm_load_si128(place);
        x = _mm_sub_epi8(x, _mm_cmplt_epi8(x, old));
        x = _mm_andnot_si128(_mm_cmpeq_epi8(ways, this_way), x);
        _mm_store_si128(place, x);
        ways = _mm_add_epi8(ways, _mm_set1_epi8(16));
    }
#else
    for (uint32_t i = 0; i < stride; i++)
        ranks[i] = (int8_t)(ranks[i] + (ranks[i] < rank));
    ranks[way] = 0;
#endif
}

PYVIRT_INLINE uint32_t rank_last(const int8_t *ranks, uint32_t stride, uint32_t ways)
{
#if PYVIRT_X86
    const __m128i last = _mm_set1_epi8((char)(ways - 1));
    uint32_t i = 0;
    for (;; i += 16) {
        const __m128i x = _mm_load_si128((const __m128i *)(ranks + i));
        const unsigned found = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(x, last));
        if (found || i + 16 >= stride)
            return i + PYVIRT_CTZ(found | 0x10000);
    }
#else
    uint32_t way = 0;
    while (way + 1 < ways && ranks[way] != (int8_t)(ways - 1))
        way++;
    (void)stride;
    return way;
#endif
}

PYVIRT_INLINE uint32_t oldest(const uint64_t *stamps, uint32_t ways)
{
    uint32_t first = 0;
    for (uint32_t way = 1; way < ways; way++)
        first = stamps[way] < stamps[first] ? way : first;
    return first;
}

/* Four ways can be in 24 orders. A state is the number of one, shifted by two, with the way that was
   used longest ago in bits 1:0; at [state & ~3 | way] stands the state after a use of `way`. Orders
   are counted by their last way first, so 0 is one: 1, 2, 3, 0 from the latest on. */
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

PYVIRT_INLINE void lru_touch(cache_t *c, uint32_t set, uint32_t way)
{
    if (c->orders)
        four_touch(&c->orders[set], way);
    else if (c->ranks)
        rank_touch(c->ranks + (uint64_t)set * c->rank_stride, c->rank_stride, way,
                   c->ranks[(uint64_t)set * c->rank_stride + way]);
    else
        c->stamps[(uint64_t)set * c->stride + way] = ++c->state->clock;
}

PYVIRT_INLINE uint32_t lru_victim(const cache_t *c, uint32_t set)
{
    if (c->orders)
        return c->orders[set] & 3;
    if (c->ranks)
        return rank_last(c->ranks + (uint64_t)set * c->rank_stride, c->rank_stride, c->ways);
    return oldest(c->stamps + (uint64_t)set * c->stride, c->ways);
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
    if (!PYVIRT_LIKELY(c->state->valid == (uint64_t)c->sets * c->ways)) {
        way = 0;
        while (way < c->ways && tags[way])
            way++;
    }
    if (c->orders) {
        if (way == 4)
            way = four_turn(&c->orders[set]);
        else
            four_touch(&c->orders[set], way);
    } else if (c->ranks) {
        int8_t *ranks = c->ranks + (uint64_t)set * c->rank_stride;
        if (way == c->ways) {
            way = rank_last(ranks, c->rank_stride, way);
            rank_touch(ranks, c->rank_stride, way, (int8_t)(c->ways - 1));
        } else
            rank_touch(ranks, c->rank_stride, way, ranks[way]);
    } else {
        if (way == c->ways)
            way = oldest(c->stamps + first, way);
        c->stamps[first + way] = ++c->state->clock;
    }
    *evicted = old = tags[way];
    if (!old) {
        c->state->valid++;
        c->state->present[tag >> 1 & 3]++;
    } else if ((old ^ tag) & 6) {
        c->state->present[old >> 1 & 3]--;
        c->state->present[tag >> 1 & 3]++;
    }
    tags[way] = tag;
    c->values[first + way] = value;
    return first + way;
}

#endif
