"""Walks through the caches of a core: what `pyvirt._core.paging.walk` does without any.

Both dimensions take the same steps; the guest's differs in that each of its addresses is
guest-physical, and goes through the nested TLB or a walk of the nested tables first. Rules: SDM
vol. 3, 5.10 and 30.4 (4.10 and 28.3 in older editions); AMD APM vol. 2, 15.25; where the manuals
leave a choice, the choice made is in the documentation of `pyvirt.MMU`.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from pyvirt._core.cache cimport (
    cache_find,
    cache_set,
    cache_slot,
    cache_t,
)
from pyvirt._core.frames cimport PM_OK, load_u64, pm_frame, pm_status, pm_writable
from pyvirt._core.nestedwalk cimport nested_t
from pyvirt._core.paging cimport (
    ACCESS_EXEC,
    ACCESS_LINEAR,
    ACCESS_READ,
    ACCESS_TABLE,
    ACCESS_USER,
    ACCESS_WRITE,
    FAULT_MISCONFIGURED,
    FAULT_NO_MEMORY,
    FAULT_NON_CANONICAL,
    FAULT_NONE,
    FAULT_NOT_PRESENT,
    FAULT_OUTSIDE_TABLE,
    FAULT_RESERVED,
    FORMAT_X86_32,
    dimension_t,
    ept_malformed,
    failed,
    in_range,
    judge,
    level_t,
    walk_t,
)
from pyvirt._core.policies cimport put, touch
from pyvirt._core.shortwalk cimport (
    ask_t,
    shortwalk,
    shortwalk_ask,
    shortwalk_caches,
    shortwalk_loops,
    shortwalk_t,
    shortwalk_tables,
)
from pyvirt._core.state cimport (
    PML_ENTRIES,
    SHORT_NO,
    SHORT_UNKNOWN,
    SHORT_YES,
    WALKCACHE_NONE,
    WALKCACHE_PAGE_TABLE,
    WALKCACHE_SPLIT,
    run_t,
    walkcache_t,
)
from pyvirt._core.tlb cimport size_of_shift, size_shift, tag_of
from pyvirt._core.types cimport PAGE_OFFSET
from pyvirt._core.walkcache cimport (
    path_t,
    walkcache_entry,
    walkcache_find,
    walkcache_keep,
    walkcache_store,
)

cdef enum:
    X86_U = 4
    PS = 0x80

cdef uint64_t ALL = 0xFFFFFFFFFFFFFFFFULL
cdef uint64_t ADDRESS = 0x000FFFFFFFFFF000ULL
cdef uint64_t NX = <uint64_t>1 << 63


# --- A and D ----------------------------------------------------------------------------------

cdef void log_dirty(run_t *x, uint64_t gpa) noexcept nogil:
    """Page-modification logging (SDM 30.3.6): a full log is a VM exit, which empties it."""
    if x.v.pml_count == PML_ENTRIES:
        x.counters.pml_full += 1
        x.v.pml_count = 0
    x.v.pml[x.v.pml_count] = gpa & ~<uint64_t>PAGE_OFFSET
    x.v.pml_count += 1
    x.counters.pml_entries += 1


cdef uint16_t mark(
    run_t *x, dimension_t *d, bint host, uint64_t slot, uint64_t wanted, uint8_t level, walk_t *w
) noexcept nogil:
    """Set A or D bits in the entry at `slot`, itself a write in the next dimension out."""
    cdef host_t place
    cdef uint16_t code
    cdef pm_status status
    cdef uint8_t *frame
    cdef uint64_t word
    place.pa = slot
    if d.outer != NULL and level != x.switched:
        # a check of rights: the processor knows the host address, from reading the entry
        x.marking = True
        code = translate_host(x, slot, ACCESS_WRITE | ACCESS_TABLE | ACCESS_LINEAR, level, &place,
                              w)
        x.marking = False
        if code:
            return code
    frame = pm_writable(d.mem, place.pa, &status)
    if status != PM_OK:
        return FAULT_NO_MEMORY | <uint16_t>level << 4
    frame += place.pa & PAGE_OFFSET
    d.mem.version += 1
    if d.entry_shift == 3:
        word = load_u64(frame) | wanted
        memcpy(frame, &word, 8)
    else:
        frame[0] |= <uint8_t>wanted     # A and D are in the low byte
    return FAULT_NONE


cdef uint16_t mark_path(
    run_t *x, dimension_t *d, bint host, uint64_t address, const uint64_t *slots,
    uint64_t *entries, uint32_t from_cache, int first, int leaf, uint32_t access, walk_t *w
) noexcept nogil:
    """A in every entry that was read, D in the leaf for a write (SDM 5.8, 30.3.5)."""
    cdef int n
    cdef uint64_t wanted, lacking
    cdef uint16_t code
    for n in range(first, leaf - 1, -1):
        if not d.level[n].has_rights or from_cache >> n & 1:
            continue
        wanted = d.accessed
        if n == leaf and access & ACCESS_WRITE:
            wanted |= d.dirty
        lacking = wanted & ~entries[n]
        if lacking == 0:
            continue
        code = mark(x, d, host, slots[n], wanted, <uint8_t>n, w)
        if code:
            return code
        entries[n] |= wanted
        if host:
            x.counters.host_a_set += lacking & d.accessed != 0
            if lacking & d.dirty:
                x.counters.host_d_set += 1
                if x.m.pml and d.is_ept:
                    log_dirty(x, address)
        else:
            x.counters.guest_a_set += lacking & d.accessed != 0
            x.counters.guest_d_set += lacking & d.dirty != 0
    return FAULT_NONE


# --- one dimension ----------------------------------------------------------------------------

cdef uint16_t walk_dimension(
    run_t *x, dimension_t *d, bint host, uint64_t address, uint32_t access, walk_t *w,
    host_t *last
) noexcept nogil:
    """Translate one address through the tables of d, and of the next dimension if there is one."""
    cdef walkcache_t *cache = &x.core.host if host else &x.core.guest
    cdef uint64_t low = x.host_low if host else x.guest_low
    cdef uint64_t slots[6]
    cdef uint64_t entries[6]
    cdef uint64_t pas[6]
    cdef path_t path
    cdef uint64_t base = d.root, entry, rights_and = ALL, rights_or = 0, direct = 0
    cdef uint32_t from_cache = 0, tables = 0
    cdef int first = d.levels, level, found, n
    cdef bint leaf, known = False, resumed = False
    cdef const uint8_t *frame
    cdef const level_t *rules
    cdef uint16_t code
    cdef host_t place
    memset(w, 0, sizeof(walk_t))
    if not in_range(d, address):
        return failed(d, FAULT_NON_CANONICAL, d.levels if host else 0, 0, access, w)
    if not host and x.rest.first:
        first = x.rest.first
        level = x.rest.level
        base = x.rest.base
        rights_and = x.rest.rights | ~d.rights_and
        rights_or = x.rest.rights & d.rights_or
        direct = x.rest.direct
        known = x.rest.known
        x.refs = x.rest.refs
        for n in range(level + 1, d.levels + 1):
            path.value[n] = x.rest.next[n]
            path.second[n] = x.rest.second[n]
            pas[n - 1] = x.rest.next[n] & ADDRESS
            entries[n] = ALL        # nothing to set in them
        x.rest.first = 0
        resumed = True
    elif cache.kind != WALKCACHE_NONE and cache.kind != WALKCACHE_PAGE_TABLE:
        found = walkcache_find(cache, d, address, low, &path)
        if found:
            first = found - 1
            base = path.value[found] & ADDRESS
            rights_and = path.value[found] | ~d.rights_and
            rights_or = path.value[found] & d.rights_or
            if cache.to_host:
                direct = base
                known = True
                base = path.second[found]
            if host:
                x.counters.host_cache_hits[found] += 1
            else:
                x.counters.guest_cache_hits[found] += 1
    if d.outer != NULL:
        tables = d.outer.table_access | ACCESS_TABLE | ACCESS_LINEAR
    if not resumed:
        level = first
    while True:
        rules = &d.level[level]
        slots[level] = base | (address >> rules.shift & rules.index_mask) << d.entry_shift
        if d.outer == NULL:
            pas[level] = slots[level]
        elif known:
            # a combined entry: the table's host address came with it
            pas[level] = direct | (slots[level] & PAGE_OFFSET)
            known = False
        else:
            code = translate_host(x, slots[level], tables, level, &place, w)
            if code:
                w.code = code
                return code
            pas[level] = place.pa
        if (cache.kind == WALKCACHE_PAGE_TABLE and level > 1
                and walkcache_entry(cache, pas[level], low, &entry)):
            from_cache |= 1 << level
            if host:
                x.counters.host_cache_hits[level] += 1
            else:
                x.counters.guest_cache_hits[level] += 1
        else:
            frame = pm_frame(d.mem, pas[level])
            if frame == NULL:
                return failed(d, FAULT_OUTSIDE_TABLE, level, 0, access, w)
            frame += pas[level] & PAGE_OFFSET
            if d.entry_shift == 3:
                entry = load_u64(frame)
            else:
                entry = 0
                memcpy(&entry, frame, 4)
            count_reference(x, host, level, pas[level])
        w.entry = entries[level] = entry
        leaf = level == 1 or (rules.may_map and entry & PS)
        if entry & d.present == 0:
            return failed(d, FAULT_NOT_PRESENT, level, 0, access, w)
        if d.is_ept and ept_malformed(d, entry, leaf):
            return failed(d, FAULT_MISCONFIGURED, level, 0, access, w)
        if entry & (rules.leaf_reserved if leaf else rules.table_reserved):
            return failed(d, FAULT_MISCONFIGURED if d.is_ept else FAULT_RESERVED, level, 0,
                          access, w)
        if leaf:
            break
        if rules.has_rights:
            rights_and &= entry | ~d.rights_and
            rights_or |= entry & d.rights_or
        base = entry & d.table_address
        path.value[level] = base | (rights_and & d.rights_and) | rights_or
        path.second[level] = base if d.outer != NULL else 0
        level -= 1

    w.rights = entry & rights_and | rights_or
    w.shift = w.smallest = rules.shift
    code = judge(d, w.rights, access)
    if code:
        return failed(d, code, level, w.rights, access, w)
    if d.accessed:
        code = mark_path(x, d, host, address, slots, entries, from_cache, first, level, access, w)
        if code:
            w.code = code
            return code
        w.rights |= entries[level] & (d.accessed | d.dirty)

    w.gpa = entry & rules.leaf_address | address & rules.offset
    if d.format == FORMAT_X86_32 and level == 2:
        w.gpa |= (entry >> 13 & 255) << 32
    w.pa = w.gpa
    if d.outer != NULL:
        # whether the linear address is a user's is for the guest's own tables to say
        access &= ACCESS_READ | ACCESS_WRITE | ACCESS_EXEC
        access |= ACCESS_LINEAR | (ACCESS_USER if w.rights & X86_U else 0)
        code = translate_host(x, w.gpa, access, 0, last, w)
        if code:
            w.code = code
            return code
        w.pa = last.pa
        w.smallest = <uint8_t>min(<int>w.shift, last.shift)

    if first > level:
        if cache.kind == WALKCACHE_PAGE_TABLE:
            for n in range(first, level, -1):
                if not from_cache >> n & 1:
                    walkcache_keep(cache, pas[n], low,
                                   entries[n] | (d.accessed if d.level[n].has_rights else 0))
        elif cache.kind != WALKCACHE_NONE:
            if cache.to_host:
                for n in range(first, level, -1):
                    path.value[n] = path.value[n] & ~ADDRESS | (pas[n - 1] & ADDRESS)
            walkcache_store(cache, d, address, low, &path, d.levels, first, level + 1)
    return FAULT_NONE


# --- the host's dimension ---------------------------------------------------------------------

cdef inline bint serves(const dimension_t *d, uint64_t rights, uint32_t access) noexcept nogil:
    """Whether a nested mapping allows an access without a walk to set D."""
    if access & ACCESS_WRITE and rights & d.dirty != d.dirty:
        return False
    return judge(d, rights, access) == FAULT_NONE


cdef bint describe_host(shortwalk_t *h, run_t *x) noexcept nogil:
    """The nested tables, if they can be walked the short way."""
    if (x.m.buffer != NULL or x.core.host.kind != WALKCACHE_SPLIT or x.v.host.mbec
            or not shortwalk_tables(h, &x.v.host)
            or not shortwalk_caches(h, &x.v.host, x.core.host.level, x.core.host.has)):
        return False
    h.low = x.host_low
    h.cache_hits = x.counters.host_cache_hits
    h.level_refs = x.counters.host_refs
    return True


cdef bint walks_choose_nested(nested_t *t, run_t *x, uint32_t access) noexcept nogil:
    """Beside the guest's tables, all that a short walk of two dimensions needs; false if none can be."""
    cdef dimension_t *d = &x.v.host
    if d.sign_extended or not describe_host(&t.host, x):
        return False
    t.tlb = NULL
    if x.m.plan.has_nested:
        t.tlb = &x.core.nested
        if not shortwalk_loops(t.tlb):
            return False
    shortwalk_ask(&t.table, d, d.table_access)
    shortwalk_ask(&t.page, d, access)
    t.beyond = ~((<uint64_t>1 << d.address_bits) - 1)
    t.dirty = d.dirty
    t.host_nx = NX if d.nxe else 0
    t.ept = d.is_ept
    t.tlb_hits = &x.counters.nested_tlb_hits[0]
    t.host_walks = &x.counters.nested_walks
    t.rest = &x.rest
    return True


