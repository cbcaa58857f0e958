# When pages were used last: the directory for lists of times, see lastuse.h.

from libc.stdint cimport int32_t, uint32_t, uint64_t

cdef extern from "lastuse.h" nogil:
    enum:
        PV_USE_AHEAD
    ctypedef struct pv_use:
        pass
    bint pv_use_can()
    void pv_use_find(uint32_t *directory, uint32_t set_mask, const uint32_t *pages, size_t n,
                     int32_t now, pv_use *uses)
    size_t pv_use_pass(int32_t *lists, uint32_t set_mask, pv_use *uses, size_t n,
                       uint64_t *counts)

cdef enum:
    USES = 4096                     # accesses looked up at a time, at most

cdef struct lastuse_t:
    uint32_t *directory             # [set]: 16 pages, then their 16 times; NULL if not in use
    uint64_t sets
    int32_t now                     # time of the next access
    pv_use *uses                    # the accesses looked up last
    void *block                     # the allocation that both are in


cdef bint lastuse_new(lastuse_t *t, uint64_t sets) noexcept nogil
cdef void lastuse_clear(lastuse_t *t) noexcept nogil
cdef void lastuse_free(lastuse_t *t) noexcept nogil
cdef void lastuse_find(lastuse_t *t, uint32_t *pages, uint64_t n) noexcept nogil
cdef bint lastuse_full(const lastuse_t *t) noexcept nogil
cdef uint64_t lastuse_count(const lastuse_t *t) noexcept nogil
cdef void lastuse_order(const lastuse_t *t, uint64_t *keys, uint32_t *pages) noexcept nogil
