/* Accesses that all hit the first array: of four ways without a hash, alone, and fewer steps still
   for those that are nearly all to the page of their set that was used last. */

#ifndef PYVIRT_CALM_H
#define PYVIRT_CALM_H

#include "lane.h"

enum { SAMPLE = 32 };       /* accesses that show how the next ones may go */

/* The page of each set that was used last: most accesses are to it, and leave the order as it is. */
#define PYVIRT_FRONT 64         /* sets, at most */
#define PYVIRT_NO_PAGE UINT64_MAX

typedef struct {
    uint64_t number;            /* of the virtual page, or PYVIRT_NO_PAGE: it needs a look */
    uint64_t page;              /* where it is */
} front_t;

PYVIRT_INLINE front_t front_of(const hits_t *h, uint32_t set)
{
    const cache_t *c = h->first;
    const uint64_t slot = (uint64_t)set * 4 + four_latest(c->orders[set]);
    const uint64_t tag = c->tags[slot], value = c->values[slot];
    front_t f = {PYVIRT_NO_PAGE, value & PYVIRT_ADDRESS};
    if ((tag & PYVIRT_CONTEXT) == h->low && (value & h->mask) == h->wanted)
        f.number = (uint64_t)((int64_t)(tag & ~PYVIRT_CONTEXT) >> 7) >> 12;
    return f;
}

/* Fill the front; whether nearly all of the next accesses are to it. */
PYVIRT_INLINE int stay_in_front(const hits_t *h, front_t *front, const uint64_t *vas, uint64_t n)
{
    const uint32_t set_mask = h->first->set_mask;
    unsigned others = 0;
    if (n < SAMPLE)
        return 0;
    for (uint32_t set = 0; set <= set_mask; set++)
        front[set] = front_of(h, set);
    for (unsigned k = 0; k < SAMPLE; k++) {
        const uint32_t set = (uint32_t)(vas[k] >> 12) & set_mask;
        others += front[set].number != vas[k] >> 12;
    }
    return others < SAMPLE / 8;
}

/* Nothing but hits of four ways and no hash: so little that it all stays in registers. */
#define PYVIRT_CALM(FORM, TARGET)                                                                 \
TARGET PYVIRT_INLINE uint64_t hits_calm_##FORM(const hits_t *h, const uint64_t *vas, uint64_t i,  \
                                               uint64_t n, uint64_t *pas)                         \
{                                                                                                 \
    const uint64_t *const tags = h->first->tags, *const values = h->first->values;                \
    uint8_t *const orders = h->first->orders;                                                     \
    const uint64_t low = h->low, mask = h->mask, wanted = h->wanted;                              \
    const uint64_t set_mask = h->first->set_mask;                                                 \
    const uint8_t unused = h->unused;                                                             \
    for (; i < n; i++) {                                                                          \
        const uint64_t va = vas[i], key = (va << 7 & ~PYVIRT_CONTEXT) | low;                      \
        const uint64_t set = va >> 12 & set_mask;                                                 \
        uint64_t value;                                                                           \
        int way;                                                                                  \
        if (!PYVIRT_LIKELY((uint64_t)((int64_t)(va << unused) >> unused) == va))                  \
            break;                                                                                \
        way = find4_##FORM(tags + set * 4, key);                                                  \
        if (!PYVIRT_LIKELY(way >= 0))                                                             \
            break;                                                                                \
        value = values[set * 4 + (unsigned)way];                                                  \
        if (!PYVIRT_LIKELY((value & mask) == wanted))                                             \
            break;                                                                                \
        four_touch(&orders[set], (uint32_t)way);                                                  \
        if (pas)                                                                                  \
            pas[i] = (value & PYVIRT_ADDRESS) | (va & 4095);                                      \
    }                                                                                             \
    return i;                                                                                     \
}                                                                                                 \
TARGET PYVIRT_NOINLINE uint64_t hits_mixed_##FORM(const hits_t *h, const uint64_t *vas,           \
                                                  uint64_t i, uint64_t n, uint64_t *pas)          \
{                                                                                                 \
    return pas ? hits_calm_##FORM(h, vas, i, n, pas) : hits_calm_##FORM(h, vas, i, n, NULL);      \
}                                                                                                 \
/* The same for accesses that are nearly all to the pages in front. */                            \
TARGET PYVIRT_INLINE uint64_t hits_front_##FORM(const hits_t *h, front_t *front,                  \
                                                const uint64_t *vas, uint64_t i, uint64_t n,      \
                                                uint64_t *pas)                                    \
{                                                                                                 \
    const uint64_t set_mask = h->first->set_mask;                                                 \
    for (;;) {                                                                                    \
        uint64_t next, set = 0;                                                                   \
        for (; i < n; i++) {                                                                      \
            const uint64_t va = vas[i], number = va >> 12;                                        \
            set = number & set_mask;                                                              \
            if (!PYVIRT_LIKELY(front[set].number == number))                                      \
                break;                                                                            \
            if (pas)                                                                              \
                pas[i] = front[set].page | (va & 4095);                                           \
        }                                                                                         \
        if (i == n)                                                                               \
            return i;                                                                             \
        next = hits_calm_##FORM(h, vas, i, i + 1, pas);                                           \
        if (next == i)                                                                            \
            return i;                                                                             \
        front[set] = front_of(h, (uint32_t)set);                                                  \
        i = next;                                                                                 \
    }                                                                                             \
}                                                                                                 \
TARGET PYVIRT_NOINLINE uint64_t hits_latest_##FORM(const hits_t *h, front_t *front,               \
                                                   const uint64_t *vas, uint64_t i, uint64_t n,   \
                                                   uint64_t *pas)                                 \
{                                                                                                 \
    return pas ? hits_front_##FORM(h, front, vas, i, n, pas)                                      \
               : hits_front_##FORM(h, front, vas, i, n, NULL);                                    \
}

#endif
