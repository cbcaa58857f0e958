/* What the loops over accesses are given, and what they leave: hits.h and mixed.h. */

#ifndef PYVIRT_LANE_H
#define PYVIRT_LANE_H

#include "ahead.h"
#include "cache.h"
#include "nestedwalk.h"
#include "policies/lru.h"

#define PYVIRT_CONTEXT 0x7FFFFULL               /* of a tag: bits 18:0 */

enum { HITS_END, HITS_MISS, HITS_WEAK, HITS_RANGE };    /* why the loop ended */
enum { HITS_NO_WALK, HITS_IDENTITY, HITS_NATIVE, HITS_NESTED };     /* what it knows of walks */

typedef struct {
    cache_t *first;
    cache_t *second;            /* NULL: there is no such level, or it is not for this loop */
    uint64_t low;               /* bits 18:0 of the tag of a 4 KiB page */
    uint64_t twin_low;          /* the same of a global page; low if there never was one */
    uint64_t global_low;        /* of a new global page; low while CR4.PGE is clear */
    uint64_t mask;              /* a value allows the access if value & mask == wanted */
    uint64_t wanted;
    uint64_t identity;          /* HITS_IDENTITY: rights of every page */
    nested_t tables;            /* HITS_NESTED; for HITS_NATIVE only what is the guest's */
    ahead_t *ahead;             /* what is prefetched; NULL: nothing */
    const nested_t *asked;      /* of these tables */
    uint64_t total;             /* accesses there are to look ahead at */
    uint64_t second_hits;       /* counted: hits of the second array */
    uint64_t walks;             /* and short walks */
    uint8_t globals;            /* set when a walk met a global page */
    uint8_t sure;               /* nothing but these arrays can hold the page */
    uint8_t walk;
    uint8_t calm;               /* few of the accesses before this one missed the first array */
    uint8_t mixed;              /* many did, and many walked */
    uint8_t asks;               /* the walks of all accesses are prefetched, group by group */
    uint8_t nested;             /* in two dimensions */
    uint8_t unused;             /* 64 - bits of an address, which is sign-extended */
    uint8_t why;                /* it ended */
} hits_t;

#if PYVIRT_X86
/* a if c is not 0, else b: never by a branch. */
PYVIRT_INLINE uint64_t pick(uint64_t c, uint64_t a, uint64_t b)
{
    __asm__("testq %1, %1\n\tcmovzq %2, %0" : "+r"(a) : "r"(c), "r"(b) : "cc");
    return a;
}
#endif

/* Prefetch for the accesses after `i`; the access at which to do so again. */
PYVIRT_INLINE uint64_t lane_ask(const hits_t *h, const uint64_t *vas, uint64_t i, uint64_t *pas,
                                uint16_t *codes)
{
    if (pas)
        PYVIRT_PREFETCH_TO(pas + i + AHEAD_TO);
    if (codes)
        PYVIRT_PREFETCH_TO(codes + i + AHEAD_TO);
    if (h->nested)
        ahead_nested(h->ahead, h->asked, (const char *)vas, 8, i, h->total);
    else
        ahead_native(h->ahead, &h->asked->guest, (const char *)vas, 8, i, h->total);
    return h->ahead->due;
}

/* Whether it is the usual case: first four ways in order, then twelve with ranks, both full and
   without a hash; no global pages, nothing else to look up, and both outputs wanted. */
PYVIRT_INLINE int lane_usual(const hits_t *h, const uint64_t *pas, const uint16_t *codes)
{
    const cache_t *const c = h->first, *const d = h->second;
    return pas && codes && h->sure && !h->globals && c->orders && d && d->ranks && d->ways == 12
           && c->fold == 63 && d->fold == 63 && is_full(c) && is_full(d);
}

#endif
