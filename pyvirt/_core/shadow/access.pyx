"""One access of the guest: through shadow entries, or through its tables and the nested ones.

Without a processor in front of the tables there is no TLB. One changes no count of exits: a
translation that it holds has an entry with the same rights, or the guest may not rely on it.
"""

from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.string cimport memset

from pyvirt._core.frames cimport load_u64, pm_frame
from pyvirt._core.paging cimport (
    ACCESS_EXEC,
    ACCESS_PURE,
    ACCESS_READ,
    ACCESS_USER,
    ACCESS_WRITE,
    FAULT_NOT_PRESENT,
    FAULT_RESERVED,
    FORMAT_X86_32,
    MAX_LEVELS,
    failed,
    in_range,
    judge,
    level_t,
    load_entry,
    walk,
    walk_t,
)
from pyvirt._core.shadow.agilefaults cimport agile_fault
from pyvirt._core.shadow.dirty cimport note_write
from pyvirt._core.shadow.faults cimport (
    HANDLED_EMULATED,
    HANDLED_FIXED,
    HANDLED_MMIO,
    HANDLED_NO_ROOM,
    HANDLED_OUTSIDE_TABLE,
    HANDLED_REFUSED,
    handled_t,
    nested_fault,
    shadow_fault,
)
from pyvirt._core.shadow.front cimport front_access
from pyvirt._core.shadow.guestwalk cimport mark_entry
from pyvirt._core.shadow.quadrants cimport top_table
from pyvirt._core.shadow.state cimport (
    ENTRY_A,
    ENTRY_D,
    ENTRY_LARGE,
    ENTRY_P,
    ENTRY_U,
    ENTRY_W,
    FRAME_SHIFT,
    MODE_AGILE,
    MODE_NATIVE,
    MODE_SHADOW,
    check_t,
    cpu_t,
    hyper_t,
    in_slot,
    memo_t,
    root_for,
)

cdef uint64_t NX = <uint64_t>1 << 63

cdef enum:
    NESTED_WRITE = ENTRY_P | ENTRY_W | ENTRY_D      # what a write needs of a nested entry


cdef void set_checks(hyper_t *s, cpu_t *v) noexcept nogil:
    """Work out what accesses ask of entries, after a change of the control registers.

    The processor runs with CR0.WP set on shadow tables whatever the guest's says.
    """
    cdef int kind, user
    cdef check_t *c
    for kind in range(3):
        for user in range(2):
            c = &v.check[kind][user]
            c.mask = c.wanted = ENTRY_P
            c.used = ENTRY_A
            c.access = ACCESS_USER if user else 0
            if kind == KIND_FETCH:
                c.access |= ACCESS_EXEC
                c.mask |= NX
            elif kind == KIND_LOAD:
                c.access |= ACCESS_READ
            else:
                c.access |= ACCESS_WRITE
                c.mask |= ENTRY_W
                c.wanted |= ENTRY_W
                c.used |= ENTRY_D
            if user:
                c.mask |= ENTRY_U
                c.wanted |= ENTRY_U
            elif v.guest.smep if kind == KIND_FETCH else v.guest.smap:
                c.mask |= ENTRY_U


cdef done_t ended(handled_t handled) noexcept nogil:
    """What the handling of an exit means for the access that caused it."""
    if handled == HANDLED_FIXED:
        return DONE_RESTART
    if handled == HANDLED_EMULATED:
        return DONE_EMULATED
    if handled == HANDLED_MMIO:
        return DONE_MMIO
    if handled == HANDLED_REFUSED:
        return DONE_REFUSED
    if handled == HANDLED_OUTSIDE_TABLE:
        return DONE_OUTSIDE_TABLE
    if handled == HANDLED_NO_ROOM:
        return DONE_NO_ROOM
    return DONE_NO_MEMORY


cdef done_t not_canonical(hyper_t *s, cpu_t *v) noexcept nogil:
    """A general protection fault: no exit, and no page-fault code."""
    s.counters.guest_faults += 1
    v.error = 0
    return DONE_REFUSED


