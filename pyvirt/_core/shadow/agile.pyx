"""Agile paging: which of the guest's tables are in nested mode, and when they change it.

After Gandhi, Hill and Swift (ISCA 2016). A table whose writes trap often goes to nested mode with
what is below it: its shadow pages are zapped, its frame becomes writable, and shadow entries above
lead to the guest's table itself by a switching entry. When an interval ends, tables that were not
written in it go back: by the D bits of what maps their frames, which are cleared then. A choice for
each process is made by its root: nested from there, or shadow as a whole.
"""

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.shadow.front cimport front_flush
from pyvirt._core.shadow.pages cimport drop_entry
from pyvirt._core.shadow.state cimport (
    ENTRY_D,
    ENTRY_P,
    FRAME_SHIFT,
    NO_PAGE,
    NO_SLOT,
    REQUEST_ROOT,
    cpu_t,
    hyper_t,
    is_direct,
    is_leaf,
    level_of,
    new_epoch,
    page_of,
    request_flush,
    root_t,
    table_t,
)
from pyvirt._core.shadow.zap cimport zap, zapped_t


cdef inline uint64_t frame_of_root(const cpu_t *v, uint64_t cr3) noexcept nogil:
    return (cr3 & v.guest.table_address) >> FRAME_SHIFT


# --- to nested mode ---------------------------------------------------------------------------

cdef bint only_here(const hyper_t *s, uint64_t gfn) noexcept nogil:
    """Whether no shadow page of a frame has a link to it, or is a root."""
    cdef uint32_t page = s.same[gfn]
    while page != NO_PAGE:
        if (not is_direct(&s.pages[page])
                and (s.pages[page].parents != NO_SLOT or s.pages[page].roots)):
            return False
        page = s.pages[page].same_next
    return True


cdef uint32_t shadow_page(const hyper_t *s, uint64_t gfn) noexcept nogil:
    """A shadow page of the table in a frame, or NO_PAGE."""
    cdef uint32_t page = s.same[gfn]
    while page != NO_PAGE and is_direct(&s.pages[page]):
        page = s.pages[page].same_next
    return page


cdef void move_below(hyper_t *s, uint32_t page, uint64_t root, zapped_t *z) noexcept nogil:
    """Move the tables that only this page leads to; others may be in step for someone else."""
    cdef uint32_t slot, child, level = level_of(&s.pages[page])
    cdef uint64_t entry
    if level == 1:
        return
    for slot in range(page << 9, (page + 1) << 9):
        entry = s.entries[slot]
        if entry & ENTRY_P == 0 or is_leaf(entry, level):
            continue
        child = page_of(s, entry)
        drop_entry(s, slot)
        if not is_direct(&s.pages[child]) and only_here(s, s.pages[child].gfn):
            move(s, s.pages[child].gfn, root, z)


cdef void move(hyper_t *s, uint64_t gfn, uint64_t root, zapped_t *z) noexcept nogil:
    """Zap every shadow page of a table, and of what is below, and note that they are nested."""
    cdef table_t *t = &s.tables[gfn]
    cdef uint32_t page = shadow_page(s, gfn)
    if page == NO_PAGE or t.nested:
        return
    t.nested = <unsigned char>level_of(&s.pages[page])
    t.written = True
    t.root = <uint32_t>root
    s.counters.agile_moved += 1
    if not t.listed:
        t.listed = True
        s.moved[s.agile.moved] = <uint32_t>gfn
        s.agile.moved += 1
    while page != NO_PAGE:
        move_below(s, page, root, z)
        zap(s, page, z)
        page = shadow_page(s, gfn)


cdef void move_pending(hyper_t *s) noexcept nogil:
    """Move the tables that were written often, before the vCPU that wrote them runs on."""
    cdef uint32_t i
    cdef zapped_t z
    z.freed = z.counted = 0
    for i in range(s.agile.pending_count):
        move(s, s.agile.pending[i], s.agile.pending[i], &z)
    s.agile.pending_count = 0
    if z.counted:
        request_flush(s)


# --- back to shadow mode ----------------------------------------------------------------------

cdef void leave_root(hyper_t *s, cpu_t *v, root_t *root, uint64_t gfn) noexcept nogil:
    if root.nested and frame_of_root(v, root.cr3) == gfn:
        root.nested = False
        if root == &v.root:
            v.requests |= REQUEST_ROOT


