"""A fault that a shadow entry caused, in the order in which KVM handles it, and INVLPG."""

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.paging cimport ACCESS_WRITE, FAULT_OUTSIDE_TABLE
from pyvirt._core.shadow.dirty cimport empty_pml
from pyvirt._core.shadow.fill cimport FILL_MMIO, FILL_NO_ROOM, fill, slot_of
from pyvirt._core.shadow.front cimport front_invlpga
from pyvirt._core.shadow.guestwalk cimport set_accessed, walk_guest
from pyvirt._core.shadow.leaves cimport PUT_EMULATE, PUT_SPURIOUS
from pyvirt._core.shadow.nested cimport fill_nested
from pyvirt._core.shadow.pages cimport drop_entry
from pyvirt._core.shadow.state cimport (
    ENTRY_ENDS,
    ENTRY_LARGE,
    ENTRY_LOGGED,
    ENTRY_MMIO,
    ENTRY_P,
    ENTRY_W,
    FRAME_SHIFT,
    NO_PAGE,
    cpu_t,
    frame_of,
    guest_walk_t,
    hyper_t,
    in_slot,
    is_direct,
    level_of,
    mark_dirty,
    mmio_entry,
    page_of,
    request_flush,
    root_for,
)
from pyvirt._core.shadow.sync cimport evict_unsync, guest_entry, prefetch_leaf
from pyvirt._core.shadow.unsync cimport is_traced
from pyvirt._core.shadow.writes cimport clear_write_counts
from pyvirt._core.shadow.zap cimport make_room


cdef void refill(hyper_t *s, cpu_t *v, uint32_t page, uint64_t va, bint fill_it) noexcept nogil:
    """Drop the entry of an address if its table is unsync, and take the guest's if that was used.

    The way down follows marks only: without one nothing below is out of step.
    """
    cdef uint32_t level = v.guest.levels, slot
    cdef uint64_t entry
    while page != NO_PAGE:
        slot = slot_of(page, va, level)
        entry = s.entries[slot]
        if level == 1 or (entry & ENTRY_P and entry & ENTRY_ENDS):
            if not s.pages[page].unsync:
                return
            if entry & ENTRY_P:
                drop_entry(s, slot)
                request_flush(s)
            s.entries[slot] = 0
            if fill_it:
                prefetch_leaf(s, v, slot, guest_entry(s, &s.pages[page], slot & 511))
            return
        if not s.pages[page].marked or not entry & ENTRY_P:
            return
        page = page_of(s, entry)
        level -= 1


cdef void invalidate(hyper_t *s, cpu_t *v, uint64_t va, bint all_roots) noexcept nogil:
    """INVLPG acts on the current and the previous roots, a fault that is injected on the former."""
    cdef uint32_t i
    cdef bint fill_it = s.rules.refill_at_invlpg if all_roots else s.rules.refill_at_injection
    if s.front != NULL:
        front_invlpga(s, v, va)
    refill(s, v, root_for(v, va), va, fill_it)
    if all_roots:
        for i in range(s.rules.previous_roots):
            refill(s, v, v.previous[i].page, va, fill_it)


cdef bint invalidate_pcid(hyper_t *s, cpu_t *v, uint64_t va, uint64_t pcid) noexcept nogil:
    """INVPCID of one address acts on the roots of its PCID; whether there are any."""
    cdef uint32_t i
    cdef bint any = v.cr3 & v.pcid_mask == pcid
    if any:
        refill(s, v, v.root.page, va, s.rules.refill_at_invlpg)
    for i in range(s.rules.previous_roots):
        if v.previous[i].page != NO_PAGE and v.previous[i].cr3 & v.pcid_mask == pcid:
            refill(s, v, v.previous[i].page, va, s.rules.refill_at_invlpg)
            any = True
    return any


cdef handled_t filled(hyper_t *s, int result) noexcept nogil:
    """What a fill means for the access, and for the counters."""
    if result == FILL_NO_ROOM:
        return HANDLED_NO_ROOM
    if result == FILL_MMIO:
        s.counters.pf_emulate += 1
        return HANDLED_MMIO
    if result == PUT_EMULATE:
        s.counters.pf_emulate += 1
        return HANDLED_EMULATED
    if result == PUT_SPURIOUS:
        s.counters.pf_spurious += 1
    else:
        s.counters.pf_fixed += 1
    return HANDLED_FIXED


