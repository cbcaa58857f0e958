"""Walks of agile translation: from shadow tables into the guest's own.

Gandhi, Hill and Swift, "Agile Paging: Exceeding the Best of Nested and Shadow Paging" (ISCA 2016):
a walk begins in the hypervisor's shadow tables. An entry there with a switching bit holds the place
in the host of the guest's next table; from that table on the walk is nested. With n levels, m nested
ones and the last k of the guest's in the guest's own tables it reads n + k * m entries, and m more
if even the place of the root has to be looked up.

An entry of a walk cache says where it leads: into a shadow table, into a guest's table by a
switching entry, or into one by an entry of the guest's, and then where that lies guest-physically.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from pyvirt._core.frames cimport PM_OK, load_u64, pm_frame, pm_status, pm_writable
from pyvirt._core.paging cimport (
    ACCESS_LINEAR,
    ACCESS_READ,
    ACCESS_TABLE,
    ACCESS_WRITE,
    FAULT_NO_MEMORY,
    FAULT_NON_CANONICAL,
    FAULT_NONE,
    FAULT_NOT_PRESENT,
    FAULT_OUTSIDE_TABLE,
    dimension_t,
    failed,
    in_range,
    judge,
    walk_t,
)
from pyvirt._core.state cimport (
    AGILE_NESTED,
    AGILE_ROOT,
    AGILE_SWITCH,
    WALKCACHE_NONE,
    WALKCACHE_PAGE_TABLE,
    run_t,
    walkcache_t,
)
from pyvirt._core.types cimport PAGE_OFFSET
from pyvirt._core.walkcache cimport (
    path_t,
    walkcache_entry,
    walkcache_find,
    walkcache_keep,
    walkcache_store,
)
from pyvirt._core.walks cimport (
    count_reference,
    host_t,
    mark_path,
    translate_host,
    walk_dimension,
    walk_guest,
)

cdef enum:
    # the second word of a walk cache's entry, where it is no guest-physical address
    TO_SHADOW = 1
    BY_SWITCH = 2
    PS = 0x80
    ALL_RIGHTS = 0x67               # P, W, U, A and D: what nested tables would have to say

cdef uint64_t ALL = 0xFFFFFFFFFFFFFFFFULL
cdef uint64_t ADDRESS = 0x000FFFFFFFFFF000ULL


cdef uint16_t go_on_nested(
    run_t *x, uint64_t va, uint32_t access, int first, int level, uint64_t base, uint64_t direct,
    bint known, uint64_t rights, const path_t *path, walk_t *w, host_t *last
) noexcept nogil:
    """Walk on in the guest's table of `level`, where the shadow tables or a walk cache led.

    `first` is the highest level whose entry this walk has read, or below it.
    """
    cdef int n
    x.in_shadow = False
    x.rest.first = <signed char>first
    x.rest.level = <signed char>level
    x.rest.base = base
    x.rest.direct = direct
    x.rest.known = known
    x.rest.rights = rights
    x.rest.refs = x.refs
    for n in range(level + 1, x.v.guest.levels + 1):
        x.rest.next[n] = path.value[n]
        x.rest.second[n] = path.second[n]
    return walk_dimension(x, &x.v.guest, False, va, access, w, last)


cdef uint16_t set_guests(run_t *x, uint64_t va, uint32_t access, walk_t *w) noexcept nogil:
    """Set A and D in the guest's own tables, for a shadow leaf that gets them: one more walk.

    The tables may be write-protected, which is nothing to these writes.
    """
    cdef dimension_t *d = &x.v.guest
    cdef uint64_t base = d.root, slot, entry, wanted
    cdef int level = d.levels
    cdef host_t place
    cdef pm_status status
    cdef uint16_t code
    cdef uint8_t *frame
    cdef bint leaf
    while True:
        slot = base | (va >> d.level[level].shift & d.level[level].index_mask) << 3
        code = translate_host(x, slot, ACCESS_READ | ACCESS_TABLE | ACCESS_LINEAR, level, &place, w)
        if code:
            x.in_shadow = False
            return code
        frame = pm_writable(d.mem, place.pa, &status)
        if status != PM_OK:
            return (FAULT_OUTSIDE_TABLE if frame == NULL else FAULT_NO_MEMORY) | level << 4
        frame += place.pa & PAGE_OFFSET
        entry = load_u64(frame)
        count_reference(x, False, level, place.pa)
        if entry & d.present == 0:
            x.in_shadow = False
            return failed(d, FAULT_NOT_PRESENT, level, 0, access, w)
        leaf = level == 1 or (d.level[level].may_map and entry & PS)
        wanted = d.accessed | (d.dirty if leaf and access & ACCESS_WRITE else 0)
        if wanted & ~entry:
            x.counters.guest_a_set += wanted & ~entry & d.accessed != 0
            x.counters.guest_d_set += wanted & ~entry & d.dirty != 0
            entry |= wanted
            d.mem.version += 1
            memcpy(frame, &entry, 8)
        if leaf:
            return FAULT_NONE
        base = entry & d.table_address
        level -= 1


cdef uint16_t walk_agile(
    run_t *x, uint64_t va, uint32_t access, walk_t *w, host_t *last
) noexcept nogil:
    """A linear address through shadow tables and, from a switching entry on, the guest's."""
    cdef dimension_t *d = &x.v.shadow
    cdef walkcache_t *cache = &x.core.guest
    cdef uint64_t slots[6]
    cdef uint64_t entries[6]
    cdef path_t path
    cdef uint64_t base = d.root, entry, rights_and = ALL, rights_or = 0
    cdef int level = d.levels, first, found = 0
    cdef uint32_t from_cache = 0
    cdef bint by_address = cache.kind == WALKCACHE_PAGE_TABLE, leaf, known
    cdef const uint8_t *frame
    cdef uint16_t code
    x.switched = 0
    x.in_shadow = True
    if x.v.agile == AGILE_NESTED:
        x.in_shadow = False
        return walk_guest(x, va, access, w, last)
    memset(w, 0, sizeof(walk_t))
    if not in_range(d, va):
        return failed(d, FAULT_NON_CANONICAL, 0, 0, access, w)
    if cache.kind != WALKCACHE_NONE and not by_address:
        found = walkcache_find(cache, d, va, x.guest_low, &path)
    if found:
        x.counters.guest_cache_hits[found] += 1
        level = found - 1
        base = path.value[found] & ADDRESS
        rights_and = path.value[found] | ~d.rights_and
        rights_or = path.value[found] & d.rights_or
        if path.second[found] != TO_SHADOW:
            known = cache.to_host
            if path.second[found] == BY_SWITCH:
                x.switched = level
                known = True
            elif known:
                base = path.second[found]
            return go_on_nested(x, va, access, level, level, base, path.value[found] & ADDRESS,
                                known, path.value[found] & ~ADDRESS, &path, w, last)
    elif x.v.agile == AGILE_ROOT:
        x.switched = level
        return go_on_nested(x, va, access, level, level, x.v.guest.root, x.v.guest.root, True,
                            d.rights_and, &path, w, last)
    first = level
    while True:
        slots[level] = base | (va >> d.level[level].shift & d.level[level].index_mask) << 3
        if by_address and level > 1 and walkcache_entry(cache, slots[level], x.guest_low, &entry):
            from_cache |= 1 << level
            x.counters.guest_cache_hits[level] += 1
        else:
            frame = pm_frame(d.mem, slots[level])
            if frame == NULL:
                return failed(d, FAULT_OUTSIDE_TABLE, level, 0, access, w)
            entry = load_u64(frame + (slots[level] & PAGE_OFFSET))
            count_reference(x, False, level, slots[level])
        w.entry = entries[level] = entry
        if entry & d.present == 0:
            return failed(d, FAULT_NOT_PRESENT, level, 0, access, w)
        leaf = level == 1 or entry & PS
        if leaf:
            break
        if by_address and not from_cache >> level & 1:
            walkcache_keep(cache, slots[level], x.guest_low, entry)
        rights_and &= entry | ~d.rights_and
        rights_or |= entry & d.rights_or
        base = entry & d.table_address
        path.value[level] = base | (rights_and & d.rights_and) | rights_or
        path.second[level] = BY_SWITCH if entry & AGILE_SWITCH else TO_SHADOW
        level -= 1
        if entry & AGILE_SWITCH:
            x.switched = level
            return go_on_nested(x, va, access, level if by_address else first, level, base, base,
                                True, path.value[level + 1] & ~ADDRESS, &path, w, last)

    w.rights = entry & rights_and | rights_or
    w.shift = w.smallest = d.level[level].shift
    code = judge(d, w.rights, access)
    if code:
        return failed(d, code, level, w.rights, access, w)
    if x.v.agile_ad and (d.accessed | (d.dirty if access & ACCESS_WRITE else 0)) & ~entry:
        code = set_guests(x, va, access, w)
        if code:
            return code
    code = mark_path(x, d, False, va, slots, entries, from_cache, first, level, access, w)
    if code:
        return code
    w.rights |= entries[level] & (d.accessed | d.dirty)
    w.gpa = w.pa = entry & d.level[level].leaf_address | va & d.level[level].offset
    last.pa = w.pa
    last.rights = ALL_RIGHTS
    last.shift = w.shift
    if not by_address and cache.kind != WALKCACHE_NONE and first > level:
        walkcache_store(cache, d, va, x.guest_low, &path, d.levels, first, level + 1)
    return FAULT_NONE
