/* The loop over the accesses that nearly all are: 4 KiB pages that the first array of the first or
   second level holds, both LRU, or that a short walk finds: one through the PDE cache alone, of a
   present leaf with nothing to set. Whatever else may happen ends the loop, for Cython to settle
   that access. Compiled twice, plainly and with AVX2; which one runs is chosen at run time. */

#ifndef PYVIRT_HITS_H
#define PYVIRT_HITS_H

#include "blocks.h"
#include "calm.h"
#include "lane.h"
#include "mixed.h"

/* What the loop needs of an array, in locals: a store to one could be to any of its fields. */
typedef struct {
    cache_t *cache;
    uint64_t *tags, *values;
    uint8_t *orders;
    int8_t *ranks;
    cache_state_t *state;
    uint32_t ways, stride, set_mask;
    uint8_t fold;
    uint8_t full;
} array_t;

PYVIRT_INLINE array_t array_of(cache_t *c)
{
    array_t a;
    a.cache = c;
    a.tags = c->tags;
    a.values = c->values;
    a.orders = c->orders;
    a.ranks = c->ranks;
    a.state = c->state;
    a.ways = c->ways;
    a.stride = c->stride;
    a.set_mask = c->set_mask;
    a.fold = c->fold;
    a.full = is_full(c);
    return a;
}

PYVIRT_INLINE uint32_t array_set(const array_t *a, uint64_t number)
{
    return (uint32_t)((number ^ number >> a->fold) & a->set_mask);
}

/* How an array keeps its order, where that is known when this is compiled. */
enum { EITHER, FOUR, RANKED };      /* the order of four; ranks of up to sixteen */

PYVIRT_INLINE void array_touch(array_t *a, uint32_t set, uint32_t way, int form)
{
    if (form == FOUR)
        four_touch(&a->orders[set], way);
    else if (form == RANKED) {
        int8_t *ranks = a->ranks + (uint64_t)set * PYVIRT_RANKS;
        rank_touch(ranks, way, ranks[way]);
    } else
        lru_touch(a->cache, set, way);
}

/* A new page, in the lowest invalid way or the least recently used one's. All entries of the array
   are 4 KiB pages here. */
#define PYVIRT_FILL(FORM, TARGET)                                                                 \
TARGET PYVIRT_INLINE void array_fill_##FORM(array_t *a, uint32_t set, uint64_t tag,               \
                                            uint64_t value, int form)                             \
{                                                                                                 \
    const uint64_t slot = (uint64_t)set * a->stride;                                              \
    uint64_t *tags = a->tags + slot;                                                              \
    uint32_t way = a->ways;                                                                       \
    if (!PYVIRT_LIKELY(a->full))                                                                  \
        way = invalid_way(a->state, tags, a->ways);                                               \
    if (!PYVIRT_LIKELY(way == a->ways))                                                           \
        array_touch(a, set, way, form);                                                           \
    else if (form == FOUR)                                                                        \
        way = four_turn(&a->orders[set]);                                                         \
    else if (form == RANKED) {                                                                    \
        int8_t *ranks = a->ranks + (uint64_t)set * PYVIRT_RANKS;                                  \
        way = rank_last(ranks, a->ways);                                                          \
        rank_touch(ranks, way, (int8_t)(a->ways - 1));                                            \
    } else                                                                                        \
        way = lru_turn(a->cache, set);                                                            \
    if (form == EITHER)                                                                           \
        cache_write(a->cache, set, way, tag, value);                                              \
    else {                                                                                        \
        if (form == FOUR)                                                                         \
            write4_##FORM(tags, way, tag);                                                        \
        else                                                                                      \
            tags[way] = tag;                                                                      \
        a->values[slot + way] = value;                                                            \
    }                                                                                             \
}

