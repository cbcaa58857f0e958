"""Zapping: a page of the pool goes with its entries, the links to it, and what is unsync below it.

Children that are in sync stay in the pool without parents, to be found again by frame and role.
"""

from libc.stdint cimport uint32_t

from pyvirt._core.shadow.pages cimport drop_entry, free_page, hide_page
from pyvirt._core.shadow.state cimport (
    ENTRY_P,
    NO_PAGE,
    NO_SLOT,
    REQUEST_OBSOLETE,
    hyper_t,
    level_of,
    page_t,
    request_flush,
)
from pyvirt._core.shadow.unsync cimport clear_marks, end_unsync, find_unsync


cdef void zap(hyper_t *s, uint32_t page, zapped_t *z) noexcept nogil:
    """Zap one page. A root in use becomes invalid and is freed when it is forgotten."""
    cdef page_t *p = &s.pages[page]
    cdef uint32_t i, slot
    s.counters.mmu_shadow_zapped += 1
    if level_of(p) > 1:
        while find_unsync(s, page) or s.budget == 0:
            for i in range(s.found_count):
                zap(s, s.found[i], z)     # a leaf table: no walk in a walk
            clear_marks(s, page)
    slot = page << 9
    while p.present:
        if s.entries[slot] & ENTRY_P:
            drop_entry(s, slot)
        slot += 1
    while p.parents != NO_SLOT:
        drop_entry(s, p.parents)
    if p.unsync:
        end_unsync(s, page)
    if not p.invalid:
        hide_page(s, page)
    z.counted += 1
    if p.roots:
        if not p.invalid:
            p.invalid = True
            for i in range(s.cpu_count):
                s.cpus[i].requests |= REQUEST_OBSOLETE
        return
    z.freed += 1
    free_page(s, page)


cdef bint make_room(hyper_t *s) noexcept nogil:
    """Recycle the oldest pages if too few are free; False if none is free even so."""
    cdef uint32_t free, wanted, page
    cdef zapped_t z
    if s.limit == 0:
        return s.free != NO_PAGE or s.high + 1 < s.capacity
    free = s.limit - s.used if s.limit > s.used else 0
    if free >= s.rules.least_free:
        return True
    wanted = s.rules.refill - free
    z.freed = z.counted = 0
    page = s.oldest
    while page != NO_PAGE and z.freed < wanted:
        if s.pages[page].roots:
            page = s.pages[page].newer
            continue
        zap(s, page, &z)
        page = s.oldest             # what follows may have been zapped with it
    s.counters.mmu_recycled += z.freed
    if z.freed:
        request_flush(s)
    return s.used < s.limit


cdef void zap_all(hyper_t *s) noexcept nogil:
    """Zap every page that is no root in use."""
    cdef uint32_t page = s.oldest
    cdef zapped_t z
    z.freed = z.counted = 0
    while page != NO_PAGE:
        if s.pages[page].roots:
            page = s.pages[page].newer
        else:
            zap(s, page, &z)
            page = s.oldest
    if z.freed:
        request_flush(s)
