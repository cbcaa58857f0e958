"""The Walker: translate addresses through one or more dimensions of page tables, one or many.

A batch remembers, per dimension, the way to the last table of each 2 MiB region it met (the
*memo*: what a paging-structure cache does) and the pages that a nested dimension translated (the
*nested memo*), so that most elements cost one table read. Memos are dropped when the memory's
version changes, and never change a result.
"""

from cpython.pythread cimport (
    NOWAIT_LOCK,
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_release_lock,
)
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

import numpy as np

from pyvirt._core.arrays cimport as_int, as_output, as_u64
from pyvirt._core.paging cimport (
    ACCESS_EXEC,
    ACCESS_READ,
    ACCESS_USER,
    ACCESS_WRITE,
    FAULT_NONE,
    FAULT_OUTSIDE_DATA,
    FAULT_OUTSIDE_TABLE,
    FAULT_SKIPPED,
    FORMAT_X86_32,
    MAX_DIMENSIONS,
    PAGE_MEMO_BITS,
    bad_memory_type,
    configure,
    dimension_t,
    flags_left,
    flags_of,
    flags_x86,
    in_range,
    memo_check,
    memo_entry_t,
    memo_index,
    memo_page_t,
    memo_store,
    memo_t,
    recorder_t,
    reference_t,
    walk,
    walk_t,
)
from pyvirt._core.physmem cimport (
    NODE_SHIFT,
    PhysMem,
    physmem_t,
    load_u64,
    pm_frame,
    pm_lock,
    pm_unlock,
)
from pyvirt._core.types cimport PAGE_OFFSET, PAGE_SHIFT, PAGE_SIZE
from pyvirt.errors import Fault, InvalidTypeError, InvalidValueError, PageFaultError, describe_fault

#: Options of a `Walker` and their defaults: a 64-bit kernel with NX and write protection.
DEFAULTS = {
    "format": "x86-64", "levels": 4, "pa_width": 52,
    "cr0": 0x80010033, "cr4": 0xB0, "efer": 0xD00, "pkru": 0, "pkrs": 0, "ac": False,
    "vendor": "intel", "large_1g": True,
    "exec_only": True, "ept_ad": False, "mbec": False,
    "set_ad": False, "memo": True, "nested_memo": True,
}

DETAIL_DTYPE = np.dtype([("entry", "<u8"), ("gpa", "<u8"), ("nested_entry", "<u8"),
                         ("error", "<u8"), ("nested_shift", "u1")])
REFERENCE_DTYPE = np.dtype([("dimension", "u1"), ("level", "u1"), ("pa", "<u8"),
                            ("address", "<u8"), ("entry", "<u8")])

_ACCESS = {"r": ACCESS_READ, "w": ACCESS_WRITE, "x": ACCESS_EXEC}


cdef uint32_t access_of(object access, object user) except 0:
    """Bits of access_t from the arguments of a translation."""
    code = _ACCESS.get(access) if isinstance(access, str) else None
    if code is None:
        raise InvalidValueError(f"access must be 'r', 'w' or 'x', got {access!r:.80}")
    return <uint32_t>code | (ACCESS_USER if user else 0)


# --- one translation --------------------------------------------------------------------------

cdef class Translation:
    """What one translation found; a batch of one has the same values.

    Attributes
    ----------
    pa : int
        Host-physical address; 0 if it failed.
    code : int
        0, or what failed where; see `pyvirt.errors.describe_fault`.
    page_shift : int
        log2 of the page size in the space's own tables (12, 21, 22 or 30); 0 if it failed.
    flags : int
        Bits 0 to 3: readable, writable, executable, user, over all levels of the own tables;
        4 to 6: A, D, G of the leaf; 8 to 11 as 0 to 3 for the next dimension. 0 if it failed.
    entry : int
        The leaf entry, or the last entry of the own tables read before a fault.
    gpa : int
        Address in the own tables' physical space (equal to `pa` without nesting). After a
        nested fault the guest-physical address that could not be translated; 0 after others.
    nested_entry, nested_shift : int
        Leaf entry (or the last one read) and page size of the next dimension, for the final
        address or for the one that failed.
    error : int
        After a fault the #PF error code, EPT exit qualification or NPF EXITINFO1 of the
        dimension that failed.
    """

    @property
    def pa(self):
        return self.w.pa

    @property
    def code(self):
        return self.w.code

    @property
    def page_shift(self):
        return self.w.shift

    @property
    def flags(self):
        return self.w.flags

    @property
    def entry(self):
        return self.w.entry

    @property
    def gpa(self):
        return self.w.gpa

    @property
    def nested_entry(self):
        return self.w.nested_entry

    @property
    def nested_shift(self):
        return self.w.nested_shift

    @property
    def error(self):
        return self.w.error

    @property
    def ok(self):
        """Whether the translation succeeded."""
        return self.w.code == FAULT_NONE

    @property
    def fault(self):
        """What failed, as `pyvirt.errors.Fault`."""
        return Fault(self.w.code & 15)

    @property
    def level(self):
        """Level of the entry that failed, in its dimension; 0 where none applies."""
        return self.w.code >> 4 & 7

    @property
    def dimension(self):
        """Dimension that failed: 0 the own tables, 1 the nested ones, and so on."""
        return self.w.code >> 7 & 3

    def describe(self):
        """The result code in words."""
        return describe_fault(self.w.code)

    def _values(self):
        return (self.pa, self.code, self.page_shift, self.flags, self.entry, self.gpa,
                self.nested_entry, self.nested_shift, self.error)

    def __eq__(self, other):
        if not isinstance(other, Translation):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self):
        return hash(self._values())

    def __reduce__(self):
        return _translation, self._values()

    def __repr__(self):
        if self.w.code:
            return f"<Translation {self.describe()}>"
        return f"<Translation pa={self.pa:#x} page_shift={self.page_shift} flags={self.flags:#x}>"


