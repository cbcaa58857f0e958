"""Stack distances of any depth: the misses of every size of fully associative LRU TLB in one pass.

Time counts accesses. The stack distance of an access is the number of pages whose last access is
later than the previous one to its own page: a count of bits that are set, one for each page at the
time of its last access (Bennett and Kruskal, 1975). When the times run out, they are numbered anew
without the gaps, so that memory grows with the pages that were met and not with the accesses.
"""

from cpython.pythread cimport (
    WAIT_LOCK,
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_release_lock,
)
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memset

import numpy as np

from pyvirt._core.arrays cimport as_int, as_u64

CURVE_DTYPE = np.dtype([("entries", "<u8"), ("misses", "<u8"), ("miss_ratio", "<f8")])

cdef enum:
    LEAST_BITS = 12                 # log2 of the size of a new table
    MOST_BITS = 32
    AHEAD = 16                      # accesses between asking the host for a place and its use

cdef uint64_t NO_PAGE = 0xFFFFFFFFFFFFFFFFULL


# --- counts of bits ---------------------------------------------------------------------------

cdef inline uint64_t bits_in(uint64_t word) noexcept nogil:
    word -= word >> 1 & 0x5555555555555555ULL
    word = (word & 0x3333333333333333ULL) + (word >> 2 & 0x3333333333333333ULL)
    return ((word + (word >> 4) & 0x0F0F0F0F0F0F0F0FULL) * 0x0101010101010101ULL) >> 56


cdef inline uint64_t live_until(const stack_t *s, uint64_t time) noexcept nogil:
    """Live times up to `time`, itself included."""
    cdef uint64_t i = time >> 6
    cdef uint64_t count = bits_in(s.live[i] << (63 - (time & 63)))
    while i:
        count += s.tree[i]
        i &= i - 1
    return count


cdef inline void set_live(stack_t *s, uint64_t time, bint alive) noexcept nogil:
    cdef uint64_t i = (time >> 6) + 1, words = s.size >> 6
    cdef uint32_t change = 1 if alive else 0xFFFFFFFFU
    s.live[time >> 6] ^= <uint64_t>1 << (time & 63)
    while i <= words:
        s.tree[i] += change
        i += i & (0 - i)


# --- the table --------------------------------------------------------------------------------

cdef inline uint64_t first_place(const stack_t *s, uint64_t page) noexcept nogil:
    return (page * 0x9E3779B97F4A7C15ULL) >> (64 - s.bits)


cdef inline uint64_t place_of(const stack_t *s, uint64_t page) noexcept nogil:
    """Where the table has the page, or would take it."""
    cdef uint64_t i = first_place(s, page)
    while s.table[i].key and s.table[i].key != page + 1:
        i = (i + 1) & (s.size - 1)
    return i


cdef void free_stack(stack_t *s) noexcept nogil:
    """All but the counts."""
    free(s.table)
    free(s.place_at)
    free(s.live)
    free(s.tree)


cdef bint make_stack(stack_t *s, int bits) noexcept nogil:
    """An empty table, and counts with room for its distances. False without memory."""
    cdef uint64_t *counts
    cdef uint64_t used = s.size >> 1
    s.bits = bits
    s.size = <uint64_t>1 << bits
    s.now = s.pages = 0
    s.table = <place_t *>calloc(s.size, sizeof(place_t))
    s.place_at = <uint32_t *>malloc(s.size * sizeof(uint32_t))
    s.live = <uint64_t *>calloc(s.size >> 6, sizeof(uint64_t))
    s.tree = <uint32_t *>calloc((s.size >> 6) + 1, sizeof(uint32_t))
    if s.table == NULL or s.place_at == NULL or s.live == NULL or s.tree == NULL:
        return False
    if s.size >> 1 > used:
        counts = <uint64_t *>realloc(s.counts, (s.size >> 1) * sizeof(uint64_t))
        if counts == NULL:
            return False
        memset(counts + used, 0, ((s.size >> 1) - used) * sizeof(uint64_t))
        s.counts = counts
    return True


cdef void push(stack_t *s, uint64_t place) noexcept nogil:
    """The page at `place` is accessed now."""
    s.table[place].time = s.now
    s.place_at[s.now] = <uint32_t>place
    set_live(s, s.now, True)
    s.now += 1


cdef void push_new(stack_t *s, uint64_t page) noexcept nogil:
    cdef uint64_t place = place_of(s, page)
    s.table[place].key = page + 1
    s.pages += 1
    push(s, place)


cdef bint renumber(stack_t *s) noexcept nogil:
    """Number the times anew, in a larger table if need be. False, and no change, without memory."""
    cdef stack_t fresh = s[0]
    cdef uint64_t time
    cdef int bits = s.bits + (s.pages > s.size >> 2)
    if bits > MOST_BITS or not make_stack(&fresh, bits):
        if bits <= MOST_BITS:
            s.counts = fresh.counts
            free_stack(&fresh)
        return False
    for time in range(s.now):
        if s.live[time >> 6] >> (time & 63) & 1:
            push_new(&fresh, s.table[s.place_at[time]].key - 1)
    free_stack(s)
    s[0] = fresh
    return True


