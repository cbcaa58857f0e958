"""Batches: translate many addresses through a chain of dimensions, each by the cheapest way.

Three ways settle an element. *Recall*: the memo knows the table of its 2 MiB region, and for a
nested dimension perhaps the page itself. *Climb*: a short walk that gives up at anything out of
the ordinary. *Walk*: `pyvirt._core.paging`, which alone knows faults and sets A and D. All three
give the same answer.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from pyvirt._core.frames cimport NODE_SHIFT, load_u64, physmem_t, pm_frame
from pyvirt._core.paging cimport (
    ACCESS_EXEC,
    ACCESS_USER,
    ACCESS_WRITE,
    FAULT_NONE,
    FAULT_OUTSIDE_DATA,
    PAGE_MEMO_BITS,
    bad_memory_type,
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
    walk,
    walk_t,
)
from pyvirt._core.types cimport PAGE_OFFSET, PAGE_SHIFT

cdef enum:
    BLOCK = 1024                    # elements whose usual answers are filled in beforehand


cdef void settle(dimension_t *d, walk_t *w, bint require_ram) noexcept nogil:
    """The last touches on a finished walk: RAM asked for, and nothing half-told of a fault."""
    if w.code == FAULT_NONE and require_ram and pm_frame(d.mem, w.pa) == NULL:
        w.code = FAULT_OUTSIDE_DATA
    if w.code:
        w.pa = 0
        w.shift = 0
        w.flags = 0


# --- requests ---------------------------------------------------------------------------------

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

# Flags of an x86 leaf by its low 9 bits and NX, which rotated left come out as 10 bits.
cdef uint16_t[1024] LEAF_FLAGS
cdef void fill_leaf_flags() noexcept:
    cdef uint64_t i
    for i in range(1024):
        LEAF_FLAGS[i] = flags_x86(i >> 1 | i << 63)

fill_leaf_flags()


cdef inline uint16_t leaf_flags(const dimension_t *d, uint64_t leaf, uint16_t left) noexcept nogil:
    """Flags of a leaf under tables that leave `left` (`flags_left`)."""
    if d.is_ept:
        return flags_of(d, leaf) & left
    return leaf_flags_x86(leaf, left)


cdef inline uint16_t leaf_flags_x86(uint64_t leaf, uint16_t left) noexcept nogil:
    return LEAF_FLAGS[(leaf << 1 | leaf >> 63) & 1023] & left


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
    """`climb_levels` for tables in the physical space of a next dimension, the outermost."""
    cdef found_t table
    cdef step_t taken
    cdef uint64_t offset
    cdef int level = d.levels
    while True:
        offset = (address >> (9 * level + 3) & 511) << 3
        if not resolve(d.outer, frames, tables, NULL, a.base | offset, &table):
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

    Two hot loops, for blocks whose addresses stay in a 2 MiB region for a while and for those
    that do not: what `recall` does, with everything that a store could alias held in locals.
    """
    cdef uint64_t stopped, end
    while i < n:
        prefill(out, i, n, filled)
        end = filled[0]
        if end - i > 8 and vas[i] >> 21 == vas[i + 4] >> 21 == vas[i + 8] >> 21:
            stopped = recall_near(d, r, vas, i, end, out)
        else:
            stopped = recall_far(d, r, vas, i, end, out)
        if stopped < end:
            return stopped
        i = end
    return i


cdef uint64_t recall_near(
    const dimension_t *d, const request_t *r, const uint64_t *vas, uint64_t i, uint64_t end,
    const batch_t *out
) noexcept nogil:
    """Elements up to `end` that the memo settles; quick where the last one's region serves."""
    cdef const memo_entry_t *entries = d.memo.entries
    cdef const memo_entry_t *m
    cdef const uint8_t *table = NULL
    cdef uint64_t epoch = d.memo.epoch, va, leaf
    cdef uint64_t region, present_region = 0xFFFFFFFFFFFFFFFFULL
    cdef uint64_t wanted = r.wanted, mask = r.mask[0], address_mask = r.address_mask[0]
    cdef uint16_t flags_wanted = r.flags_wanted, flags_mask = r.flags_mask, own_flags, left = 0
    cdef uint64_t *pa = out.pa
    cdef uint16_t *flags = out.flags
    while i < end:
        va = vas[i]
        region = va >> 21
        if region != present_region:
            m = &entries[memo_index(va)]
            if m.tag != (region | epoch):
                return i
            if m.kind != 0:
                if not recall_large(r, m, va, i, out):
                    return i
                i += 1
                continue
            table = m.table
            left = m.flags
            present_region = region
        leaf = load_u64(table + (va >> 9 & 0xFF8))
        own_flags = leaf_flags_x86(leaf, left)
        if (leaf & mask ^ wanted) | (own_flags & flags_mask ^ flags_wanted):
            return i
        pa[i] = (leaf & address_mask) | (va & PAGE_OFFSET)
        flags[i] = own_flags
        i += 1
    return i


