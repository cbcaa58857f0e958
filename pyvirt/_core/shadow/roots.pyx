"""The roots of a vCPU: the current one and a few before it, and what happens before each entry."""

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.shadow.agile cimport has_nested_root, move_pending
from pyvirt._core.shadow.front cimport front_flush, front_root
from pyvirt._core.shadow.lookup cimport get_page, role_of
from pyvirt._core.shadow.state cimport (
    FRAME_SHIFT,
    NO_PAGE,
    REQUEST_FLUSH,
    REQUEST_GUEST_FLUSH,
    REQUEST_MOVE,
    REQUEST_OBSOLETE,
    REQUEST_ROOT,
    REQUEST_SYNC,
    RIGHT_ALL,
    cpu_t,
    hyper_t,
    new_epoch,
    request_flush,
    root_t,
    shadows,
)
from pyvirt._core.shadow.sync cimport sync_below
from pyvirt._core.shadow.zap cimport make_room, zap, zapped_t


cdef void forget(hyper_t *s, root_t *root, zapped_t *z) noexcept nogil:
    """Let go of one root; an invalid one that nobody else uses is freed."""
    cdef uint32_t page = root.page
    root.page = NO_PAGE
    root.nested = False
    if page == NO_PAGE:
        return
    s.pages[page].roots -= 1
    if s.pages[page].roots == 0 and s.pages[page].invalid:
        zap(s, page, z)


cdef void forget_invalid(hyper_t *s, cpu_t *v) noexcept nogil:
    cdef uint32_t i
    cdef zapped_t z
    z.freed = z.counted = 0
    if v.root.page != NO_PAGE and s.pages[v.root.page].invalid:
        forget(s, &v.root, &z)
    for i in range(s.rules.previous_roots):
        if v.previous[i].page != NO_PAGE and s.pages[v.previous[i].page].invalid:
            forget(s, &v.previous[i], &z)
    if z.freed:
        request_flush(s)


cdef void forget_marked(hyper_t *s, cpu_t *v) noexcept nogil:
    """Drop the previous roots that would have to be synced."""
    cdef uint32_t i
    cdef zapped_t z
    z.freed = z.counted = 0
    for i in range(s.rules.previous_roots):
        if v.previous[i].page != NO_PAGE and s.pages[v.previous[i].page].marked:
            forget(s, &v.previous[i], &z)
    if z.freed:
        request_flush(s)


cdef void forget_all(hyper_t *s, cpu_t *v) noexcept nogil:
    """After a change of what roles are made of."""
    cdef uint32_t i
    cdef zapped_t z
    z.freed = z.counted = 0
    forget(s, &v.root, &z)
    for i in range(s.rules.previous_roots):
        forget(s, &v.previous[i], &z)
    if z.freed:
        request_flush(s)
    v.requests |= REQUEST_ROOT
    new_epoch(s)


cdef bint usable(const hyper_t *s, const root_t *root, uint64_t cr3) noexcept nogil:
    if root.page == NO_PAGE and not root.nested:
        return False
    return root.cr3 == cr3 and not s.pages[root.page].invalid


cdef bint switch_root(hyper_t *s, cpu_t *v, uint64_t cr3) noexcept nogil:
    """Take another root from the previous ones, which it joins; False: none fits.

    The most recent comes first; a hit at place k rotates places 0 to k.
    """
    cdef uint32_t i
    cdef root_t other
    cdef zapped_t z
    new_epoch(s)
    if usable(s, &v.root, cr3):
        return True
    for i in range(s.rules.previous_roots):
        other = v.previous[i]
        v.previous[i] = v.root
        v.root = other
        if usable(s, &v.root, cr3):
            s.counters.roots_hit += 1
            s.pages[v.root.page].writes = 0
            return True
    z.freed = z.counted = 0
    forget(s, &v.root, &z)
    if z.freed:
        request_flush(s)
    v.requests |= REQUEST_ROOT
    return False


cdef bint build(hyper_t *s, cpu_t *v) noexcept nogil:
    """Find or make the root for CR3; False if there is no page for it."""
    cdef uint32_t page
    if s.tables != NULL and has_nested_root(s, v):
        return True
    if not make_room(s):
        return False
    page = get_page(s, v, (v.cr3 & v.guest.table_address) >> FRAME_SHIFT,
                    role_of(v, v.guest.levels, RIGHT_ALL, False))
    if page == NO_PAGE:
        return False
    s.pages[page].roots += 1
    v.root.page = page
    v.root.cr3 = v.cr3
    s.counters.roots_built += 1
    new_epoch(s)
    if s.front != NULL:
        front_flush(s, v)           # not among the flushes that KVM counts
    if s.rules.sync_at_link:
        sync_below(s, v, page)
    return True


cdef bint enter(hyper_t *s, cpu_t *v) noexcept nogil:
    """Serve what was asked for before the vCPU runs again; False if no page is left for a root."""
    cdef uint32_t requests
    if not shadows(s):
        if s.front != NULL and v.requests & REQUEST_FLUSH:
            front_flush(s, v)
        v.requests = 0
        return True
    while v.requests:
        if v.requests & REQUEST_MOVE:
            v.requests &= ~<uint32_t>REQUEST_MOVE
            move_pending(s)
        if v.requests & REQUEST_OBSOLETE:
            v.requests &= ~<uint32_t>REQUEST_OBSOLETE
            forget_invalid(s, v)
        if v.requests & REQUEST_SYNC:
            v.requests &= ~<uint32_t>REQUEST_SYNC
            if v.root.page != NO_PAGE:
                sync_below(s, v, v.root.page)
        requests = v.requests
        v.requests &= ~<uint32_t>(REQUEST_FLUSH | REQUEST_GUEST_FLUSH | REQUEST_ROOT)
        if requests & (REQUEST_FLUSH | REQUEST_GUEST_FLUSH):
            s.counters.tlb_flush += 1
            if s.front != NULL:
                front_flush(s, v)
        if requests & REQUEST_GUEST_FLUSH:
            if v.root.page != NO_PAGE:
                sync_below(s, v, v.root.page)
            forget_marked(s, v)
        if v.root.page == NO_PAGE and not v.root.nested and not build(s, v):
            v.requests |= REQUEST_ROOT
            return False
    if s.front != NULL:
        front_root(s, v)
    return True
