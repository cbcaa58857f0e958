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
    ahead_t *ahead;             /* prefetches the tables of walks to come; NULL: does not */
    uint64_t second_hits;       /* counted: hits of the second array */
    uint64_t walks;             /* and short walks */
    uint8_t globals;            /* set when a walk met a global page */
    uint8_t sure;               /* nothing but these arrays can hold the page */
    uint8_t walk;
    uint8_t calm;               /* few of the accesses before this one missed the first array */
    uint8_t mixed;              /* many did, and many walked */
    uint8_t unused;             /* 64 - bits of an address, which is sign-extended */
    uint8_t why;                /* it ended */
} hits_t;

/* Whether it is the usual case: first four ways in order, then twelve with ranks, both full and
   without a hash; no global pages, nothing else to look up, and both outputs wanted. */
PYVIRT_INLINE int lane_usual(const hits_t *h, const uint64_t *pas, const uint16_t *codes)
{
    const cache_t *const c = h->first, *const d = h->second;
    return pas && codes && h->sure && !h->globals && c->orders && d && d->ranks && d->ways == 12
           && c->fold == 63 && d->fold == 63 && is_full(c) && is_full(d);
}

#endif
