"""The roots of a vCPU: the current one and a few before it, and what happens before each entry."""

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.shadow.agile cimport has_nested_root, move_pending
from pyvirt._core.shadow.front cimport front_flush, front_root
from pyvirt._core.shadow.lookup cimport get_page, role_of
from pyvirt._core.shadow.quadrants cimport top_frame
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
    ROLE_4_BYTE,
    ROLE_QUADRANT_SHIFT,
    cpu_t,
    hyper_t,
    new_epoch,
    request_flush,
    root_t,
    shadows,
)
from pyvirt._core.shadow.sync cimport sync_below
from pyvirt._core.shadow.zap cimport make_room, zap, zapped_t


cdef enum which_t:                  # roots
    WHICH_ALL = 0
    WHICH_INVALID = 1               # zapped while in use
    WHICH_MARKED = 2                # a table below may be out of sync
    WHICH_PCID = 3


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


cdef void forget_quarters(hyper_t *s, cpu_t *v, zapped_t *z) noexcept nogil:
    cdef uint32_t i
    v.rooted = False
    for i in range(4):
        forget(s, &v.quarters[i], z)


cdef inline bint is_there(const root_t *root) noexcept nogil:
    return root.page != NO_PAGE or root.nested


cdef bint is_meant(
    const hyper_t *s, const cpu_t *v, const root_t *root, which_t which, uint64_t pcid
) noexcept nogil:
    """Whether one that there is belongs to those which are forgotten."""
    if which == WHICH_INVALID:
        return s.pages[root.page].invalid
    if which == WHICH_MARKED:
        return s.pages[root.page].marked != 0
    if which == WHICH_PCID:
        return root.cr3 & v.pcid_mask == pcid
    return True


cdef void forget_some(
    hyper_t *s, cpu_t *v, which_t which, uint64_t pcid, bint current
) noexcept nogil:
    """Let go of roots, with one flush if that frees a page: previous ones, or the current too."""
    cdef uint32_t i
    cdef zapped_t z
    z.freed = z.counted = 0
    if current and v.quartered:
        forget_quarters(s, v, &z)   # they have no page in common that could tell which are meant
    if current and is_there(&v.root) and is_meant(s, v, &v.root, which, pcid):
        forget(s, &v.root, &z)
    for i in range(s.rules.previous_roots):
        if is_there(&v.previous[i]) and is_meant(s, v, &v.previous[i], which, pcid):
            forget(s, &v.previous[i], &z)
    if z.freed:
        request_flush(s)


cdef void forget_all(hyper_t *s, cpu_t *v) noexcept nogil:
    """After a change of what roles are made of."""
    forget_some(s, v, WHICH_ALL, 0, True)
    v.requests |= REQUEST_ROOT
    new_epoch(s)


cdef void forget_pcid(hyper_t *s, cpu_t *v, uint64_t pcid) noexcept nogil:
    """Forget the previous roots of a PCID that the guest flushed: they would need a sync."""
    forget_some(s, v, WHICH_PCID, pcid, False)


cdef bint usable(const hyper_t *s, const root_t *root, uint64_t cr3) noexcept nogil:
    return is_there(root) and root.cr3 == cr3 and not s.pages[root.page].invalid


cdef bint switch_root(hyper_t *s, cpu_t *v, uint64_t cr3) noexcept nogil:
    """Take another root from the previous ones, which it joins; False: none fits.

    The most recent comes first; a hit at place k rotates places 0 to k.
    """
    cdef uint32_t i
    cdef root_t other
    new_epoch(s)
    if v.quartered:
        forget_current(s, v)        # only roots of four or five levels are kept
        return False
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
    forget_current(s, v)
    return False


cdef void forget_current(hyper_t *s, cpu_t *v) noexcept nogil:
    """The next entry builds another."""
    cdef zapped_t z
    z.freed = z.counted = 0
    if v.quartered:
        forget_quarters(s, v, &z)
    else:
        forget(s, &v.root, &z)
    if z.freed:
        request_flush(s)
    v.requests |= REQUEST_ROOT
    new_epoch(s)


cdef bint take_root(
    hyper_t *s, cpu_t *v, root_t *root, uint64_t gfn, uint32_t role
) noexcept nogil:
    """Find or make one page that is a root; False if there is none left."""
    cdef uint32_t page = get_page(s, v, gfn, role)
    if page == NO_PAGE:
        return False
    s.pages[page].roots += 1
    root.page = page
    root.cr3 = v.cr3
    s.counters.roots_built += 1
    return True


cdef bint build_quarters(hyper_t *s, cpu_t *v) noexcept nogil:
    """Roots of level 2 for each GiB: quadrants of a 32-bit guest's directory, or a PAE guest's."""
    cdef uint32_t i, role = role_of(v, 0, 2, RIGHT_ALL, False)
    cdef uint64_t gfn
    v.rooted = True
    for i in range(4):
        gfn = top_frame(v, i)
        if gfn == ~<uint64_t>0:
            continue
        if not take_root(s, v, &v.quarters[i], gfn,
                         role | (i << ROLE_QUADRANT_SHIFT if role & ROLE_4_BYTE else 0)):
            forget_current(s, v)
            return False
    return True


cdef bint build(hyper_t *s, cpu_t *v) noexcept nogil:
    """Find or make the root for CR3; False if there is no page for it."""
    if s.tables != NULL and has_nested_root(s, v):
        return True
    if not make_room(s):
        return False
    if v.quartered:
        if not build_quarters(s, v):
            return False
    elif not take_root(s, v, &v.root, (v.cr3 & v.guest.table_address) >> FRAME_SHIFT,
                       role_of(v, 0, v.guest.levels, RIGHT_ALL, False)):
        return False
    new_epoch(s)
    if s.front != NULL:
        front_flush(s, v)           # not among the flushes that KVM counts
    if s.rules.sync_at_link:
        sync_roots(s, v)
    return True


cdef bint has_root(const cpu_t *v) noexcept nogil:
    return v.rooted if v.quartered else v.root.page != NO_PAGE or v.root.nested


cdef void sync_roots(hyper_t *s, cpu_t *v) noexcept nogil:
    """Sync what is unsync below the current root."""
    cdef uint32_t i
    if v.root.page != NO_PAGE:
        sync_below(s, v, v.root.page)
    for i in range(4 if v.quartered else 0):
        if v.quarters[i].page != NO_PAGE:
            sync_below(s, v, v.quarters[i].page)


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
            forget_some(s, v, WHICH_INVALID, 0, True)
        if v.requests & REQUEST_SYNC:
            v.requests &= ~<uint32_t>REQUEST_SYNC
            sync_roots(s, v)
        requests = v.requests
        v.requests &= ~<uint32_t>(REQUEST_FLUSH | REQUEST_GUEST_FLUSH | REQUEST_ROOT)
        if requests & (REQUEST_FLUSH | REQUEST_GUEST_FLUSH):
            s.counters.tlb_flush += 1
            if s.front != NULL:
                front_flush(s, v)
        if requests & REQUEST_GUEST_FLUSH:
            sync_roots(s, v)
            forget_some(s, v, WHICH_MARKED, 0, False)  # they would have to be synced
        if not has_root(v) and not build(s, v):
            v.requests |= REQUEST_ROOT
            return False
    if s.front != NULL:
        front_root(s, v)
    return True