cdef void keep_nested(
    cache_t *c, uint64_t gpa, int size, uint64_t low, uint64_t value, bint fresh
) noexcept nogil:
    """Into the nested TLB, in the place of an entry for the same page if there is one.

    `fresh` says that there is none of any size.
    """
    cdef uint64_t tag = tag_of(gpa, size, low), evicted
    cdef uint32_t set = cache_set(c, gpa >> size_shift(size))
    cdef int way = -1 if fresh else cache_find(c, set, tag, tag)
    if way >= 0:
        c.values[cache_slot(c, set, way)] = value
        touch(c, set, way)
    else:
        put(c, set, tag, value, &evicted)


cdef uint16_t translate_host(
    run_t *x, uint64_t gpa, uint32_t access, int level, host_t *place, walk_t *w
) noexcept nogil:
    """A guest-physical address by the nested TLB or a walk.

    `level` is that of the guest's table which is accessed, 0 for the final address. A failure is
    described as seen from the guest's walk.
    """
    cdef dimension_t *d = &x.v.host
    cdef cache_t *c = &x.core.nested
    cdef walk_t o
    cdef ask_t ask
    cdef uint16_t code
    cdef uint64_t tag, slot, offset, value
    cdef uint32_t set = 0
    cdef unsigned int refs = 0
    cdef int size, way = -1
    if x.m.plan.has_nested:
        for size in range(3):
            if c.state.present[size] == 0:
                continue
            set = cache_set(c, gpa >> size_shift(size))
            tag = tag_of(gpa, size, x.host_low)
            way = cache_find(c, set, tag, tag)
            if way < 0:
                continue
            slot = cache_slot(c, set, way)
            # a wider address would alias a tag
            if serves(d, c.values[slot], access) and in_range(d, gpa):
                touch(c, set, way)
                x.counters.nested_tlb_hits[size] += 1
                offset = (<uint64_t>1 << size_shift(size)) - 1
                place.pa = (c.values[slot] & ADDRESS & ~offset) | (gpa & offset)
                place.rights = c.values[slot]
                place.shift = size_shift(size)
                return FAULT_NONE
            break
    x.counters.nested_walks += 1
    if x.short_host == SHORT_UNKNOWN:
        x.short_host = SHORT_YES if describe_host(&x.host, x) else SHORT_NO
    if x.short_host and not x.marking and in_range(d, gpa):
        shortwalk_ask(&ask, d, access)
        value = shortwalk(&x.host, gpa, &ask, &refs)
        if value:
            x.refs += refs
            place.pa = value & ADDRESS | (gpa & PAGE_OFFSET)
            place.rights = value & ~ADDRESS
            place.shift = 12
            if x.m.plan.has_nested:
                keep_nested(c, gpa, 0, x.host_low, value, way < 0)
            return FAULT_NONE
    code = walk_dimension(x, d, True, gpa, access, &o, NULL)
    if code:
        w.gpa = gpa
        w.error = o.error
        w.nested_entry = o.entry
        return (code & 0x7F) | 1 << 7 | <uint16_t>(level << 10)
    place.pa = o.pa
    place.rights = o.rights & ~ADDRESS
    place.shift = o.shift
    if x.m.plan.has_nested:
        size = size_of_shift(o.shift)
        offset = (<uint64_t>1 << size_shift(size)) - 1
        keep_nested(c, gpa, size, x.host_low, place.rights | (o.pa & ~offset), way < 0)
    return FAULT_NONE


cdef uint16_t walk_guest(
    run_t *x, uint64_t va, uint32_t access, walk_t *w, host_t *last
) noexcept nogil:
    """A linear address through the current tables."""
    return walk_dimension(x, &x.v.guest, False, va, access, w, last)


cdef uint16_t walk_real(
    run_t *x, uint64_t gpa, uint32_t access, walk_t *w, host_t *last
) noexcept nogil:
    """A linear address with the guest's paging off: it is guest-physical."""
    memset(w, 0, sizeof(walk_t))
    w.code = translate_host(x, gpa, access, 0, last, w)
    w.pa = last.pa
    w.shift = w.smallest = <uint8_t>last.shift
    return w.code
