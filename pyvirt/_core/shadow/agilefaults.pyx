"""What an access ends with that agile translation does not let pass.

A fault in the shadow tables exits, as in shadow mode. One in the guest's own tables is the guest's,
without an exit. One in the nested tables is a violation, as in nested mode; but a frame may hold a
table that is shadowed, so that its nested entry is read-only.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from pyvirt._core.paging cimport ACCESS_WRITE, FAULT_OUTSIDE_TABLE, failed, walk_t
from pyvirt._core.shadow.access cimport find
from pyvirt._core.shadow.faults cimport (
    HANDLED_EMULATED,
    HANDLED_FIXED,
    HANDLED_MMIO,
    HANDLED_NO_MEMORY,
    HANDLED_OUTSIDE_TABLE,
    HANDLED_REFUSED,
    handled_t,
    nested_fault,
    shadow_fault,
    write_traps,
)
from pyvirt._core.shadow.guestwalk cimport mark_entry, read_guest, set_accessed, walk_guest
from pyvirt._core.shadow.state cimport (
    ENTRY_A,
    ENTRY_P,
    ENTRY_SWITCH,
    ENTRY_W,
    FRAME_SHIFT,
    NO_SLOT,
    cpu_t,
    guest_walk_t,
    hyper_t,
    in_slot,
    memo_t,
)
from pyvirt._core.state cimport run_t


cdef handled_t guests_fault(
    hyper_t *s, cpu_t *v, uint64_t va, uint32_t access, uint16_t code
) noexcept nogil:
    """The guest's page fault: the processor has set A in the entries above the one that refuses.

    Without a reason in the tables as they are it is for cached entries that are out of date.
    """
    cdef guest_walk_t g
    cdef walk_t w
    cdef uint8_t level
    read_guest(s, v, va, access, &g)
    if g.code & 15 == FAULT_OUTSIDE_TABLE:
        return HANDLED_OUTSIDE_TABLE
    s.counters.guest_faults += 1
    v.error = g.error
    if g.code == 0:
        memset(&w, 0, sizeof(w))
        failed(&v.guest, code & 15, code >> 4 & 7, 0, access, &w)
        v.error = w.error
        return HANDLED_REFUSED
    for level in range(g.level + 1, v.guest.levels + 1):
        if (not g.entry[level] & ENTRY_A
                and not mark_entry(s, g.table[level] << FRAME_SHIFT | g.offset[level], ENTRY_A)):
            return HANDLED_NO_MEMORY
    return HANDLED_REFUSED


cdef handled_t do_it_all(
    hyper_t *s, cpu_t *v, uint64_t va, uint32_t access, handled_t handled, uint64_t *gpa
) noexcept nogil:
    """What the processor cannot do itself: the guest's walk with its A and D, if that goes well."""
    cdef guest_walk_t g
    if walk_guest(s, v, va, access, &g):
        return HANDLED_FIXED            # it is the guest's fault: the next try says so
    if not set_accessed(s, v, &g, access & ACCESS_WRITE):
        return HANDLED_NO_MEMORY
    gpa[0] = g.gpa
    return handled


cdef handled_t violation(
    hyper_t *s, cpu_t *v, uint64_t va, uint64_t where, bint of_table, uint32_t access, uint64_t *gpa
) noexcept nogil:
    """Handle a violation at the guest-physical address `where`, of a table or of the page."""
    cdef memo_t m
    cdef uint64_t entry
    cdef bint write = of_table or access & ACCESS_WRITE
    cdef handled_t handled
    m.slot = NO_SLOT
    entry = find(s, s.nested_root, s.levels, where, &m)
    if of_table and not in_slot(s, where >> FRAME_SHIFT):
        return HANDLED_OUTSIDE_TABLE
    if of_table and entry & ENTRY_P:
        # A or D for a table that is write-protected
        s.counters.x_npf += 1
        s.counters.pf_taken += 1
        s.counters.pf_emulate += 1
        return do_it_all(s, v, va, access, HANDLED_FIXED, gpa)
    if write and entry & ENTRY_P and not entry & ENTRY_W and write_traps(s, where >> FRAME_SHIFT):
        s.counters.x_npf += 1
        s.counters.pf_taken += 1
        s.counters.pf_emulate += 1
        return do_it_all(s, v, va, access, HANDLED_EMULATED, gpa)
    handled = nested_fault(s, v, where, entry, m.slot, write and not of_table)
    if handled == HANDLED_MMIO or handled == HANDLED_EMULATED:
        return do_it_all(s, v, va, access, handled, gpa)
    return handled


cdef handled_t agile_fault(
    hyper_t *s, cpu_t *v, uint64_t va, uint32_t access, uint16_t code, uint64_t *gpa
) noexcept nogil:
    """Handle the failure `code` of an access to a canonical address."""
    cdef const run_t *x = &s.runs[v - s.cpus]
    cdef memo_t m
    cdef uint64_t entry
    if code >> 7 & 3:
        return violation(s, v, va, x.violated, code >> 10 & 7, access, gpa)
    if not x.in_shadow:
        return guests_fault(s, v, va, access, code)
    entry = find(s, v.root.page, v.guest.levels, va, &m)
    if entry & ENTRY_P and entry & ENTRY_SWITCH:
        return HANDLED_FIXED            # it was absent in a cache alone
    return shadow_fault(s, v, va, access, entry, gpa)
