"""A guest's write to a table whose shadow must not go unsync: what it does to the shadow pages."""

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.shadow.fill cimport slot_of
from pyvirt._core.shadow.pages cimport drop_entry
from pyvirt._core.shadow.state cimport (
    ENTRY_ENDS,
    ENTRY_P,
    FRAME_SHIFT,
    NO_PAGE,
    cpu_t,
    hyper_t,
    is_direct,
    level_of,
    note_trap,
    page_of,
    page_t,
    request_flush,
)
from pyvirt._core.shadow.sync cimport prefetch_leaf
from pyvirt._core.shadow.zap cimport zap, zapped_t


cdef void clear_write_counts(hyper_t *s, cpu_t *v, uint64_t va) noexcept nogil:
    """The pages on the path of an address are in use: what was written to them is forgotten."""
    cdef uint32_t page = v.root.page, level = v.guest.levels
    cdef uint64_t entry
    while page != NO_PAGE:
        s.pages[page].writes = 0
        entry = s.entries[slot_of(page, va, level)]
        if level == 1 or not entry & ENTRY_P or entry & ENTRY_ENDS:
            return
        page = page_of(s, entry)
        level -= 1


cdef bint breaks_up(uint64_t gpa, uint32_t size) noexcept nogil:
    """Whether a write is none to one entry: it looks as if the frame is no table any more.

    One byte at the start of an entry is: systems set and clear status bits so.
    """
    if gpa & 7 == 0 and size == 1:
        return False
    return size < 4 or (gpa & 7) + size > 8


cdef void table_written(
    hyper_t *s, cpu_t *v, uint64_t gpa, uint32_t size, uint64_t value
) noexcept nogil:
    """Follow a write that was emulated; `value` is what the entry reads now.

    Tables of one frame are either all of level 1, or none of them is unsync, so that no page of
    the list goes with another.
    """
    cdef uint32_t page = s.same[gpa >> FRAME_SHIFT], next, slot, level
    cdef page_t *p
    cdef zapped_t z
    cdef bint dropped = False
    z.freed = z.counted = 0
    s.counters.mmu_pte_write += 1
    note_trap(s, gpa >> FRAME_SHIFT)
    while page != NO_PAGE:
        p = &s.pages[page]
        next = p.same_next
        if not is_direct(p):
            level = level_of(p)
            if level > 1 or s.rules.flood_leaves:
                p.writes += p.writes < 255
            if (breaks_up(gpa, size)
                    or (s.rules.flood_limit and p.writes >= s.rules.flood_limit
                        and (level > 1 or s.rules.flood_leaves))):
                s.counters.mmu_flooded += 1
                zap(s, page, &z)
            else:
                slot = page << 9 | <uint32_t>(gpa >> 3 & 511)
                if level > 1 and value:
                    s.counters.mmu_pde_zapped += 1
                if s.entries[slot] & ENTRY_P:
                    drop_entry(s, slot)
                    dropped = True
                s.entries[slot] = 0         # it may have said that no memory is there
                if level == 1:
                    p.traced += p.traced < 0xFFFF
                    if s.rules.refill_at_write and not p.unsync:
                        prefetch_leaf(s, v, slot, value)
        page = next
    if dropped or z.freed:
        request_flush(s)
