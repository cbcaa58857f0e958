"""A guest's write to a table whose shadow must not go unsync: what it does to the shadow pages."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from pyvirt._core.frames cimport pm_frame
from pyvirt._core.shadow.fill cimport slot_of
from pyvirt._core.shadow.pages cimport drop_entry
from pyvirt._core.shadow.quadrants cimport written_entries
from pyvirt._core.shadow.state cimport (
    ENTRY_ENDS,
    ENTRY_P,
    FRAME_SHIFT,
    NO_PAGE,
    ROLE_4_BYTE,
    cpu_t,
    hyper_t,
    is_direct,
    level_of,
    note_trap,
    page_of,
    page_t,
    request_flush,
    root_for,
)
from pyvirt._core.shadow.sync cimport guest_entry, prefetch_leaf
from pyvirt._core.shadow.zap cimport zap, zapped_t

cdef enum:
    CR4_PAE = 1 << 5


cdef void clear_write_counts(hyper_t *s, cpu_t *v, uint64_t va) noexcept nogil:
    """The pages on the path of an address are in use: what was written to them is forgotten."""
    cdef uint32_t page = root_for(v, va), level = v.guest.levels
    cdef uint64_t entry
    while page != NO_PAGE:
        s.pages[page].writes = 0
        entry = s.entries[slot_of(page, va, level)]
        if level == 1 or not entry & ENTRY_P or entry & ENTRY_ENDS:
            return
        page = page_of(s, entry)
        level -= 1


cdef bint breaks_up(const page_t *p, uint64_t gpa, uint32_t size) noexcept nogil:
    """Whether a write is none to one entry: it looks as if the frame is no table any more.

    One byte at the start of an entry is: systems set and clear status bits so.
    """
    cdef uint32_t entry = 4 if p.role & ROLE_4_BYTE else 8
    if gpa & (entry - 1) == 0 and size == 1:
        return False
    return size < 4 or (gpa & (entry - 1)) + size > entry


cdef bint drop_written(
    hyper_t *s, cpu_t *v, uint32_t page, uint64_t gpa, bint known
) noexcept nogil:
    """Drop the entries that come from one that was written; whether any was present."""
    cdef page_t *p = &s.pages[page]
    cdef uint32_t first, count, index, slot
    cdef bint dropped = False
    if not written_entries(p, <uint32_t>gpa & 0xFFF, &first, &count):
        return False
    for index in range(first, first + count):
        slot = page << 9 | index
        if level_of(p) > 1 and known:
            s.counters.mmu_pde_zapped += 1
        if s.entries[slot] & ENTRY_P:
            drop_entry(s, slot)
            dropped = True
        s.entries[slot] = 0         # it may have said that no memory is there
        if level_of(p) == 1:
            p.traced += p.traced < 0xFFFF
            if s.rules.refill_at_write and not p.unsync:
                prefetch_leaf(s, v, slot, guest_entry(s, p, index))
    return dropped


cdef void table_written(hyper_t *s, cpu_t *v, uint64_t gpa, uint32_t size) noexcept nogil:
    """Follow a write that was emulated.

    Half an entry of 8 bytes counts as the whole. Tables of one frame are either all of level 1,
    or none of them is unsync, so that no page of the list goes with another.
    """
    cdef uint32_t page = s.same[gpa >> FRAME_SHIFT], next
    cdef page_t *p
    cdef zapped_t z
    cdef bint dropped = False, known
    cdef uint64_t value = 0
    cdef bint counted
    z.freed = z.counted = 0
    s.counters.mmu_pte_write += 1
    note_trap(s, gpa >> FRAME_SHIFT)
    if size == 4 and v.cr4 & CR4_PAE:
        gpa &= ~<uint64_t>7
        size = 8
    if size == 4 or size == 8:
        memcpy(&value, pm_frame(s.mem, gpa) + (gpa & 0xFFF), size)
    known = value != 0
    while page != NO_PAGE:
        p = &s.pages[page]
        next = p.same_next
        if not is_direct(p):
            counted = level_of(p) > 1 or s.rules.flood_leaves
            p.writes += counted and p.writes < 255
            if (breaks_up(p, gpa, size)
                    or (counted and s.rules.flood_limit and p.writes >= s.rules.flood_limit)):
                s.counters.mmu_flooded += 1
                zap(s, page, &z)
            elif drop_written(s, v, page, gpa, known):
                dropped = True
        page = next
    if dropped or z.freed:
        request_flush(s)
