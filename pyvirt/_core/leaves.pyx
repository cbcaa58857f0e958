"""Enumerate the leaves of page tables, and compose them with the next dimension's."""

from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.stdlib cimport free, realloc

import numpy as np

from pyvirt._core.arrays cimport as_int
from pyvirt._core.paging cimport (
    ACCESS_ANY,
    ACCESS_LINEAR,
    ACCESS_PURE,
    ACCESS_TABLE,
    FAULT_NOT_PRESENT,
    FORMAT_X86_32,
    dimension_t,
    ept_malformed,
    flags_of,
    level_t,
    load_entry,
    locate,
    walk_t,
)
from pyvirt._core.frames cimport pm_frame
from pyvirt._core.types cimport PAGE_OFFSET, hpa_t
from pyvirt._core.walker cimport Walker
from pyvirt.errors import LimitError

LEAF_DTYPE = np.dtype([("va", "<u8"), ("pa", "<u8"), ("size", "<u8"), ("entry", "<u8"),
                       ("page_shift", "u1"), ("flags", "<u2")])
PIECE_DTYPE = np.dtype([("va", "<u8"), ("gpa", "<u8"), ("pa", "<u8"), ("size", "<u8"),
                        ("entry", "<u8"), ("page_shift", "u1"), ("nested_shift", "u1"),
                        ("flags", "<u2"), ("code", "<u2")])

cdef enum status_t:
    DONE = 0
    TOO_MANY_LEAVES = 1
    TOO_MANY_TABLES = 2
    NO_MEMORY = 3

cdef struct list_t:             # a growing array of records
    uint8_t *records
    uint64_t count
    uint64_t capacity
    uint64_t limit
    uint64_t size               # of a record
    uint64_t tables
    uint64_t table_limit


cdef uint8_t *append(list_t *found, status_t *status) noexcept nogil:
    """Room for one more record, or NULL."""
    cdef uint64_t capacity
    cdef uint8_t *records
    if found.count == found.limit:
        status[0] = TOO_MANY_LEAVES
        return NULL
    if found.count == found.capacity:
        capacity = max(1024, 2 * found.capacity)
        records = <uint8_t *>realloc(found.records, capacity * found.size)
        if records == NULL:
            status[0] = NO_MEMORY
            return NULL
        found.records = records
        found.capacity = capacity
    found.count += 1
    return found.records + (found.count - 1) * found.size


cdef status_t visit(
    dimension_t *d, list_t *found, uint64_t base, int level, uint64_t va, uint64_t rights_and,
    uint64_t rights_or
) noexcept nogil:
    """Append the leaves under the table at `base`, whose first address is `va`."""
    cdef const level_t *rules = &d.level[level]
    cdef const uint8_t *frame
    cdef uint64_t entry, index, address, rights
    cdef status_t status = DONE
    cdef leaf_t *leaf
    cdef walk_t w
    cdef hpa_t pa
    cdef bint maps
    found.tables += 1
    if found.tables > found.table_limit:
        return TOO_MANY_TABLES
    # one table lies in one page of every dimension: one nested translation serves all entries
    if locate(d, base, ACCESS_ANY | ACCESS_TABLE | ACCESS_LINEAR | ACCESS_PURE, level, &pa, &w,
              NULL):
        return DONE
    frame = pm_frame(d.mem, pa)
    if frame == NULL:
        return DONE
    frame += pa & PAGE_OFFSET
    for index in range(<uint64_t>(rules.index_mask + 1)):
        entry = load_entry(d, frame, index)
        if entry & d.present == 0:
            continue
        maps = level == 1 or (rules.may_map and entry & 0x80)
        if d.is_ept and ept_malformed(d, entry, maps):
            continue
        if entry & (rules.leaf_reserved if maps else rules.table_reserved):
            continue
        address = va | index << rules.shift
        if d.sign_extended and level == d.levels and index > rules.index_mask >> 1:
            address |= 0xFFFFFFFFFFFFFFFFULL << d.address_bits
        if maps:
            leaf = <leaf_t *>append(found, &status)
            if leaf == NULL:
                return status
            rights = entry & rights_and | rights_or
            leaf.va = address
            leaf.pa = entry & rules.leaf_address
            if d.format == FORMAT_X86_32 and level == 2:
                leaf.pa |= (entry >> 13 & 255) << 32
            leaf.size = rules.offset + 1
            leaf.entry = entry
            leaf.page_shift = rules.shift
            leaf.flags = flags_of(d, rights)
        elif rules.has_rights:
            status = visit(d, found, entry & d.table_address, level - 1, address,
                           rights_and & (entry | ~d.rights_and), rights_or | entry & d.rights_or)
        else:
            status = visit(d, found, entry & d.table_address, level - 1, address, rights_and,
                           rights_or)
        if status != DONE:
            return status
    return DONE