/* The usual case (lane_usual) in fewest steps. `walk` is a constant. */
#define PYVIRT_FULL(FORM, TARGET)                                                                 \
TARGET PYVIRT_INLINE uint64_t hits_full_##FORM(hits_t *h, const uint64_t *vas, uint64_t i,        \
                                               uint64_t n, uint64_t *pas, uint16_t *codes,        \
                                               const int walk)                                    \
{                                                                                                 \
    uint64_t *const tags = h->first->tags, *const values = h->first->values;                      \
    uint64_t *const tags2 = h->second->tags, *const values2 = h->second->values;                  \
    uint8_t *const orders = h->first->orders;                                                     \
    int8_t *const ranks2 = h->second->ranks;                                                      \
    const uint64_t low = h->low, mask = h->mask, wanted = h->wanted;                              \
    const uint64_t set_mask = h->first->set_mask, set_mask2 = h->second->set_mask;                \
    const uint64_t identity = h->identity;                                                        \
    const uint8_t unused = h->unused;                                                             \
    uint64_t due = h->asks ? h->ahead->due : UINT64_MAX;                                          \
    for (; i < n; i++) {                                                                          \
        const uint64_t va = vas[i], number = va >> 12, key = (va << 7 & ~PYVIRT_CONTEXT) | low;   \
        const uint64_t set = number & set_mask, set2 = number & set_mask2;                        \
        uint64_t *const row2 = tags2 + set2 * 12;                                                 \
        int8_t *const rank2 = ranks2 + set2 * PYVIRT_RANKS;                                       \
        uint64_t value;                                                                           \
        uint32_t turn;                                                                            \
        unsigned refs = 0;                                                                        \
        int way;                                                                                  \
        if (walk != HITS_IDENTITY && !PYVIRT_LIKELY(i != due))                                    \
            due = lane_ask(h, vas, i, pas, codes);                                                \
        if (!PYVIRT_LIKELY((uint64_t)((int64_t)(va << unused) >> unused) == va)) {                \
            h->why = HITS_RANGE;                                                                  \
            break;                                                                                \
        }                                                                                         \
        way = find4_##FORM(tags + set * 4, key);                                                  \
        if (PYVIRT_LIKELY(way >= 0)) {                                                            \
            value = values[set * 4 + (unsigned)way];                                              \
            if (!PYVIRT_LIKELY((value & mask) == wanted)) {                                       \
                h->why = HITS_WEAK;                                                               \
                break;                                                                            \
            }                                                                                     \
            four_touch(&orders[set], (uint32_t)way);                                              \
            pas[i] = (value & PYVIRT_ADDRESS) | (va & 4095);                                      \
            continue;                                                                             \
        }                                                                                         \
        way = find_##FORM(row2, 12, key, key);                                                    \
        if (way >= 0) {                                                                           \
            value = values2[set2 * 12 + (unsigned)way];                                           \
            if (!PYVIRT_LIKELY((value & mask) == wanted)) {                                       \
                h->why = HITS_WEAK;                                                               \
                break;                                                                            \
            }                                                                                     \
            rank_touch(rank2, (uint32_t)way, rank2[way]);                                         \
            h->second_hits++;                                                                     \
            codes[i] = 0x20;                                                                      \
        } else {                                                                                  \
            value = walk == HITS_IDENTITY ? (va & PYVIRT_ADDRESS) | identity                      \
                    : walk == HITS_NATIVE                                                         \
                    ? shortwalk_##FORM(&h->tables.guest, va, &h->tables.access, &refs)            \
                    : nestedwalk_##FORM(&h->tables, va, &refs);                                   \
            if (walk != HITS_IDENTITY && !PYVIRT_LIKELY(value)) {                                 \
                h->why = HITS_MISS;                                                               \
                break;                                                                            \
            }                                                                                     \
            turn = rank_last(rank2, 12);                                                          \
            rank_touch(rank2, turn, 11);                                                          \
            h->walks++;                                                                           \
            codes[i] = (uint16_t)(refs << 7);                                                     \
            if (walk != HITS_IDENTITY && !PYVIRT_LIKELY(!(value & 0x100))) {                      \
                row2[turn] = (key & ~PYVIRT_CONTEXT) | h->global_low;                             \
                values2[set2 * 12 + turn] = value;                                                \
                turn = four_turn(&orders[set]);                                                   \
                write4_##FORM(tags + set * 4, turn, (key & ~PYVIRT_CONTEXT) | h->global_low);     \
                values[set * 4 + turn] = value;                                                   \
                pas[i++] = (value & PYVIRT_ADDRESS) | (va & 4095);                                \
                h->globals = 1;         /* from here on both tags must be compared */             \
                break;                                                                            \
            }                                                                                     \
            row2[turn] = key;                                                                     \
            values2[set2 * 12 + turn] = value;                                                    \
        }                                                                                         \
        turn = four_turn(&orders[set]);                                                           \
        write4_##FORM(tags + set * 4, turn, key);                                                 \
        values[set * 4 + turn] = value;                                                           \
        pas[i] = (value & PYVIRT_ADDRESS) | (va & 4095);                                          \
    }                                                                                             \
    return i;                                                                                     \
}                                                                                                 \
TARGET PYVIRT_NOINLINE uint64_t hits_native_##FORM(hits_t *h, const uint64_t *vas, uint64_t i,    \
                                                   uint64_t n, uint64_t *pas, uint16_t *codes)    \
{                                                                                                 \
    return hits_full_##FORM(h, vas, i, n, pas, codes, HITS_NATIVE);                               \
}                                                                                                 \
TARGET PYVIRT_NOINLINE uint64_t hits_nested_##FORM(hits_t *h, const uint64_t *vas, uint64_t i,    \
                                                   uint64_t n, uint64_t *pas, uint16_t *codes)    \
{                                                                                                 \
    return hits_full_##FORM(h, vas, i, n, pas, codes, HITS_NESTED);                               \
}                                                                                                 \
TARGET PYVIRT_NOINLINE uint64_t hits_identity_##FORM(hits_t *h, const uint64_t *vas, uint64_t i,  \
                                                     uint64_t n, uint64_t *pas, uint16_t *codes)  \
{                                                                                                 \
    return hits_full_##FORM(h, vas, i, n, pas, codes, HITS_IDENTITY);                             \
}