def _translation(pa, code, page_shift, flags, entry, gpa, nested_entry, nested_shift, error):
    """A Translation of given values, for unpickling."""
    cdef Translation t = Translation.__new__(Translation)
    t.w.pa = pa
    t.w.code = code
    t.w.shift = page_shift
    t.w.flags = flags
    t.w.entry = entry
    t.w.gpa = gpa
    t.w.nested_entry = nested_entry
    t.w.nested_shift = nested_shift
    t.w.error = error
    return t


cdef void settle(dimension_t *d, walk_t *w, bint require_ram) noexcept nogil:
    """The last touches on a finished walk: RAM asked for, and nothing half-told of a fault."""
    if w.code == FAULT_NONE and require_ram and pm_frame(d.mem, w.pa) == NULL:
        w.code = FAULT_OUTSIDE_DATA
    if w.code:
        w.pa = 0
        w.shift = 0
        w.flags = 0


cdef enum:
    BLOCK = 1024                    # elements whose usual answers are filled in beforehand


# --- batches ----------------------------------------------------------------------------------

cdef struct request_t:              # one access to one dimension, its rules as masks
    uint64_t wanted                 # of a leaf: these bits of the mask set, the others clear:
    uint64_t mask[3]                # by page size: present, A and D, reserved bits
    uint64_t address_mask[3]
    uint64_t offset_mask[3]
    uint64_t index_mask[3]          # of the leaf in its table, in bytes: 0 for a large leaf
    uint16_t flags_wanted           # the same of the flags, which are those of all levels
    uint16_t flags_mask
    uint8_t shift[3]

cdef struct found_t:                # what `resolve` says of one dimension
    uint64_t physical
    uint64_t leaf
    uint16_t flags
    uint8_t kind                    # 0: 4K, 1: 2M, 2: 1G

# Flags by the low 9 bits of an x86 leaf, with X as if NX were clear.
cdef uint16_t[512] LEAF_FLAGS
cdef void fill_leaf_flags() noexcept:
    cdef uint64_t i
    for i in range(512):
        LEAF_FLAGS[i] = flags_x86(i)

fill_leaf_flags()


cdef inline uint16_t leaf_flags(const dimension_t *d, uint64_t leaf, uint16_t left) noexcept nogil:
    """Flags of a leaf under tables that leave `left` (`flags_left`)."""
    if d.is_ept:
        return flags_of(d, leaf) & left
    return leaf_flags_x86(leaf, left)


cdef inline uint16_t leaf_flags_x86(uint64_t leaf, uint16_t left) noexcept nogil:
    return (LEAF_FLAGS[leaf & 511] ^ <uint16_t>(leaf >> 61 & 4)) & left


cdef bint prepare(const dimension_t *d, uint32_t access, request_t *r) noexcept nogil:
    """The rules of `judge` as masks and comparisons; false if they do not fit."""
    cdef bint user = access & ACCESS_USER or d.is_npt
    cdef int kind
    r.wanted = 1 | d.accessed                               # P, or R of EPT
    if access & ACCESS_WRITE:
        r.wanted |= d.dirty
    r.flags_wanted = r.flags_mask = 1
    if d.accessed:
        r.flags_wanted |= 0x30 if access & ACCESS_WRITE else 0x10
    if access & ACCESS_EXEC and (d.is_ept or d.nxe):
        r.flags_wanted |= 4
    if d.is_ept:
        if access & ACCESS_WRITE:
            r.flags_wanted |= 2
    else:
        if access & ACCESS_WRITE and (user or d.wp):
            r.flags_wanted |= 2
        if user:
            r.flags_wanted |= 8
        elif (d.smep if access & ACCESS_EXEC else d.smap):
            r.flags_mask |= 8
    r.flags_mask |= r.flags_wanted
    for kind in range(3):
        r.mask[kind] = r.wanted | d.level[kind + 1].leaf_reserved
        r.index_mask[kind] = 0xFF8 if kind == 0 else 0
        r.address_mask[kind] = d.level[kind + 1].leaf_address
        r.offset_mask[kind] = d.level[kind + 1].offset
        r.shift[kind] = d.level[kind + 1].shift
    return (d.entry_shift == 3 and d.level[d.levels].has_rights and not d.pke and not d.pks
            and not (d.mbec and access & ACCESS_EXEC))


cdef inline bint allows(
    const request_t *r, uint64_t leaf, uint16_t flags, uint64_t mask
) noexcept nogil:
    return (leaf & mask ^ r.wanted) | (flags & r.flags_mask ^ r.flags_wanted) == 0