cdef status_t compose(
    dimension_t *d, const list_t *leaves, list_t *found, bint faults
) noexcept nogil:
    """Cut every leaf of d into pieces that the next dimension maps, or fails to map, as one."""
    cdef uint64_t i, gpa, end, step
    cdef status_t status = DONE
    cdef const leaf_t *leaf
    cdef piece_t *piece
    cdef uint16_t code
    cdef walk_t w
    cdef hpa_t pa
    for i in range(leaves.count):
        leaf = <const leaf_t *>(leaves.records + i * leaves.size)
        gpa = leaf.pa
        end = leaf.pa + leaf.size
        while gpa < end:
            w.flags = 0
            w.nested_shift = 0
            w.smallest = leaf.page_shift
            code = locate(d, gpa, ACCESS_ANY | ACCESS_LINEAR | ACCESS_PURE, 0, &pa, &w, NULL)
            step = 12
            if code == 0:
                step = w.smallest
            elif code & 0x3FF == (code & 0x70 | 1 << 7 | FAULT_NOT_PRESENT) and code >> 13 == 0:
                # absent in the next dimension itself: nothing is there under the whole entry
                step = d.outer.level[code >> 4 & 7].shift
            # up to the end of that page or hole
            step = min(end, (gpa | ((<uint64_t>1 << step) - 1)) + 1) - gpa
            if code == 0 or faults:
                piece = <piece_t *>append(found, &status)
                if piece == NULL:
                    return status
                piece.va = leaf.va + (gpa - leaf.pa)
                piece.gpa = gpa
                piece.pa = pa if code == 0 else 0
                piece.size = step
                piece.entry = leaf.entry
                piece.page_shift = leaf.page_shift
                piece.nested_shift = w.nested_shift if code == 0 else 0
                piece.flags = leaf.flags | w.flags
                piece.code = code
            gpa += step
    return DONE


cdef object as_array(list_t *found, object dtype):
    """A copy of the records as a structured array."""
    if found.count == 0:
        return np.empty(0, dtype)
    cdef uint8_t[::1] view = <uint8_t[:found.count * found.size]>found.records
    return np.array(view).view(dtype)


def enumerate_leaves(Walker walker not None, limit, table_limit, *, faults=False):
    """Leaves of the walker's own tables, composed with the next dimension if there is one.

    Parameters
    ----------
    walker : Walker
    limit, table_limit : int
        Most records and most table visits.
    faults : bool, default False
        Keep pieces that the next dimension does not map.

    Returns
    -------
    ndarray
        Of LEAF_DTYPE, or PIECE_DTYPE for a nested walker.

    Raises
    ------
    LimitError
        If a limit is exceeded.
    """
    cdef list_t leaves, pieces
    cdef dimension_t *d = &walker.plain[0]
    cdef status_t status
    cdef bint keep = faults
    walker._check()
    leaves.records = NULL
    leaves.count = leaves.capacity = leaves.tables = 0
    leaves.size = sizeof(leaf_t)
    leaves.limit = as_int(limit, "limit", 0, 1 << 40)
    leaves.table_limit = as_int(table_limit, "table_limit", 1, 1 << 40)
    pieces = leaves
    pieces.size = sizeof(piece_t)
    try:
        with nogil:
            status = visit(d, &leaves, d.root, d.levels, 0, 0xFFFFFFFFFFFFFFFFULL, 0)
            if status == DONE and d.outer != NULL:
                status = compose(d, &leaves, &pieces, keep)
        if status == TOO_MANY_LEAVES:
            raise LimitError(f"more than limit={limit} leaves")
        if status == TOO_MANY_TABLES:
            raise LimitError(f"more than table_limit={table_limit} tables visited")
        if status == NO_MEMORY:
            raise MemoryError("the host has no memory left for the list of leaves")
        if d.outer != NULL:
            return as_array(&pieces, PIECE_DTYPE)
        return as_array(&leaves, LEAF_DTYPE)
    finally:
        free(leaves.records)
        free(pieces.records)
