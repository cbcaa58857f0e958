/* The lowest bit of a mask of CPUs. */
#ifndef PYVIRT_SCHED_BITS_H
#define PYVIRT_SCHED_BITS_H

#include <stdint.h>

/* Of a word that is not 0. */
static inline uint32_t lowest_bit(uint64_t word)
{
#if defined(__GNUC__) || defined(__clang__)
    return (uint32_t)__builtin_ctzll(word);
#else
    uint32_t bit = 0;
    while (!(word & 1)) {
        word >>= 1;
        bit++;
    }
    return bit;
#endif
}

#endif