cdef inline bint accept(
    const dimension_t *d, const request_t *r, uint64_t address, uint16_t left, found_t *f
) noexcept nogil:
    """Whether the leaf in f allows the access, and where it leads."""
    f.flags = leaf_flags(d, f.leaf, left)
    if not allows(r, f.leaf, f.flags, r.mask[f.kind]):
        return False
    if d.is_ept and bad_memory_type(f.leaf):
        return False
    f.physical = (f.leaf & r.address_mask[f.kind]) | (address & r.offset_mask[f.kind])
    return True


cdef inline bint recall(
    const dimension_t *d, const request_t *r, uint64_t address, found_t *f
) noexcept nogil:
    """One dimension by memo: true if the leaf is known and allows the access."""
    cdef const memo_entry_t *m = &d.memo.entries[memo_index(address)]
    if m.tag != (address >> 21 | d.memo.epoch):
        return False
    f.kind = m.kind
    f.leaf = load_u64(m.table + (address >> 9 & r.index_mask[f.kind]))
    return accept(d, r, address, m.flags, f)


cdef struct frames_t:               # the directory of a memory below 4 GiB, at hand
    uint8_t **node
    uint64_t limit                  # 0 if there is no such node


cdef frames_t frames_of(const physmem_t *m) noexcept nogil:
    cdef frames_t frames
    frames.node = m.root[0]
    frames.limit = 0 if frames.node == NULL else min(m.limit, <uint64_t>1 << NODE_SHIFT)
    return frames


cdef struct ascent_t:               # how far a climb has come
    uint64_t base                   # of the next table, in the own physical space
    uint64_t entry                  # the last one read, and where it is
    const uint8_t *place
    uint64_t rights_and
    uint64_t rights_or

cdef enum step_t:
    STEP_UNUSUAL = 0                # not for the short form
    STEP_TABLE = 1
    STEP_LEAF = 2


cdef inline step_t step(
    const dimension_t *d, const frames_t *frames, uint64_t address, int level, ascent_t *a
) noexcept nogil:
    """Read one entry. Where `level` is a constant, the rest folds."""
    cdef uint64_t slot = a.base | (address >> (9 * level + 3) & 511) << 3
    cdef const uint8_t *frame = NULL
    if slot < frames.limit:
        frame = frames.node[slot >> PAGE_SHIFT]
    if frame == NULL:
        frame = pm_frame(d.mem, slot)
        if frame == NULL:
            return STEP_UNUSUAL
    a.place = frame + (slot & PAGE_OFFSET)
    a.entry = load_u64(a.place)
    if level == 1 or (level <= 3 and a.entry & 0x80 and d.level[level].may_map):
        return STEP_LEAF
    # bit 0 is P, or R of EPT: with it an upper EPT entry cannot be misconfigured
    if a.entry & (d.level[level].table_reserved | 1 | d.accessed) != 1 | d.accessed:
        return STEP_UNUSUAL
    a.rights_and &= a.entry | ~d.rights_and
    a.rights_or |= a.entry & d.rights_or
    a.base = a.entry & d.table_address
    return STEP_TABLE


cdef inline int climb_levels(
    const dimension_t *d, const frames_t *frames, uint64_t address, ascent_t *a
) noexcept nogil:
    """Climb tables that are in host-physical memory; the leaf's level, or 0 if unusual."""
    cdef step_t taken
    if d.levels == 5 and step(d, frames, address, 5, a) != STEP_TABLE:
        return 0
    if step(d, frames, address, 4, a) != STEP_TABLE:
        return 0
    taken = step(d, frames, address, 3, a)
    if taken != STEP_TABLE:
        return 3 if taken == STEP_LEAF else 0
    taken = step(d, frames, address, 2, a)
    if taken != STEP_TABLE:
        return 2 if taken == STEP_LEAF else 0
    return 1 if step(d, frames, address, 1, a) == STEP_LEAF else 0


cdef inline int climb_levels_nested(
    dimension_t *d, const frames_t *frames, const request_t *tables, uint64_t address,
    ascent_t *a
) noexcept nogil:
    """`climb_levels` for tables that are in the physical space of a next dimension."""
    cdef found_t table
    cdef step_t taken
    cdef uint64_t offset
    cdef int level = d.levels
    while True:
        offset = (address >> (9 * level + 3) & 511) << 3
        if not resolve(d.outer, frames, tables, tables + 1, a.base | offset, &table):
            return 0
        a.base = table.physical & ~<uint64_t>PAGE_OFFSET
        taken = step(d, frames, address, level, a)
        if taken != STEP_TABLE:
            return level if taken == STEP_LEAF else 0
        level -= 1


cdef inline bint arrive(
    dimension_t *d, const request_t *r, uint64_t address, int level, const ascent_t *a,
    found_t *f
) noexcept nogil:
    """The end of a climb: remember the way, judge the leaf."""
    cdef uint16_t left
    if level == 0:
        return False
    left = flags_left(d, a.rights_and, a.rights_or)
    if d.memo != NULL:
        memo_store(d, address, a.place, level, left)
    f.kind = <uint8_t>(level - 1)
    f.leaf = a.entry
    return accept(d, r, address, left, f)


