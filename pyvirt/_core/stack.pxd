# Stack distances of any depth: every size of a fully associative LRU TLB.

from cpython.pythread cimport PyThread_type_lock
from libc.stdint cimport uint32_t, uint64_t

cdef extern from *:
    """
    #if defined(__GNUC__)
    #define PV_PREFETCH(p) __builtin_prefetch(p)
    #else
    #define PV_PREFETCH(p) ((void)(p))
    #endif
    """
    void prefetch "PV_PREFETCH"(const void *p) noexcept nogil

cdef struct place_t:                # of a hash table
    uint64_t key                    # page + 1, or 0
    uint64_t time                   # of the last access to it

cdef struct stack_t:
    place_t *table                  # `size` places, at most half of them taken
    uint32_t *place_at              # [time]: index of the page that was accessed then
    uint64_t *live                  # bit for each time: no later access was to the same page
    uint32_t *tree                  # Fenwick tree, from 1, of the bits in each word of `live`
    uint64_t *counts                # [distance]
    uint64_t size                   # places, and times until they are numbered anew
    int bits                        # log2 of it
    uint64_t now                    # the next time
    uint64_t pages                  # met so far


cdef class StackProfile:
    cdef stack_t s
    cdef int shift                  # of a page
    cdef uint64_t fed               # addresses so far
    cdef uint64_t last_page         # all ones: none yet
    cdef PyThread_type_lock lock    # held while addresses are taken in

    cdef bint _take(self, const uint64_t *vas, uint64_t n) noexcept nogil
    cdef object _acquire(self)
