"""Finding the shadow page of a guest frame and role, or making it."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyvirt._core.shadow.leaves cimport write_protect
from pyvirt._core.shadow.pages cimport drop_entry, make_page, set_link
from pyvirt._core.shadow.state cimport (
    ENTRY_P,
    MODE_TDP,
    NO_PAGE,
    ROLE_4_BYTE,
    ROLE_DIRECT,
    ROLE_QUADRANT_SHIFT,
    ROLE_RIGHTS_SHIFT,
    cpu_t,
    frame_of,
    hyper_t,
    is_direct,
    page_t,
    place_of,
    request_flush,
)
from pyvirt._core.shadow.sync cimport sync_below, sync_page
from pyvirt._core.shadow.unsync cimport end_unsync, mark_link
from pyvirt._core.shadow.zap cimport zap, zapped_t


cdef uint32_t role_of(
    const cpu_t *v, uint32_t slot, uint32_t level, uint8_t rights, bint direct
) noexcept nogil:
    """The role of the page below an entry, under this vCPU's control registers.

    Of a table of 4-byte leaves it is one half or the other.
    """
    cdef uint32_t role = v.role | level | <uint32_t>rights << ROLE_RIGHTS_SHIFT
    if role & ROLE_4_BYTE and level == 1:
        role |= (slot & 1) << ROLE_QUADRANT_SHIFT
    return role | (ROLE_DIRECT if direct else 0)


cdef uint32_t get_page(hyper_t *s, cpu_t *v, uint64_t gfn, uint32_t role) noexcept nogil:
    """The page of this frame and role; NO_PAGE when the pool is empty.

    A page that is found unsync is synced; it stays unsync, its frame writable. A table of level 2
    or above ends what is unsync of the same frame, whose writes must trap from now on; a new one
    of any level takes W from all entries that map its frame.
    """
    cdef uint32_t page = s.same[place_of(s, gfn)], next
    cdef uint32_t level = role & 0xF
    cdef page_t *p
    cdef zapped_t z
    z.freed = z.counted = 0
    while page != NO_PAGE:
        p = &s.pages[page]
        next = p.same_next
        if p.role == role and p.gfn == gfn:
            break
        if level > 1 and p.unsync:
            zap(s, page, &z)
        page = next
    if page != NO_PAGE:
        s.counters.pages_found += 1
        if not is_direct(p):
            if p.unsync:
                if not s.rules.stay_unsync:
                    end_unsync(s, page)
                    if write_protect(s, gfn):
                        request_flush(s)
                if sync_page(s, v, page):
                    request_flush(s)
            p.writes = 0
    else:
        page = make_page(s, gfn, role)
        if page == NO_PAGE:
            return NO_PAGE
        if s.mode != MODE_TDP:
            s.counters.mmu_cache_miss += 1
        if not role & ROLE_DIRECT and write_protect(s, gfn):
            request_flush(s)
    if z.freed:
        request_flush(s)
    return page


cdef void link_page(hyper_t *s, cpu_t *v, uint32_t slot, uint32_t page) noexcept nogil:
    """Point an entry at a page that was looked up; what is unsync below it is synced first."""
    cdef page_t *p = &s.pages[page]
    if p.marked and s.rules.sync_at_link:
        sync_below(s, v, page)
    if s.entries[slot] & ENTRY_P:
        if s.log[frame_of(s.entries[slot]) >> 9]:
            s.counters.large_split += 1
        drop_entry(s, slot)         # a large leaf that can stay no longer
        request_flush(s)
    set_link(s, slot, page)
    if p.unsync or p.marked:
        mark_link(s, slot)
