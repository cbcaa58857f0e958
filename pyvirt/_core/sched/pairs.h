/* A winner tree of keys that need all of their 64 bits, beside the numbers of their owners: node 1 is
   the least of all leaves by key, and of equal keys the one with the lowest number. An empty leaf has
   the key INT64_MAX and the number PV_NOBODY.

   As in winner.h, without a branch that depends on keys. */
#ifndef PYVIRT_PAIRS_H
#define PYVIRT_PAIRS_H

#include <stdint.h>

#define PV_NOBODY UINT32_MAX

static inline void pairs_set(
    int64_t *keys, uint32_t *owners, uint32_t leaves, uint32_t slot, int64_t key, uint32_t owner)
{
    uint32_t i = leaves + slot;
    keys[i] = key;
    owners[i] = owner;
    while (i > 1) {
        const int64_t other = keys[i ^ 1];
        const uint32_t who = owners[i ^ 1];
        const uint32_t swap = (other < key) | ((other == key) & (who < owner));
        key ^= (key ^ other) & -(int64_t)swap;
        owner ^= (owner ^ who) & (0 - swap);
        i >>= 1;
        keys[i] = key;
        owners[i] = owner;
    }
}

static inline void pairs_clear(int64_t *keys, uint32_t *owners, uint32_t leaves)
{
    for (uint32_t i = 0; i < 2 * leaves; i++) {
        keys[i] = INT64_MAX;
        owners[i] = PV_NOBODY;
    }
}

#endif
