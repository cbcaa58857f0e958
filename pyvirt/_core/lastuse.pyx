"""When pages were used last, as far as lists of 16 places for each set can ask.

The times of lists mean nothing but their order. So all that there is to know about lists of times
is the pages of the directory in the order of their last use: using these again, from the oldest on,
makes the same lists. That is how times are numbered anew, and how lists are saved.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memset

cdef enum:
    WORDS = 32                      # of a set of the directory
    LAST = 0x7FFFFFFF               # the last time there is


cdef bint lastuse_new(lastuse_t *t, uint64_t sets) noexcept nogil:
    """An empty directory; false without memory."""
    cdef uint64_t uses = (USES + PV_USE_AHEAD) * sizeof(pv_use), size = sets * WORDS * 4
    t.block = malloc(size + uses + 64)
    if t.block == NULL:
        return False
    t.directory = <uint32_t *>((<uintptr_t>t.block + 63) & ~<uintptr_t>63)
    t.uses = <pv_use *>(<char *>t.directory + size)
    t.sets = sets
    memset(t.uses, 0, uses)
    lastuse_clear(t)
    return True


cdef void lastuse_clear(lastuse_t *t) noexcept nogil:
    """Forget all pages."""
    cdef uint64_t i
    for i in range(t.sets):
        memset(t.directory + i * WORDS, 0xFF, WORDS * 2)
        memset(t.directory + i * WORDS + 16, 0, WORDS * 2)
    t.now = 1


cdef void lastuse_free(lastuse_t *t) noexcept nogil:
    free(t.block)
    memset(t, 0, sizeof(lastuse_t))


cdef void lastuse_find(lastuse_t *t, uint32_t *pages, uint64_t n) noexcept nogil:
    """Use n pages, at most USES; `pages` has room for PV_USE_AHEAD more. Fills `uses`."""
    memset(pages + n, 0, PV_USE_AHEAD * 4)      # fetched ahead, for nothing
    pv_use_find(t.directory, <uint32_t>(t.sets - 1), pages, n, t.now, t.uses)
    t.now += <int32_t>n


cdef bint lastuse_full(const lastuse_t *t) noexcept nogil:
    """Whether times may not suffice for USES more accesses."""
    return t.now > LAST - USES


cdef uint64_t lastuse_count(const lastuse_t *t) noexcept nogil:
    """Pages in the directory."""
    cdef uint64_t i, count = 0
    for i in range(t.sets * 16):
        count += t.directory[(i >> 4) * WORDS + 16 + (i & 15)] != 0
    return count


cdef int newer(const void *a, const void *b) noexcept nogil:
    cdef uint64_t x = (<const uint64_t *>a)[0], y = (<const uint64_t *>b)[0]
    return (x > y) - (x < y)


cdef void lastuse_order(const lastuse_t *t, uint64_t *keys, uint32_t *pages) noexcept nogil:
    """All pages, from the oldest use to the newest; both arrays have room for `lastuse_count`."""
    cdef uint64_t i, time, count = 0
    cdef const uint32_t *set
    for i in range(t.sets * 16):
        set = t.directory + (i >> 4) * WORDS
        time = set[16 + (i & 15)]
        if time:
            keys[count] = time << 32 | set[i & 15]
            count += 1
    qsort(keys, count, sizeof(uint64_t), newer)
    for i in range(count):
        pages[i] = <uint32_t>keys[i]
