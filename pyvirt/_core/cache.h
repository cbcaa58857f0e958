/* A set-associative array of tagged words: TLBs, paging-structure caches, nested TLBs and data
   caches all are one. How to find a tag in a set, plainly or with vectors; the rest is Cython. */

#ifndef PYVIRT_CACHE_H
#define PYVIRT_CACHE_H

#include <stdint.h>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define PYVIRT_X86 1
#include <immintrin.h>
#else
#define PYVIRT_X86 0
#endif

#if defined(__GNUC__) || defined(__clang__)
#define PYVIRT_INLINE static inline __attribute__((always_inline))
#define PYVIRT_NOINLINE static __attribute__((noinline, unused))
#define PYVIRT_COLD static __attribute__((noinline, cold, unused))
#define PYVIRT_LIKELY(x) __builtin_expect(!!(x), 1)
#define PYVIRT_PREFETCH(p) __builtin_prefetch(p)
#define PYVIRT_CTZ(x) ((unsigned)__builtin_ctz(x))
#else
#define PYVIRT_INLINE static inline
#define PYVIRT_NOINLINE static
#define PYVIRT_COLD static
#define PYVIRT_LIKELY(x) (x)
#define PYVIRT_PREFETCH(p) ((void)(p))
static inline unsigned PYVIRT_CTZ(unsigned x) { unsigned n = 0; while (!(x >> n & 1)) n++; return n; }
#endif

typedef struct {                /* what changes beside the arrays; part of a snapshot */
    uint64_t clock;             /* of the stamps */
    uint64_t random;            /* state of xorshift64* */
    uint64_t valid;             /* entries */
    uint64_t present[4];        /* of them by bits 2:1 of the tag, the page size */
} cache_state_t;

typedef struct {                /* slot = set * stride + way */
    uint64_t *tags;             /* 0: invalid; ways up to the stride are never used */
    uint64_t *values;
    uint64_t *second;           /* another word for each entry, or NULL */
    uint64_t *stamps;           /* when touched (LRU of few or very many ways) or filled (FIFO) */
    uint8_t *orders;            /* of a set's ways by recency, as a state: LRU of four */
    uint64_t *bits;             /* of a set: tree-PLRU and bit-PLRU */
    int8_t *ranks;              /* of a set's ways by recency, 0 the latest: LRU of up to 64 */
    cache_state_t *state;
    uint32_t sets;
    uint32_t ways;
    uint32_t stride;            /* ways, rounded up to whole vectors of four */
    uint32_t rank_stride;       /* to whole vectors of sixteen */
    uint32_t set_mask;          /* sets - 1 if they are a power of two, else 0 */
    uint8_t fold;               /* xor-n: the key is xored with itself >> fold; 63: linear */
    uint8_t policy;
} cache_t;

PYVIRT_INLINE uint32_t cache_set(const cache_t *c, uint64_t number)
{
    if (PYVIRT_LIKELY(c->set_mask || c->sets == 1))
        return (uint32_t)((number ^ number >> c->fold) & c->set_mask);
    return (uint32_t)(number % c->sets);
}

/* The way of a set that holds `key` or `twin`, the lowest; -1 if none does. */
PYVIRT_INLINE int find_plain(const uint64_t *tags, uint32_t stride, uint64_t key, uint64_t twin)
{
    for (uint32_t way = 0; way < stride; way++)
        if (tags[way] == key || tags[way] == twin)
            return (int)way;
    return -1;
}

#if PYVIRT_X86
#define PYVIRT_AVX2 __attribute__((target("avx2,bmi,bmi2")))

PYVIRT_AVX2 PYVIRT_INLINE unsigned match_avx2(const uint64_t *tags, __m256i key, __m256i twin)
{
    const __m256i four = _mm256_load_si256((const __m256i *)tags);
    const __m256i same = _mm256_or_si256(_mm256_cmpeq_epi64(four, key),
                                         _mm256_cmpeq_epi64(four, twin));
    return (unsigned)_mm256_movemask_pd(_mm256_castsi256_pd(same));
}

/* Up to sixteen ways are compared before the one branch: which way it is, no one can predict. */
PYVIRT_AVX2 PYVIRT_INLINE int find_avx2(const uint64_t *tags, uint32_t stride, uint64_t key,
                                        uint64_t twin)
{
    const __m256i keys = _mm256_set1_epi64x((long long)key);
    const __m256i twins = _mm256_set1_epi64x((long long)twin);
    unsigned found;
    uint32_t way = 0;
    for (; stride - way > 16; way += 16) {
        found = match_avx2(tags + way, keys, twins);
        found |= match_avx2(tags + way + 4, keys, twins) << 4;
        found |= match_avx2(tags + way + 8, keys, twins) << 8;
        found |= match_avx2(tags + way + 12, keys, twins) << 12;
        if (found)
            return (int)(way + PYVIRT_CTZ(found));
    }
    found = match_avx2(tags + way, keys, twins);
    if (stride - way > 4)
        found |= match_avx2(tags + way + 4, keys, twins) << 4;
    if (stride - way > 8)
        found |= match_avx2(tags + way + 8, keys, twins) << 8;
    if (stride - way > 12)
        found |= match_avx2(tags + way + 12, keys, twins) << 12;
    return found ? (int)(way + PYVIRT_CTZ(found)) : -1;
}
#endif

#if PYVIRT_X86
PYVIRT_AVX2 PYVIRT_NOINLINE
int find_wide(const uint64_t *tags, uint32_t stride, uint64_t key, uint64_t twin)
{
    return find_avx2(tags, stride, key, twin);
}
#endif

/* For code that is compiled once only: many ways by vectors where the processor has them. */
PYVIRT_INLINE int find_way(const uint64_t *tags, uint32_t stride, uint64_t key, uint64_t twin)
{
#if PYVIRT_X86
    if (stride > 4 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2"))
        return find_wide(tags, stride, key, twin);
#endif
    return find_plain(tags, stride, key, twin);
}

static inline int pyvirt_has_avx2(void)
{
#if PYVIRT_X86
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi")
           && __builtin_cpu_supports("bmi2");
#else
    return 0;
#endif
}

#endif
