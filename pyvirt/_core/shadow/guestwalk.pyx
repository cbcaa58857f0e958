"""The guest's own tables, as the hypervisor reads them when a shadow entry is missing."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from pyvirt._core.frames cimport PM_OK, pm_status, pm_writable
from pyvirt._core.paging cimport (
    ACCESS_PURE,
    FAULT_NOT_PRESENT,
    MAX_LEVELS,
    failed,
    recorder_t,
    reference_t,
    walk,
    walk_t,
)
from pyvirt._core.shadow.quadrants cimport top_table
from pyvirt._core.shadow.state cimport (
    ENTRY_A,
    ENTRY_D,
    ENTRY_U,
    ENTRY_W,
    FRAME_SHIFT,
    RIGHT_ALL,
    RIGHT_U,
    RIGHT_W,
    RIGHT_X,
    cpu_t,
    guest_walk_t,
    hyper_t,
    mark_dirty,
)
from pyvirt._core.types cimport PAGE_OFFSET

cdef uint64_t NX = <uint64_t>1 << 63


cdef uint8_t rights_of(uint64_t entry) noexcept nogil:
    return ((RIGHT_W if entry & ENTRY_W else 0) | (RIGHT_U if entry & ENTRY_U else 0)
            | (0 if entry & NX else RIGHT_X))


cdef uint16_t walk_guest(
    hyper_t *s, cpu_t *v, uint64_t va, uint32_t access, guest_walk_t *g
) noexcept nogil:
    """The hypervisor's walk, counted."""
    s.counters.guest_walks += 1
    return read_guest(s, v, va, access, g)


cdef uint16_t read_guest(
    hyper_t *s, cpu_t *v, uint64_t va, uint32_t access, guest_walk_t *g
) noexcept nogil:
    """Translate by the guest's tables without touching A and D; 0 or the result code.

    The rights, the codes and the error code are those of `pyvirt._core.paging`.
    """
    cdef reference_t references[MAX_LEVELS]
    cdef recorder_t recorder
    cdef walk_t w
    cdef uint8_t rights = RIGHT_ALL
    cdef uint64_t i
    cdef uint8_t level = 0
    recorder.references = references
    recorder.count = 0
    recorder.capacity = MAX_LEVELS
    recorder.dimension = 0
    if v.quartered and not top_table(v, va, &v.guest.root):
        memset(&w, 0, sizeof(w))
        g.code = failed(&v.guest, FAULT_NOT_PRESENT, 3, 0, access, &w)
        g.error = w.error
        return g.code
    g.code = walk(&v.guest, va, access | ACCESS_PURE, &w, &recorder)
    g.error = w.error
    for i in range(recorder.count):
        level = references[i].level
        g.table[level] = references[i].address >> FRAME_SHIFT
        g.offset[level] = <uint16_t>(references[i].address & PAGE_OFFSET)
        g.entry[level] = references[i].entry
        g.above[level] = rights
        rights &= rights_of(references[i].entry)
    g.level = level
    g.rights = rights
    g.gpa = w.gpa
    return g.code


cdef bint mark_entry(hyper_t *s, uint64_t gpa, uint64_t wanted) noexcept nogil:
    """Set A and D in a guest's entry, whatever else it says by now; False: no memory.

    One word may be an entry of two levels of a walk.
    """
    cdef pm_status status
    cdef uint8_t *frame
    frame = pm_writable(s.mem, gpa, &status)
    if status != PM_OK:
        return False
    frame += gpa & PAGE_OFFSET
    s.counters.guest_a_set += (wanted & ~<uint64_t>frame[0] & ENTRY_A) != 0
    s.counters.guest_d_set += (wanted & ~<uint64_t>frame[0] & ENTRY_D) != 0
    mark_dirty(s, gpa >> FRAME_SHIFT)
    s.mem.version += 1
    frame[0] |= <uint8_t>wanted     # A and D are in the low byte, of 4-byte entries too
    return True


cdef bint set_accessed(hyper_t *s, cpu_t *v, guest_walk_t *g, bint dirty) noexcept nogil:
    """Set A in the entries of an allowed walk, and D in the leaf of a write; False: no memory.

    Writes by the hypervisor do not trap, whether the tables are shadowed or not.
    """
    cdef uint8_t level
    cdef uint64_t wanted
    for level in range(g.level, v.guest.levels + 1):
        wanted = ENTRY_A
        if dirty and level == g.level:
            wanted |= ENTRY_D
        if g.entry[level] & wanted != wanted:
            g.entry[level] |= wanted
            if not mark_entry(s, g.table[level] << FRAME_SHIFT | g.offset[level], wanted):
                return False
    return True
