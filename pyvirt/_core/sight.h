/* What walks of two dimensions will find, for the accesses of a block that is still to come: by the
   tables alone, a step at a time, each of which asks for what the next one reads.

   What an access then finds through its caches is the same, as long as each entry of them says what
   the tables say; blockwalk.h sees to that. */

#ifndef PYVIRT_SIGHT_H
#define PYVIRT_SIGHT_H

#include "ahead.h"

/* The host's table at `level` for a guest-physical address, and the value that leads to it; NULL if
   an entry on the way is not plain. */
PYVIRT_NOINLINE const uint8_t *host_table(const shortwalk_t *h, uint64_t gpa, int level,
                                          uint64_t *value)
{
    const uint8_t *frame;
    *value = h->start;
    for (int at = h->levels;; at--) {
        uint64_t entry;
        frame = frame_at(h, *value & PYVIRT_ADDRESS);
        if (at == level || !frame)
            return frame;
        entry = word_at(frame + (gpa >> (9 * at) & 0xFF8));
        if ((entry & h->table_mask[at]) != h->table_wanted)
            return NULL;
        *value = host_down(h, *value, entry);
    }
}

/* A page's value by the host's tables; 0 if it is not plain, or does not allow what is asked. */
PYVIRT_NOINLINE uint64_t host_page(const nested_t *t, uint64_t gpa, const ask_t *ask)
{
    uint64_t value, wrong = gpa & t->beyond;
    const uint8_t *const frame = wrong ? NULL : host_table(&t->host, gpa, 1, &value);
    if (!frame)
        return 0;
    value = host_leaf(&t->host, value, word_at(frame + (gpa >> 9 & 0xFF8)), ask, &wrong);
    return wrong ? 0 : value;
}

/* The guest's table at `level` for an address, with the rights that lead to it, its guest-physical
   address and the host's value of that; NULL as before. */
PYVIRT_NOINLINE const uint8_t *guest_table(const nested_t *t, uint64_t va, int level,
                                           uint64_t *rights, uint64_t *base, uint64_t *host)
{
    const shortwalk_t *const g = &t->guest;
    *rights = g->start & ~PYVIRT_ADDRESS;
    *base = g->start & PYVIRT_ADDRESS;
    for (int at = g->levels;; at--) {
        const uint8_t *frame;
        uint64_t entry;
        if (!(*host = host_page(t, *base, &t->table)))
            return NULL;
        frame = frame_at(g, *host & PYVIRT_ADDRESS);
        if (at == level || !frame)
            return frame;
        entry = word_at(frame + (va >> (9 * at) & 0xFF8));
        if ((entry & g->table_mask[at]) != g->table_wanted)
            return NULL;
        *rights = guest_down(g, *rights, entry);
        *base = entry & g->table_address;
    }
}

PYVIRT_INLINE const top_t *guest_top(sights_t *a, const nested_t *t, uint64_t va)
{
    top_t *const top = &a->guest[(va >> 30) % SIGHT_TOPS];
    if (!PYVIRT_LIKELY(top->region == (va >> 30) + 1)) {
        top->region = (va >> 30) + 1;
        top->table = guest_table(t, va, 2, &top->value, &top->base, &top->host);
    }
    return top;
}

PYVIRT_INLINE const top_t *host_top(sights_t *a, const nested_t *t, uint64_t gpa)
{
    top_t *const top = &a->host[(gpa >> 30) % SIGHT_TOPS];
    if (!PYVIRT_LIKELY(top->region == (gpa >> 30) + 1)) {
        top->region = (gpa >> 30) + 1;
        top->table = host_table(&t->host, gpa, 2, &top->value);
    }
    return top;
}

/* Nothing is known of any tables. */
PYVIRT_INLINE void sights_start(sights_t *a)
{
    memset(a->guest, 0, sizeof a->guest);
    memset(a->host, 0, sizeof a->host);
    a->sight[0].first = a->sight[1].first = a->next = ~(uint64_t)0;
}