cdef done_t shadow_access(
    hyper_t *s, cpu_t *v, uint64_t va, const check_t *c, memo_t *m, uint64_t *gpa
) noexcept nogil:
    """An access whose leaf is not remembered, or does not allow it."""
    cdef uint64_t entry
    if not in_range(&v.guest, va):
        return not_canonical(s, v)
    entry = find(s, root_for(v, va), v.guest.levels, va, m)
    if entry & c.mask == c.wanted:
        s.entries[m.slot] = entry | c.used
        gpa[0] = mapped(entry, va)
        return DONE
    return ended(shadow_fault(s, v, va, c.access, entry, gpa))


cdef inline done_t nested_gpa(hyper_t *s, cpu_t *v, uint64_t gpa, uint64_t asked) noexcept nogil:
    """Whether the nested tables have a guest-physical address; else they are asked to.

    `asked` is what the entry needs: P, or for a write W and D, too, which only the dirty log takes.
    """
    cdef memo_t *m = memo_of(v, gpa >> FRAME_SHIFT)
    cdef uint64_t entry
    if s.mode == MODE_NATIVE:
        return DONE if in_slot(s, gpa >> FRAME_SHIFT) else DONE_MMIO
    if (m.page == gpa >> FRAME_SHIFT and m.epoch == s.epoch
            and s.entries[m.slot] & asked == asked):
        return DONE
    entry = find(s, s.nested_root, s.levels, gpa, m)
    if entry & asked == asked:
        return DONE
    if entry & ENTRY_P and entry & ENTRY_W:
        return DONE if note_write(s, v, m.slot, gpa >> FRAME_SHIFT) else DONE_RESTART
    return ended(nested_fault(s, v, gpa, entry, m.slot, asked & ENTRY_W))


cdef done_t nested_page(hyper_t *s, cpu_t *v, uint64_t gpa, bint write) noexcept nogil:
    """Have the nested tables map a guest-physical address."""
    return nested_gpa(s, v, gpa, NESTED_WRITE if write else ENTRY_P)


cdef inline bint mark(hyper_t *s, uint64_t gpa, uint64_t entry, uint64_t wanted) noexcept nogil:
    """Set A and D in a guest's entry unless it was read with them; False: no memory."""
    return entry & wanted == wanted or mark_entry(s, gpa, wanted)


cdef done_t nested_access(
    hyper_t *s, cpu_t *v, uint64_t va, const check_t *c, uint64_t *gpa
) noexcept nogil:
    """The processor's own walk: every table and the page need a nested entry, if there are any.

    The reads of tables are writes to the nested tables (APM vol. 2, 15.25.6; SDM 30.3.5, with A
    and D bits in EPT). A is set in the entries above one that refuses the access, not in it.
    """
    cdef uint64_t slots[MAX_LEVELS + 1]
    cdef uint64_t entries[MAX_LEVELS + 1]
    cdef uint64_t base, entry = 0, rights = ~<uint64_t>0, executed = 0
    cdef int level = v.guest.levels, n
    cdef uint16_t code = 0
    cdef const level_t *rules
    cdef const uint8_t *frame
    cdef done_t done
    cdef walk_t w
    cdef bint leaf
    if not in_range(&v.guest, va):
        return not_canonical(s, v)
    if not v.quartered:
        base = v.cr3 & v.guest.table_address
    elif not top_table(v, va, &base):
        code = FAULT_NOT_PRESENT
        level = 3
    while not code:
        rules = &v.guest.level[level]
        if v.quartered:
            slots[level] = base | (va >> rules.shift & rules.index_mask) << v.guest.entry_shift
        else:
            slots[level] = base | (va >> rules.shift & 511) << 3
        frame = pm_frame(s.mem, slots[level])
        if frame == NULL:
            return DONE_OUTSIDE_TABLE
        done = nested_gpa(s, v, slots[level], NESTED_WRITE)
        if done != DONE:
            return done
        if v.quartered:
            entry = load_entry(&v.guest, frame + (slots[level] & 0xFFF), 0)
        else:
            entry = load_u64(frame + (slots[level] & 0xFFF))
        entries[level] = entry
        leaf = level == 1 or (rules.may_map and entry & ENTRY_LARGE)
        if entry & ENTRY_P == 0:
            code = FAULT_NOT_PRESENT
        elif entry & (rules.leaf_reserved if leaf else rules.table_reserved):
            code = FAULT_RESERVED
        if code:
            break
        rights &= entry
        executed |= entry
        if leaf:
            rights = (entry & ~<uint64_t>(ENTRY_W | ENTRY_U) | rights & (ENTRY_W | ENTRY_U)
                      | executed & v.guest.rights_or)
            code = judge(&v.guest, rights, c.access)
            break
        base = entry & v.guest.table_address
        level -= 1
    if code:
        s.counters.guest_faults += 1
        memset(&w, 0, sizeof(w))
        failed(&v.guest, code, level, rights, c.access, &w)
        v.error = w.error
        for n in range(v.guest.levels, level, -1):
            if not mark(s, slots[n], entries[n], ENTRY_A):
                return DONE_NO_MEMORY
        return DONE_REFUSED
    gpa[0] = entry & rules.leaf_address | va & rules.offset
    if v.quartered and level == 2 and v.guest.format == FORMAT_X86_32:
        gpa[0] |= (entry >> 13 & 255) << 32     # PSE-36
    done = nested_gpa(s, v, gpa[0], NESTED_WRITE if c.used & ENTRY_D else ENTRY_P)
    if done != DONE and done != DONE_MMIO:
        return done
    for n in range(v.guest.levels, level - 1, -1):
        if not mark(s, slots[n], entries[n], c.used if n == level else ENTRY_A):
            return DONE_NO_MEMORY
    return done


