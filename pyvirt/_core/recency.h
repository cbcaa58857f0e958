/* Lists of the pages last used in each set of a TLB, newest first, looked through with SIMD.

   One pass takes the accesses of a block, in order, through the lists of one number of sets. For
   each it counts at which place of its set's list the page was, and moves the page to the front.
   It keeps the accesses whose page was not in front already, and returns how many they are. n is
   below 2**32; `kept` may be `pages` itself. A list has 16 places for each of its `groups`;
   `counts` has one more, for pages that were nowhere. There is no branch on what is found in a list
   of one group. */
#ifndef PYVIRT_RECENCY_H
#define PYVIRT_RECENCY_H

#include <stddef.h>
#include <stdint.h>

typedef size_t (*pv_recency_pass)(uint32_t *lists, uint32_t set_mask, size_t groups,
                                  const uint32_t *pages, size_t n, uint32_t *kept,
                                  uint64_t *counts);

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <immintrin.h>

#define PV_INLINE __attribute__((always_inline)) static inline
#define PV_AVX2 __attribute__((target("avx2,bmi")))
#define PV_AVX512 __attribute__((target("avx512f,bmi")))

/* The lanes up to the lowest set bit of m, itself included; all 16 if there is none. */
PV_INLINE uint32_t pv_lanes_up_to(uint32_t m) {
    m |= 1u << 15;
    return m ^ (m - 1);
}

/* Add the hits of each place of lists of one group; the rest of n were misses. A register counts
   them: an increment in memory would wait for the one before. */
PV_INLINE void pv_add_lanes(uint64_t *counts, const uint32_t *lanes, size_t n) {
    int i;
    for (i = 0; i < 16; i++) {
        counts[i] += lanes[i];
        n -= lanes[i];
    }
    counts[16] += n;
}

PV_INLINE PV_AVX512 size_t pv_recency_512(uint32_t *lists, uint32_t set_mask, size_t groups,
                                          const uint32_t *pages, size_t n, uint32_t *kept,
                                          uint64_t *counts) {
    const __m512i one = _mm512_set1_epi32(1);
    __m512i hits = _mm512_setzero_si512();
    uint32_t lanes[16];
    size_t i, g, count = 0;
    for (i = 0; i < n; i++) {
        const uint32_t page = pages[i];
        uint32_t *list = lists + (size_t)(page & set_mask) * groups * 16;
        const __m512i wanted = _mm512_set1_epi32((int)page);
        __m512i before = wanted; /* its last lane goes in front of the group */
        uint32_t found = 0, first = 0;
        for (g = 0; g < groups; g++, list += 16) {
            const __m512i old = _mm512_load_si512(list);
            const __m512i moved = _mm512_alignr_epi32(old, before, 15);
            found = _mm512_cmpeq_epi32_mask(old, wanted);
            if (g == 0) first = found & 1;
            _mm512_store_si512(
                list, _mm512_mask_mov_epi32(old, (__mmask16)pv_lanes_up_to(found), moved));
            before = old;
            if (groups > 1 && found) break;
        }
        if (groups == 1)
            hits = _mm512_mask_add_epi32(hits, (__mmask16)found, hits, one);
        else
            counts[found ? g * 16 + (size_t)__builtin_ctz(found) : groups * 16]++;
        kept[count] = page;
        count += !first;
    }
    _mm512_storeu_si512(lanes, hits);
    if (groups == 1) pv_add_lanes(counts, lanes, n);
    return count;
}

PV_INLINE PV_AVX2 __m256i pv_load_256(const void *p) {
    return _mm256_load_si256((const __m256i *)p);
}

PV_INLINE PV_AVX2 size_t pv_recency_256(uint32_t *lists, uint32_t set_mask, size_t groups,
                                        const uint32_t *pages, size_t n, uint32_t *kept,
                                        uint64_t *counts) {
    const __m256i low_lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i high_lanes = _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15);
    __m256i low_hits = _mm256_setzero_si256(), high_hits = low_hits;
    uint32_t lanes[16];
    size_t i, g, count = 0;
    for (i = 0; i < n; i++) {
        const uint32_t page = pages[i];
        uint32_t *list = lists + (size_t)(page & set_mask) * groups * 16;
        const __m256i wanted = _mm256_set1_epi32((int)page);
        __m256i before = wanted; /* its last lane goes in front of the group */
        uint32_t found = 0, first = 0;
        for (g = 0; g < groups; g++, list += 16) {
            const __m256i low = pv_load_256(list);
            const __m256i high = pv_load_256(list + 8);
            const __m256i low_moved =
                _mm256_alignr_epi8(low, _mm256_permute2x128_si256(before, low, 0x21), 12);
            const __m256i high_moved =
                _mm256_alignr_epi8(high, _mm256_permute2x128_si256(low, high, 0x21), 12);
            const __m256i low_equal = _mm256_cmpeq_epi32(low, wanted);
            const __m256i high_equal = _mm256_cmpeq_epi32(high, wanted);
            __m256i place, low_stays, high_stays;
            found = (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(low_equal)) |
                    (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(high_equal)) << 8;
            if (g == 0) first = found & 1;
            place = _mm256_set1_epi32(__builtin_ctz(found | 1u << 16));
            low_stays = _mm256_cmpgt_epi32(low_lanes, place);
            high_stays = _mm256_cmpgt_epi32(high_lanes, place);
            _mm256_store_si256((__m256i *)list, _mm256_blendv_epi8(low_moved, low, low_stays));
            _mm256_store_si256((__m256i *)(list + 8),
                               _mm256_blendv_epi8(high_moved, high, high_stays));
            before = high;
            if (groups == 1) { /* equal lanes are all ones, -1 */
                low_hits = _mm256_sub_epi32(low_hits, low_equal);
                high_hits = _mm256_sub_epi32(high_hits, high_equal);
            }
            if (groups > 1 && found) break;
        }
        kept[count] = page;
        count += !first;
        if (groups > 1)
            counts[found ? g * 16 + (size_t)__builtin_ctz(found) : groups * 16]++;
    }
    _mm256_storeu_si256((__m256i *)lanes, low_hits);
    _mm256_storeu_si256((__m256i *)(lanes + 8), high_hits);
    if (groups == 1) pv_add_lanes(counts, lanes, n);
    return count;
}

/* A constant number of groups lets the compiler drop their loop. */
static PV_AVX512 size_t pv_recency_avx512(uint32_t *lists, uint32_t set_mask, size_t groups,
                                          const uint32_t *pages, size_t n, uint32_t *kept,
                                          uint64_t *counts) {
    return groups == 1 ? pv_recency_512(lists, set_mask, 1, pages, n, kept, counts)
                       : pv_recency_512(lists, set_mask, groups, pages, n, kept, counts);
}

static PV_AVX2 size_t pv_recency_avx2(uint32_t *lists, uint32_t set_mask, size_t groups,
                                      const uint32_t *pages, size_t n, uint32_t *kept,
                                      uint64_t *counts) {
    return groups == 1 ? pv_recency_256(lists, set_mask, 1, pages, n, kept, counts)
                       : pv_recency_256(lists, set_mask, groups, pages, n, kept, counts);
}

static inline pv_recency_pass pv_recency_simd(int width) {
    if (width == 512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("bmi"))
        return pv_recency_avx512;
    if (width == 256 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi"))
        return pv_recency_avx2;
    return NULL;
}
#else
static inline pv_recency_pass pv_recency_simd(int width) {
    (void)width;
    return NULL;
}
#endif

#endif
