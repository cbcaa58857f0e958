"""The undo list of an edit: entries are noted before they change, and put back last first.

`undo_note` and `undo_note_freed` are false if the host has no memory; nothing is noted then.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc

from pyvirt._core.frames cimport pm_frame, pm_status, pm_writable
from pyvirt._core.paging cimport dimension_t, load_entry, store_entry
from pyvirt._core.types cimport PAGE_OFFSET, hpa_t

cdef enum:
    UNDO_KEPT = 4096                # records that stay allocated from one edit to the next


cdef undo_t *new_record(undo_list_t *u, undo_kind_t kind) noexcept nogil:
    """One more record, or NULL."""
    cdef undo_t *records
    cdef uint64_t capacity
    if u.count == u.capacity:
        capacity = max(<uint64_t>256, 2 * u.capacity)
        records = <undo_t *>realloc(u.records, capacity * sizeof(undo_t))
        if records == NULL:
            return NULL
        u.records = records
        u.capacity = capacity
    u.count += 1
    u.records[u.count - 1].kind = kind
    return &u.records[u.count - 1]


cdef uint64_t *new_saved(undo_list_t *u, uint64_t count) noexcept nogil:
    """Room for `count` more saved entries, or NULL."""
    cdef uint64_t *saved
    cdef uint64_t capacity
    if u.saved_capacity - u.saved_count < count:
        capacity = max(u.saved_count + count, u.saved_capacity + u.saved_capacity // 2)
        saved = <uint64_t *>realloc(u.saved, capacity * sizeof(uint64_t))
        if saved == NULL:
            return NULL
        u.saved = saved
        u.saved_capacity = capacity
    u.saved_count += count
    return u.saved + (u.saved_count - count)


cdef bint undo_note(
    undo_list_t *u, const dimension_t *d, hpa_t pa, uint64_t count
) noexcept nogil:
    """Note `count` entries of one table.

    Most are an arithmetic progression: absent, or pages that follow each other. Then two numbers
    tell all; otherwise they are saved.
    """
    cdef const uint8_t *p = pm_frame(d.mem, pa) + (pa & PAGE_OFFSET)
    cdef uint64_t first = load_entry(d, p, 0), i
    cdef uint64_t step = load_entry(d, p, 1) - first if count > 1 else 0
    cdef uint64_t *saved
    cdef undo_t *undo
    for i in range(1, count):
        if load_entry(d, p, i) != first + i * step:
            break
    else:
        undo = new_record(u, UNDO_RUN)
        if undo == NULL:
            return False
        undo.address = pa
        undo.entry = first
        undo.step = step
        undo.count = <uint32_t>count
        return True
    saved = new_saved(u, count)
    if saved == NULL:
        return False
    undo = new_record(u, UNDO_SAVED)
    if undo == NULL:
        return False
    for i in range(count):
        saved[i] = load_entry(d, p, i)
    undo.address = pa
    undo.entry = u.saved_count - count
    undo.count = <uint32_t>count
    return True


cdef bint undo_note_freed(undo_list_t *u, uint64_t address, int level) noexcept nogil:
    """Note a table that goes out of use if the edit succeeds."""
    cdef undo_t *undo = new_record(u, UNDO_FREED)
    if undo == NULL:
        return False
    undo.address = address
    undo.count = <uint32_t>level
    return True


cdef void undo_put_back(
    const undo_list_t *u, const dimension_t *d, const undo_t *undo
) noexcept nogil:
    """Give the entries of one record their old values."""
    cdef pm_status status
    cdef uint8_t *p = pm_writable(d.mem, undo.address, &status)
    cdef uint64_t i
    if p == NULL:
        return                      # so they were never edited
    p += undo.address & PAGE_OFFSET
    for i in range(<uint64_t>undo.count):
        store_entry(d, p, i, undo.entry + i * undo.step if undo.kind == UNDO_RUN
                    else u.saved[undo.entry + i])


cdef void undo_shrink(undo_list_t *u) noexcept nogil:
    """After the last record: keep only as much memory as small edits need."""
    u.saved_count = 0
    if u.capacity > UNDO_KEPT or u.saved_capacity > UNDO_KEPT:
        undo_free(u)


cdef void undo_free(undo_list_t *u) noexcept nogil:
    free(u.records)
    free(u.saved)
    u.records = NULL
    u.saved = NULL
    u.capacity = u.saved_capacity = 0