cdef done_t out_of_date(
    hyper_t *s, cpu_t *v, const check_t *c, uint16_t code
) noexcept nogil:
    """The guest's page fault for cached entries of its tables that it has not flushed yet."""
    cdef walk_t w
    s.counters.guest_faults += 1
    memset(&w, 0, sizeof(w))
    failed(&v.guest, code & 15, code >> 4 & 7, 0, c.access, &w)
    v.error = w.error
    return DONE_REFUSED


cdef done_t processor_access(
    hyper_t *s, cpu_t *v, uint64_t va, int kind, bint user, const check_t *c, uint64_t *gpa
) noexcept nogil:
    """An access by the processor in front, and the fault or the exit that it ends with."""
    cdef uint16_t code = front_access(s, v, va, kind, user, gpa)
    cdef uint64_t entry
    cdef walk_t w
    if code & 15 == 0:
        # only natively: elsewhere no entry maps a place without memory
        if s.mode == MODE_NATIVE and not in_slot(s, gpa[0] >> FRAME_SHIFT):
            return DONE_MMIO
        return DONE
    if not in_range(&v.guest, va):
        return not_canonical(s, v)
    if s.mode == MODE_AGILE:
        return ended(agile_fault(s, v, va, c.access, code, gpa))
    if s.mode != MODE_SHADOW:
        if code >> 7 & 3 == 0 and walk(&v.guest, va, c.access | ACCESS_PURE, &w, NULL) == 0:
            return out_of_date(s, v, c, code)
        return nested_access(s, v, va, c, gpa)
    entry = find(s, v.root.page, v.guest.levels, va, memo_of(v, va >> FRAME_SHIFT))
    return ended(shadow_fault(s, v, va, c.access, entry, gpa))


cdef done_t access(
    hyper_t *s, cpu_t *v, uint64_t va, int kind, bint user, uint64_t *gpa
) noexcept nogil:
    """Make one access; on success, or where it is to be emulated, `gpa` is where it goes."""
    cdef const check_t *c = &v.check[kind][user]
    if s.front != NULL:
        return processor_access(s, v, va, kind, user, c, gpa)
    if s.mode != MODE_SHADOW:
        return nested_access(s, v, va, c, gpa)
    if hit(s, v, va, c, gpa):
        return DONE
    return shadow_access(s, v, va, c, memo_of(v, va >> FRAME_SHIFT), gpa)
