"""The pool of table pages: making and freeing, look-up by guest frame, entries and their lists."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from pyvirt._core.shadow.pool cimport show_page
from pyvirt._core.shadow.state cimport (
    ENTRY_A,
    ENTRY_LARGE,
    ENTRY_P,
    ENTRY_SWITCH,
    ENTRY_U,
    ENTRY_W,
    FRAME_SHIFT,
    NO_PAGE,
    NO_SLOT,
    frame_of,
    hyper_t,
    is_direct,
    is_leaf,
    level_of,
    link_to,
    new_epoch,
    page_of,
    page_t,
    place_of,
)


cdef uint32_t make_page(hyper_t *s, uint64_t gfn, uint32_t role) noexcept nogil:
    """A page with no entries, the newest; NO_PAGE when the pool is empty."""
    cdef uint32_t page = s.free, next
    cdef page_t *p
    if page != NO_PAGE:
        s.free = s.pages[page].newer
    elif s.high + 1 < s.capacity and show_page(s, s.high + 1):
        s.high += 1
        page = s.high
    else:
        return NO_PAGE
    p = &s.pages[page]
    memset(p, 0, sizeof(page_t))
    memset(&s.entries[<uint64_t>page << 9], 0, 4096)
    p.gfn = gfn
    p.role = role
    p.used = True
    p.older = s.newest
    if s.newest != NO_PAGE:
        s.pages[s.newest].newer = page
    else:
        s.oldest = page
    s.newest = page
    s.used += 1

    next = s.same[place_of(s, gfn)]
    p.same_next = next
    if next != NO_PAGE:
        s.pages[next].same_prev = page
    s.same[place_of(s, gfn)] = page
    if not is_direct(p):
        s.shadowed[gfn >> 9] += 1
    return page


cdef void hide_page(hyper_t *s, uint32_t page) noexcept nogil:
    """Take a page off the list by age and the list of its frame: it cannot be found any more."""
    cdef page_t *p = &s.pages[page]
    if p.older != NO_PAGE:
        s.pages[p.older].newer = p.newer
    else:
        s.oldest = p.newer
    if p.newer != NO_PAGE:
        s.pages[p.newer].older = p.older
    else:
        s.newest = p.older
    p.older = p.newer = NO_PAGE
    if p.same_prev != NO_PAGE:
        s.pages[p.same_prev].same_next = p.same_next
    else:
        s.same[place_of(s, p.gfn)] = p.same_next
    if p.same_next != NO_PAGE:
        s.pages[p.same_next].same_prev = p.same_prev
    p.same_next = p.same_prev = NO_PAGE
    if not is_direct(p):
        s.shadowed[p.gfn >> 9] -= 1


cdef void free_page(hyper_t *s, uint32_t page) noexcept nogil:
    """Give back a hidden page without entries."""
    cdef page_t *p = &s.pages[page]
    p.used = False
    p.newer = s.free
    s.free = page
    s.used -= 1
    new_epoch(s)


cdef inline uint32_t *list_of(hyper_t *s, uint64_t entry, uint32_t level) noexcept nogil:
    """The list that a present entry belongs to."""
    if not is_leaf(entry, level):
        return &s.pages[page_of(s, entry)].parents
    if level == 1:
        return &s.reverse[frame_of(entry)]
    if entry & ENTRY_SWITCH:
        return &s.tables[frame_of(entry)].switches
    return &s.reverse_large[frame_of(entry) >> 9]


cdef void enter_list(hyper_t *s, uint32_t slot, uint32_t *head) noexcept nogil:
    s.links[slot].prev = NO_SLOT
    s.links[slot].next = head[0]
    if head[0] != NO_SLOT:
        s.links[head[0]].prev = slot
    head[0] = slot
    s.pages[slot >> 9].present += 1


cdef void set_link(hyper_t *s, uint32_t slot, uint32_t child) noexcept nogil:
    """Point an absent entry at a page; what the guest's entries allow is in the child's role."""
    s.entries[slot] = link_to(s, child) | ENTRY_P | ENTRY_W | ENTRY_U | ENTRY_A
    enter_list(s, slot, &s.pages[child].parents)
    new_epoch(s)


cdef void set_switch(hyper_t *s, uint32_t slot, uint64_t gfn, uint64_t rights) noexcept nogil:
    """Point an absent entry at a guest's table; `rights` is what the guest's entries leave there."""
    s.entries[slot] = gfn << FRAME_SHIFT | ENTRY_P | ENTRY_A | ENTRY_SWITCH | rights
    enter_list(s, slot, &s.tables[gfn].switches)
    new_epoch(s)


cdef void set_leaf(hyper_t *s, uint32_t slot, uint64_t entry, uint32_t level) noexcept nogil:
    """Map a frame by an absent entry."""
    s.entries[slot] = entry
    enter_list(s, slot, list_of(s, entry, level))
    if level == 1:
        s.counters.pages_4k += 1
    else:
        s.counters.pages_2m += 1
        new_epoch(s)


cdef void drop_entry(hyper_t *s, uint32_t slot) noexcept nogil:
    """Make a present entry absent. A page that loses its last link stays, to be found again."""
    cdef uint64_t entry = s.entries[slot]
    cdef page_t *p = &s.pages[slot >> 9]
    cdef uint32_t level = level_of(p), next = s.links[slot].next, prev = s.links[slot].prev
    if prev != NO_SLOT:
        s.links[prev].next = next
    else:
        list_of(s, entry, level)[0] = next
    if next != NO_SLOT:
        s.links[next].prev = prev
    s.entries[slot] = 0
    p.present -= 1
    if level == 1:
        s.counters.pages_4k -= 1
        return
    new_epoch(s)
    if entry & ENTRY_LARGE:
        s.counters.pages_2m -= 1


cdef bint holds_upper_table(const hyper_t *s, uint64_t gfn) noexcept nogil:
    """Whether a table of level 2 or above in this frame is shadowed: writes to it trap."""
    cdef uint32_t page = s.same[gfn]
    while page != NO_PAGE:
        if level_of(&s.pages[page]) > 1 and not is_direct(&s.pages[page]):
            return True
        page = s.pages[page].same_next
    return False