cdef bint climb(
    dimension_t *d, const frames_t *frames, const request_t *r, uint64_t address, found_t *f
) noexcept nogil:
    """The outermost dimension by its tables: true if nothing is out of the ordinary.

    A short form of `walk` for the common case.
    """
    cdef ascent_t a
    if not in_range(d, address):
        return False
    a.base = d.root
    a.rights_and = 0xFFFFFFFFFFFFFFFFULL
    a.rights_or = 0
    return arrive(d, r, address, climb_levels(d, frames, address, &a), &a, f)


cdef bint climb_nested(
    dimension_t *d, const frames_t *frames, const request_t *r, const request_t *tables,
    uint64_t address, found_t *f
) noexcept nogil:
    """`climb` for an inner dimension; `tables` are the requests that serve its table reads."""
    cdef ascent_t a
    if not in_range(d, address):
        return False
    a.base = d.root
    a.rights_and = 0xFFFFFFFFFFFFFFFFULL
    a.rights_or = 0
    return arrive(d, r, address, climb_levels_nested(d, frames, tables, address, &a), &a, f)


cdef inline bint resolve(
    dimension_t *d, const frames_t *frames, const request_t *r, const request_t *tables,
    uint64_t address, found_t *f
) noexcept nogil:
    """One dimension, by memo or by its tables."""
    if d.memo != NULL and recall(d, r, address, f):
        return True
    if d.outer == NULL:
        return climb(d, frames, r, address, f)
    return climb_nested(d, frames, r, tables, address, f)


cdef inline void prefill(const batch_t *out, uint64_t i, uint64_t n, uint64_t *filled) noexcept nogil:
    """Success and 4 KiB pages as the answers from i to the end of a block, if not yet there."""
    if filled[0] <= i:
        filled[0] = min(n, i + BLOCK)
        memset(&out.code[i], 0, (filled[0] - i) * sizeof(uint16_t))
        memset(&out.shift[i], PAGE_SHIFT, filled[0] - i)


cdef uint64_t recall_run(
    const dimension_t *d, const request_t *r, const uint64_t *vas, uint64_t i, uint64_t n,
    const batch_t *out, uint64_t *filled
) noexcept nogil:
    """Elements from i on, as long as the memo of the only dimension settles them.

    The hot loop: what `recall` does, with everything that a store could alias held in locals.
    """
    cdef const memo_entry_t *entries = d.memo.entries
    cdef const memo_entry_t *m
    cdef uint64_t epoch = d.memo.epoch, va, leaf, end
    cdef uint64_t wanted = r.wanted, mask = r.mask[0], address_mask = r.address_mask[0]
    cdef uint16_t flags_wanted = r.flags_wanted, flags_mask = r.flags_mask, own_flags
    cdef uint64_t *pa = out.pa
    cdef uint16_t *flags = out.flags
    while i < n:
        prefill(out, i, n, filled)
        end = filled[0]
        while i < end:
            va = vas[i]
            m = &entries[memo_index(va)]
            if m.tag != (va >> 21 | epoch):
                return i
            if m.kind == 0:
                leaf = load_u64(m.table + (va >> 9 & 0xFF8))
                own_flags = leaf_flags_x86(leaf, m.flags)
                if (leaf & mask ^ wanted) | (own_flags & flags_mask ^ flags_wanted):
                    return i
                pa[i] = (leaf & address_mask) | (va & PAGE_OFFSET)
                flags[i] = own_flags
            elif not recall_large(r, m, va, i, out):
                return i
            i += 1
    return i


cdef bint recall_large(
    const request_t *r, const memo_entry_t *m, uint64_t va, uint64_t i, const batch_t *out
) noexcept nogil:
    """Element i of `recall_run` on a 2 MiB or 1 GiB page."""
    cdef uint64_t leaf = load_u64(m.table)
    cdef uint16_t own_flags = leaf_flags_x86(leaf, m.flags)
    if not allows(r, leaf, own_flags, r.mask[m.kind]):
        return False
    out.pa[i] = (leaf & r.address_mask[m.kind]) | (va & r.offset_mask[m.kind])
    out.shift[i] = r.shift[m.kind]
    out.flags[i] = own_flags
    return True