cdef handled_t shadow_fault(
    hyper_t *s, cpu_t *v, uint64_t va, uint32_t access, uint64_t entry, uint64_t *gpa
) noexcept nogil:
    """Handle the fault that `entry`, the last one on the shadow path, caused.

    https://docs.kernel.org/virt/kvm/x86/mmu.html, "Reaction to events": an entry that remembers
    MMIO; the guest's walk, and a true fault reflected; a write to a shadowed table; the fill.
    """
    cdef guest_walk_t g
    cdef int result
    s.counters.x_pf += 1
    if entry & ENTRY_MMIO and entry & ENTRY_P == 0:
        gpa[0] = frame_of(entry) << FRAME_SHIFT | va & 0xFFF
        if entry == mmio_entry(s, frame_of(entry)):
            s.counters.pf_mmio += 1
            return HANDLED_MMIO
    s.counters.pf_taken += 1
    if walk_guest(s, v, va, access, &g):
        if g.code & 15 == FAULT_OUTSIDE_TABLE:
            return HANDLED_OUTSIDE_TABLE
        s.counters.pf_guest += 1
        s.counters.guest_faults += 1
        v.error = g.error
        if g.error & 1 and not g.error & 8:
            # the processor forgets the translation that faulted
            invalidate(s, v, va, False)
        return HANDLED_REFUSED
    if not set_accessed(s, v, &g, access & ACCESS_WRITE):
        return HANDLED_NO_MEMORY
    gpa[0] = g.gpa
    if access & ACCESS_WRITE and entry & ENTRY_P and write_traps(s, g.gpa >> FRAME_SHIFT):
        clear_write_counts(s, v, va)
        s.counters.pf_emulate += 1
        return HANDLED_EMULATED
    if access & ACCESS_WRITE and entry & ENTRY_P and entry & ENTRY_LOGGED:
        s.counters.log_faults += 1
    if not make_room(s):
        return HANDLED_NO_ROOM
    result = fill(s, v, va, access, &g)
    if s.rules.unsync_limit:
        evict_unsync(s, v)
    return filled(s, result)


cdef bint write_traps(hyper_t *s, uint64_t gfn) noexcept nogil:
    """Whether a write to a frame is emulated, because a table in it must stay in step."""
    cdef uint32_t page
    if not in_slot(s, gfn):
        return False
    page = s.same[gfn]
    while page != NO_PAGE:
        if not is_direct(&s.pages[page]):
            if level_of(&s.pages[page]) > 1:
                return True
            if not s.pages[page].unsync and is_traced(s, &s.pages[page]):
                return True
        page = s.pages[page].same_next
    return False


cdef bint fix_fast(hyper_t *s, uint64_t gpa, uint64_t entry, uint32_t slot) noexcept nogil:
    """Give W back to an entry that the log made read-only, which KVM does without its lock.

    A large entry of memory that is logged has to be split first.
    """
    if entry & ENTRY_P == 0 or not entry & ENTRY_LOGGED:
        return False
    s.counters.log_faults += 1
    if entry & ENTRY_LARGE and s.log[gpa >> 21]:
        return False
    s.entries[slot] = entry & ~<uint64_t>ENTRY_LOGGED | ENTRY_W
    mark_dirty(s, gpa >> FRAME_SHIFT)
    s.counters.pf_fast += 1
    return True


cdef handled_t nested_fault(
    hyper_t *s, cpu_t *v, uint64_t gpa, uint64_t entry, uint32_t slot, bint write
) noexcept nogil:
    """Handle a violation of the nested tables at a guest-physical address.

    `slot` is that of `entry` if it is present.
    """
    s.counters.x_npf += 1
    empty_pml(s, v)
    if entry & ENTRY_P == 0 and entry & ENTRY_MMIO and entry == mmio_entry(s, frame_of(entry)):
        s.counters.pf_mmio += 1
        return HANDLED_MMIO
    s.counters.pf_taken += 1
    if write and fix_fast(s, gpa, entry, slot):
        s.counters.pf_fixed += 1
        return HANDLED_FIXED
    if not make_room(s):
        return HANDLED_NO_ROOM
    return filled(s, fill_nested(s, v, gpa, write))
