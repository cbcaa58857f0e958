"""Edits of tables: runs of leaves put, cleared or given other rights, and undone if one fails."""

from libc.stdint cimport uint8_t, uint64_t

from pyvirt._core.frames cimport pm_frame, pm_status, pm_writable
from pyvirt._core.paging cimport level_t, load_entry, store_entry
from pyvirt._core.tables cimport (
    BUILT,
    BUILT_LIMIT,
    BUILT_NO_MEMORY,
    BUILT_RESERVED,
    BUILT_TABLE,
    BUILT_TAKEN,
    PS,
    builder_t,
    built_t,
    free_table,
    get_entry,
    host_of,
    is_empty,
    new_table,
    set_entry,
    split,
)
from pyvirt._core.types cimport PAGE_OFFSET, PAGE_SHIFT, PAGE_SIZE, hpa_t
from pyvirt._core.undo cimport (
    UNDO_FREED,
    undo_note,
    undo_note_freed,
    undo_pop,
    undo_put_back,
    undo_shrink,
    undo_t,
)


cdef built_t descend(
    builder_t *b, uint64_t va, int target, bint create, bint divide, hpa_t *slot, int *level
) noexcept nogil:
    """Find the entry for `va` at level `target`, or the one above it where the way ends.

    With `create` missing tables are made, with `divide` larger leaves are split; so that the
    way ends above only at an absent entry or an undivided leaf. `b.path` keeps the entries met.
    """
    cdef uint64_t base = b.d.root, entry, table
    cdef const level_t *rules
    cdef built_t status
    level[0] = b.d.levels
    while True:
        rules = &b.d.level[level[0]]
        status = host_of(b, base | (va >> rules.shift & rules.index_mask) << b.d.entry_shift,
                         level[0], slot)
        b.path[level[0]] = slot[0]
        if status != BUILT or level[0] == target:
            return status
        entry = get_entry(b, slot[0])
        if entry & b.d.present == 0:
            if not create:
                return BUILT
            status = new_table(b, level[0] - 1, &table)
            if status != BUILT:
                return status
            entry = table | (1 if not rules.has_rights else b.table_flags)
            status = set_entry(b, slot[0], entry)
        elif rules.may_map and entry & PS:
            if not divide:
                return BUILT
            status = split(b, slot[0], level[0])
            entry = get_entry(b, slot[0])
        elif entry & rules.table_reserved:
            return BUILT_RESERVED
        if status != BUILT:
            return status
        base = entry & b.d.table_address
        level[0] -= 1


cdef uint64_t run_of(builder_t *b, uint64_t va, int level, uint64_t most) noexcept nogil:
    """How many entries from that of `va` on can be edited after one descent to it; `b.path` is set.

    Up to the end of the table. One, if the table is on the way to itself (a recursive mapping):
    an edit can then lead the next address elsewhere.
    """
    cdef const level_t *rules = &b.d.level[level]
    cdef int above
    for above in range(level + 1, b.d.levels + 1):
        if (b.path[above] ^ b.path[level]) >> PAGE_SHIFT == 0:
            return 1
    return min(most, rules.index_mask + 1 - (va >> rules.shift & rules.index_mask))


cdef uint64_t replaceable(
    builder_t *b, hpa_t slot, uint64_t count, int level, bint overwrite
) noexcept nogil:
    """How many of `count` entries from `slot` on can simply be replaced, before one that cannot."""
    cdef const uint8_t *p = pm_frame(b.d.mem, slot) + (slot & PAGE_OFFSET)
    cdef uint64_t i, entry, present = b.d.present
    for i in range(count):
        entry = load_entry(&b.d, p, i)
        if entry & present and not (overwrite and (level == 1 or entry & PS)):
            return i
    return count


cdef built_t clear_way(builder_t *b, hpa_t slot, int level) noexcept nogil:
    """See whether an entry that is not replaceable is an empty table, which goes out of use."""
    cdef uint64_t old = get_entry(b, slot)
    if level == 1 or old & PS:
        return BUILT_TAKEN
    if not is_empty(b, old & b.d.table_address, level - 1):
        return BUILT_TABLE
    if not undo_note_freed(&b.undo, old & b.d.table_address, level - 1):
        return BUILT_NO_MEMORY
    return BUILT


