"""Miss counts of LRU TLBs of many sizes from one pass: all-associativity simulation.

An LRU set of w ways hits exactly when the page is among the w pages last used in that set. So for
each number of sets one list of the pages last used in every set, newest first, tells about all
associativities at once: the place at which a page is found is its stack distance (Mattson et al.,
1970). Numbers of sets that divide each other share work (Hill and Smith, 1989): a page in front
of its list is in front of its list for every larger number of sets too, whose sets are parts of
these. The blocks of addresses that pass from one number of sets to the next lose those accesses.

With AVX2, lists of up to 16 ways do not hold pages but the times of their last use: see lastuse.h.
"""

from cpython.pythread cimport (
    WAIT_LOCK,
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_release_lock,
)
from libc.stdint cimport int32_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

import numpy as np

from pyvirt._core.arrays cimport as_int, as_u64
from pyvirt._core.lastuse cimport (
    PV_USE_AHEAD,
    lastuse_clear,
    lastuse_count,
    lastuse_find,
    lastuse_free,
    lastuse_full,
    lastuse_new,
    lastuse_order,
    pv_use_can,
    pv_use_pass,
)
from pyvirt.errors import InvalidTypeError, InvalidValueError

TABLE_DTYPE = np.dtype([("sets", "<u4"), ("ways", "<u4"), ("entries", "<u4"), ("misses", "<u8"),
                        ("miss_ratio", "<f8")])
SETS = tuple(1 << k for k in range(13))
KERNELS = ("auto", "portable", "avx2", "avx512")

cdef enum:
    MOST_ENTRIES = 1 << 24          # places in the lists of one number of sets

cdef uint64_t NO_PAGE = 0xFFFFFFFFFFFFFFFFULL      # no address has it: a page is 2 bytes at least

ctypedef fused page_t:
    uint32_t
    uint64_t


cdef uint64_t pass_portable(
    page_t *lists, uint64_t set_mask, uint64_t places, const page_t *pages, uint64_t n,
    page_t *kept, uint64_t *counts
) noexcept nogil:
    """As recency.h says of its passes, for any compiler and lists of any length."""
    cdef uint64_t i, place, count = 0
    cdef page_t page
    cdef page_t *list
    for i in range(n):
        page = pages[i]
        list = lists + (<uint64_t>page & set_mask) * places
        place = 0
        while place < places and list[place] != page:
            place += 1
        counts[place] += 1
        kept[count] = page
        count += place != 0
        if place == places:
            place -= 1              # the oldest goes
        while place:
            list[place] = list[place - 1]
            place -= 1
        list[0] = page
    return count


# --- numbers of pages -------------------------------------------------------------------------

cdef bint number_region(regions_t *r, uint64_t region) noexcept nogil:
    """Make `region` the last one looked up; false if there are too many regions."""
    cdef uint64_t slot = (region * 0x9E3779B97F4A7C15ULL) >> 54
    while r.keys[slot] and r.keys[slot] != region + 1:
        slot = (slot + 1) & (REGION_SLOTS - 1)
    if r.keys[slot] == 0:
        if r.count == MAX_REGIONS:
            return False
        r.keys[slot] = region + 1
        r.numbers[slot] = r.count
        r.regions[r.count] = region
        r.count += 1
    r.last = region
    r.last_number = r.numbers[slot]
    return True


cdef bint number_pages(
    regions_t *r, const uint64_t *vas, uint64_t n, int shift, uint64_t last, uint32_t *pages,
    uint64_t *count
) noexcept nogil:
    """Numbers of 32 bits for the pages of `vas`, without repeats; false if they do not suffice.

    The number of a page keeps its low 24 bits, more than a set index looks at; the bits above are
    those of its region of 2**24 pages. Programs have few regions, which are numbered as met.
    """
    cdef uint64_t i, page, kept = 0, region = r.last
    cdef uint32_t above = r.last_number << REGION_SHIFT
    for i in range(n):
        page = vas[i] >> shift
        if page >> REGION_SHIFT != region:
            region = page >> REGION_SHIFT
            if not number_region(r, region):
                return False
            above = r.last_number << REGION_SHIFT
        pages[kept] = above | <uint32_t>(page & ((1 << REGION_SHIFT) - 1))
        kept += page != last
        last = page
    count[0] = kept
    return True


