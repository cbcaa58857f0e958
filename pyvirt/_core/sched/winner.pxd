# The winner tree of run queues, CPU events, timers and plug-in policies.

from libc.stdint cimport uint32_t, uint64_t

cdef extern from "pyvirt/winner.h" nogil:
    const uint64_t PV_EMPTY
    void PV_FETCH(const void *place)    # into the cache, ahead of its use
    void winner_set(uint64_t *node, uint32_t leaves, uint32_t slot, uint64_t key)
    void winner_build(uint64_t *node, uint32_t leaves)
    void winner_clear(uint64_t *node, uint32_t leaves)
