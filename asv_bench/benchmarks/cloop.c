/* The bound: x86-64 page walks as plainly as C allows, over RAM that is one flat array.
 *
 * What pyvirt must do and these loops leave out: canonical form, reserved bits, tables outside
 * RAM (one wrong entry crashes this program), sparse frames, access rights, restarts.  A faster way
 * that does the same work for each address (all tables read, nothing remembered from one address
 * to the next) would be a better bound: please send it.
 *
 * Each function translates n addresses.  walk4, walk5 and walk_nested write what
 * AddressSpace.translate writes: pa, code (0, or 1 | level << 4 for "not present at level"),
 * page_shift, and flags (bits 0 R, 1 W, 2 X, 3 U over all levels; 4 A, 5 D, 6 G of the leaf).
 * pa_walk4 and pa_walk5 write the physical address and nothing else.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PRESENT 1ull
#define PRESENT_LARGE 0x81ull
#define FRAME 0x000ffffffffff000ull
#define INLINE static inline __attribute__((always_inline))
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

typedef struct {
    uint64_t entry;    /* the last one read */
    uint64_t all, any; /* all entries anded, ored */
    int level;         /* of the last one read */
} walk_t;

INLINE uint64_t read_entry(const uint8_t *ram, uint64_t table, uint64_t va, int level)
{
    uint64_t entry;
    /* memcpy, since an array of bytes is no array of u64 to the language: one load all the same */
    memcpy(&entry, ram + (table & FRAME) + (va >> (9 * level) & 0xff8), 8);
    return entry;
}

/* Returns 1 where the walk ended in a leaf.  The hot path has one branch for each level. */
INLINE int walk(const uint8_t *ram, uint64_t root, uint64_t va, int levels, walk_t *w)
{
    uint64_t entry = root, all = ~0ull, any = 0;
    int level = levels;
#pragma GCC unroll 5
    for (; level > 1; level--) {
        entry = read_entry(ram, entry, va, level);
        all &= entry;
        any |= entry;
        /* bit 7 means "leaf" only where a leaf is possible */
        if (UNLIKELY((entry & (level <= 3 ? PRESENT_LARGE : PRESENT)) != PRESENT))
            goto done;
    }
    entry = read_entry(ram, entry, va, 1);
    all &= entry;
    any |= entry;
done:
    w->entry = entry, w->all = all, w->any = any, w->level = level;
    return entry & PRESENT;
}

INLINE uint64_t final_address(const walk_t *w, uint64_t va)
{
    const uint64_t offset = (1ull << (3 + 9 * w->level)) - 1;
    return (w->entry & FRAME & ~offset) | (va & offset);
}

/* R, W, X, U, from the present, W and U bits of all, and the absence of NX in any. */
INLINE uint16_t rights(const walk_t *w)
{
    return (uint16_t)((w->all & 3) | (~w->any >> 63) << 2 | (w->all & 4) << 1);
}

INLINE uint16_t leaf_flags(const walk_t *w)
{
    return (uint16_t)((w->entry >> 1 & 0x30) | (w->entry >> 2 & 0x40));
}

INLINE void walk_all(const uint8_t *ram, uint64_t root, const uint64_t *restrict vas, size_t n,
                     uint64_t *restrict pa, uint16_t *restrict code, uint8_t *restrict page_shift,
                     uint16_t *restrict flags, int levels)
{
    for (size_t i = 0; i < n; i++) {
        walk_t w;
        if (UNLIKELY(!walk(ram, root, vas[i], levels, &w))) {
            pa[i] = 0;
            code[i] = (uint16_t)(1 | w.level << 4);
            page_shift[i] = 0;
            flags[i] = 0;
            continue;
        }
        pa[i] = final_address(&w, vas[i]);
        code[i] = 0;
        page_shift[i] = (uint8_t)(3 + 9 * w.level);
        flags[i] = rights(&w) | leaf_flags(&w);
    }
}

INLINE void pa_walk_all(const uint8_t *ram, uint64_t root, const uint64_t *restrict vas, size_t n,
                        uint64_t *restrict pa, int levels)
{
    for (size_t i = 0; i < n; i++) {
        walk_t w;
        pa[i] = walk(ram, root, vas[i], levels, &w) ? final_address(&w, vas[i]) : 0;
    }
}

void walk4(const uint8_t *ram, uint64_t root, const uint64_t *vas, size_t n, uint64_t *pa,
           uint16_t *code, uint8_t *page_shift, uint16_t *flags)
{
    walk_all(ram, root, vas, n, pa, code, page_shift, flags, 4);
}

void walk5(const uint8_t *ram, uint64_t root, const uint64_t *vas, size_t n, uint64_t *pa,
           uint16_t *code, uint8_t *page_shift, uint16_t *flags)
{
    walk_all(ram, root, vas, n, pa, code, page_shift, flags, 5);
}

void pa_walk4(const uint8_t *ram, uint64_t root, const uint64_t *vas, size_t n, uint64_t *pa)
{
    pa_walk_all(ram, root, vas, n, pa, 4);
}

void pa_walk5(const uint8_t *ram, uint64_t root, const uint64_t *vas, size_t n, uint64_t *pa)
{
    pa_walk_all(ram, root, vas, n, pa, 5);
}

/* Two dimensions, four levels each: every guest table and the final address go through the nested
 * tables, 24 reads in all.  A failure of the nested walk is coded as dimension 1 (bit 7) with the
 * level of the guest table that was wanted in bits 12:10; bits 11:8 of flags are nested rights.
 */
void walk_nested(const uint8_t *ram, uint64_t guest_cr3, uint64_t nested_root,
                 const uint64_t *restrict vas, size_t n, uint64_t *restrict pa,
                 uint16_t *restrict code, uint8_t *restrict page_shift, uint16_t *restrict flags)
{
    for (size_t i = 0; i < n; i++) {
        const uint64_t va = vas[i];
        uint64_t entry = guest_cr3, all = ~0ull, any = 0;
        walk_t guest, host;
        int level = 4, fault;
#pragma GCC unroll 4
        for (; level > 0; level--) {
            if (UNLIKELY(!walk(ram, nested_root, entry & FRAME, 4, &host))) {
                fault = 1 | host.level << 4 | 1 << 7 | level << 10;
                goto failed;
            }
            entry = read_entry(ram, final_address(&host, entry & FRAME), va, level);
            all &= entry;
            any |= entry;
            const uint64_t stop = level == 2 || level == 3 ? PRESENT_LARGE : PRESENT;
            if (UNLIKELY((entry & stop) != PRESENT)) {
                if (entry & PRESENT)
                    break;
                fault = 1 | level << 4;
                goto failed;
            }
            if (level == 1)
                break;
        }
        guest = (walk_t){entry, all, any, level};
        const uint64_t gpa = final_address(&guest, va);
        if (UNLIKELY(!walk(ram, nested_root, gpa, 4, &host))) {
            fault = 1 | host.level << 4 | 1 << 7;
            goto failed;
        }
        pa[i] = final_address(&host, gpa);
        code[i] = 0;
        page_shift[i] = (uint8_t)(3 + 9 * level);
        flags[i] = rights(&guest) | leaf_flags(&guest) | (uint16_t)(rights(&host) << 8);
        continue;
    failed:
        pa[i] = 0;
        code[i] = (uint16_t)fault;
        page_shift[i] = 0;
        flags[i] = 0;
    }
}
