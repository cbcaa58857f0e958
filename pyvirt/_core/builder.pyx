"""The table builder: map, protect and unmap ranges in tables that live in simulated memory.

An edit that fails is undone: the mappings are then what they were, though tables that it made
stay, empty, and a large leaf that it split stays split.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memset

from pyvirt._core.arrays cimport as_int, as_u64
from pyvirt._core.paging cimport (
    ACCESS_ANY,
    ACCESS_LINEAR,
    ACCESS_PURE,
    ACCESS_TABLE,
    FORMAT_X86_32,
    bad_memory_type,
    configure,
    in_range,
    level_t,
    locate,
    walk_t,
)
from pyvirt._core.frames cimport (
    load_u64,
    pm_frame,
    pm_lock,
    pm_status,
    pm_unlock,
    pm_writable,
)
from pyvirt._core.physmem cimport PhysMem
from pyvirt._core.types cimport PAGE_OFFSET, PAGE_SHIFT, PAGE_SIZE, hpa_t
from pyvirt._core.walker cimport Walker
from pyvirt._core.walker import DEFAULTS as _DEFAULTS
from pyvirt.errors import (
    FrameExhaustedError,
    InvalidTypeError,
    InvalidValueError,
    LimitError,
    MappingError,
)

cdef enum:
    PS = 0x80
    UNDO_KEPT = 4096                # records that stay allocated from one edit to the next

cdef uint8_t[4096] ZEROS
memset(ZEROS, 0, PAGE_SIZE)

# What the builder takes of the options of a Walker: what decides the format of entries.
_OPTIONS = ("format", "levels", "pa_width", "cr4", "efer", "vendor", "large_1g", "exec_only",
            "mbec")


# --- entries ----------------------------------------------------------------------------------

cdef built_t host_of(builder_t *b, uint64_t address, int level, hpa_t *pa) noexcept nogil:
    """Host-physical address of an own-physical one that holds a table."""
    cdef walk_t w
    if locate(&b.d, address, ACCESS_ANY | ACCESS_TABLE | ACCESS_LINEAR | ACCESS_PURE, level, pa,
              &w, NULL):
        return BUILT_NESTED
    if pm_frame(b.d.mem, pa[0]) == NULL:
        return BUILT_NESTED
    return BUILT


cdef inline uint64_t load_entry(builder_t *b, const uint8_t *p, uint64_t i) noexcept nogil:
    """Entry `i` of the entries from `p` on."""
    cdef uint64_t entry = 0
    if b.d.entry_shift == 3:
        return load_u64(p + (i << 3))
    memcpy(&entry, p + (i << 2), 4)
    return entry


cdef inline void store_entry(
    builder_t *b, uint8_t *p, uint64_t i, uint64_t entry
) noexcept nogil:
    if b.d.entry_shift == 3:
        memcpy(p + (i << 3), &entry, 8)
    else:
        memcpy(p + (i << 2), &entry, 4)


cdef uint64_t get_entry(builder_t *b, hpa_t pa) noexcept nogil:
    return load_entry(b, pm_frame(b.d.mem, pa) + (pa & PAGE_OFFSET), 0)


cdef built_t set_entry(builder_t *b, hpa_t pa, uint64_t entry) noexcept nogil:
    cdef pm_status status
    cdef uint8_t *p = pm_writable(b.d.mem, pa, &status)
    if p == NULL:
        return BUILT_NO_MEMORY
    store_entry(b, p + (pa & PAGE_OFFSET), 0, entry)
    return BUILT


cdef undo_t *new_undo(builder_t *b, undo_kind_t kind) noexcept nogil:
    """One more record of the undo list, or NULL."""
    cdef undo_t *undo
    cdef uint64_t capacity
    if b.undo_count == b.undo_capacity:
        capacity = max(<uint64_t>256, 2 * b.undo_capacity)
        undo = <undo_t *>realloc(b.undo, capacity * sizeof(undo_t))
        if undo == NULL:
            return NULL
        b.undo = undo
        b.undo_capacity = capacity
    undo = &b.undo[b.undo_count]
    undo.kind = kind
    b.undo_count += 1
    return undo


cdef uint64_t *new_saved(builder_t *b, uint64_t count) noexcept nogil:
    """Room for `count` more saved entries, or NULL."""
    cdef uint64_t *saved
    cdef uint64_t capacity
    if b.saved_capacity - b.saved_count < count:
        capacity = max(b.saved_count + count, b.saved_capacity + b.saved_capacity // 2)
        saved = <uint64_t *>realloc(b.saved, capacity * sizeof(uint64_t))
        if saved == NULL:
            return NULL
        b.saved = saved
        b.saved_capacity = capacity
    b.saved_count += count
    return b.saved + (b.saved_count - count)


cdef built_t remember(builder_t *b, hpa_t pa, uint64_t count) noexcept nogil:
    """Note `count` entries of one table for undo, before they are edited.

    Most are an arithmetic progression: absent, or pages that follow each other. Then two numbers
    tell all; otherwise they are saved.
    """
    cdef const uint8_t *p = pm_frame(b.d.mem, pa) + (pa & PAGE_OFFSET)
    cdef uint64_t first = load_entry(b, p, 0), i
    cdef uint64_t step = load_entry(b, p, 1) - first if count > 1 else 0
    cdef uint64_t *saved
    cdef undo_t *undo
    for i in range(1, count):
        if load_entry(b, p, i) != first + i * step:
            break
    else:
        undo = new_undo(b, UNDO_RUN)
        if undo == NULL:
            return BUILT_NO_MEMORY
        undo.address = pa
        undo.entry = first
        undo.step = step
        undo.count = <uint32_t>count
        return BUILT
    saved = new_saved(b, count)
    if saved == NULL:
        return BUILT_NO_MEMORY
    undo = new_undo(b, UNDO_SAVED)
    if undo == NULL:
        return BUILT_NO_MEMORY
    for i in range(count):
        saved[i] = load_entry(b, p, i)
    undo.address = pa
    undo.entry = b.saved_count - count
    undo.count = <uint32_t>count
    return BUILT


cdef void put_back(builder_t *b, const undo_t *undo) noexcept nogil:
    """Give the entries of one record their old values."""
    cdef pm_status status
    cdef uint8_t *p = pm_writable(b.d.mem, undo.address, &status)
    cdef uint64_t i
    if p == NULL:
        return                      # so they were never edited
    p += undo.address & PAGE_OFFSET
    for i in range(<uint64_t>undo.count):
        store_entry(b, p, i, undo.entry + i * undo.step if undo.kind == UNDO_RUN
                    else b.saved[undo.entry + i])


cdef built_t finish(builder_t *b, built_t status) noexcept nogil:
    """Forget the undo list and free its tables, or carry it out if the edit failed."""
    cdef undo_t *undo
    while b.undo_count:
        b.undo_count -= 1
        undo = &b.undo[b.undo_count]
        if undo.kind == UNDO_FREED:
            if status == BUILT:
                free_table(b, undo.address, <int>undo.count)
        elif status != BUILT:
            put_back(b, undo)
    b.saved_count = 0
    if b.undo_capacity > UNDO_KEPT or b.saved_capacity > UNDO_KEPT:
        free_undo(b)
    b.d.mem.version += 1
    return status


cdef void free_undo(builder_t *b) noexcept nogil:
    free(b.undo)
    free(b.saved)
    b.undo = NULL
    b.saved = NULL
    b.undo_capacity = b.saved_capacity = 0


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
    cdef uint64_t leaf = get_entry(b, slot), base, address, i, flags, entry
    cdef const level_t *large = &b.d.level[level]
    cdef const level_t *small = &b.d.level[level - 1]
    cdef built_t status
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
    for i in range(<uint64_t>(small.index_mask + 1)):
        entry = address + (i << small.shift) | flags
        status = set_entry(b, pa + (i << b.d.entry_shift), entry)
        if status != BUILT:
            return status
    # not undone: the small leaves mean what the large one did
    return set_entry(b, slot, base | b.table_flags)


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


# --- edits ------------------------------------------------------------------------------------

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
        entry = load_entry(b, p, i)
        if entry & present and not (overwrite and (level == 1 or entry & PS)):
            return i
    return count


cdef built_t clear_way(builder_t *b, hpa_t slot, int level) noexcept nogil:
    """See whether an entry that is not replaceable is an empty table, which goes out of use."""
    cdef uint64_t old = get_entry(b, slot)
    cdef undo_t *undo
    if level == 1 or old & PS:
        return BUILT_TAKEN
    if not is_empty(b, old & b.d.table_address, level - 1):
        return BUILT_TABLE
    undo = new_undo(b, UNDO_FREED)
    if undo == NULL:
        return BUILT_NO_MEMORY
    undo.address = old & b.d.table_address
    undo.count = <uint32_t>(level - 1)
    return BUILT


cdef built_t put_run(
    builder_t *b, hpa_t slot, uint64_t count, uint64_t entry, uint64_t step
) noexcept nogil:
    """Write `count` entries of one table, each `step` more than the one before."""
    cdef built_t status = remember(b, slot, count)
    cdef pm_status memory
    cdef uint8_t *p
    cdef uint64_t i
    if status != BUILT:
        return status
    p = pm_writable(b.d.mem, slot, &memory)
    if p == NULL:
        return BUILT_NO_MEMORY
    p += slot & PAGE_OFFSET
    for i in range(count):
        store_entry(b, p, i, entry + i * step)
    return BUILT


cdef inline uint64_t leaf_of(uint64_t pa, uint64_t flags, bint wide_32) noexcept nogil:
    """A leaf entry. A 4 MiB one of 32-bit tables has the address bits 39:32 in bits 20:13."""
    cdef uint64_t entry = pa | flags
    if wide_32:
        entry = entry << 32 >> 32 | pa >> 32 << 13
    return entry


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
    cdef pm_status memory
    cdef built_t status
    cdef uint64_t i, entry
    cdef uint8_t *p
    present[0] = 0
    for i in range(count):
        present[0] += (load_entry(b, old, i) & b.d.present) != 0
    if present[0] == 0:
        return BUILT
    status = remember(b, slot, count)
    if status != BUILT:
        return status
    p = pm_writable(b.d.mem, slot, &memory)
    if p == NULL:
        return BUILT_NO_MEMORY
    p += slot & PAGE_OFFSET
    for i in range(count):
        entry = load_entry(b, p, i)
        if entry & b.d.present:
            store_entry(b, p, i, 0 if remove else entry & ~clear | put)
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


# --- the object -------------------------------------------------------------------------------

cdef class PageTables:
    """Page tables under construction.

    Parameters
    ----------
    mem : PhysMem
        The memory that receives the tables.
    format : {"x86-64", "pae", "x86-32", "ept", "npt"}
    levels : int, default 4
        4 or 5 for x86-64, EPT and NPT; 3 for PAE; 2 for 32-bit tables.
    frames : (int, int), optional
        (start, size) of the range that tables are taken from, in the tables' own physical
        space. None: existing tables can be edited, and no table added.
    outer : Walker, optional
        The next dimension out, for a guest's tables: frames and entries then hold
        guest-physical addresses.
    root : int, optional
        An existing top table to edit; by default a new one is made.
    **options
        ``pa_width``, ``cr4``, ``efer``, ``vendor``, ``large_1g``, ``exec_only``, ``mbec`` as in
        `Walker`: what decides which entries are well formed.
    """

    def __init__(self, PhysMem mem not None, *, format="x86-64", levels=None, frames=None,
                 Walker outer=None, root=None, **options):
        cdef uint64_t start = 0, size = 0, address
        if self.mem is not None:
            raise InvalidTypeError("these tables are initialised already")
        if mem.m.region_count == 0:
            raise InvalidTypeError("mem was not initialised")
        unknown = options.keys() - set(_OPTIONS)
        if unknown:
            raise InvalidTypeError(f"unknown option {min(unknown)!r}; "
                                   f"accepted are {', '.join(_OPTIONS)}")
        if levels is None:
            levels = {"pae": 3, "x86-32": 2}.get(format, 4)
        if frames is not None:
            try:
                start, size = frames
            except (TypeError, ValueError, OverflowError) as error:
                raise InvalidTypeError(
                    f"frames must be a (start, size) pair, not {frames!r:.80}") from error
        elif root is None:
            raise InvalidTypeError("give frames for new tables, or the root of existing ones")
        if outer is not None and outer.mem is not mem:
            raise InvalidValueError("outer must walk the same memory")
        cdef dict full = {**_DEFAULTS, **options, "format": format, "levels": levels}
        configure(&self.b.d, 0 if root is None else root, full)
        if (start & PAGE_OFFSET or size & PAGE_OFFSET
                or (start + size) >> (32 if self.b.d.format == FORMAT_X86_32 else 52)):
            raise InvalidValueError(
                f"frames must be whole 4 KiB frames of physical memory, got {frames}")
        self.b.d.mem = mem.pointer()
        if outer is not None:
            outer._check()
            self.b.d.outer = &outer.plain[0]
        # frame 0 is never a table: 0 ends the list of free frames
        self.b.next_frame = max(start, <uint64_t>PAGE_SIZE) if size else 0
        self.b.first_frame = self.b.next_frame
        self.b.frame_end = start + size if size else 0
        self.b.table_flags = (7 | (0x400 if self.b.d.mbec else 0)) if self.b.d.is_ept else 7
        self.options = full
        self.frame_range = (start, start + size)
        self.outer = outer
        self.mem = mem
        if root is None:
            status = self._new_root(&address)
            if status != BUILT:
                self.mem = None
                self._raise(status, 0)
            self.b.d.root = address
            root = address
        self.root = root

    cdef built_t _new_root(self, uint64_t *address):
        cdef built_t status
        with nogil:
            pm_lock(self.b.d.mem)
            status = new_table(&self.b, self.b.d.levels, address)
            finish(&self.b, BUILT)
            pm_unlock(self.b.d.mem)
        return status

    def __dealloc__(self):
        free_undo(&self.b)

    # --- what there is ---

    @property
    def format(self):
        """Name of the entry format."""
        self._check()
        return self.options["format"]

    @property
    def levels(self):
        """Number of levels."""
        return self.b.d.levels

    @property
    def tables_used(self):
        """Frames taken as tables so far."""
        return self.b.tables

    def walker(self, **options):
        """A `Walker` over these tables; `options` as there."""
        self._check()
        return Walker(self.mem, self.root, outer=self.outer, **{**self.options, **options})

    # --- edits ---

    def map(self, vas, pas, *, page_shift=12, rights=None, attrs=0, overwrite=False):
        """Map pages.

        Parameters
        ----------
        vas, pas : array of int, shape (n,)
            Page starts, virtual and physical, multiples of the page size.
        page_shift : {12, 21, 22, 30}
            log2 of the page size; 21 and 30 for 8-byte entries, 22 for 32-bit tables.
        rights : str, optional
            Of ``"r"``, ``"w"``, ``"x"`` and ``"u"`` (user; EPT with MBEC: executable for user
            addresses). Without ``"x"`` NX is set. Tables above allow everything. ``"rwx"`` by
            default, ``"rwxu"`` for npt, where every access is a user's.
        attrs : int
            Further bits of the leaf entry as they are: G, PAT, PCD, PWT, A, D, keys, software
            bits; for EPT the memory type too (bits 5:3, write-back if 0).
        overwrite : bool, default False
            Replace present mappings (larger leaves are split).

        Raises
        ------
        MappingError
            If a mapping, or a table in use, is in the way; with the first such address.
        FrameExhaustedError
            If the frame range holds no further table.
        InvalidValueError, InvalidTypeError
            For addresses that are unaligned, not canonical or too wide, and bad rights.
        """
        self._check()
        cdef const uint64_t[::1] virtual = as_u64(vas, "vas")
        cdef const uint64_t[::1] physical = as_u64(pas, "pas")
        cdef int level = self._level_of(page_shift)
        cdef uint64_t flags = self._leaf_flags(rights, attrs, level)
        cdef uint64_t i, run, n = virtual.shape[0], done = 0
        cdef uint64_t offset = self.b.d.level[level].offset, page = offset + 1
        cdef uint64_t wide = self._leaf_address(level)
        cdef bint replace = overwrite, wide_32 = self.b.d.format == FORMAT_X86_32 and level == 2
        cdef built_t status = BUILT
        if physical.shape[0] != virtual.shape[0]:
            raise InvalidTypeError(
                f"pas must have shape ({virtual.shape[0]},), got ({physical.shape[0]},)")
        for i in range(n):
            if not in_range(&self.b.d, virtual[i]) or virtual[i] & offset:
                raise InvalidValueError(f"vas[{i}] = {virtual[i]:#x} is not canonical, or not a "
                                        f"multiple of {offset + 1:#x}")
            if physical[i] & ~wide:
                raise InvalidValueError(f"pas[{i}] = {physical[i]:#x} is too wide, or not a "
                                        f"multiple of {offset + 1:#x}")
        with nogil:
            pm_lock(self.b.d.mem)
            while done < n:
                i = done
                run = 1
                while (not wide_32 and i + run < n and virtual[i + run] == virtual[i] + run * page
                       and physical[i + run] == physical[i] + run * page):
                    run += 1
                status = map_run(&self.b, virtual[i], leaf_of(physical[i], flags, wide_32), level,
                                 run, replace, &done)
                if status != BUILT:
                    break
            finish(&self.b, status)
            pm_unlock(self.b.d.mem)
        if status != BUILT:
            self._raise(status, virtual[done])

    def map_range(self, va, pa, size, *, page_shift=12, rights=None, attrs=0, overwrite=False):
        """Map `size` bytes from `va` on to `pa` on, in pages of one size; see `map`."""
        self._check()
        cdef uint64_t start = as_int(va, "va", 0, 0xFFFFFFFFFFFFFFFF)
        cdef uint64_t base = as_int(pa, "pa", 0, 0xFFFFFFFFFFFFFFFF)
        cdef uint64_t length = as_int(size, "size", 0, 1 << 57)
        cdef int level = self._level_of(page_shift)
        cdef uint64_t flags = self._leaf_flags(rights, attrs, level)
        cdef uint64_t page = self.b.d.level[level].offset + 1, done = 0, n = length // page
        cdef uint64_t last = length - page
        cdef bint replace = overwrite, wide_32 = self.b.d.format == FORMAT_X86_32 and level == 2
        cdef built_t status = BUILT
        if length % page:
            raise InvalidValueError(f"size must be a multiple of {page:#x}, got {size:#x}")
        if length:
            if start + last < start or base + last < base:
                raise InvalidValueError(f"the range of {size:#x} bytes leaves the 64-bit space")
            if (start % page or not in_range(&self.b.d, start)
                    or not in_range(&self.b.d, start + last) or (start ^ (start + last)) >> 63):
                raise InvalidValueError(f"the range from va={va:#x} (+{size:#x} bytes) is not "
                                        f"canonical, or no multiple of {page:#x}")
            if (base | (base + last)) & ~self._leaf_address(level):
                raise InvalidValueError(f"the range from pa={pa:#x} (+{size:#x} bytes) is too "
                                        f"wide, or no multiple of {page:#x}")
        with nogil:
            pm_lock(self.b.d.mem)
            while done < n and status == BUILT:
                status = map_run(&self.b, start + done * page,
                                 leaf_of(base + done * page, flags, wide_32), level,
                                 1 if wide_32 else n - done, replace, &done)
            finish(&self.b, status)
            pm_unlock(self.b.d.mem)
        if status != BUILT:
            self._raise(status, start + done * page)

    def unmap(self, va, size, *, limit=1 << 24):
        """Remove every mapping in [va, va + size); larger leaves that stick out are split.

        Parameters
        ----------
        va, size : int
            Bytes, multiples of 4096.
        limit : int
            Most leaves and holes that are visited: hostile tables can describe 2**36.

        Returns
        -------
        int
            Bytes that were mapped and no longer are.

        Raises
        ------
        LimitError
            If the limit is exceeded; nothing is changed then.
        """
        self._check()
        return self._edit(va, size, True, 0, 0, limit)

    def protect(self, va, size, rights, *, limit=1 << 24):
        """Give every mapping in [va, va + size) other rights (as in `map`); holes stay holes.

        Returns
        -------
        int
            Bytes whose mapping was edited.

        Raises
        ------
        LimitError
            As in `unmap`, which explains `limit`.
        """
        self._check()
        cdef uint64_t put = self._leaf_flags(rights, 0, 1)
        cdef uint64_t clear
        if self.b.d.is_ept:
            clear = 0x7 | (0x400 if self.b.d.mbec else 0)
            put &= clear
        else:
            clear = 6 | (<uint64_t>1 << 63 if self.b.d.format != FORMAT_X86_32 else 0)
        return self._edit(va, size, False, clear, put, limit)

    cdef object _edit(self, object va, object size, bint remove, uint64_t clear, uint64_t put,
                      object limit):
        cdef uint64_t start = as_int(va, "va", 0, 0xFFFFFFFFFFFFFFFF), changed = 0
        cdef uint64_t length = as_int(size, "size", 0, 1 << 57)
        cdef uint64_t most = as_int(limit, "limit", 0, 1 << 40)
        cdef built_t status
        if start & PAGE_OFFSET or length & PAGE_OFFSET:
            raise InvalidValueError(
                f"a range must be whole 4 KiB pages, got {start:#x} (+{length:#x} bytes)")
        if length and not (in_range(&self.b.d, start) and start + (length - 1) >= start
                           and in_range(&self.b.d, start + (length - 1))
                           and start >> 63 == (start + (length - 1)) >> 63):
            raise InvalidValueError(
                f"the range {start:#x} (+{length:#x} bytes) is not canonical")
        with nogil:
            pm_lock(self.b.d.mem)
            status = edit_range(&self.b, start, length, remove, clear, put, most,
                                &changed)
            finish(&self.b, status)
            pm_unlock(self.b.d.mem)
        if status != BUILT:
            self._raise(status, start)
        return changed

    # --- checks ---

    cdef object _check(self):
        if self.mem is None:
            raise InvalidTypeError("these tables were not initialised")

    cdef int _level_of(self, object page_shift) except -1:
        cdef int level
        for level in range(1, self.b.d.levels + 1):
            if ((level == 1 or self.b.d.level[level].may_map)
                    and self.b.d.level[level].shift == page_shift):
                return level
        raise InvalidValueError(f"{self.format} tables have no pages of page_shift={page_shift!r}")

    cdef uint64_t _leaf_address(self, int level):
        """Bits that the physical address of a page mapped at `level` may have."""
        cdef uint64_t bits = self.b.d.level[level].leaf_address, high = <uint64_t>0xFF << 32
        if self.b.d.format == FORMAT_X86_32 and level == 2:
            bits |= high >> (40 - min(<int>self.options["pa_width"], 40)) & high
        return bits

    cdef uint64_t _leaf_flags(self, object rights, object attrs, int level) except? 0:
        """Bits of a leaf entry beside the address."""
        cdef uint64_t flags = as_int(attrs, "attrs", 0, 0xFFFFFFFFFFFFFFFF), fixed
        if rights is None:
            rights = "rwxu" if self.b.d.is_npt else "rwx"
        if (not isinstance(rights, str) or set(rights) - set("rwxu")
                or len(set(rights)) < len(rights)):
            raise InvalidValueError(f"rights must be of the letters r, w, x, u, got {rights!r:.80}")
        fixed = self.b.d.level[level].leaf_address | self.b.d.level[level].leaf_reserved
        fixed |= self.b.d.present | self.b.d.rights_and | self.b.d.rights_or
        if self.b.d.is_ept and not self.b.d.mbec:
            fixed &= ~<uint64_t>0x400       # a software bit then
        if flags & (fixed | (PS if level > 1 else 0)):
            raise InvalidValueError("attrs must not hold address bits, reserved bits, or what "
                                    f"page_shift and rights decide, got {flags:#x}")
        if level > 1:
            flags |= PS
        if self.b.d.is_ept:
            if flags & 0x38 == 0:
                flags |= 6 << 3
            if bad_memory_type(flags):
                raise InvalidValueError(f"attrs has no EPT memory type, got {flags >> 3 & 7}")
            flags |= ("r" in rights) | ("w" in rights) << 1 | ("x" in rights) << 2
            if "u" in rights:
                if not self.b.d.mbec:
                    raise InvalidValueError("EPT has user rights only with mbec=True")
                flags |= 0x400
            if flags & self.b.d.present == 0:
                raise InvalidValueError("an EPT mapping without rights is no mapping")
            return flags
        if "r" not in rights:
            raise InvalidValueError(f"{self.format} pages are always readable: "
                                    f"rights must include r, got {rights!r}")
        flags |= 1 | ("w" in rights) << 1 | ("u" in rights) << 2
        if "x" not in rights:
            if not self.b.d.nxe:
                raise InvalidValueError(f"{self.format} pages without EFER.NXE are always "
                                        f"executable: rights must include x, got {rights!r}")
            flags |= <uint64_t>1 << 63
        return flags

    cdef object _raise(self, built_t status, object va):
        if status == BUILT_TAKEN:
            raise MappingError(f"{va:#x} is mapped already; use overwrite=True or unmap it first")
        if status == BUILT_TABLE:
            raise MappingError(f"smaller pages are mapped under {va:#x}; unmap them first")
        if status == BUILT_NO_FRAME:
            raise FrameExhaustedError(
                f"no free frame for another table in {self.frame_range[0]:#x} to "
                f"{self.frame_range[1]:#x} ({self.b.tables} tables in use)")
        if status == BUILT_NESTED:
            raise MappingError(f"a table on the way to {va:#x} lies outside RAM, or where the next "
                               "dimension does not map it")
        if status == BUILT_RESERVED:
            raise MappingError(f"an entry on the way to {va:#x} has reserved bits set")
        if status == BUILT_LIMIT:
            raise LimitError(f"more leaves and holes than the limit in the range at {va:#x}")
        if status == BUILT_WIDE:
            raise MappingError(f"a 4 MiB page in the range at {va:#x} lies beyond 4 GiB, where "
                               "4 KiB pages of 32-bit tables do not reach: it cannot be split")
        raise MemoryError("the host has no memory left for another frame")

    # --- state as a value ---

    def __reduce__(self):
        self._check()
        return (_rebuild, (type(self), self.mem, self.root, self.outer, self.frame_range,
                           self.options,
                           (self.b.next_frame, self.b.free_frame, self.b.tables)))

    def __repr__(self):
        if self.mem is None:
            return "<PageTables (not initialised)>"
        return (f"<PageTables {self.format} {self.levels}-level root={self.root:#x}, "
                f"{self.b.tables} tables>")


def _rebuild(kind, mem, root, outer, frame_range, options, state):
    """Tables of class `kind`, for unpickling and copying."""
    cdef PageTables tables = kind.__new__(kind)
    PageTables.__init__(
        tables, mem, root=root, outer=outer,
        frames=(frame_range[0], frame_range[1] - frame_range[0]), format=options["format"],
        levels=options["levels"], **{name: options[name] for name in _OPTIONS[2:]})
    tables.b.next_frame, tables.b.free_frame, tables.b.tables = state
    return tables