/* `four`: the first array keeps the order of four ways, the second ranks of up to sixteen;
   `twins`: there are global pages. */
#define PYVIRT_HITS(FORM, TARGET)                                                                 \
PYVIRT_FULL(FORM, TARGET)                                                                         \
PYVIRT_FILL(FORM, TARGET)                                                                         \
PYVIRT_CALM(FORM, TARGET)                                                                         \
TARGET PYVIRT_INLINE uint64_t hits_loop_##FORM(hits_t *h, const uint64_t *vas, uint64_t i,        \
                                          uint64_t n,                                             \
                                          uint64_t *pas, uint16_t *codes, const int four,         \
                                          const int twins)                                        \
{                                                                                                 \
    array_t first = array_of(h->first), second = array_of(h->second ? h->second : h->first);      \
    const uint64_t low = h->low, mask = h->mask, wanted = h->wanted;                              \
    const uint64_t twin_low = twins ? h->twin_low : low;                                          \
    const uint8_t unused = h->unused, walk = h->walk;                                             \
    const int sure = h->sure, two = h->second != NULL;                                            \
    uint64_t second_hits = 0, walks = 0, due = h->asks ? h->ahead->due : UINT64_MAX;              \
    h->why = HITS_END;                                                                            \
    if (four)                                                                                     \
        first.stride = first.ways = 4;                                                            \
    for (; i < n; i++) {                                                                          \
        const uint64_t va = vas[i], number = va >> 12;                                            \
        const uint64_t upper = va << 7 & ~PYVIRT_CONTEXT;                                         \
        const uint32_t set = array_set(&first, number);                                           \
        const uint64_t slot = (uint64_t)set * first.stride;                                       \
        uint32_t set2 = 0;                                                                        \
        uint64_t value, tag, slot2 = 0;                                                           \
        unsigned refs = 0;                                                                        \
        int way;                                                                                  \
        if (!PYVIRT_LIKELY(i != due))                                                             \
            due = lane_ask(h, vas, i, pas, codes);                                                \
        if (!PYVIRT_LIKELY((uint64_t)((int64_t)(va << unused) >> unused) == va)) {                \
            h->why = HITS_RANGE;                                                                  \
            break;                                                                                \
        }                                                                                         \
        way = !four ? find_in_##FORM(h->first, set, upper | low, upper | twin_low)                \
              : twins ? find_##FORM(first.tags + slot, 4, upper | low, upper | twin_low)          \
                      : find4_##FORM(first.tags + slot, upper | low);                             \
        if (PYVIRT_LIKELY(way >= 0)) {                                                            \
            value = first.values[slot + way];                                                     \
            if (!PYVIRT_LIKELY((value & mask) == wanted)) {                                       \
                h->why = HITS_WEAK;                                                               \
                break;                                                                            \
            }                                                                                     \
            array_touch(&first, set, (uint32_t)way, four ? FOUR : EITHER);                        \
            if (pas)                                                                              \
                pas[i] = (value & PYVIRT_ADDRESS) | (va & 4095);                                  \
            continue;                                                                             \
        }                                                                                         \
        if (!sure) {                                                                              \
            h->why = HITS_MISS;                                                                   \
            break;                                                                                \
        }                                                                                         \
        tag = upper | low;                                                                        \
        if (two) {                                                                                \
            set2 = array_set(&second, number);                                                    \
            slot2 = (uint64_t)set2 * second.stride;                                               \
            way = four ? find_##FORM(second.tags + slot2, second.stride, upper | low,             \
                                     upper | twin_low)                                            \
                       : find_in_##FORM(h->second, set2, upper | low, upper | twin_low);          \
        }                                                                                         \
        if (way >= 0) {                                                                           \
            value = second.values[slot2 + way];                                                   \
            if (!PYVIRT_LIKELY((value & mask) == wanted)) {                                       \
                h->why = HITS_WEAK;                                                               \
                break;                                                                            \
            }                                                                                     \
            array_touch(&second, set2, (uint32_t)way, four ? RANKED : EITHER);                    \
            tag = second.tags[slot2 + way];                                                       \
            second_hits++;                                                                        \
            if (codes)                                                                            \
                codes[i] = 0x20;                                                                  \
        } else {                                                                                  \
            if (walk == HITS_IDENTITY)                                                            \
                value = (va & PYVIRT_ADDRESS) | h->identity;                                      \
            else {                                                                                \
                value = walk == HITS_NATIVE                                                       \
                        ? shortwalk_##FORM(&h->tables.guest, va, &h->tables.access, &refs)        \
                        : walk == HITS_NESTED ? nestedwalk_##FORM(&h->tables, va, &refs) : 0;     \
                if (!value) {                                                                     \
                    h->why = HITS_MISS;                                                           \
                    break;                                                                        \
                }                                                                                 \
            }                                                                                     \
            if (value & 0x100) {                                                                  \
                tag = upper | h->global_low;                                                      \
                h->globals = 1;                                                                   \
            }                                                                                     \
            if (two)                                                                              \
                array_fill_##FORM(&second, set2, tag, value, four ? RANKED : EITHER);             \
            walks++;                                                                              \
            if (codes)                                                                            \
                codes[i] = (uint16_t)(refs << 7);                                                 \
        }                                                                                         \
        array_fill_##FORM(&first, set, tag, value, four ? FOUR : EITHER);                         \
        if (pas)                                                                                  \
            pas[i] = (value & PYVIRT_ADDRESS) | (va & 4095);                                      \
        if (!twins && h->globals) {                                                               \
            i++;                        /* from here on both tags must be compared */             \
            break;                                                                                \
        }                                                                                         \
    }                                                                                             \
    h->second_hits += second_hits;                                                                \
    h->walks += walks;                                                                            \
    return i;                                                                                     \
}                                                                                                 \
TARGET PYVIRT_NOINLINE uint64_t hits_any_##FORM(hits_t *h, const uint64_t *vas, uint64_t i,       \
                                                 uint64_t n, uint64_t *pas, uint16_t *codes)      \
{                                                                                                 \
    return hits_loop_##FORM(h, vas, i, n, pas, codes, 1, 0);                                      \
}                                                                                                 \
/* Hits but for a few misses: whichever way suits the first of them. */                           \
TARGET PYVIRT_NOINLINE uint64_t hits_few_##FORM(hits_t *h, const uint64_t *vas, uint64_t i,       \
                                                uint64_t n, uint64_t *pas, uint16_t *codes)       \
{                                                                                                 \
    const uint32_t set_mask = h->first->set_mask;                                                 \
    front_t front[PYVIRT_FRONT];                                                                  \
    const int latest = set_mask < PYVIRT_FRONT && stay_in_front(h, front, vas + i, n - i);        \
    while ((i = latest ? hits_latest_##FORM(h, front, vas, i, n, pas)                             \
                       : hits_mixed_##FORM(h, vas, i, n, pas)) < n) {                             \
        const uint64_t next = hits_any_##FORM(h, vas, i, i + 1, pas, codes);                      \
        const uint32_t set = (uint32_t)(vas[i] >> 12) & set_mask;                                 \
        if (next == i || h->globals)                                                              \
            return next;                                                                          \
        if (latest)                                                                               \
            front[set] = front_of(h, set);                                                        \
        i = next;                                                                                 \
    }                                                                                             \
    return i;                                                                                     \
}                                                                                                 \
TARGET static uint64_t hits_##FORM(hits_t *h, const uint64_t *vas, uint64_t i, uint64_t n,        \
                                   uint64_t *pas, uint16_t *codes)                                \
{                                                                                                 \
    const int four = h->first->orders && (!h->second || h->second->ranks);                        \
    h->why = HITS_END;                                                                            \
    if (h->globals)                                                                               \
        return four ? hits_loop_##FORM(h, vas, i, n, pas, codes, 1, 1)                            \
                    : hits_loop_##FORM(h, vas, i, n, pas, codes, 0, 1);                           \
    if (!four)                                                                                    \
        return hits_loop_##FORM(h, vas, i, n, pas, codes, 0, 0);                                  \
    if (h->calm && !h->asks && h->first->fold == 63)                                              \
        return hits_few_##FORM(h, vas, i, n, pas, codes);                                         \
    if (lane_usual(h, pas, codes)) {                                                              \
        if (h->walk == HITS_NATIVE)                                                               \
            return hits_native_##FORM(h, vas, i, n, pas, codes);                                  \
        if (h->walk == HITS_NESTED)                                                               \
            return hits_nested_##FORM(h, vas, i, n, pas, codes);                                  \
        if (h->walk == HITS_IDENTITY)                                                             \
            return hits_identity_##FORM(h, vas, i, n, pas, codes);                                \
    }                                                                                             \
    return hits_any_##FORM(h, vas, i, n, pas, codes);                                             \
}

