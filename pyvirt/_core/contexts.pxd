# Contexts: what a cached translation is tagged with, interned as 16-bit ids.

from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t

cdef enum:
    MAX_CONTEXTS = 65536

cdef enum context_flags_t:
    CONTEXT_GLOBAL = 1              # any PCID
    CONTEXT_COMBINED = 2            # made through nested tables: ep4ta counts
    CONTEXT_HOST = 4                # guest-physical: ep4ta alone counts

cdef struct context_t:
    uint64_t ep4ta                  # bits 51:12 of the nested root
    uint16_t vpid
    uint16_t pcid
    uint16_t flags
    uint16_t used                   # 0: a free id

cdef struct contexts_t:
    context_t *items
    int32_t *buckets                # open addressing: id, or -1
    uint32_t count                  # ids given out so far, free ones included
    uint32_t live
    uint32_t next_free              # no id below it is free
    uint32_t capacity               # of items; buckets are twice as many


cdef int contexts_find(contexts_t *t, uint16_t vpid, uint16_t pcid, uint64_t ep4ta,
                       uint16_t flags) noexcept nogil
cdef void contexts_sweep(contexts_t *t, const unsigned char *in_use) noexcept nogil
cdef bint contexts_restore(contexts_t *t, const context_t *items, uint32_t count) noexcept nogil
cdef void contexts_free(contexts_t *t) noexcept nogil