cdef void return_table(hyper_t *s, uint64_t gfn) noexcept nogil:
    """Take a table to shadow mode: what leads to it is dropped, the next fault shadows it."""
    cdef table_t *t = &s.tables[gfn]
    cdef uint32_t i, k
    t.nested = 0
    s.counters.agile_returned += 1
    while t.switches != NO_SLOT:
        drop_entry(s, t.switches)
    for i in range(s.cpu_count):
        leave_root(s, &s.cpus[i], &s.cpus[i].root, gfn)
        for k in range(s.rules.previous_roots):
            leave_root(s, &s.cpus[i], &s.cpus[i].previous[k], gfn)
    new_epoch(s)
    request_flush(s)


cdef bint is_dirty(const hyper_t *s, uint32_t slot) noexcept nogil:
    while slot != NO_SLOT:
        if s.entries[slot] & ENTRY_D:
            return True
        slot = s.links[slot].next
    return False


cdef bint clean(hyper_t *s, uint32_t slot) noexcept nogil:
    """Clear D in the entries of a list; whether any had it."""
    cdef bint any = False
    while slot != NO_SLOT:
        any = any or s.entries[slot] & ENTRY_D
        s.entries[slot] &= ~<uint64_t>ENTRY_D
        slot = s.links[slot].next
    return any


cdef bint was_written(const hyper_t *s, uint64_t gfn) noexcept nogil:
    """Whether a table was written, or moved, in this interval."""
    return (s.tables[gfn].written or is_dirty(s, s.reverse[gfn])
            or is_dirty(s, s.reverse_large[gfn >> 9]))


cdef void end_interval(hyper_t *s) noexcept nogil:
    """Send back what was not written, and begin to watch the rest anew."""
    cdef uint32_t i, count = s.agile.moved
    cdef uint64_t gfn
    cdef table_t *t
    cdef bint changed = False
    s.counters.agile_intervals += 1
    s.agile.interval += 1
    for i in range(count):
        t = &s.tables[s.moved[i]]
        if t.nested and not s.agile.all_back and was_written(s, s.moved[i]):
            # of a process, each table speaks for all
            s.tables[t.root if s.agile.by_process else s.moved[i]].stays = True
    s.agile.moved = 0
    for i in range(count):
        gfn = s.moved[i]
        t = &s.tables[gfn]
        if t.nested and not s.tables[t.root if s.agile.by_process else gfn].stays:
            return_table(s, gfn)
        if not t.nested:
            t.listed = False
            continue
        t.written = False
        if clean(s, s.reverse[gfn]) or clean(s, s.reverse_large[gfn >> 9]):
            changed = True
        s.moved[s.agile.moved] = <uint32_t>gfn
        s.agile.moved += 1
    for i in range(count):
        s.tables[s.moved[i]].stays = False
    if changed:
        request_flush(s)


# --- roots ------------------------------------------------------------------------------------

cdef bint has_nested_root(hyper_t *s, cpu_t *v) noexcept nogil:
    """Run on the guest's root itself, if that is in nested mode; False: it is to be shadowed.

    The processor runs with CR0.WP set, so a guest that clears it needs shadow tables, in which the
    hypervisor can make pages writable.
    """
    cdef uint64_t gfn = frame_of_root(v, v.cr3)
    if not s.tables[gfn].nested:
        return False
    if not v.guest.wp:
        return_table(s, gfn)
        return False
    v.root.nested = True
    v.root.cr3 = v.cr3
    s.counters.agile_switches[v.guest.levels] += 1
    new_epoch(s)
    front_flush(s, v)
    return True


cdef bint root_is_cached(const hyper_t *s, const cpu_t *v, uint64_t cr3) noexcept nogil:
    """Whether the processor knows the root for a CR3, so that loading it needs no exit.

    It does not while something below is out of sync: the hypervisor has to hear of the load.
    """
    cdef uint32_t i
    cdef const root_t *root = &v.root
    for i in range(s.agile.root_cache + 1):
        if i:
            root = &v.previous[i - 1]
        if root.cr3 != cr3:
            continue
        if root.nested:
            return True
        if root.page != NO_PAGE and not s.pages[root.page].invalid:
            return s.pages[root.page].marked == 0
    return False
