/* A winner tree of packed 64-bit keys: node 1 holds the least key of all leaves, and every node the
   least of its two children. A key is (rank << bits | number), so keys are distinct, the least one
   names its owner, and equal ranks go to the lowest number. An empty leaf holds PV_EMPTY.

   To insert, change or delete a key is the same work: one way from its leaf to the root, without a
   branch that depends on keys. The siblings' addresses are known at the start, so that their loads
   do not wait for each other. */
#ifndef PYVIRT_WINNER_H
#define PYVIRT_WINNER_H

#include <stddef.h>
#include <stdint.h>

#define PV_EMPTY UINT64_MAX

#if defined(__GNUC__) || defined(__clang__)
#define PV_FETCH(p) __builtin_prefetch(p)
#else
#define PV_FETCH(p) ((void)(p))
#endif

static inline void winner_set(uint64_t *node, uint32_t leaves, uint32_t slot, uint64_t key)
{
    size_t i = (size_t)leaves + slot;
    node[i] = key;
    for (; i > 3; i >>= 2) {            /* two levels at once, for fewer instructions */
        const size_t up = i >> 1;
        const uint64_t other = node[i ^ 1], uncle = node[up ^ 1];
        key = other < key ? other : key;
        node[up] = key;
        key = uncle < key ? uncle : key;
        node[i >> 2] = key;
    }
    if (i > 1)
        node[1] = node[i ^ 1] < key ? node[i ^ 1] : key;
}

/* All inner nodes from the leaves. */
static inline void winner_build(uint64_t *node, uint32_t leaves)
{
    for (uint32_t i = leaves - 1; i; i--)
        node[i] = node[2 * i] < node[2 * i + 1] ? node[2 * i] : node[2 * i + 1];
}

static inline void winner_clear(uint64_t *node, uint32_t leaves)
{
    for (uint32_t i = 0; i < 2 * leaves; i++)
        node[i] = PV_EMPTY;
}

#endif