cdef uint64_t recall_run_nested(
    dimension_t *d, const frames_t *frames, const request_t *r, const uint64_t *vas,
    uint64_t i, uint64_t n, const batch_t *out, uint64_t *filled
) noexcept nogil:
    """`recall_run` for x86-64 tables in one nested dimension; r is one request for each.

    The nested dimension is asked anew where its memo does not have the page, or there is none.
    """
    cdef dimension_t *o = d.outer
    cdef const memo_entry_t *entries = d.memo.entries
    cdef const memo_entry_t *m
    cdef const memo_page_t *pages = o.memo.pages if o.memo != NULL else NULL
    cdef const memo_page_t *page
    cdef uint64_t epoch = d.memo.epoch, va, gpa, leaf, end, physical
    cdef uint64_t nested_epoch = o.memo.epoch if o.memo != NULL else 0
    cdef uint16_t own_flags, nested_flags
    cdef uint16_t flags_wanted = r[1].flags_wanted, flags_mask = r[1].flags_mask
    cdef uint64_t *pa = out.pa
    cdef uint16_t *flags = out.flags
    cdef found_t nested
    while i < n:
        prefill(out, i, n, filled)
        end = filled[0]
        while i < end:
            va = vas[i]
            m = &entries[memo_index(va)]
            if m.tag != (va >> 21 | epoch):
                return i
            if m.kind == 0:
                leaf = load_u64(m.table + (va >> 9 & 0xFF8))
                gpa = (leaf & r.address_mask[0]) | (va & PAGE_OFFSET)
            else:
                leaf = load_u64(m.table)
                gpa = (leaf & r.address_mask[m.kind]) | (va & r.offset_mask[m.kind])
                out.shift[i] = r.shift[m.kind]
            own_flags = leaf_flags_x86(leaf, m.flags)
            if not allows(r, leaf, own_flags, r.mask[m.kind]):
                return i
            if pages != NULL:
                page = &pages[gpa >> PAGE_SHIFT & ((1 << PAGE_MEMO_BITS) - 1)]
                nested_flags = <uint16_t>(page.page & PAGE_OFFSET)
                if (page.tag == (gpa >> PAGE_SHIFT | nested_epoch)
                        and nested_flags & flags_mask == flags_wanted):
                    pa[i] = (page.page & ~<uint64_t>PAGE_OFFSET) | (gpa & PAGE_OFFSET)
                    flags[i] = own_flags | <uint16_t>((nested_flags & 15) << 8)
                    i += 1
                    continue
            if not ask_nested(o, frames, &r[1], gpa, &nested):
                return i
            pa[i] = nested.physical
            flags[i] = own_flags | <uint16_t>((nested.flags & 15) << 8)
            i += 1
    return i


cdef bint ask_nested(
    dimension_t *o, const frames_t *frames, const request_t *r, uint64_t gpa, found_t *f
) noexcept nogil:
    """Translate by the outermost dimension and remember the page."""
    cdef memo_page_t *page
    if not resolve(o, frames, r, NULL, gpa, f):
        return False
    if o.memo != NULL and o.memo.pages != NULL:
        page = &o.memo.pages[gpa >> PAGE_SHIFT & ((1 << PAGE_MEMO_BITS) - 1)]
        page.tag = gpa >> PAGE_SHIFT | o.memo.epoch
        page.page = f.physical & ~<uint64_t>PAGE_OFFSET | f.flags
    return True


cdef bint climb_one(
    dimension_t *d, const frames_t *frames, const request_t *finals, const request_t *tables,
    uint64_t va, const batch_t *out, uint64_t i, bint require_ram
) noexcept nogil:
    """Element i by the short forms, any number of dimensions; false if they do not settle it."""
    cdef found_t own, nested, further
    cdef dimension_t *o = d.outer
    cdef uint64_t physical
    cdef uint16_t flags
    cdef int depth = 2
    if not resolve(d, frames, &finals[0], &tables[1], va, &own):
        return False
    physical = own.physical
    flags = own.flags
    if o != NULL:
        if not resolve(o, frames, &finals[1], &tables[2], physical, &nested):
            return False
        physical = nested.physical
        flags |= (nested.flags & 15) << 8
        o = o.outer
        while o != NULL:
            if not resolve(o, frames, &finals[depth], &tables[depth + 1], physical, &further):
                return False
            physical = further.physical
            depth += 1
            o = o.outer
    if require_ram and pm_frame(d.mem, physical) == NULL:
        return False
    out.pa[i] = physical
    out.code[i] = 0
    out.shift[i] = finals[0].shift[own.kind]
    out.flags[i] = flags
    if out.detail != NULL:
        out.detail[i].entry = own.leaf
        out.detail[i].gpa = own.physical
        out.detail[i].nested_entry = nested.leaf if d.outer != NULL else 0
        out.detail[i].nested_shift = finals[1].shift[nested.kind] if d.outer != NULL else 0
        out.detail[i].error = 0
    return True


cdef void walk_one(
    dimension_t *d, uint32_t access, uint64_t va, const batch_t *out, uint64_t i, bint require_ram
) noexcept nogil:
    """Element i by the full walk, which alone knows faults and A and D."""
    cdef dimension_t *o = d
    cdef walk_t w
    walk(d, va, access, &w, NULL)
    settle(d, &w, require_ram)
    out.pa[i] = w.pa
    out.code[i] = w.code
    out.shift[i] = w.shift
    out.flags[i] = w.flags
    if out.detail != NULL:
        out.detail[i].entry = w.entry
        out.detail[i].gpa = w.gpa
        out.detail[i].nested_entry = w.nested_entry
        out.detail[i].nested_shift = w.nested_shift
        out.detail[i].error = w.error
    while o != NULL:
        memo_check(o)               # A or D may have been set
        o = o.outer