cdef uint64_t drop_repeats(
    const uint64_t *vas, uint64_t n, int shift, uint64_t last, uint64_t *pages
) noexcept nogil:
    """Likewise the pages themselves."""
    cdef uint64_t i, page, kept = 0
    for i in range(n):
        page = vas[i] >> shift
        pages[kept] = page
        kept += page != last
        last = page
    return kept


# --- the object -------------------------------------------------------------------------------

cdef void *new_lists(lists_t *lists, uint64_t item, void **block) noexcept nogil:
    """Empty lists of pages of `item` bytes, aligned to 64 bytes; NULL without memory."""
    cdef uint64_t size = lists.sets * lists.groups * 16 * item
    cdef void *aligned
    block[0] = malloc(size + 64)
    if block[0] == NULL:
        return NULL
    aligned = <void *>((<uintptr_t>block[0] + 63) & ~<uintptr_t>63)
    memset(aligned, 0xFF, size)
    return aligned


cdef class ReuseProfile:
    """Miss counts of single-level LRU TLBs, for all associativities, in one pass.

    Every address is one look-up. The set of a page is its number modulo the number of sets.

    Parameters
    ----------
    sets : sequence of int, default 1, 2, 4, ... 4096
        Numbers of sets: powers of two up to 2**20, ascending.
    max_ways : int or sequence of int, default 16
        Most ways that are asked about, up to 1024; one number for all `sets`, or one for each.
        Up to 16 ways cost the same.
    page_shift : int, default 12
        log2 of the page size, 1 to 48.
    kernel : {"auto", "portable", "avx2", "avx512"}
        What searches the lists. All yield the same; ``"auto"`` is the fastest that this
        processor has.
    """

    def __cinit__(self, sets=SETS, max_ways=16, *, page_shift=12, kernel="auto"):
        cdef lists_t *lists
        cdef int k
        try:
            counts = [as_int(count, "sets", 1, 1 << MAX_SET_SHIFT) for count in sets]
        except TypeError as error:
            raise InvalidTypeError(
                f"sets must be a sequence of integers, not {sets!r:.80}") from error
        if (not counts or counts != sorted(set(counts))
                or any(count & (count - 1) for count in counts)):
            raise InvalidValueError(
                f"sets must be ascending powers of two, at least one, got {sets!r:.80}")
        if hasattr(max_ways, "__index__"):
            max_ways = [max_ways] * len(counts)
        try:
            ways = [as_int(most, "max_ways", 1, 1024) for most in max_ways]
        except TypeError as error:
            raise InvalidTypeError("max_ways must be an integer or a sequence of integers, "
                                   f"not {max_ways!r:.80}") from error
        if len(ways) != len(counts):
            raise InvalidValueError(
                f"max_ways must have one number for each of {len(counts)} sets, got {len(ways)}")
        self.shift = as_int(page_shift, "page_shift", 1, 48)
        self._choose(kernel)
        self.last_page = NO_PAGE
        self.lock = PyThread_allocate_lock()
        self.regions = <regions_t *>calloc(1, sizeof(regions_t))
        if self.lock == NULL or self.regions == NULL:
            raise MemoryError
        self.regions.last = NO_PAGE
        for k in range(len(counts)):
            lists = &self.lists[k]
            lists.sets = counts[k]
            lists.ways = ways[k]
            lists.groups = (lists.ways + 15) // 16
            if lists.sets * lists.groups * 16 > MOST_ENTRIES:
                raise InvalidValueError(
                    f"sets * max_ways must be at most {MOST_ENTRIES:#x}, "
                    f"got {lists.sets} * {lists.groups * 16}")
            lists.narrow = <uint32_t *>new_lists(lists, 4, &lists.block)
            lists.counts = <uint64_t *>calloc(lists.groups * 16 + 1, sizeof(uint64_t))
            if lists.narrow == NULL or lists.counts == NULL:
                raise MemoryError
            self.set_counts = k + 1
        self.timed_from = self.set_counts
        if self.by_times and not self._begin_times():
            raise MemoryError

    def __dealloc__(self):
        cdef int k
        for k in range(MAX_SET_COUNTS):
            free(self.lists[k].block)
            free(self.lists[k].counts)
        free(self.regions)
        lastuse_free(&self.recent)
        if self.lock != NULL:
            PyThread_free_lock(self.lock)

    cdef object _choose(self, object kernel):
        if kernel not in KERNELS:
            raise InvalidValueError(f"kernel must be one of {KERNELS}, got {kernel!r:.80}")
        self.pass_simd = NULL
        if kernel in ("auto", "avx512"):
            self.pass_simd = pv_recency_simd(512)
        if kernel == "avx2" or (kernel == "auto" and self.pass_simd == NULL):
            self.pass_simd = pv_recency_simd(256)
            self.by_times = pv_use_can()
        if self.pass_simd == NULL and kernel in ("avx2", "avx512"):
            raise InvalidValueError(f"this processor has no {kernel}")

    # --- what there is ---

    @property
    def sets(self):
        """Numbers of sets."""
        return tuple([self.lists[k].sets for k in range(self.set_counts)])

    @property
    def max_ways(self):
        """Most ways, for each of `sets`."""
        return tuple([self.lists[k].ways for k in range(self.set_counts)])

    @property
    def page_shift(self):
        """Log2 of the page size."""
        return self.shift

    @property
    def accesses(self):
        """Addresses taken in so far."""
        return self.fed

    # --- the pass ---

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
            raise MemoryError("the host has no memory left for lists of whole page numbers")

    cdef bint _take(self, const uint64_t *vas, uint64_t n) noexcept nogil:
        """`feed` with the lock held; false if the memory ends, before some block."""
        cdef uint32_t narrow[BLOCK + PV_USE_AHEAD]
        cdef uint64_t wide[BLOCK]
        cdef uint64_t part, left = 0
        cdef lists_t *lists
        cdef int k
        while n:
            part = min(n, <uint64_t>BLOCK)
            if (self.timed_from < self.set_counts and lastuse_full(&self.recent)
                    and not self._renumber()):
                return False
            if not self.is_wide and not number_pages(self.regions, vas, part, self.shift,
                                                     self.last_page, narrow, &left):
                if not self._widen():
                    return False
            if self.is_wide:
                left = drop_repeats(vas, part, self.shift, self.last_page, wide)
            for k in range(self.set_counts):
                lists = &self.lists[k]
                if k == self.timed_from:
                    lastuse_find(&self.recent, narrow, left)
                lists.counts[0] += part - left      # in front, as it was for fewer sets
                if k >= self.timed_from:
                    left = pv_use_pass(lists.times, <uint32_t>(lists.sets - 1), self.recent.uses,
                                       left, lists.counts)
                elif self.is_wide:
                    left = pass_portable[uint64_t](lists.wide, lists.sets - 1, lists.groups * 16,
                                                   wide, left, wide, lists.counts)
                elif self.pass_simd != NULL:
                    left = self.pass_simd(lists.narrow, <uint32_t>(lists.sets - 1), lists.groups,
                                          narrow, left, narrow, lists.counts)
                else:
                    left = pass_portable[uint32_t](lists.narrow, lists.sets - 1,
                                                   lists.groups * 16, narrow, left, narrow,
                                                   lists.counts)
            self.fed += part
            self.last_page = vas[part - 1] >> self.shift
            vas += part
            n -= part
        return True

    cdef bint _widen(self) noexcept nogil:
        """Go on with whole page numbers; false, and nothing changed, without memory for them."""
        cdef void *blocks[MAX_SET_COUNTS]
        cdef lists_t *lists
        cdef uint64_t i, uses = 0
        cdef uint32_t *order = NULL
        cdef int k, timed_from = self.timed_from
        if timed_from < self.set_counts:
            order = self._order(&uses)
            if order == NULL:
                return False
        for k in range(self.set_counts):
            lists = &self.lists[k]
            lists.wide = <uint64_t *>new_lists(lists, 8, &blocks[k])
            if lists.wide == NULL:
                while k:
                    k -= 1
                    free(blocks[k])
                    self.lists[k].wide = NULL
                free(order)
                return False
        self._end_times()
        self._use_again(order, uses)
        free(order)
        for k in range(self.set_counts):
            lists = &self.lists[k]
            for i in range(lists.sets * lists.groups * 16):
                if lists.narrow[i] != 0xFFFFFFFFU:
                    lists.wide[i] = (self.regions.regions[lists.narrow[i] >> REGION_SHIFT]
                                     << REGION_SHIFT
                                     | lists.narrow[i] & ((1 << REGION_SHIFT) - 1))
            free(lists.block)
            lists.block = blocks[k]
            lists.narrow = NULL
        self.is_wide = True
        return True

    # --- lists of times ---

    cdef bint _begin_times(self) noexcept nogil:
        """Make lists of times of the last set counts, if that pays; false without memory.

        Those with up to 16 ways: a directory of more would be larger than all lists. It pays where
        sets are few: the next access needs the list that the last one changed, and a list of times
        changes sooner.
        """
        cdef lists_t *lists
        cdef int k = self.set_counts
        while k and self.lists[k - 1].groups == 1:
            k -= 1
        if self.set_counts - k < LEAST_TIMED or self.lists[k].sets > MOST_TIMED_SETS:
            return True
        if not lastuse_new(&self.recent, self.lists[self.set_counts - 1].sets):
            return False
        self.timed_from = k
        for k in range(self.timed_from, self.set_counts):
            lists = &self.lists[k]
            lists.times = <int32_t *>lists.narrow
            lists.narrow = NULL
            memset(lists.times, 0, lists.sets * 16 * sizeof(int32_t))
        return True

    cdef void _end_times(self) noexcept nogil:
        """Make empty lists of pages of them again."""
        cdef lists_t *lists
        cdef int k
        for k in range(self.timed_from, self.set_counts):
            lists = &self.lists[k]
            lists.narrow = <uint32_t *>lists.times
            lists.times = NULL
            memset(lists.narrow, 0xFF, lists.sets * 16 * sizeof(uint32_t))
        lastuse_free(&self.recent)
        self.timed_from = self.set_counts

    cdef uint32_t *_order(self, uint64_t *n) noexcept nogil:
        """The pages that lists of times stand for, oldest use first; NULL without memory."""
        n[0] = lastuse_count(&self.recent)
        cdef uint64_t *keys = <uint64_t *>malloc((n[0] + 1) * sizeof(uint64_t))
        cdef uint32_t *pages = <uint32_t *>malloc((n[0] + 1) * sizeof(uint32_t))
        if keys != NULL and pages != NULL:
            lastuse_order(&self.recent, keys, pages)
            free(keys)
            return pages
        free(keys)
        free(pages)
        return NULL

    cdef void _use_again(self, const uint32_t *pages, uint64_t n) noexcept nogil:
        """Fill lists of up to 16 ways at the end with what `_order` gave, and count nothing."""
        cdef uint32_t block[BLOCK + PV_USE_AHEAD]
        cdef uint64_t nowhere[17]
        cdef uint64_t part, left
        cdef lists_t *lists
        cdef int k, first = self.set_counts
        while first and self.lists[first - 1].groups == 1:
            first -= 1
        memset(nowhere, 0, sizeof(nowhere))
        while n:
            part = left = min(n, <uint64_t>BLOCK)
            memcpy(block, pages, part * sizeof(uint32_t))
            if self.timed_from < self.set_counts:
                lastuse_find(&self.recent, block, part)
            for k in range(first, self.set_counts):
                lists = &self.lists[k]
                if self.timed_from < self.set_counts:
                    left = pv_use_pass(lists.times, <uint32_t>(lists.sets - 1), self.recent.uses,
                                       left, nowhere)
                else:
                    left = pass_portable[uint32_t](lists.narrow, lists.sets - 1, 16, block, left,
                                                   block, nowhere)
            pages += part
            n -= part

    cdef bint _renumber(self) noexcept nogil:
        """Let times begin at 1 again; false, and nothing changed, without memory."""
        cdef uint64_t n
        cdef uint32_t *order = self._order(&n)
        cdef int k
        if order == NULL:
            return False
        lastuse_clear(&self.recent)
        for k in range(self.timed_from, self.set_counts):
            memset(self.lists[k].times, 0, self.lists[k].sets * 16 * sizeof(int32_t))
        self._use_again(order, n)
        free(order)
        return True

    def _number_times_anew(self):
        """What happens every 2**31 accesses, for tests; whether there are times."""
        cdef bint timed = self.timed_from < self.set_counts
        self._acquire()
        done = not timed or self._renumber()
        PyThread_release_lock(self.lock)
        if not done:
            raise MemoryError
        return timed

    # --- results ---

    cdef int _find(self, object sets) except -1:
        cdef int k
        for k in range(self.set_counts):
            if self.lists[k].sets == sets:
                return k
        raise InvalidValueError(f"sets must be one of {self.sets}, got {sets!r:.80}")

    cdef object _hits(self, int k):
        """Hits of 1, 2, ... ways; lock held."""
        cdef uint64_t[::1] counts = <uint64_t[:self.lists[k].groups * 16]>self.lists[k].counts
        return np.cumsum(np.asarray(counts)[:self.lists[k].ways], dtype=np.uint64)

    cdef object _acquire(self):
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)

    def misses(self, sets, ways):
        """Misses of one TLB; the first use of a page is a miss.

        Parameters
        ----------
        sets, ways : int
            Of those that are simulated.

        Returns
        -------
        int
        """
        cdef int k = self._find(sets)
        cdef uint64_t most = as_int(ways, "ways", 1, self.lists[k].ways), fed
        self._acquire()
        try:
            fed = self.fed
            hits = self._hits(k)
        finally:
            PyThread_release_lock(self.lock)
        return fed - int(hits[most - 1])

    def table(self):
        """Misses of all TLBs.

        Returns
        -------
        ndarray
            A row for each number of sets and ways: ``sets``, ``ways``, ``entries``, ``misses``,
            ``miss_ratio`` (0 before the first address).
        """
        rows = np.empty(sum(self.max_ways), TABLE_DTYPE)
        cdef uint64_t first = 0, last, fed
        cdef int k
        self._acquire()
        try:
            fed = self.fed
            for k in range(self.set_counts):
                last = first + self.lists[k].ways
                rows["sets"][first:last] = self.lists[k].sets
                rows["ways"][first:last] = np.arange(1, last - first + 1)
                rows["misses"][first:last] = fed - self._hits(k)
                first = last
        finally:
            PyThread_release_lock(self.lock)
        rows["entries"] = rows["sets"] * rows["ways"]
        rows["miss_ratio"] = rows["misses"] / max(fed, <uint64_t>1)
        return rows

    # --- state as a value ---

    def __reduce__(self):
        cdef lists_t *lists
        cdef uint64_t places, uses = 0
        cdef uint32_t *found
        cdef int k
        contents, order = [], None
        self._acquire()
        try:
            for k in range(self.set_counts):
                lists = &self.lists[k]
                places = lists.sets * lists.groups * 16
                contents.append((
                    b"" if k >= self.timed_from
                    else (<char *>lists.wide)[:places * 8] if self.is_wide
                    else (<char *>lists.narrow)[:places * 4],
                    (<char *>lists.counts)[:(lists.groups * 16 + 1) * 8]))
            if self.timed_from < self.set_counts:
                found = self._order(&uses)
                if found == NULL:
                    raise MemoryError
                order = (<char *>found)[:uses * sizeof(uint32_t)]
                free(found)
            regions = [self.regions.regions[i] for i in range(self.regions.count)]
            state = self.fed, self.last_page, bool(self.is_wide), regions, contents, order
        finally:
            PyThread_release_lock(self.lock)
        return _rebuild, (type(self), self.sets, self.max_ways, self.shift, state)

    def __repr__(self):
        return (f"<{type(self).__name__} sets={self.sets} max_ways={self.max_ways} "
                f"page_shift={self.shift}, {self.fed} accesses>")


