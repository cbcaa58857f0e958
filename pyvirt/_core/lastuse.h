/* Stack distances by the times of last use, with AVX2.

   A directory, an LRU array of the largest number of sets, tells when a page was used last. The
   lists of a number of sets hold such times alone, newest first, 16 for each set. An access to a
   page that was last used at `then` has as many pages in front of it as there are later times in
   its set's list; these, and its own, move back by one, and the time of the access goes in front.
   So a list changes by one comparison with `then`, where one of pages must first find the page.

   Of a page that is in front of its list for fewer sets, and so of this one, no pass for more sets
   hears: the time in that list is the one before. Between the two no other page of the set was
   used, so the order of times is still that of pages.

   A page that the directory has lost is in no list: a set of fewer sets has all pages of one of
   more. Lists of at most 16 ways need a directory of 16. */
#ifndef PYVIRT_LASTUSE_H
#define PYVIRT_LASTUSE_H

#include <stddef.h>
#include <stdint.h>

#define PV_USE_AHEAD 12 /* accesses whose sets are fetched from memory ahead */

typedef struct {      /* one access */
    uint32_t place;   /* of its list, in bytes, in its low bits: the page times 64 */
    int32_t then;     /* last use of its page, or PV_NEVER */
    int32_t when;     /* time of this access */
    uint32_t unused;  /* 16 bytes move at once */
} pv_use;

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <immintrin.h>

#define PV_NEVER INT32_MIN
#define PV_USE_AVX2 __attribute__((target("avx2,bmi")))
#define PV_USE_INLINE __attribute__((always_inline)) static inline

typedef int32_t pv_any_word __attribute__((may_alias));

PV_USE_INLINE PV_USE_AVX2 uint32_t pv_equal_lanes(__m256i low, __m256i high, __m256i wanted) {
    const __m256i a = _mm256_cmpeq_epi32(low, wanted), b = _mm256_cmpeq_epi32(high, wanted);
    return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(a)) |
           (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(b)) << 8;
}

PV_USE_INLINE PV_USE_AVX2 __m256i pv_load(const void *p) {
    return _mm256_load_si256((const __m256i *)p);
}

/* The lane of the least of 16 times. */
PV_USE_INLINE PV_USE_AVX2 unsigned pv_oldest(const int32_t *times) {
    const __m256i low = pv_load(times), high = pv_load(times + 8);
    __m256i least = _mm256_min_epi32(low, high);
    least = _mm256_min_epi32(least, _mm256_permute2x128_si256(least, least, 1));
    least = _mm256_min_epi32(least, _mm256_shuffle_epi32(least, 0x4E));
    least = _mm256_min_epi32(least, _mm256_shuffle_epi32(least, 0xB1));
    return (unsigned)__builtin_ctz(pv_equal_lanes(low, high, least));
}

/* Look up n pages, used from `now` on, one after the other. A set of the directory is 16 pages, all
   ones for none, and their 16 times. `pages` has PV_USE_AHEAD more elements, of any value. */
static inline PV_USE_AVX2 void pv_use_find(uint32_t *directory, uint32_t set_mask,
                                           const uint32_t *pages, size_t n, int32_t now,
                                           pv_use *uses) {
    size_t i;
    for (i = 0; i < n; i++, now++) {
        const uint32_t page = pages[i];
        const uint32_t *next = directory + (size_t)(pages[i + PV_USE_AHEAD] & set_mask) * 32;
        uint32_t *tags = directory + (size_t)(page & set_mask) * 32;
        int32_t *times = (int32_t *)(tags + 16);
        const uint32_t found =
            pv_equal_lanes(pv_load(tags), pv_load(tags + 8), _mm256_set1_epi32((int)page));
        int32_t then = PV_NEVER;
        unsigned lane;
        __builtin_prefetch(next);
        __builtin_prefetch(next + 16);
        if (__builtin_expect(found != 0, 1)) {
            lane = (unsigned)__builtin_ctz(found);
            then = times[lane];
        } else {
            lane = pv_oldest(times);
            tags[lane] = page;
        }
        times[lane] = now;
        uses[i].place = page << 6;
        uses[i].then = then;
        uses[i].when = now;
        uses[i].unused = 0;
    }
}

PV_USE_INLINE PV_USE_AVX2 __m256i pv_everywhere(const int32_t *word) {
    return _mm256_broadcastd_epi32(_mm_cvtsi32_si128(*(const pv_any_word *)word));
}