cdef uint64_t run(
    dimension_t *d, const uint64_t *vas, uint64_t n, uint32_t access, const batch_t *out,
    bint stop, bint require_ram
) noexcept nogil:
    """Translate n addresses; with `stop`, up to and including the first fault. Returns how many.

    Each element goes through the cheapest of three ways that settles it: memo, tables, walk.
    """
    cdef request_t finals[MAX_DIMENSIONS]       # the access itself, by dimension
    cdef request_t tables[MAX_DIMENSIONS + 1]   # reads of the tables of the dimension before
    cdef dimension_t *o = d
    cdef uint64_t i = 0, filled = 0
    cdef int depth = 0
    cdef bint short_form = True, remembered
    cdef frames_t frames = frames_of(d.mem)
    while o != NULL:
        memo_check(o)
        short_form = prepare(o, access, &finals[depth]) and short_form
        short_form = prepare(o, o.table_access, &tables[depth]) and short_form
        depth += 1
        o = o.outer
    remembered = (short_form and d.memo != NULL and not d.is_ept and out.detail == NULL
                  and not require_ram and depth <= 2)
    while i < n:
        if remembered:
            if d.outer == NULL:
                i = recall_run(d, finals, vas, i, n, out, &filled)
            else:
                i = recall_run_nested(d, &frames, finals, vas, i, n, out, &filled)
            if i == n:
                break
        if not (short_form and climb_one(d, &frames, finals, tables, vas[i], out, i, require_ram)):
            walk_one(d, access, vas[i], out, i, require_ram)
            frames = frames_of(d.mem)   # an A or D update may have made the first frame
            if stop and out.code[i]:
                return i + 1
        i += 1
    return n


# --- the object -------------------------------------------------------------------------------

