"""Filling shadow entries after a fault that the guest's tables allow, and prefetching neighbours."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyvirt._core.frames cimport pm_in_ram
from pyvirt._core.paging cimport ACCESS_USER, ACCESS_WRITE
from pyvirt._core.shadow.agile cimport return_table
from pyvirt._core.shadow.leaves cimport PUT_SPURIOUS, put_leaf, put_t
from pyvirt._core.shadow.lookup cimport get_page, link_page, role_of
from pyvirt._core.shadow.pages cimport drop_entry, set_switch
from pyvirt._core.shadow.state cimport (
    ENTRY_D,
    ENTRY_ENDS,
    ENTRY_P,
    ENTRY_U,
    ENTRY_W,
    FRAME_SHIFT,
    LARGE_GUEST,
    LARGE_HOST,
    LARGE_LOGGED,
    LARGE_REFUSALS,
    LARGE_SHADOWED,
    LARGE_SLOT,
    NO_PAGE,
    RIGHT_ALL,
    RIGHT_CLEAN,
    RIGHT_U,
    RIGHT_W,
    RIGHT_X,
    ROLE_RIGHTS_SHIFT,
    cpu_t,
    guest_walk_t,
    hyper_t,
    in_slot,
    is_direct,
    mmio_entry,
    page_of,
    page_t,
    request_flush,
    root_for,
)
from pyvirt._core.shadow.sync cimport guest_entry, prefetch_leaf


cdef uint64_t NX = <uint64_t>1 << 63


cdef uint32_t slot_of(uint32_t page, uint64_t address, uint32_t level) noexcept nogil:
    """The entry of a page of this level that an address goes through."""
    return page << 9 | <uint32_t>(address >> (3 + 9 * level) & 511)


cdef int large_refusal(hyper_t *s, uint64_t gfn) noexcept nogil:
    """Why the 2 MiB around a guest frame may not be mapped by one entry; else LARGE_REFUSALS."""
    if ((gfn | 511) >= s.frames
            or not pm_in_ram(s.mem, (gfn & ~<uint64_t>511) << FRAME_SHIFT, 1 << 21)):
        return LARGE_SLOT
    if not s.backing[gfn >> 9]:
        return LARGE_HOST
    if s.shadowed[gfn >> 9]:
        return LARGE_SHADOWED
    if s.log[gfn >> 9]:
        return LARGE_LOGGED
    return LARGE_REFUSALS


cdef bint large_allowed(hyper_t *s, uint64_t gfn) noexcept nogil:
    """Whether the 2 MiB around a guest frame may be mapped by one entry; refusals are counted."""
    cdef int refusal = large_refusal(s, gfn)
    if refusal == LARGE_REFUSALS:
        return True
    s.counters.large_refused[refusal] += 1
    return False


cdef uint8_t page_rights(
    const hyper_t *s, const cpu_t *v, uint32_t access, const guest_walk_t *g
) noexcept nogil:
    """What the shadow entry may allow after this access.

    Not writing while the guest's D is clear, so that the first write faults and sets it. With
    CR0.WP clear a supervisor's write to a read-only page is allowed, and the processor runs with
    WP set: the page becomes writable, and no user's (nor, with SMEP, executable) meanwhile.
    """
    cdef uint8_t rights = g.rights
    if access & ACCESS_WRITE:
        if not rights & RIGHT_W and not v.guest.wp and not access & ACCESS_USER:
            rights |= RIGHT_W
            rights &= ~<uint8_t>RIGHT_U
            if v.guest.smep:
                rights &= ~<uint8_t>RIGHT_X
    elif not g.entry[g.level] & ENTRY_D:
        if s.agile.hardware_ad:
            rights |= RIGHT_CLEAN
        elif s.rules.clean_read_only:
            rights &= ~<uint8_t>RIGHT_W
    return rights


cdef void fill_group(hyper_t *s, uint32_t slot) noexcept nogil:
    """Fill every absent entry of the aligned group in a direct table: no guest entry to ask.

    What is logged is not made writable ahead of a write, nor what may be clean in the guest's entry.
    """
    cdef page_t *p = &s.pages[slot >> 9]
    cdef uint8_t rights = p.role >> ROLE_RIGHTS_SHIFT & RIGHT_ALL
    cdef uint32_t first = slot & ~(s.rules.prefetch - 1), i
    cdef uint64_t gfn = p.gfn + (first & 511)
    if rights & RIGHT_W and (s.log[gfn >> 9] or s.agile.hardware_ad):
        return
    for i in range(s.rules.prefetch):
        if s.entries[first + i] & ENTRY_P == 0 and in_slot(s, gfn + i):
            put_leaf(s, first + i, gfn + i, rights, True, False)
            s.counters.prefetched += 1


cdef void prefetch(hyper_t *s, cpu_t *v, uint32_t slot) noexcept nogil:
    """Fill neighbours in order, up to the first that may not be."""
    cdef page_t *p = &s.pages[slot >> 9]
    cdef uint32_t first = slot & ~(s.rules.prefetch - 1), i
    if is_direct(p):
        fill_group(s, slot)
        return
    for i in range(first, first + s.rules.prefetch):
        if i == slot or s.entries[i] & ENTRY_P:
            continue
        if not prefetch_leaf(s, v, i, guest_entry(s, p, i & 511)):
            return


cdef bint goes_on_nested(
    hyper_t *s, cpu_t *v, uint32_t slot, uint32_t level, const guest_walk_t *g
) noexcept nogil:
    """Point an entry at the guest's own table of `level` if that is in nested mode.

    With CR0.WP clear tables are shadowed, see `pyvirt._core.shadow.agile.has_nested_root`. Where
    processes are nested or not as a whole, a table is shadowed for all others.
    """
    cdef uint64_t gfn = g.table[level], rights = 0
    if not s.tables[gfn].nested or s.agile.by_process:
        return False
    if not v.guest.wp:
        return_table(s, gfn)
        return False
    if s.entries[slot] & ENTRY_P:
        drop_entry(s, slot)
        request_flush(s)
    if g.above[level] & RIGHT_W:
        rights |= ENTRY_W
    if g.above[level] & RIGHT_U:
        rights |= ENTRY_U
    if not g.above[level] & RIGHT_X:
        rights |= NX
    set_switch(s, slot, gfn, rights)
    s.counters.agile_switches[level] += 1
    return True


cdef int fill(
    hyper_t *s, cpu_t *v, uint64_t va, uint32_t access, guest_walk_t *g
) noexcept nogil:
    """Make the entries on the path of an address; a `put_t` or one of FILL_."""
    cdef uint32_t page = root_for(v, va), child, slot
    cdef uint32_t level = v.guest.levels, last = 1
    cdef uint64_t gfn = g.gpa >> FRAME_SHIFT, first
    cdef uint8_t rights = page_rights(s, v, access, g)
    cdef bint mapped = in_slot(s, gfn)
    cdef put_t result
    while level > g.level:
        s.pages[page].writes = 0
        slot = slot_of(page, va, level)
        level -= 1
        if s.entries[slot] & ENTRY_P and not s.entries[slot] & ENTRY_ENDS:
            page = page_of(s, s.entries[slot])
            continue
        if s.tables != NULL and goes_on_nested(s, v, slot, level, g):
            return FILL_SWITCHED
        child = get_page(s, v, g.table[level], role_of(v, slot, level, g.above[level], False))
        if child == NO_PAGE:
            return FILL_NO_ROOM
        link_page(s, v, slot, child)
        page = child

    if g.level >= 2:
        if mapped and s.rules.large_pages and large_allowed(s, gfn):
            last = 2
    elif mapped and s.backing[gfn >> 9]:
        s.counters.large_refused[LARGE_GUEST] += 1
    while True:
        s.pages[page].writes = 0
        slot = slot_of(page, va, level)
        if level == last:
            break
        # the guest's page is larger: pieces of it, in tables that shadow none of the guest's
        level -= 1
        first = gfn & ~((<uint64_t>1 << 9 * level) - 1)
        if s.entries[slot] & ENTRY_P and not s.entries[slot] & ENTRY_ENDS:
            page = page_of(s, s.entries[slot])
            if (s.pages[page].role >> ROLE_RIGHTS_SHIFT & RIGHT_ALL) == rights & RIGHT_ALL:
                continue
            drop_entry(s, slot)
            request_flush(s)
        child = get_page(s, v, first, role_of(v, slot, level, rights & RIGHT_ALL, True))
        if child == NO_PAGE:
            return FILL_NO_ROOM
        link_page(s, v, slot, child)
        page = child

    if not mapped:
        if s.entries[slot] & ENTRY_P:
            drop_entry(s, slot)
            request_flush(s)
        s.entries[slot] = mmio_entry(s, gfn)
        return FILL_MMIO
    if last > 1:
        gfn &= ~<uint64_t>511
    result = put_leaf(s, slot, gfn, rights, False, access & ACCESS_WRITE)
    if result != PUT_SPURIOUS:
        s.counters.filled += 1
        if level == 1 and s.rules.prefetch:
            prefetch(s, v, slot)
    return result