# --- the object -------------------------------------------------------------------------------

cdef class StackProfile:
    """Misses of fully associative LRU TLBs of every size, in one pass.

    It needs about 100 bytes for each page that was met, and no limit of sizes; `ReuseProfile` is
    several times quicker where some hundred entries suffice.

    Parameters
    ----------
    page_shift : int, default 12
        log2 of the page size, 1 to 48.
    """

    def __cinit__(self, *, page_shift=12):
        self.shift = as_int(page_shift, "page_shift", 1, 48)
        self.last_page = NO_PAGE
        self.lock = PyThread_allocate_lock()
        if self.lock == NULL or not make_stack(&self.s, LEAST_BITS):
            raise MemoryError

    def __dealloc__(self):
        free_stack(&self.s)
        free(self.s.counts)
        if self.lock != NULL:
            PyThread_free_lock(self.lock)

    @property
    def page_shift(self):
        """Log2 of the page size."""
        return self.shift

    @property
    def accesses(self):
        """Addresses taken in so far."""
        return self.fed

    @property
    def pages(self):
        """Different pages among them."""
        return self.s.pages

    def feed(self, vas):
        """Take in addresses.

        Parameters
        ----------
        vas : array of int, shape (n,)
            In the order of the accesses; the next call goes on where this one ends.
        """
        cdef const uint64_t[::1] addresses = as_u64(vas, "vas")
        cdef uint64_t n = addresses.shape[0]
        cdef bint done
        if n == 0:
            return
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            done = self._take(&addresses[0], n)
            PyThread_release_lock(self.lock)
        if not done:
            raise MemoryError("the host has no memory left for more pages")

    cdef bint _take(self, const uint64_t *vas, uint64_t n) noexcept nogil:
        """`feed` with the lock held; false if the memory ends, before some address."""
        cdef stack_t *s = &self.s
        cdef uint64_t i, page, place, time
        for i in range(n):
            page = vas[i] >> self.shift
            if i + AHEAD < n:
                prefetch(&s.table[first_place(s, vas[i + AHEAD] >> self.shift)])
            if page == self.last_page:
                s.counts[0] += 1
                self.fed += 1
                continue
            if (s.now == s.size or s.pages == s.size >> 1) and not renumber(s):
                return False
            place = place_of(s, page)
            if s.table[place].key:
                time = s.table[place].time
                s.counts[s.pages - live_until(s, time)] += 1
                set_live(s, time, False)
                push(s, place)
            else:
                push_new(s, page)
            self.last_page = page
            self.fed += 1
        return True

    cdef object _acquire(self):
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)

    def curve(self, entries=None):
        """Misses of every size.

        Parameters
        ----------
        entries : int, optional
            The largest size; by default as many as there are pages, when each misses once.

        Returns
        -------
        ndarray
            A row for each size from 1 on: ``entries``, ``misses``, ``miss_ratio``.
        """
        cdef uint64_t[::1] counts
        self._acquire()
        try:
            fed = self.fed
            most = self.s.pages
            if entries is not None:
                most = min(most, as_int(entries, "entries", 1, 0xFFFFFFFF))
            counts = <uint64_t[:self.s.size >> 1]>self.s.counts
            hits = np.cumsum(np.asarray(counts)[:most], dtype=np.uint64)
        finally:
            PyThread_release_lock(self.lock)
        rows = np.empty(most, CURVE_DTYPE)
        rows["entries"] = np.arange(1, most + 1)
        rows["misses"] = np.uint64(fed) - hits
        rows["miss_ratio"] = rows["misses"] / max(fed, 1)
        return rows

    def __reduce__(self):
        cdef uint64_t time, i = 0
        cdef uint64_t[::1] counts, order
        self._acquire()
        try:
            pages = np.empty(self.s.pages, np.uint64)
            order = pages
            for time in range(self.s.now):
                if self.s.live[time >> 6] >> (time & 63) & 1:
                    order[i] = self.s.table[self.s.place_at[time]].key - 1
                    i += 1
            counts = <uint64_t[:self.s.size >> 1]>self.s.counts
            state = self.fed, self.last_page, pages, np.array(counts)[:self.s.pages]
        finally:
            PyThread_release_lock(self.lock)
        return _rebuild, (type(self), self.shift, state)

    def __repr__(self):
        return (f"<{type(self).__name__} page_shift={self.shift}, {self.fed} accesses to "
                f"{self.s.pages} pages>")


def _rebuild(kind, page_shift, state):
    """The profile that was copied or pickled."""
    cdef StackProfile profile = kind(page_shift=page_shift)
    cdef const uint64_t[::1] order, counts
    cdef uint64_t i
    profile.fed, profile.last_page, pages, found = state
    order, counts = as_u64(pages, "pages"), as_u64(found, "counts")
    for i in range(<uint64_t>order.shape[0]):
        if profile.s.pages == profile.s.size >> 1 and not renumber(&profile.s):
            raise MemoryError
        push_new(&profile.s, order[i])
    for i in range(min(<uint64_t>counts.shape[0], profile.s.size >> 1)):
        profile.s.counts[i] = counts[i]
    return profile