cdef uint64_t recall_far(
    const dimension_t *d, const request_t *r, const uint64_t *vas, uint64_t i, uint64_t end,
    const batch_t *out
) noexcept nogil:
    """Elements up to `end` that the memo settles, each looked up anew."""
    cdef const memo_entry_t *entries = d.memo.entries
    cdef const memo_entry_t *m
    cdef uint64_t epoch = d.memo.epoch, va, leaf
    cdef uint64_t wanted = r.wanted, mask = r.mask[0], address_mask = r.address_mask[0]
    cdef uint16_t flags_wanted = r.flags_wanted, flags_mask = r.flags_mask, own_flags
    cdef bint judged = flags_mask != 1      # more than R, which every x86 leaf has
    cdef uint64_t *pa = out.pa
    cdef uint16_t *flags = out.flags
    while i < end:
        va = vas[i]
        m = &entries[memo_index(va)]
        if m.tag != (va >> 21 | epoch):
            return i
        if m.kind != 0:
            if not recall_large(r, m, va, i, out):
                return i
        else:
            leaf = load_u64(m.table + (va >> 9 & 0xFF8))
            own_flags = leaf_flags_x86(leaf, m.flags)
            if leaf & mask != wanted:
                return i
            if judged and own_flags & flags_mask != flags_wanted:
                return i
            pa[i] = (leaf & address_mask) | (va & PAGE_OFFSET)
            flags[i] = own_flags
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
    cdef uint64_t epoch = d.memo.epoch, va, gpa, leaf, end
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
    """Element i by the short forms, in one or two dimensions; false if they do not settle it."""
    cdef found_t own, nested
    cdef dimension_t *o = d.outer
    cdef uint64_t physical
    cdef uint16_t flags
    if not resolve(d, frames, &finals[0], &tables[1], va, &own):
        return False
    physical = own.physical
    flags = own.flags
    if o != NULL:
        if not resolve(o, frames, &finals[1], NULL, physical, &nested):
            return False
        physical = nested.physical
        flags |= (nested.flags & 15) << 8
    if require_ram and pm_frame(d.mem, physical) == NULL:
        return False
    out.pa[i] = physical
    out.code[i] = 0
    out.shift[i] = finals[0].shift[own.kind]
    out.flags[i] = flags
    if out.detail != NULL:
        out.detail[i].entry = own.leaf
        out.detail[i].gpa = own.physical
        out.detail[i].nested_entry = nested.leaf if o != NULL else 0
        out.detail[i].nested_shift = finals[1].shift[nested.kind] if o != NULL else 0
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


cdef uint64_t translate_batch(
    dimension_t *d, const uint64_t *vas, uint64_t n, uint32_t access, const batch_t *out,
    bint stop, bint require_ram
) noexcept nogil:
    """Translate n addresses; with `stop`, up to and including the first fault. Returns how many.

    Each element goes through the cheapest of three ways that settles it: memo, tables, walk.
    """
    cdef request_t finals[2]        # the access itself, by dimension
    cdef request_t tables[2]        # reads of the tables of the dimension before
    cdef dimension_t *o = d
    cdef uint64_t i = 0, filled = 0
    cdef int depth = 0
    cdef bint short_form = True, remembered
    cdef frames_t frames = frames_of(d.mem)
    while o != NULL:
        memo_check(o)
        if depth < 2:
            short_form = prepare(o, access, &finals[depth]) and short_form
            short_form = prepare(o, o.table_access, &tables[depth]) and short_form
        depth += 1
        o = o.outer
    # three dimensions always walk: the short forms know of one that serves another
    short_form = short_form and depth <= 2
    remembered = (short_form and d.memo != NULL and not d.is_ept and out.detail == NULL
                  and not require_ram)
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
