# What an edit of tables changed, as it was before.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.paging cimport dimension_t
from pyvirt._core.types cimport hpa_t

cdef enum undo_kind_t:
    UNDO_RUN = 0                    # entries of one table: `entry`, `entry` + `step`, ...
    UNDO_SAVED = 1                  # entries of one table: `saved` from the index `entry` on
    UNDO_FREED = 2                  # a table that goes out of use if the edit succeeds

cdef struct undo_t:                 # of one part of an edit
    uint64_t address                # of the first entry, host-physical; own-physical of a table
    uint64_t entry
    uint64_t step
    uint32_t count                  # entries; level of a table
    undo_kind_t kind

cdef struct undo_list_t:
    undo_t *records                 # oldest first
    uint64_t count
    uint64_t capacity
    uint64_t *saved                 # entries of UNDO_SAVED
    uint64_t saved_count
    uint64_t saved_capacity


cdef bint undo_note(undo_list_t *u, const dimension_t *d, hpa_t pa, uint64_t count) noexcept nogil
cdef bint undo_note_freed(undo_list_t *u, uint64_t address, int level) noexcept nogil
cdef void undo_put_back(const undo_list_t *u, const dimension_t *d,
                        const undo_t *undo) noexcept nogil
cdef void undo_shrink(undo_list_t *u) noexcept nogil
cdef void undo_free(undo_list_t *u) noexcept nogil


cdef inline undo_t *undo_pop(undo_list_t *u) noexcept nogil:
    """Take the newest record off, or NULL; it can be read until the next is noted."""
    if u.count == 0:
        return NULL
    u.count -= 1
    return &u.records[u.count]
