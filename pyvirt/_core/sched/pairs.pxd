# A winner tree of 64-bit keys and of who has them.

from libc.stdint cimport int64_t, uint32_t

cdef extern from "sched/pairs.h" nogil:
    const uint32_t PV_NOBODY
    void pairs_set(
        int64_t *keys, uint32_t *owners, uint32_t leaves, uint32_t slot, int64_t key, uint32_t owner)
    void pairs_clear(int64_t *keys, uint32_t *owners, uint32_t leaves)
