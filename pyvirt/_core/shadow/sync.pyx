"""Bringing shadow tables back in step with the guest's."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from pyvirt._core.frames cimport load_u64, pm_frame
from pyvirt._core.shadow.leaves cimport change_leaf, leaf_entry, put_leaf, write_protect
from pyvirt._core.shadow.pages cimport drop_entry
from pyvirt._core.shadow.quadrants cimport place_of_entry
from pyvirt._core.shadow.state cimport (
    ENTRY_A,
    ENTRY_D,
    ENTRY_P,
    ENTRY_U,
    ENTRY_W,
    FRAME_SHIFT,
    NO_PAGE,
    RIGHT_ALL,
    RIGHT_CLEAN,
    RIGHT_U,
    RIGHT_W,
    RIGHT_X,
    ROLE_4_BYTE,
    ROLE_RIGHTS_SHIFT,
    cpu_t,
    frame_of,
    hyper_t,
    in_slot,
    page_t,
    request_flush,
)
from pyvirt._core.shadow.unsync cimport clear_marks, end_unsync, find_unsync

cdef uint64_t NX = <uint64_t>1 << 63


cdef uint64_t guest_entry(const hyper_t *s, const page_t *p, uint32_t index) noexcept nogil:
    """The guest's entry that an entry of a shadow page comes from; 0 outside memory."""
    cdef const uint8_t *frame = pm_frame(s.mem, p.gfn << FRAME_SHIFT)
    cdef uint32_t entry
    if frame == NULL:
        return 0
    if p.role & ROLE_4_BYTE:
        memcpy(&entry, frame + place_of_entry(p, index), 4)
        return entry
    return load_u64(frame + 8 * index)


cdef uint64_t mapped_frame(const cpu_t *v, uint64_t entry) noexcept nogil:
    return (entry & v.guest.level[1].leaf_address) >> FRAME_SHIFT


cdef bint prefetchable(const hyper_t *s, const cpu_t *v, uint64_t entry) noexcept nogil:
    """Whether a guest's leaf may be shadowed before it is used: present, used before, valid."""
    if entry & ENTRY_P == 0 or entry & v.guest.level[1].leaf_reserved:
        return False
    if s.rules.prefetch_accessed and entry & ENTRY_A == 0:
        return False
    return True


cdef uint8_t leaf_rights(const hyper_t *s, const page_t *p, uint64_t entry) noexcept nogil:
    """What a guest's leaf and the entries above it allow; no writing yet while its D is clear."""
    cdef uint8_t rights = 0 if entry & NX else RIGHT_X
    if entry & ENTRY_W and (entry & ENTRY_D or not s.rules.clean_read_only):
        rights |= RIGHT_W
    if entry & ENTRY_U:
        rights |= RIGHT_U
    rights &= p.role >> ROLE_RIGHTS_SHIFT & RIGHT_ALL
    return rights | RIGHT_CLEAN if s.agile.hardware_ad and not entry & ENTRY_D else rights


cdef bint prefetch_leaf(hyper_t *s, cpu_t *v, uint32_t slot, uint64_t entry) noexcept nogil:
    """Shadow a guest's leaf ahead of its use; False if it may not be."""
    cdef uint64_t gfn = mapped_frame(v, entry)
    cdef uint8_t rights = leaf_rights(s, &s.pages[slot >> 9], entry)
    if not prefetchable(s, v, entry) or not in_slot(s, gfn):
        return False
    if rights & RIGHT_W and s.log[gfn >> 9]:
        return False                # it would be logged without a write
    put_leaf(s, slot, gfn, rights, True, False)
    s.counters.prefetched += 1
    return True


cdef bint sync_page(hyper_t *s, cpu_t *v, uint32_t page) noexcept nogil:
    """Compare a table of leaves with the guest's; whether an entry went or lost W, A or D.

    What remains is as if prefetched: its A bit is clear until it is used again.
    """
    cdef page_t *p = &s.pages[page]
    cdef uint32_t slot = page << 9, left = p.present, index = 0
    cdef uint64_t old, entry
    cdef bint changed = False, refused
    s.counters.syncs += 1
    s.counters.sync_compared += left
    while left:
        old = s.entries[slot]
        if old & ENTRY_P:
            left -= 1
            entry = guest_entry(s, p, index)
            if not prefetchable(s, v, entry) or mapped_frame(v, entry) != frame_of(old):
                drop_entry(s, slot)
                s.counters.sync_dropped += 1
                changed = True
            else:
                entry = leaf_entry(s, frame_of(old), 1, leaf_rights(s, p, entry), old, True,
                                   False, False, &refused)
                if entry != old:
                    s.counters.sync_changed += 1
                    if change_leaf(s, slot, entry):
                        changed = True
        slot += 1
        index += 1
    return changed


cdef void evict_unsync(hyper_t *s, cpu_t *v) noexcept nogil:
    """Bring the tables back in step whose frames have been out of it longest, down to the limit."""
    cdef uint32_t page
    cdef uint64_t gfn
    cdef bint changed
    while s.unsync_count > s.rules.unsync_limit:
        gfn = s.unsync[0]
        changed = write_protect(s, gfn)
        page = s.same[gfn]
        while page != NO_PAGE:
            if s.pages[page].unsync:
                s.counters.unsync_evicted += 1
                end_unsync(s, page)
                if sync_page(s, v, page):
                    changed = True
            page = s.pages[page].same_next
        if changed:
            request_flush(s)


cdef void sync_below(hyper_t *s, cpu_t *v, uint32_t page) noexcept nogil:
    """Write-protect again and sync every unsync table that marks lead to from `page`."""
    cdef uint32_t i
    cdef bint taken, changed = False
    while find_unsync(s, page) or s.budget == 0:
        taken = False
        for i in range(s.found_count):
            if write_protect(s, s.pages[s.found[i]].gfn):
                taken = True
        if taken:
            request_flush(s)
            changed = False         # the flush covers what passes before this one changed
        for i in range(s.found_count):
            end_unsync(s, s.found[i])
            if sync_page(s, v, s.found[i]):
                changed = True
        clear_marks(s, page)
    if changed:
        request_flush(s)
