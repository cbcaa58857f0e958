/* The solver behind entitlements, for callers in C.

   pyvirt.entitlement.capsule() gives a capsule named PYVIRT_ENTITLEMENT_CAPSULE that holds a
   `pyvirt_entitlement`; it lives as long as the process. The functions need no GIL, allocate
   nothing, keep nothing, and check nothing: what they may be given stands here, and is otherwise
   undefined. They may run in any number of threads, each with its own results and scratch. */
#ifndef PYVIRT_ENTITLEMENT_H
#define PYVIRT_ENTITLEMENT_H

#include <stdint.h>

#define PYVIRT_ENTITLEMENT_CAPSULE "pyvirt.entitlement.v1"
#define PYVIRT_SCRATCH_BYTES 24         /* for each client or node, aligned as doubles are */

enum pyvirt_division {
    PYVIRT_DIVIDED,
    PYVIRT_SCALED,                      /* floors exceed what there is: all were cut by one factor */
    PYVIRT_UNBOUNDED                    /* the amount and a cap are infinite: nothing was written */
};

typedef struct {
    uint32_t version;                   /* 1 */
    uint32_t size;                      /* of this structure, which may grow at its end */

    /* Divide an amount among n clients: clip(level * share, floor, cap). Shares are 0, or 1e-12 to
       1e15; 0 <= floor <= cap, floors finite; the amount is not negative. `out` is none of the
       inputs; `level` may be NULL. Gives a `pyvirt_division`. */
    int (*divide)(const double *shares, const double *floors, const double *caps, int64_t n,
                  double amount, double *out, double *level, void *scratch);

    /* The same in whole units, with exact sums. Shares are 0 to 2**32, floors and the amount at
       most 2**62, a cap of 2**63 - 1 is none; n is at most 2**26. */
    int (*divide_whole)(const int64_t *shares, const int64_t *floors, const int64_t *caps,
                        int64_t n, int64_t amount, int64_t *out, void *scratch);

    /* Divide capacities over trees of pools, n nodes in breadth-first order: first[0] roots; the
       children of node i are those from first[i] to first[i + 1] - 1. Of clients, the nodes without
       children, `floor` (what they keep of their reservation) and `cap` (their demand within their
       limit) are given, floor <= cap; of pools they are written, as are `given` and `level` of all.
       `capacity` has a number for each root, finite and not negative. A pool whose children's
       floors exceed what it has stops the division unless `scale`, and `where` is its number; it
       is -1 if there is none. Gives a `pyvirt_division`. */
    int (*divide_trees)(int64_t n, const int64_t *first, const double *shares,
                        const double *reservation, const double *limit, const double *capacity,
                        int scale, double *floor, double *cap, double *given, double *level,
                        void *scratch, int64_t *where);
} pyvirt_entitlement;

#endif