/* A step for all accesses of a block, from the entry of the guest's level 2 to the host's leaf. */
#define SIGHT_STEP(STEP, ...)                                                                     \
PYVIRT_NOINLINE void see_##STEP(sights_t *a, const nested_t *t, sight_t *s, const uint64_t *vas)  \
{                                                                                                 \
    const shortwalk_t *const g = &t->guest, *const h = &t->host;                                  \
    const uint8_t *const near = (const uint8_t *)s;                                               \
    uint64_t wrong = 0;                                                                           \
    (void)a, (void)g, (void)h, (void)vas;                                                         \
    for (unsigned j = 0; j < AHEAD_BLOCK; j++) {                                                  \
        const uint8_t *const last = s->at[j];                                                     \
        const uint8_t *at = NULL;                                                                 \
        if ((STEP) == 1 || PYVIRT_LIKELY(last != NULL))                                           \
            __VA_ARGS__                                                                           \
        s->at[j] = at;                                                                            \
        wrong |= !at;                                                                             \
        if ((STEP) < 8)                                                                           \
            PYVIRT_PREFETCH(at ? at : near);                                                      \
    }                                                                                             \
    s->wrong |= wrong;                                                                            \
}

SIGHT_STEP(1, {
    const uint64_t va = vas[j];
    const top_t *const top = guest_top(a, t, va);
    s->bases[2][j] = top->base;
    s->hosts[2][j] = top->host;
    s->value[j] = top->value;
    at = top->table ? top->table + (va >> 18 & 0xFF8) : NULL;
})

/* Few of the host's tables map those of a guest, so they are at hand. */
SIGHT_STEP(2, {
    const uint64_t entry = word_at(last), base = entry & g->table_address;
    const top_t *const top = host_top(a, t, base);
    wrong |= ((entry & g->table_mask[2]) ^ g->table_wanted) | (base & t->beyond);
    s->bases[1][j] = base;
    s->value[j] = guest_down(g, s->value[j], entry);
    if (PYVIRT_LIKELY(top->table != NULL)) {
        const uint64_t middle = word_at(top->table + (base >> 18 & 0xFF8));
        const uint64_t value = host_down(h, top->value, middle);
        wrong |= (middle & h->table_mask[2]) ^ h->table_wanted;
        s->hosts[1][j] = value;
        at = frame_at(h, value & PYVIRT_ADDRESS);
        at = at ? at + (base >> 9 & 0xFF8) : NULL;
    }
})

SIGHT_STEP(3, {
    const uint64_t value = host_leaf(h, s->hosts[1][j], word_at(last), &t->table, &wrong);
    s->hosts[1][j] = value;
    at = place_of(h, value & PYVIRT_ADDRESS);
})

SIGHT_STEP(4, { at = step_to_leaf(last, vas[j]); })

SIGHT_STEP(5, {
    const uint64_t entry = word_at(last), rights = s->value[j], gpa = entry & g->leaf_address;
    const uint64_t value = (entry & (rights | ~g->rights_and) & g->kept) | (rights & g->rights_or)
                           | g->added;
    const top_t *const top = host_top(a, t, gpa);
    wrong |= ((entry & t->access.leaf_mask) ^ t->access.leaf_wanted)
             | ((value & t->access.mask) ^ t->access.wanted) | (gpa & t->beyond);
    s->value[j] = value;
    s->bases[0][j] = gpa;
    s->hosts[0][j] = top->value;
    at = top->table ? top->table + (gpa >> 18 & 0xFF8) : NULL;
})

SIGHT_STEP(6, {
    const uint64_t entry = word_at(last), value = host_down(h, s->hosts[0][j], entry);
    wrong |= (entry & h->table_mask[2]) ^ h->table_wanted;
    s->hosts[0][j] = value;
    at = place_of(h, value & PYVIRT_ADDRESS);
})

SIGHT_STEP(7, { at = step_to_leaf(last, s->bases[0][j]); })

/* A global page has another tag, so it is out of the ordinary. */
SIGHT_STEP(8, {
    const uint64_t host = host_leaf(h, s->hosts[0][j], word_at(last), &t->page, &wrong);
    const uint64_t allowed = t->ept ? host & 7
                                    : (host & 4) >> 2 | (host & 2) | (host & t->host_nx ? 0 : 4);
    const uint64_t clean = (host & t->dirty) == t->dirty ? 0 : PYVIRT_DIRTY;
    const uint64_t value = (s->value[j] & ~clean) | (host & PYVIRT_ADDRESS)
                           | allowed << PYVIRT_NESTED_SHIFT;
    s->hosts[0][j] = host;
    s->value[j] = value;
    wrong |= (value & 0x100) | !value;
    at = last;
})

/* All but the last step for a block that comes now. */
PYVIRT_COLD void see_at_once(sights_t *a, const nested_t *t, sight_t *s, const uint64_t *vas)
{
    see_1(a, t, s, vas);
    see_2(a, t, s, vas);
    see_3(a, t, s, vas);
    see_4(a, t, s, vas);
    see_5(a, t, s, vas);
    see_6(a, t, s, vas);
    see_7(a, t, s, vas);
}

#endif