PYVIRT_HITS(plain, )
#if PYVIRT_X86
PYVIRT_HITS(avx2, PYVIRT_AVX2)
#endif

/* One access that hits the first array; 0, with nothing changed, if it does not. */
PYVIRT_INLINE int hit_one(hits_t *h, uint64_t va, uint64_t *pa)
{
    cache_t *const c = h->first;
    const uint64_t upper = va << 7 & ~PYVIRT_CONTEXT;
    const uint64_t twin = upper | (h->globals ? h->twin_low : h->low);
    const uint32_t set = cache_set(c, va >> 12);
    const uint64_t slot = (uint64_t)set * c->stride;
    uint64_t value;
    int way;
    if (!PYVIRT_LIKELY((uint64_t)((int64_t)(va << h->unused) >> h->unused) == va))
        return 0;
    way = c->stride == 4 && !h->globals ? find4_plain(c->tags + slot, upper | h->low)
                                        : cache_find(c, set, upper | h->low, twin);
    if (way < 0)
        return 0;
    value = c->values[slot + way];
    if (!PYVIRT_LIKELY((value & h->mask) == h->wanted))
        return 0;
    lru_touch(c, set, (uint32_t)way);
    *pa = (value & PYVIRT_ADDRESS) | (va & 4095);
    return 1;
}