def _rebuild(kind, sets, max_ways, page_shift, state):
    """The profile that was copied or pickled."""
    cdef ReuseProfile profile = kind(sets, max_ways, page_shift=page_shift)
    cdef lists_t *lists
    cdef uint64_t places, item
    cdef int k
    profile.fed, profile.last_page, wide, regions, contents, order = state
    for region in regions:
        number_region(profile.regions, region)
    if order is None:
        profile._end_times()
    if wide and not profile._widen():
        raise MemoryError
    item = 8 if wide else 4
    for k in range(profile.set_counts):
        lists = &profile.lists[k]
        places = lists.sets * lists.groups * 16
        pages, counts = contents[k]
        timed = order is not None and lists.groups == 1 and not pages
        if (len(pages) != (0 if timed else places * item)
                or len(counts) != (lists.groups * 16 + 1) * 8):
            raise InvalidValueError("the state of another ReuseProfile")
        if not timed:
            memcpy(<void *>lists.wide if wide else <void *>lists.narrow, <const char *>pages,
                   places * item)
        memcpy(lists.counts, <const char *>counts, (lists.groups * 16 + 1) * 8)
    if order is not None:
        used = np.frombuffer(order, np.uint32)
        profile._use_again(<const uint32_t *><const char *>(<bytes>order), len(used))
    return profile
