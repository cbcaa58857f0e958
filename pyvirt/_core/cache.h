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
#define PYVIRT_UNROLL _Pragma("GCC unroll 4")
#define PYVIRT_PREFETCH(p) __builtin_prefetch(p)
#define PYVIRT_PREFETCH_TO(p) __builtin_prefetch(p, 1)
/* One more, in a word of its own: two neighbours counted by one vector wait for each other whenever
   only one of them was counted before. */
#define PYVIRT_COUNT(counter) do { (counter)++; __asm__("" : "+m"(counter)); } while (0)
#define PYVIRT_CTZ(x) ((unsigned)__builtin_ctz(x))
#define PYVIRT_CTZ64(x) ((unsigned)__builtin_ctzll(x))
#else
#define PYVIRT_INLINE static inline
#define PYVIRT_NOINLINE static
#define PYVIRT_COLD static
#define PYVIRT_LIKELY(x) (x)
#define PYVIRT_UNROLL
#define PYVIRT_PREFETCH(p) ((void)(p))
#define PYVIRT_PREFETCH_TO(p) ((void)(p))
#define PYVIRT_COUNT(counter) ((void)(counter)++)
static inline unsigned PYVIRT_CTZ(unsigned x)
{
    unsigned n = 0;
    while (!(x >> n & 1))
        n++;
    return n;
}
#endif

typedef struct {                /* what changes beside the arrays; part of a snapshot */
    uint64_t random;            /* state of xorshift64* */
    uint64_t valid;             /* entries */
    uint64_t present[4];        /* of them by bits 2:1 of the tag, the page size */
} cache_state_t;

typedef struct {                /* of a way, in the list of a set by recency */
    uint32_t next;
    uint32_t before;
} link_t;

typedef struct {                /* slot = set * stride + way */
    uint64_t *tags;             /* 0: invalid; ways up to the stride are never used */
    uint64_t *values;
    uint64_t *second;           /* another word for each entry, or NULL */
    uint64_t *bits;             /* of a set: tree-PLRU and bit-PLRU */
    uint8_t *orders;            /* of a set's ways by recency, as a state: LRU of four */
    int8_t *ranks;              /* by recency, 0 the latest: LRU of five to sixteen */
    link_t *links;              /* ways + 1 of a set: LRU of others, by the use; FIFO, by the fill */
    uint16_t *marks;            /* of many ways: a part of each tag, to find it by; else NULL */
    cache_state_t *state;
    uint64_t entries;           /* sets * ways */
    uint32_t sets;
    uint32_t ways;
    uint32_t stride;            /* ways, rounded up to whole vectors of four */
    uint32_t mark_stride;       /* to whole groups of 64; 0: no marks */
    uint32_t set_mask;          /* sets - 1 if they are a power of two, else 0 */
    uint8_t fold;               /* xor-n: the key is xored with itself >> fold; 63: linear */
    uint8_t policy;
} cache_t;

/* Of the number of a page alone: global or not, in whatever context, it has the same mark. */
PYVIRT_INLINE uint16_t mark_of(uint64_t tag)
{
    return (uint16_t)(tag >> 19 ^ tag >> 35);
}

PYVIRT_INLINE void cache_write(cache_t *c, uint32_t set, uint32_t way, uint64_t tag, uint64_t value)
{
    const uint64_t slot = (uint64_t)set * c->stride + way;
    c->tags[slot] = tag;
    c->values[slot] = value;
    if (c->marks)
        c->marks[(uint64_t)set * c->mark_stride + way] = mark_of(tag);
}

PYVIRT_INLINE uint8_t is_full(const cache_t *c)
{
    return c->state->valid == c->entries;
}

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

/* Four ways, without a branch for each. */
PYVIRT_INLINE int find4_plain(const uint64_t *tags, uint64_t key)
{
    const unsigned found = (unsigned)(tags[0] == key) | (unsigned)(tags[1] == key) << 1
                           | (unsigned)(tags[2] == key) << 2 | (unsigned)(tags[3] == key) << 3;
    return found ? (int)PYVIRT_CTZ(found) : -1;
}

PYVIRT_INLINE void write4_plain(uint64_t *tags, uint32_t way, uint64_t tag)
{
    tags[way] = tag;
}

