"""Tables out of sync: who is, the marks above them, and the walk that finds them by the marks.

A guest that edits a table of 4 KiB leaves must flush before it relies on the new content, so one
trap is enough: the table's frame becomes writable, its shadow *unsync*, and the pages above get
marks. A mark says that something below this link may be out of sync; only a walk over the marks
takes them back (https://docs.kernel.org/virt/kvm/x86/mmu.html, "Synchronized and unsynchronized
pages").
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memmove

from pyvirt._core.shadow.pages cimport holds_upper_table
from pyvirt._core.shadow.state cimport (
    ENTRY_P,
    NO_PAGE,
    NO_SLOT,
    UNSYNC_LIMIT,
    hyper_t,
    is_direct,
    is_leaf,
    level_of,
    note_trap,
    page_of,
    page_t,
)

cdef extern from *:
    """
    #if defined(_MSC_VER)
    #include <intrin.h>
    static inline unsigned pv_lowest_bit(unsigned long long word) {
        unsigned long at; _BitScanForward64(&at, word); return (unsigned)at;
    }
    #else
    static inline unsigned pv_lowest_bit(unsigned long long word) {
        return (unsigned)__builtin_ctzll(word);
    }
    #endif
    """
    uint32_t lowest_bit "pv_lowest_bit" (uint64_t word) noexcept nogil


cdef void mark_above(hyper_t *s, uint32_t page) noexcept nogil:
    """Mark every link to this page."""
    cdef uint32_t slot = s.pages[page].parents
    while slot != NO_SLOT:
        mark_link(s, slot)
        slot = s.links[slot].next


cdef void mark_link(hyper_t *s, uint32_t slot) noexcept nogil:
    """Mark one link, and those above it unless its page had marks already."""
    cdef page_t *p = &s.pages[slot >> 9]
    cdef uint64_t bit = <uint64_t>1 << (slot & 63)
    cdef uint64_t *word = &p.marks[slot >> 6 & 7]
    if word[0] & bit:
        return
    word[0] |= bit
    p.marked += 1
    if p.marked == 1:
        mark_above(s, slot >> 9)


cdef uint32_t place_in_list(const hyper_t *s, uint64_t gfn) noexcept nogil:
    """Where the list of frames out of sync has this one, or its length."""
    cdef uint32_t i = 0
    while i < s.unsync_count and s.unsync[i] != gfn:
        i += 1
    return i


cdef void list_frame(hyper_t *s, uint64_t gfn) noexcept nogil:
    if place_in_list(s, gfn) == s.unsync_count < UNSYNC_LIMIT:
        s.unsync[s.unsync_count] = gfn
        s.unsync_count += 1


cdef void unlist_frame(hyper_t *s, uint64_t gfn) noexcept nogil:
    """Take a frame off the list unless another page of it is unsync still."""
    cdef uint32_t page = s.same[gfn], i = place_in_list(s, gfn)
    while page != NO_PAGE:
        if s.pages[page].unsync:
            return
        page = s.pages[page].same_next
    if i < s.unsync_count:
        s.unsync_count -= 1
        memmove(&s.unsync[i], &s.unsync[i + 1], (s.unsync_count - i) * sizeof(uint64_t))


cdef void go_unsync(hyper_t *s, uint32_t page) noexcept nogil:
    s.pages[page].unsync = True
    s.counters.mmu_unsync += 1
    s.counters.unsyncs += 1
    note_trap(s, s.pages[page].gfn)
    if s.rules.trace_limit:
        s.counters.traces_lifted += 1
    if s.rules.unsync_limit:
        list_frame(s, s.pages[page].gfn)
    mark_above(s, page)


cdef void end_unsync(hyper_t *s, uint32_t page) noexcept nogil:
    s.pages[page].unsync = False
    s.pages[page].traced = 0
    s.counters.mmu_unsync -= 1
    if s.unsync_count:
        unlist_frame(s, s.pages[page].gfn)


cdef void unmark(page_t *p, uint32_t index) noexcept nogil:
    p.marks[index >> 6] &= ~(<uint64_t>1 << (index & 63))
    p.marked -= 1


cdef bint note(hyper_t *s, uint32_t page, bint unsync) noexcept nogil:
    """Spend one of the walk's budget on a page; False once it is used up."""
    if unsync:
        if s.pages[page].visit == s.visit:
            return True                     # reached before, by another link
        s.pages[page].visit = s.visit
        s.found[s.found_count] = page
        s.found_count += 1
    s.budget -= 1
    return s.budget > 0


cdef bint descend(hyper_t *s, uint32_t page, bint clean) noexcept nogil:
    """Note unsync tables below `page`, unmark links with none below; False: budget used up.

    With `clean` nothing is noted.
    """
    cdef page_t *p = &s.pages[page]
    cdef page_t *child
    cdef uint64_t left, entry
    cdef uint32_t index, at, word
    for word in range(8):
        left = p.marks[word]
        while left:
            index = word << 6 | lowest_bit(left)
            left &= left - 1
            entry = s.entries[<uint64_t>page << 9 | index]
            if entry & ENTRY_P == 0 or is_leaf(entry, level_of(p)):
                unmark(p, index)
                continue
            at = page_of(s, entry)
            child = &s.pages[at]
            if child.marked:
                if not clean and not note(s, at, False):
                    return False
                if not descend(s, at, clean):
                    return False
                if not child.marked:
                    unmark(p, index)
            elif child.unsync:
                if not clean and not note(s, at, True):
                    return False
            else:
                unmark(p, index)
    return True


cdef uint32_t find_unsync(hyper_t *s, uint32_t page) noexcept nogil:
    """Put unsync tables below `page` into `found`: as many as one pass takes; their number.

    A pass notes at most `rules.batch` pages, `page` and those on the way among them.
    """
    s.found_count = 0
    s.budget = s.rules.batch - 1
    if s.pages[page].marked == 0:
        return 0
    s.visit += 1
    descend(s, page, False)
    return s.found_count


cdef void clear_marks(hyper_t *s, uint32_t page) noexcept nogil:
    """Unmark the links below `page` that lead to no unsync table any more."""
    descend(s, page, True)


cdef bint is_traced(const hyper_t *s, const page_t *p) noexcept nogil:
    """Whether the next write to a table in step is emulated, and leaves it in step."""
    return not s.rules.unsync or p.traced < s.rules.trace_limit


cdef bint may_write(hyper_t *s, uint64_t gfn, bint can_unsync, bint prefetch) noexcept nogil:
    """Whether an entry that maps this frame may become writable; its leaf tables go unsync."""
    cdef uint32_t page = s.same[gfn]
    if page == NO_PAGE:
        return True
    if holds_upper_table(s, gfn):
        return False
    while page != NO_PAGE:
        if not is_direct(&s.pages[page]):
            if not can_unsync:
                return False
            if not s.pages[page].unsync:
                if prefetch or is_traced(s, &s.pages[page]):
                    return False
                go_unsync(s, page)
        page = s.pages[page].same_next
    return True
