/* The bound for pyvirt.MMU: a TLB simulation as plainly as C allows, with real page walks.
 *
 * The reference geometry: L1 TLB 64 entries / 4 ways, L2 1536 / 12, 4 KiB pages; paging-structure
 * caches PML4E 4 and PDPTE 4 (fully associative), PDE 32 / 4; in two dimensions the same for the
 * host, and a nested TLB of 64 (fully associative).  All exact LRU.  Tables lie in one flat array
 * that starts at physical address 0.  For each address the loops give pyvirt's `pa` and `code`
 * (1: not present; else the level that hit << 4, or the references of the walk << 7); they count.
 *
 * Three ways to keep LRU; all count the same:
 *   mtf     the ways of a set in order of use, a hit moves to the front
 *   stamp   a time for each entry, a loop that stops at the match
 *   select  a time for each entry, a search without branches
 *
 * What pyvirt does and these loops leave out: rights, context tags, large pages, canonical form,
 * reserved bits, tables outside RAM (one wrong entry crashes this program), sparse frames, other
 * geometries.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FRAME 0x000ffffffffff000ull
#define VALID (1ull << 63) /* in a tag: an empty entry has tag 0 and matches nothing */
#define INLINE static inline __attribute__((always_inline))
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

typedef uint64_t u64;
typedef enum { MTF, STAMP, SELECT } policy_t;
typedef enum { NATIVE, NESTED, TLB_ONLY } dimensions_t;

#define CACHE(n) struct { u64 tag[n], value[n], time[n]; }

typedef struct {
    CACHE(32) pde;
    CACHE(4) pdpte, pml4e;
} walk_cache_t;

typedef struct {
    u64 l1_hits, l2_hits, walks, refs; /* first: read from Python */
    u64 clock;
    const uint8_t *ram;
    u64 root, host_root;
    CACHE(64) l1;
    CACHE(1536) l2;
    CACHE(64) nested;
    walk_cache_t guest, host;
} mmu_t;

/* --- one set of a cache ---------------------------------------------------------------------- */

INLINE int set_find(u64 *tag, u64 *value, u64 *time, int ways, u64 want, u64 now, policy_t policy,
                    u64 *found)
{
    if (policy == MTF) {
        for (int w = 0; w < ways; w++) {
            if (tag[w] != want)
                continue;
            const u64 v = *found = value[w];
            for (; w > 0; w--)
                tag[w] = tag[w - 1], value[w] = value[w - 1];
            tag[0] = want, value[0] = v;
            return 1;
        }
        return 0;
    }
    int at = 0;
    if (policy == STAMP) {
        while (at < ways && tag[at] != want)
            at++;
        if (at == ways)
            return 0;
    } else {
        u64 match = 0; /* a bit for each way: a chain of ?: is compiled to branches again */
        for (int w = 0; w < ways; w++)
            match |= (u64)(tag[w] == want) << w;
        if (!match)
            return 0;
        at = __builtin_ctzll(match);
    }
    time[at] = now;
    *found = value[at];
    return 1;
}

INLINE void set_fill(u64 *tag, u64 *value, u64 *time, int ways, u64 want, u64 now, policy_t policy,
                     u64 v)
{
    int at = 0;
    if (policy == MTF) {
        for (int w = ways - 1; w > 0; w--)
            tag[w] = tag[w - 1], value[w] = value[w - 1];
    } else {
        u64 oldest = time[0]; /* 0 in an empty entry */
        for (int w = 1; w < ways; w++)
            if (time[w] < oldest)
                oldest = time[w], at = w;
        time[at] = now;
    }
    tag[at] = want, value[at] = v;
}

#define SET(field, sets, ways, key) &(field)[(key) % (sets) * (ways)]
#define FIND(cache, sets, ways, key, now, found, policy)                                           \
    set_find(SET((cache).tag, sets, ways, key), SET((cache).value, sets, ways, key),               \
             SET((cache).time, sets, ways, key), ways, (key) | VALID, now, policy, found)
#define FILL(cache, sets, ways, key, now, v, policy)                                               \
    set_fill(SET((cache).tag, sets, ways, key), SET((cache).value, sets, ways, key),               \
             SET((cache).time, sets, ways, key), ways, (key) | VALID, now, policy, v)

/* --- walks ----------------------------------------------------------------------------------- */

/* The level of the table to start at; 4 with `table` as it was if nothing is cached. */
INLINE int cached_table(walk_cache_t *c, u64 va, u64 now, policy_t policy, u64 *table)
{
    if (FIND(c->pde, 8, 4, va >> 21, now, table, policy))
        return 1;
    if (FIND(c->pdpte, 1, 4, va >> 30, now, table, policy))
        return 2;
    if (FIND(c->pml4e, 1, 4, va >> 39, now, table, policy))
        return 3;
    return 4;
}

/* Keep the entries that a walk from level `start` on read: next[L] is what that of level L gave. */
INLINE void keep_tables(walk_cache_t *c, u64 va, u64 now, policy_t policy, int start,
                        const u64 *next)
{
    if (start >= 4)
        FILL(c->pml4e, 1, 4, va >> 39, now, next[4], policy);
    if (start >= 3)
        FILL(c->pdpte, 1, 4, va >> 30, now, next[3], policy);
    if (start >= 2)
        FILL(c->pde, 8, 4, va >> 21, now, next[2], policy);
}