static int hits_vectors = 0;

/* Choose the form; nonzero: vectors, if the processor has them. Returns what it was before. */
static inline int hits_choose(int vectors)
{
    const int before = hits_vectors;
    hits_vectors = vectors && pyvirt_has_avx2();
    return before;
}

static inline uint64_t hits(hits_t *h, const uint64_t *vas, uint64_t i, uint64_t n, uint64_t *pas,
                            uint16_t *codes)
{
    if (h->walk == HITS_NESTED)
        nestedwalk_settle(&h->tables);
    else if (h->walk == HITS_NATIVE)
        shortwalk_settle(&h->tables.guest);
#if PYVIRT_X86
    if (hits_vectors && blocks_can(h, i, n, pas, codes)) {
        h->why = HITS_END;
        if ((i = blocks(h, vas, i, n, pas, codes)) == n)
            return i;
    }
#endif
    if (h->asks && h->ahead->due - i > AHEAD_GROUP)
        lane_ask(h, vas, i, pas, codes);        /* from here on the loop does */
#if PYVIRT_X86
    if (hits_vectors && h->mixed && !h->asks && mixed_can(h, n - i, pas, codes))
        return mixed(h, vas, i, n, pas, codes);
    if (hits_vectors)
        return hits_avx2(h, vas, i, n, pas, codes);
#endif
    return hits_plain(h, vas, i, n, pas, codes);
}

#endif
