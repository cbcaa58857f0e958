/* One LRU TLB of one size, its misses counted: what a sweep without all-associativity repeats for
 * each size. The ways of a set are in order of use, a hit moves to the front. The geometry is a
 * constant for the compiler.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static inline __attribute__((always_inline)) uint64_t misses(const uint64_t *vas, size_t n,
                                                             size_t sets, size_t ways)
{
    const size_t size = sets * ways * sizeof(uint64_t);
    uint64_t *tlb = malloc(size), missed = 0;
    memset(tlb, 0xff, size);
    for (size_t i = 0; i < n; i++) {
        const uint64_t page = vas[i] >> 12;
        uint64_t *set = tlb + (page & (sets - 1)) * ways;
        size_t way = 0;
        while (way < ways && set[way] != page)
            way++;
        if (way == ways) {
            missed++;
            way--;
        }
        for (; way > 0; way--)
            set[way] = set[way - 1];
        set[0] = page;
    }
    free(tlb);
    return missed;
}

uint64_t misses_64_4(const uint64_t *vas, size_t n) { return misses(vas, n, 16, 4); }
uint64_t misses_1536_12(const uint64_t *vas, size_t n) { return misses(vas, n, 128, 12); }