INLINE u64 read_entry(const uint8_t *ram, u64 table, u64 va, int level)
{
    u64 entry;
    memcpy(&entry, ram + table + (va >> (9 * level) & 0xff8), 8);
    return entry;
}

/* One dimension: the frame of `va`; the references are added. 0: not present. */
INLINE int walk(mmu_t *m, walk_cache_t *c, u64 root, u64 present, u64 va, u64 now, policy_t policy,
                u64 *frame, u64 *refs)
{
    u64 table = root, next[5];
    const int start = cached_table(c, va, now, policy, &table);
    for (int level = start; level > 0; level--) {
        const u64 entry = read_entry(m->ram, table, va, level);
        ++*refs;
        if (UNLIKELY(!(entry & present)))
            return 0;
        next[level] = table = entry & FRAME;
    }
    keep_tables(c, va, now, policy, start, next);
    *frame = table;
    return 1;
}

/* Guest-physical to host-physical, frames. */
INLINE int host_frame(mmu_t *m, u64 gpa, policy_t policy, u64 *frame, u64 *refs)
{
    const u64 now = ++m->clock;
    if (FIND(m->nested, 1, 64, gpa >> 12, now, frame, policy))
        return 1;
    if (UNLIKELY(!walk(m, &m->host, m->host_root, 7, gpa, now, policy, frame, refs)))
        return 0;
    FILL(m->nested, 1, 64, gpa >> 12, now, *frame, policy);
    return 1;
}

/* Two dimensions.  A cached guest entry leads to the host-physical address of the next table. */
INLINE int walk_nested(mmu_t *m, u64 va, u64 now, policy_t policy, u64 *frame, u64 *refs)
{
    u64 gpa = m->root, table, next[6];
    const int start = cached_table(&m->guest, va, now, policy, &table);
    if (start == 4 && UNLIKELY(!host_frame(m, gpa, policy, &table, refs)))
        return 0;
    for (int level = start; level > 0; level--) {
        const u64 entry = read_entry(m->ram, table, va, level);
        ++*refs;
        if (UNLIKELY(!(entry & 1)))
            return 0;
        gpa = entry & FRAME;
        if (UNLIKELY(!host_frame(m, gpa, policy, &table, refs)))
            return 0;
        next[level] = table;
    }
    keep_tables(&m->guest, va, now, policy, start, next);
    *frame = table;
    return 1;
}

/* --- the loop -------------------------------------------------------------------------------- */

INLINE void run(mmu_t *m, const u64 *restrict vas, size_t n, u64 *restrict pa,
                uint16_t *restrict code, dimensions_t mode, policy_t policy)
{
    u64 l1_hits = 0, l2_hits = 0, walks = 0, all_refs = 0, now = m->clock;
    for (size_t i = 0; i < n; i++) {
        const u64 va = vas[i], page = va >> 12;
        u64 frame = va & ~0xfffull;
        now++;
        if (FIND(m->l1, 16, 4, page, now, &frame, policy)) {
            l1_hits++;
            code[i] = 1 << 4;
        } else if (FIND(m->l2, 128, 12, page, now, &frame, policy)) {
            l2_hits++;
            code[i] = 2 << 4;
            FILL(m->l1, 16, 4, page, now, frame, policy);
        } else {
            u64 refs = 0;
            walks++;
            int present = 1;
            if (mode == NATIVE)
                present = walk(m, &m->guest, m->root, 1, va, now, policy, &frame, &refs);
            if (mode == NESTED)
                present = walk_nested(m, va, now, policy, &frame, &refs);
            all_refs += refs;
            if (UNLIKELY(!present)) {
                pa[i] = 0;
                code[i] = 1;
                continue;
            }
            code[i] = (uint16_t)(refs << 7);
            FILL(m->l2, 128, 12, page, now, frame, policy);
            FILL(m->l1, 16, 4, page, now, frame, policy);
        }
        /* the identity needs no value, and the compiler drops it */
        pa[i] = mode == TLB_ONLY ? va : frame | (va & 0xfff);
    }
    m->l1_hits += l1_hits, m->l2_hits += l2_hits, m->walks += walks, m->refs += all_refs;
    if (now > m->clock)
        m->clock = now;
}

#define LOOP(name, mode, policy)                                                                   \
    void name(mmu_t *m, const u64 *vas, size_t n, u64 *pa, uint16_t *code)                         \
    {                                                                                              \
        run(m, vas, n, pa, code, mode, policy);                                                    \
    }
#define LOOPS(name, mode)                                                                          \
    LOOP(name##_mtf, mode, MTF)                                                                    \
    LOOP(name##_stamp, mode, STAMP)                                                                \
    LOOP(name##_select, mode, SELECT)

LOOPS(native, NATIVE)
LOOPS(nested, NESTED)
LOOPS(tlb_only, TLB_ONLY)

/* --- for Python ------------------------------------------------------------------------------ */

mmu_t *mmu_new(void)
{
    return aligned_alloc(64, (sizeof(mmu_t) + 63) / 64 * 64);
}

void mmu_reset(mmu_t *m, const uint8_t *ram, u64 root, u64 host_root)
{
    memset(m, 0, sizeof *m);
    m->ram = ram;
    m->root = root;
    m->host_root = host_root;
}

void mmu_free(mmu_t *m)
{
    free(m);
}