PYVIRT_INLINE void mark_plain(uint16_t *marks, uint32_t way, uint64_t tag)
{
    marks[way] = mark_of(tag);
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
PYVIRT_AVX2 PYVIRT_INLINE int find4_avx2(const uint64_t *tags, uint64_t key)
{
    const __m256i keys = _mm256_set1_epi64x((long long)key);
    const unsigned found = match_avx2(tags, keys, keys);
    return found ? (int)PYVIRT_CTZ(found) : -1;
}

/* All four are written: a vector that is read just after one of its words was written waits for
   that word to reach the cache. */
PYVIRT_AVX2 PYVIRT_INLINE void write4_avx2(uint64_t *tags, uint32_t way, uint64_t tag)
{
    const __m256i ways = _mm256_setr_epi64x(0, 1, 2, 3);
    const __m256i this_way = _mm256_cmpeq_epi64(ways, _mm256_set1_epi64x((long long)way));
    const __m256i old = _mm256_load_si256((const __m256i *)tags);
    _mm256_store_si256((__m256i *)tags,
                       _mm256_blendv_epi8(old, _mm256_set1_epi64x((long long)tag), this_way));
}

PYVIRT_AVX2 PYVIRT_INLINE void mark_avx2(uint16_t *marks, uint32_t way, uint64_t tag)
{
    const __m256i ways = _mm256_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m256i this_way = _mm256_cmpeq_epi16(ways, _mm256_set1_epi16((short)(way & 15)));
    __m256i *const at = (__m256i *)(marks + (way & ~15u));
    _mm256_store_si256(at, _mm256_blendv_epi8(_mm256_load_si256(at),
                                              _mm256_set1_epi16((short)mark_of(tag)), this_way));
}

/* One bit for each of 32 ways whose mark is `wanted`. */
PYVIRT_AVX2 PYVIRT_INLINE uint32_t marked(const uint16_t *marks, __m256i wanted)
{
    const __m256i low = _mm256_cmpeq_epi16(_mm256_load_si256((const __m256i *)marks), wanted);
    const __m256i high = _mm256_cmpeq_epi16(_mm256_load_si256((const __m256i *)marks + 1), wanted);
    /* packed by lanes, so the middle quarters change places */
    return (uint32_t)_mm256_movemask_epi8(
        _mm256_permute4x64_epi64(_mm256_packs_epi16(low, high), 0xD8));
}

/* By the marks of many ways; nearly none that matches is of another page. */
PYVIRT_AVX2 PYVIRT_INLINE int find_marked(const cache_t *c, uint32_t set, uint64_t key,
                                          uint64_t twin)
{
    const uint64_t *const tags = c->tags + (uint64_t)set * c->stride;
    const uint16_t *const marks = c->marks + (uint64_t)set * c->mark_stride;
    const __m256i wanted = _mm256_set1_epi16((short)mark_of(key));
    uint32_t first = 0;
    do {
        uint64_t found = marked(marks + first, wanted)
                         | (uint64_t)marked(marks + first + 32, wanted) << 32;
        for (; found; found &= found - 1) {
            const uint32_t way = first + PYVIRT_CTZ64(found);
            if (way < c->ways && (tags[way] == key || tags[way] == twin))
                return (int)way;
        }
    } while ((first += 64) < c->mark_stride);
    return -1;
}

/* The same of ways that are one group of marks. */
PYVIRT_AVX2 PYVIRT_INLINE int find_group_avx2(const cache_t *c, uint32_t set, uint64_t key)
{
    const uint64_t *const tags = c->tags + (uint64_t)set * c->stride;
    const uint16_t *const marks = c->marks + (uint64_t)set * 64;
    const __m256i wanted = _mm256_set1_epi16((short)mark_of(key));
    uint64_t found = marked(marks, wanted) | (uint64_t)marked(marks + 32, wanted) << 32;
    for (; found; found &= found - 1) {
        const uint32_t way = PYVIRT_CTZ64(found);
        if (way < c->ways && tags[way] == key)
            return (int)way;
    }
    return -1;
}

PYVIRT_AVX2 PYVIRT_INLINE int find_in_avx2(const cache_t *c, uint32_t set, uint64_t key,
                                           uint64_t twin)
{
    if (c->marks)
        return find_marked(c, set, key, twin);
    return find_avx2(c->tags + (uint64_t)set * c->stride, c->stride, key, twin);
}

PYVIRT_AVX2 PYVIRT_NOINLINE
int find_wide(const cache_t *c, uint32_t set, uint64_t key, uint64_t twin)
{
    return find_in_avx2(c, set, key, twin);
}
#endif

PYVIRT_INLINE int find_in_plain(const cache_t *c, uint32_t set, uint64_t key, uint64_t twin)
{
    return find_plain(c->tags + (uint64_t)set * c->stride, c->stride, key, twin);
}

PYVIRT_INLINE int find_group_plain(const cache_t *c, uint32_t set, uint64_t key)
{
    return find_plain(c->tags + (uint64_t)set * c->stride, c->stride, key, key);
}

/* For code that is compiled once only: many ways by vectors where the processor has them. */
PYVIRT_INLINE int cache_find(const cache_t *c, uint32_t set, uint64_t key, uint64_t twin)
{
#if PYVIRT_X86
    if (c->stride > 4 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2"))
        return find_wide(c, set, key, twin);
#endif
    return find_in_plain(c, set, key, twin);
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