cdef class Walker:
    """A walker over page tables in a `PhysMem`.

    Parameters
    ----------
    mem : PhysMem
        The memory that holds the tables.
    root : int
        What the processor's root register holds: CR3 (its low 12 bits are ignored, 5 for PAE),
        EPTP or N_CR3; an address in the physical space of the next dimension out.
    outer : Walker, optional
        The next dimension out: an ``ept`` or ``npt`` walker over the same memory that
        translates the addresses in these tables. None: they are host-physical.
    format : {"x86-64", "pae", "x86-32", "ept", "npt"}
    levels : int, default 4
        4 or 5 for x86-64, EPT and NPT; 3 for PAE; 2 for 32-bit tables.
    pa_width : int, default 52
        Physical-address width (32 to 52): higher address bits in an entry are reserved.
    cr0, cr4, efer : int
        Control registers; CR0.WP, CR4.PSE, SMEP, SMAP, PKE, PKS and EFER.NXE matter.
    pkru, pkrs : int, default 0
        Protection-key rights for user and supervisor pages.
    ac : bool, default False
        EFLAGS.AC: lifts SMAP.
    vendor : {"intel", "amd"}
        AMD reserves bit 8 of upper entries, Intel ignores it.
    large_1g : bool, default True
        Whether the processor has 1 GiB pages; without, bit 7 of a PDPTE is reserved.
    exec_only, ept_ad, mbec : bool
        EPT: execute-only pages exist; EPTP bit 6; mode-based execute control.
    set_ad : bool, default False
        Set A and D bits as the processor does (EPT: only with `ept_ad`). A walk that fails in
        its own dimension sets none there; dimensions that it used before have theirs set.
    memo : bool, default True
        Remember the way to tables between the elements of a batch and between batches, as
        paging-structure caches do; never changes a result.
    nested_memo : bool, default True
        With `memo` and an `outer`: also remember pages that it translated, as a nested TLB does.

    Attributes
    ----------
    mem : PhysMem
        The memory that holds the tables.
    outer : Walker or None
        The next dimension out.
    root : int
        As given.

    Notes
    -----
    Every call may run in several threads at once; of two batches over the same Walker at the
    same time, one goes without memo.
    """

    def __cinit__(self, *args, **kwargs):
        self.memo_lock = PyThread_allocate_lock()
        if self.memo_lock == NULL:
            raise MemoryError

    def __init__(self, PhysMem mem not None, root, *, Walker outer=None, **options):
        cdef int i
        if self.count:
            raise InvalidTypeError("this walker is initialised already")
        unknown = options.keys() - DEFAULTS.keys()
        if unknown:
            raise InvalidTypeError(f"unknown option {min(unknown)!r}; "
                                   f"accepted are {', '.join(DEFAULTS)}")
        cdef dict full = {**DEFAULTS, **options}
        if outer is not None:
            if outer.mem is not mem:
                raise InvalidValueError("outer must walk the same memory")
            if outer.options["format"] not in ("ept", "npt"):
                raise InvalidValueError("outer must have format ept or npt, got "
                                        f"{outer.options['format']!r}")
            if outer.count == MAX_DIMENSIONS:
                raise InvalidValueError(f"at most {MAX_DIMENSIONS} dimensions")
        configure(&self.plain[0], root, full)
        self.plain[0].mem = mem.pointer()
        self.marks = self.plain[0].accessed != 0
        self.count = 1
        if outer is not None:
            for i in range(outer.count):
                self.plain[i + 1] = outer.plain[i]
            self.count += outer.count
            self.marks |= outer.marks
        for i in range(self.count - 1):
            self.plain[i].outer = &self.plain[i + 1]
        self.mem = mem
        self.outer = outer
        self.root = root
        self.options = full
        self._make_memos()

    cdef object _make_memos(self):
        """Room for memos where the options of each dimension want one and its format can."""
        cdef int i
        cdef Walker owner = self
        for i in range(self.count):
            self.fast[i] = self.plain[i]
            if i + 1 < self.count:
                self.fast[i].outer = &self.fast[i + 1]
            if owner.options["memo"] and self.plain[i].format != FORMAT_X86_32:
                self.memos[i] = <memo_t *>calloc(1, sizeof(memo_t))
                if self.memos[i] == NULL:
                    raise MemoryError
                self.memos[i].epoch = <uint64_t>1 << 43
                self.memos[i].version = self.plain[i].mem.version
                if i > 0 and self.options["nested_memo"]:
                    self.memos[i].pages = <memo_page_t *>calloc(
                        1 << PAGE_MEMO_BITS, sizeof(memo_page_t))
                    if self.memos[i].pages == NULL:
                        raise MemoryError
                self.fast[i].memo = self.memos[i]
            owner = owner.outer

    def __dealloc__(self):
        cdef int i
        for i in range(MAX_DIMENSIONS):
            if self.memos[i] != NULL:
                free(self.memos[i].pages)
            free(self.memos[i])
        if self.memo_lock != NULL:
            PyThread_free_lock(self.memo_lock)

    cdef object _check(self):
        if self.count == 0:
            raise InvalidTypeError("this walker was not initialised")

    # --- from C ---

    cdef uint16_t translate_one_c(self, uint64_t va, uint32_t access, walk_t *w) noexcept nogil:
        """One translation; returns its code."""
        if self.count == 0:
            memset(w, 0, sizeof(walk_t))
            w.code = FAULT_OUTSIDE_TABLE
            return w.code
        if self.marks:
            pm_lock(self.plain[0].mem)
        walk(&self.plain[0], va, access, w, NULL)
        if self.marks:
            pm_unlock(self.plain[0].mem)
        settle(&self.plain[0], w, False)
        return w.code

    cdef uint64_t translate_c(
        self, const uint64_t *vas, uint64_t n, uint32_t access, const batch_t *out, bint stop,
        bint require_ram
    ) noexcept nogil:
        """Many translations; returns how many were done (fewer than n only with `stop`)."""
        cdef uint64_t done
        cdef bint memo
        if self.count == 0:
            return 0
        memo = PyThread_acquire_lock(self.memo_lock, NOWAIT_LOCK)
        if self.marks:
            pm_lock(self.plain[0].mem)
        done = run(&self.fast[0] if memo else &self.plain[0], vas, n, access, out, stop,
                   require_ram)
        if self.marks:
            pm_unlock(self.plain[0].mem)
        if memo:
            PyThread_release_lock(self.memo_lock)
        return done

    # --- from Python ---

    @property
    def format(self):
        """Name of the entry format."""
        return self.options["format"] if self.options else None

    @property
    def levels(self):
        """Number of levels of the own tables."""
        return self.plain[0].levels

    @property
    def dimensions(self):
        """Number of dimensions: 1 native, 2 nested."""
        return self.count

    def translate_one(self, va, access="r", user=False, require_ram=False):
        """Translate one address.

        Parameters
        ----------
        va : int
            Any 64-bit address.
        access : {"r", "w", "x"}
            Read, write or fetch.
        user : bool, default False
            Whether at CPL 3.
        require_ram : bool, default False
            Whether a final address outside RAM is a fault (as devices are, it is none).

        Returns
        -------
        Translation
        """
        cdef Translation t = Translation.__new__(Translation)
        cdef uint64_t address
        cdef uint32_t asked = access_of(access, user)
        self._check()
        if type(va) is int and 0 <= va <= 0xFFFFFFFFFFFFFFFF:
            address = va
        else:
            address = as_int(va, "va", 0, 0xFFFFFFFFFFFFFFFF)
        if self.marks:
            with nogil:
                self.translate_one_c(address, asked, &t.w)
        else:
            self.translate_one_c(address, asked, &t.w)
        if require_ram:
            settle(&self.plain[0], &t.w, True)
        return t

    def translate_into(self, vas, access, user, pa, code, page_shift, flags, detail=None,
                       stop=False, require_ram=False):
        """Translate many addresses into given arrays.

        Parameters
        ----------
        vas : array of int, shape (n,)
        access, user, require_ram
            As in `translate_one`.
        pa, code, page_shift, flags : ndarray, shape (n,)
            Receive the results: uint64, uint16, uint8, uint16, C-contiguous.
        detail : ndarray of DETAIL_DTYPE, shape (n,), optional
        stop : bool, default False
            End at the first fault; later elements get pa 0 and code 15 (`Fault.SKIPPED`).

        Returns
        -------
        int
            Elements done, the faulting one included.
        """
        cdef const uint64_t[::1] addresses = as_u64(vas, "vas")
        cdef uint64_t n = addresses.shape[0], done
        cdef uint32_t asked = access_of(access, user)
        cdef uint64_t[::1] pas = as_output(pa, np.dtype(np.uint64), (n,), "pa")
        cdef uint16_t[::1] codes = as_output(code, np.dtype(np.uint16), (n,), "code")
        cdef uint8_t[::1] shifts = as_output(page_shift, np.dtype(np.uint8), (n,), "page_shift")
        cdef uint16_t[::1] flag_bits = as_output(flags, np.dtype(np.uint16), (n,), "flags")
        cdef uint8_t[::1] details
        cdef batch_t out
        cdef bint until_fault = stop, ram = require_ram
        self._check()
        if n == 0:
            return 0
        out.pa = &pas[0]
        out.code = &codes[0]
        out.shift = &shifts[0]
        out.flags = &flag_bits[0]
        out.detail = NULL
        if detail is not None:
            details = as_output(detail, DETAIL_DTYPE, (n,), "detail").view(np.uint8)
            out.detail = <detail_t *>&details[0]
        with nogil:
            done = self.translate_c(&addresses[0], n, asked, &out, until_fault, ram)
        if done < n:
            for array in (pa, page_shift, flags, detail):
                if array is not None:
                    array[done:] = np.zeros((), array.dtype)
            code[done:] = FAULT_SKIPPED
        return done

    def references(self, va, access="r", user=False):
        """Table reads of one walk without caches, in order; A and D stay as they are.

        Parameters
        ----------
        va, access, user
            As in `translate_one`.

        Returns
        -------
        ndarray
            Fields ``dimension`` (0: the own tables), ``level``, ``pa`` of the entry
            (host-physical), its ``address`` in its own dimension's physical space, and ``entry``.
            A walk that fails ends with the entry that stopped it.

        Notes
        -----
        Without caches n levels in m nested levels make (n + 1)(m + 1) - 1 references
        (Bhargava et al., ASPLOS 2008).
        """
        cdef recorder_t recorder
        cdef walk_t w
        cdef uint64_t address = as_int(va, "va", 0, 0xFFFFFFFFFFFFFFFF)
        cdef uint32_t asked = access_of(access, user)
        cdef uint64_t capacity = 6 ** <uint64_t>MAX_DIMENSIONS
        cdef uint8_t[::1] room
        self._check()
        found = np.zeros(capacity, dtype=REFERENCE_DTYPE)
        room = found.view(np.uint8)
        recorder.references = <reference_t *>&room[0]
        recorder.capacity = capacity
        recorder.count = 0
        recorder.dimension = 0
        walk(&self.plain[0], address, asked, &w, &recorder)
        return found[:recorder.count].copy()

    def read(self, va, n, user=False):
        """Bytes at n consecutive virtual addresses, across pages.

        Raises
        ------
        PageFaultError
            For the first page that is not readable, or whose frame lies outside RAM; the
            address wraps at 2**64 like the processor's.
        """
        cdef uint64_t address = as_int(va, "va", 0, 0xFFFFFFFFFFFFFFFF)
        cdef uint64_t length = as_int(n, "n", 0, (1 << 62) - 1), done = 0, part
        cdef uint32_t asked = access_of("r", user)
        cdef walk_t w
        self._check()
        parts = []
        while done < length:
            part = min(length - done, PAGE_SIZE - (address & PAGE_OFFSET))
            self._step(address, asked, &w)
            parts.append(self.mem.read(w.pa, part))
            address += part
            done += part
        return b"".join(parts)

    def write(self, va, data, user=False):
        """Store bytes at consecutive virtual addresses, across pages.

        Raises
        ------
        PageFaultError
            For the first page that is not writable or lies outside RAM; no byte is stored then.
        """
        cdef uint64_t address = as_int(va, "va", 0, 0xFFFFFFFFFFFFFFFF)
        cdef const uint8_t[::1] source = np.frombuffer(data, dtype=np.uint8)
        cdef uint64_t length = source.shape[0], done = 0, part
        cdef uint32_t asked = access_of("w", user)
        cdef walk_t w
        self._check()
        places = []
        while done < length:
            part = min(length - done, PAGE_SIZE - (address & PAGE_OFFSET))
            self._step(address, asked, &w)
            places.append((w.pa, done, part))
            address += part
            done += part
        view = memoryview(data).cast("B")
        for pa, begin, size in places:
            self.mem.write(pa, view[begin:begin + size])

    cdef object _step(self, uint64_t address, uint32_t asked, walk_t *w):
        """Translate for `read` and `write`: a fault is an exception, RAM is required."""
        with nogil:
            self.translate_one_c(address, asked, w)
        settle(&self.plain[0], w, True)
        if w.code:
            raise PageFaultError(address, w.code)

    def __reduce__(self):
        self._check()
        return (_rebuild, (type(self), self.mem, self.root, self.outer, self.options),
                getattr(self, "__dict__", None) or None)

    def __repr__(self):
        if self.count == 0:
            return f"<{type(self).__name__} (not initialised)>"
        within = f" in {self.outer!r}" if self.outer is not None else ""
        return (f"<{type(self).__name__} {self.format} {self.plain[0].levels}-level "
                f"root={self.root:#x}{within}>")


def _rebuild(kind, mem, root, outer, options):
    """A walker of class `kind`, for unpickling and copying."""
    walker = kind.__new__(kind)
    Walker.__init__(walker, mem, root, outer=outer, **options)
    return walker