cdef uint8_t *open_run(builder_t *b, hpa_t slot, uint64_t count) noexcept nogil:
    """Note `count` entries of one table for undo, and give them to be written; or NULL."""
    cdef pm_status memory
    cdef uint8_t *p
    if not undo_note(&b.undo, &b.d, slot, count):
        return NULL
    p = pm_writable(b.d.mem, slot, &memory)
    return NULL if p == NULL else p + (slot & PAGE_OFFSET)


cdef built_t put_run(
    builder_t *b, hpa_t slot, uint64_t count, uint64_t entry, uint64_t step
) noexcept nogil:
    """Write `count` entries of one table, each `step` more than the one before."""
    cdef uint8_t *p = open_run(b, slot, count)
    cdef uint64_t i
    if p == NULL:
        return BUILT_NO_MEMORY
    for i in range(count):
        store_entry(&b.d, p, i, entry + i * step)
    return BUILT


cdef built_t map_run(
    builder_t *b, uint64_t va, uint64_t entry, int target, uint64_t count, bint overwrite,
    uint64_t *done
) noexcept nogil:
    """Put `count` leaf entries of pages that follow each other at level `target`.

    `done` is counted up by those that were put before the end, or before the one that failed.
    """
    cdef uint64_t page = b.d.level[target].offset + 1, n
    cdef built_t status
    cdef hpa_t slot
    cdef int level
    while count:
        status = descend(b, va, target, True, overwrite, &slot, &level)
        if status != BUILT:
            return status
        if level != target:
            return BUILT_TAKEN      # a larger leaf covers va
        n = replaceable(b, slot, run_of(b, va, target, count), target, overwrite)
        if n == 0:
            status = clear_way(b, slot, target)
            if status != BUILT:
                return status
            n = 1
        status = put_run(b, slot, n, entry, page)
        if status != BUILT:
            return status
        va += n * page
        entry += n * page
        count -= n
        done[0] += n
    return BUILT


cdef built_t edit_run(
    builder_t *b, hpa_t slot, uint64_t count, bint remove, uint64_t clear, uint64_t put,
    uint64_t *present
) noexcept nogil:
    """Clear or re-right those of `count` entries of one table that are present; count them."""
    cdef const uint8_t *old = pm_frame(b.d.mem, slot) + (slot & PAGE_OFFSET)
    cdef uint64_t i, entry
    cdef uint8_t *p
    present[0] = 0
    for i in range(count):
        present[0] += (load_entry(&b.d, old, i) & b.d.present) != 0
    if present[0] == 0:
        return BUILT
    p = open_run(b, slot, count)
    if p == NULL:
        return BUILT_NO_MEMORY
    for i in range(count):
        entry = load_entry(&b.d, p, i)
        if entry & b.d.present:
            store_entry(&b.d, p, i, 0 if remove else entry & ~clear | put)
    return BUILT


cdef built_t edit_range(
    builder_t *b, uint64_t va, uint64_t size, bint remove, uint64_t clear, uint64_t put,
    uint64_t limit, uint64_t *changed
) noexcept nogil:
    """Clear or re-right every leaf in [va, va + size); leaves that stick out are split."""
    cdef built_t status
    cdef uint64_t done = 0, span, start, n, present
    cdef hpa_t slot
    cdef int level
    while done < size:
        if limit == 0:
            return BUILT_LIMIT
        start = va + done
        status = descend(b, start, 1, False, False, &slot, &level)
        if status != BUILT:
            return status
        n = 1
        if level == 1:
            span = PAGE_SIZE
            n = run_of(b, start, 1, min(limit, (size - done) >> PAGE_SHIFT))
        else:
            span = b.d.level[level].offset + 1
            if get_entry(b, slot) & b.d.present == 0:
                limit -= 1
                done += span - (start & (span - 1))
                continue
            if start & (span - 1) or span > size - done:
                limit -= 1
                status = split(b, slot, level)
                if status != BUILT:
                    return status
                continue
        limit -= n
        status = edit_run(b, slot, n, remove, clear, put, &present)
        if status != BUILT:
            return status
        changed[0] += present * span
        done += n * span
    return BUILT


cdef built_t finish(builder_t *b, built_t status) noexcept nogil:
    """End an edit: free the tables that went out of use, or undo everything if it failed."""
    cdef undo_t *undo = undo_pop(&b.undo)
    while undo != NULL:
        if undo.kind != UNDO_FREED:
            if status != BUILT:
                undo_put_back(&b.undo, &b.d, undo)
        elif status == BUILT:
            free_table(b, undo.address, <int>undo.count)
        undo = undo_pop(&b.undo)
    undo_shrink(&b.undo)
    b.d.mem.version += 1
    return status
