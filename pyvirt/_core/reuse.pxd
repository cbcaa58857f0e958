# Miss counts of TLBs of many sizes from one pass over the addresses.

from cpython.pythread cimport PyThread_type_lock
from libc.stdint cimport int32_t, uint32_t, uint64_t

from pyvirt._core.lastuse cimport lastuse_t

cdef extern from "recency.h" nogil:
    ctypedef size_t (*pv_recency_pass)(
        uint32_t *lists, uint32_t set_mask, size_t groups, const uint32_t *pages, size_t n,
        uint32_t *kept, uint64_t *counts) noexcept nogil
    pv_recency_pass pv_recency_simd(int width)

cdef enum:
    MAX_SET_SHIFT = 20
    MAX_SET_COUNTS = 21             # 1, 2, 4, ... 2**20 sets
    BLOCK = 4096                    # addresses taken through all lists at a time; as USES
    LEAST_TIMED = 3                 # set counts for which a directory pays, the first of them
    MOST_TIMED_SETS = 8             # of at most so many sets
    REGION_SHIFT = 24               # pages of a region, log2
    MAX_REGIONS = 255               # so that the number of a page is below 2**32 - 1
    REGION_SLOTS = 1024             # of the hash table of regions

cdef struct lists_t:                # the lists of one number of sets
    uint64_t sets
    uint64_t ways                   # that are asked about
    uint64_t groups                 # of 16 places; at least `ways` places
    uint32_t *narrow                # sets * groups * 16 numbers of pages; or NULL
    uint64_t *wide                  # likewise the pages themselves; or NULL
    int32_t *times                  # likewise the times of their last use; or NULL
    uint64_t *counts                # [place], and last the pages that were at none
    void *block                     # the allocation that the lists are in, aligned to 64 bytes

cdef struct regions_t:              # numbers of the 2**24-page regions that were met
    uint64_t keys[1024]             # region + 1, or 0
    uint32_t numbers[1024]
    uint64_t regions[255]           # by number
    uint32_t count
    uint64_t last                   # the region looked up last, and its number
    uint32_t last_number


cdef class ReuseProfile:
    cdef lists_t lists[MAX_SET_COUNTS]
    cdef int set_counts
    cdef int shift                  # of a page
    cdef bint is_wide
    cdef regions_t *regions
    cdef uint64_t last_page         # all ones: none yet
    cdef uint64_t fed               # addresses so far
    cdef pv_recency_pass pass_simd  # or NULL
    cdef bint by_times              # wanted, where it pays
    cdef int timed_from             # the first set count whose lists are of times
    cdef lastuse_t recent           # of those
    cdef PyThread_type_lock lock    # held while addresses are taken in

    cdef object _choose(self, object kernel)
    cdef object _acquire(self)
    cdef int _find(self, object sets) except -1
    cdef object _hits(self, int k)
    cdef bint _take(self, const uint64_t *vas, uint64_t n) noexcept nogil
    cdef bint _widen(self) noexcept nogil
    cdef bint _begin_times(self) noexcept nogil
    cdef void _end_times(self) noexcept nogil
    cdef uint32_t *_order(self, uint64_t *n) noexcept nogil
    cdef void _use_again(self, const uint32_t *pages, uint64_t n) noexcept nogil
    cdef bint _renumber(self) noexcept nogil
