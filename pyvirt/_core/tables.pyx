"""Tables in simulated memory that are made, given back and split."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from pyvirt._core.frames cimport load_u64, pm_frame, pm_status, pm_writable
from pyvirt._core.paging cimport FORMAT_X86_32, level_t, store_entry
from pyvirt._core.types cimport PAGE_OFFSET, PAGE_SIZE, hpa_t

cdef uint8_t[4096] ZEROS
memset(ZEROS, 0, PAGE_SIZE)


cdef built_t set_entry(builder_t *b, hpa_t pa, uint64_t entry) noexcept nogil:
    cdef pm_status status
    cdef uint8_t *p = pm_writable(b.d.mem, pa, &status)
    if p == NULL:
        return BUILT_NO_MEMORY
    store_entry(&b.d, p + (pa & PAGE_OFFSET), 0, entry)
    return BUILT


# --- frames -----------------------------------------------------------------------------------

cdef built_t new_table(builder_t *b, int level, uint64_t *address) noexcept nogil:
    """An empty table from the frame range."""
    cdef built_t status
    cdef pm_status memory
    cdef uint8_t *frame
    cdef hpa_t pa
    if b.free_frame:
        address[0] = b.free_frame
        status = host_of(b, address[0], level, &pa)
        if status != BUILT:
            return status
        b.free_frame = load_u64(pm_frame(b.d.mem, pa))
    else:
        if b.next_frame >= b.frame_end:
            return BUILT_NO_FRAME
        address[0] = b.next_frame
        status = host_of(b, address[0], level, &pa)
        if status != BUILT:
            return status
        b.next_frame += PAGE_SIZE
    b.tables += 1
    if memcmp(pm_frame(b.d.mem, pa), ZEROS, PAGE_SIZE) != 0:
        frame = pm_writable(b.d.mem, pa, &memory)
        if frame == NULL:
            return BUILT_NO_MEMORY
        memset(frame, 0, PAGE_SIZE)
    return BUILT


cdef void free_table(builder_t *b, uint64_t address, int level) noexcept nogil:
    """Put the frames of an empty table and those under it on the list of free ones.

    The list is linked through the frames' first words. Frames from elsewhere are left alone.
    """
    cdef hpa_t pa
    cdef uint8_t *frame
    cdef pm_status status
    cdef uint64_t i, entry
    if (address < b.first_frame or address >= b.next_frame
            or host_of(b, address, level, &pa) != BUILT):
        return
    for i in range(<uint64_t>(b.d.level[level].index_mask + 1 if level > 1 else 0)):
        entry = get_entry(b, pa + (i << b.d.entry_shift))
        if entry & b.d.present:
            set_entry(b, pa + (i << b.d.entry_shift), 0)
            free_table(b, entry & b.d.table_address, level - 1)
    frame = pm_writable(b.d.mem, pa, &status)
    if frame == NULL:
        return
    memcpy(frame, &b.free_frame, 8)
    b.free_frame = address
    b.tables -= 1


# --- tables -----------------------------------------------------------------------------------

cdef bint is_empty(builder_t *b, uint64_t base, int level) noexcept nogil:
    """Whether no leaf is under the table at `base`. Not told of a table out of reach: false."""
    cdef uint64_t i, entry
    cdef hpa_t pa
    if host_of(b, base, level, &pa) != BUILT:
        return False
    for i in range(<uint64_t>(b.d.level[level].index_mask + 1)):
        entry = get_entry(b, pa + (i << b.d.entry_shift))
        if entry & b.d.present == 0:
            continue
        if level == 1 or (b.d.level[level].may_map and entry & PS):
            return False
        if not is_empty(b, entry & b.d.table_address, level - 1):
            return False
    return True


cdef built_t split(builder_t *b, hpa_t slot, int level) noexcept nogil:
    """Turn the large leaf at `slot` into a table of leaves one level down that say the same."""
    cdef uint64_t leaf = get_entry(b, slot), base, address, i, flags
    cdef const level_t *large = &b.d.level[level]
    cdef const level_t *small = &b.d.level[level - 1]
    cdef built_t status
    cdef pm_status memory
    cdef uint8_t *table
    cdef hpa_t pa
    if b.d.format == FORMAT_X86_32 and leaf >> 13 & 0xFF:
        return BUILT_WIDE           # PSE-36: no small leaf reaches there
    status = new_table(b, level - 1, &base)
    if status != BUILT:
        return status
    status = host_of(b, base, level - 1, &pa)
    if status != BUILT:
        return status
    address = leaf & large.leaf_address
    flags = leaf & ~large.leaf_address
    if level == 2:
        flags &= ~<uint64_t>PS
        if not b.d.is_ept and leaf & 0x1000:
            flags = flags & ~<uint64_t>0x1000 | PS      # PAT: bit 12 of a large leaf, 7 of a small
    table = pm_writable(b.d.mem, pa, &memory)
    if table == NULL:
        return BUILT_NO_MEMORY
    for i in range(<uint64_t>(small.index_mask + 1)):
        store_entry(&b.d, table, i, address + (i << small.shift) | flags)
    # not undone: the small leaves mean what the large one did
    return set_entry(b, slot, base | b.table_flags)