/* Move an access to the front of a list; count the times later than the last use, by place. */
PV_USE_INLINE PV_USE_AVX2 void pv_use_one(__m256i *low, __m256i *high, const pv_use *use,
                                          __m256i *low_later, __m256i *high_later) {
    const __m256i then = pv_everywhere(&use->then), when = pv_everywhere(&use->when);
    const __m256i low_moved =
        _mm256_alignr_epi8(*low, _mm256_permute2x128_si256(when, *low, 0x20), 12);
    const __m256i high_moved =
        _mm256_alignr_epi8(*high, _mm256_permute2x128_si256(*low, *high, 0x21), 12);
    /* lanes of what is true are -1 */
    *low_later = _mm256_sub_epi32(*low_later, _mm256_cmpgt_epi32(*low, then));
    *high_later = _mm256_sub_epi32(*high_later, _mm256_cmpgt_epi32(*high, then));
    *low = _mm256_blendv_epi8(*low, low_moved, _mm256_cmpgt_epi32(low_moved, then));
    *high = _mm256_blendv_epi8(*high, high_moved, _mm256_cmpgt_epi32(high_moved, then));
}

/* Of n accesses, each place was found as often as there was a later time in the place before, and
   none in its own. */
PV_USE_INLINE PV_USE_AVX2 void pv_use_count(uint64_t *counts, size_t n, __m256i low_later,
                                            __m256i high_later) {
    uint32_t later[16];
    uint64_t before = n;
    int i;
    _mm256_storeu_si256((__m256i *)later, low_later);
    _mm256_storeu_si256((__m256i *)(later + 8), high_later);
    for (i = 0; i < 16; i++) {
        counts[i] += before - later[i];
        before = later[i];
    }
    counts[16] += before;
}

/* Take n accesses through the lists of one number of sets, as recency.h says of its passes. */
PV_USE_INLINE PV_USE_AVX2 size_t pv_use_pass_of(int32_t *lists, uint32_t set_mask, pv_use *uses,
                                                size_t n, uint64_t *counts, int far) {
    const uint32_t mask = set_mask << 6;
    const pv_use *use = uses, *end = uses + n;
    pv_use *kept = uses;
    __m256i low_later = _mm256_setzero_si256(), high_later = low_later;
    for (; use < end; use++) {
        int32_t *list = (int32_t *)((char *)lists + (use->place & mask));
        const __m128i all = _mm_load_si128((const __m128i *)use);
        const size_t behind = list[0] > use->then; /* something is in front of it */
        __m256i low = pv_load(list), high = pv_load(list + 8);
        if (far) __builtin_prefetch((char *)lists + (use[PV_USE_AHEAD].place & mask));
        pv_use_one(&low, &high, use, &low_later, &high_later);
        _mm256_store_si256((__m256i *)list, low);
        _mm256_store_si256((__m256i *)(list + 8), high);
        _mm_store_si128((__m128i *)kept, all);
        kept += behind;
    }
    pv_use_count(counts, n, low_later, high_later);
    return (size_t)(kept - uses);
}

/* Likewise of one set, whose list stays in registers. */
PV_USE_INLINE PV_USE_AVX2 size_t pv_use_pass_1(int32_t *list, pv_use *uses, size_t n,
                                               uint64_t *counts) {
    const pv_use *use = uses, *end = uses + n;
    pv_use *kept = uses;
    __m256i low = pv_load(list), high = pv_load(list + 8);
    __m256i low_later = _mm256_setzero_si256(), high_later = low_later;
    int32_t front = list[0];
    for (; use < end; use++) {
        const __m128i all = _mm_load_si128((const __m128i *)use);
        const size_t behind = front > use->then;
        front = use->when;
        pv_use_one(&low, &high, use, &low_later, &high_later);
        _mm_store_si128((__m128i *)kept, all);
        kept += behind;
    }
    _mm256_store_si256((__m256i *)list, low);
    _mm256_store_si256((__m256i *)(list + 8), high);
    pv_use_count(counts, n, low_later, high_later);
    return (size_t)(kept - uses);
}

/* Lists of more than 512 sets are not all in the first cache. `uses` has PV_USE_AHEAD more. */
static inline PV_USE_AVX2 size_t pv_use_pass(int32_t *lists, uint32_t set_mask, pv_use *uses,
                                             size_t n, uint64_t *counts) {
    if (set_mask == 0) return pv_use_pass_1(lists, uses, n, counts);
    return set_mask > 511 ? pv_use_pass_of(lists, set_mask, uses, n, counts, 1)
                          : pv_use_pass_of(lists, set_mask, uses, n, counts, 0);
}

static inline int pv_use_can(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi");
}
#else
static inline int pv_use_can(void) { return 0; }
static inline void pv_use_find(uint32_t *directory, uint32_t set_mask, const uint32_t *pages,
                               size_t n, int32_t now, pv_use *uses) {
    (void)directory, (void)set_mask, (void)pages, (void)n, (void)now, (void)uses;
}
static inline size_t pv_use_pass(int32_t *lists, uint32_t set_mask, pv_use *uses, size_t n,
                                 uint64_t *counts) {
    (void)lists, (void)set_mask, (void)uses, (void)counts;
    return n;
}
#endif

#endif
