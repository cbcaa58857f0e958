"""The arrays of an MMU: which ones a geometry asks for, and where they lie in the arena.

One piece of memory, the arena, holds all arrays of all cores, so that its bytes are their state.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memset

from pyvirt._core.cache cimport cache_clear, cache_describe, cache_place, cache_t
from pyvirt._core.state cimport (
    MODE_NESTED,
    MODE_TLB_ONLY,
    WALKCACHE_PAGE_TABLE,
    WALKCACHE_PATH,
    WALKCACHE_SPLIT,
    core_t,
    mmu_t,
    plan_t,
    walkcache_t,
)

_PAGES = ("4K", "2M", "1G")
_KIND_NAMES = ("fetch", "load", "store")
_WALKCACHES = {"split": WALKCACHE_SPLIT, "page-table": WALKCACHE_PAGE_TABLE,
               "path": WALKCACHE_PATH}


# --- what there is ----------------------------------------------------------------------------

cdef object describe_plan(plan_t *plan, object geometry):
    """Which TLB arrays serve whom, from a checked `pyvirt.mmu.geometry.Geometry`."""
    cdef int i, k, size, smaller, level
    plan.tlbs = len(geometry.tlbs)
    plan.levels = geometry.levels
    plan.inclusive = geometry.inclusive
    for i in range(plan.tlbs):
        array = geometry.tlbs[i]
        level = array.level
        plan.level_of[i] = <uint8_t>level
        for size in range(3):
            plan.takes[i][size] = 3
            if _PAGES[size] in array.pages:
                plan.pages[i] |= 1 << size
                plan.takes[i][size] = <uint8_t>size
            elif array.smash:
                plan.smashes = True
                for smaller in range(size):
                    if _PAGES[smaller] in array.pages:
                        plan.takes[i][size] = <uint8_t>smaller
        for k in range(3):
            if _KIND_NAMES[k] in array.serves:
                plan.index[k][level][plan.count[k][level]] = <uint8_t>i
                plan.count[k][level] += 1


cdef object describe_walkcache(walkcache_t *c, object spec, bint to_host):
    """Geometry of a checked `pyvirt.mmu.geometry.WalkCache`, or none."""
    if spec is None:
        return
    c.kind = _WALKCACHES[spec.kind]
    c.to_host = to_host and c.kind != WALKCACHE_PAGE_TABLE
    if c.kind == WALKCACHE_SPLIT:
        for level, cache in spec.levels.items():
            c.has[<int>level] = True
            cache_describe(&c.level[<int>level], cache)
    else:
        c.has[0] = True
        cache_describe(&c.level[0], spec.cache)


cdef object describe_core(const mmu_t *m, core_t *core, object geometry):
    """Geometry of one core's arrays, as far as the mode of translation uses them."""
    cdef int i
    for i in range(m.plan.tlbs):
        cache_describe(&core.tlb[i], geometry.tlbs[i].cache)
    if m.mode != MODE_TLB_ONLY:
        describe_walkcache(&core.guest, geometry.guest,
                           m.mode == MODE_NESTED and geometry.guest_points_to == "host")
    if m.mode == MODE_NESTED:
        describe_walkcache(&core.host, geometry.host, False)
    if m.plan.has_nested:
        cache_describe(&core.nested, geometry.nested_tlb)


cdef object layout_describe(mmu_t *m, object geometry, object data_cache):
    """The plan, and the geometry of the arrays of all cores and of the data caches."""
    cdef int i
    describe_plan(&m.plan, geometry)
    m.plan.has_nested = geometry.nested_tlb is not None and m.mode == MODE_NESTED
    for i in range(m.core_count):
        describe_core(m, &m.cores[i], geometry)
    m.data_levels = len(data_cache)
    m.data_first = 3 - m.data_levels
    for i in range(m.data_levels):
        cache_describe(&m.data[m.data_first + i], data_cache[i])


# --- where it lies ----------------------------------------------------------------------------

cdef uint64_t place_walkcache(walkcache_t *c, char *arena, uint64_t offset) noexcept nogil:
    cdef int level
    for level in range(6):
        if c.has[level]:
            offset = cache_place(&c.level[level], arena, offset, True, False)
    if c.kind == WALKCACHE_PATH:
        if arena != NULL:
            c.paths = <uint64_t *>(arena + offset)
        offset += (<uint64_t>c.level[0].stride * 8 * 8 + 63) & ~<uint64_t>63
    return offset


cdef uint64_t place_core(mmu_t *m, core_t *core, char *arena, uint64_t offset) noexcept nogil:
    cdef int i
    for i in range(m.plan.tlbs):
        offset = cache_place(&core.tlb[i], arena, offset, False, True)
    offset = place_walkcache(&core.guest, arena, offset)
    offset = place_walkcache(&core.host, arena, offset)
    if m.plan.has_nested:
        offset = cache_place(&core.nested, arena, offset, False, True)
    if arena != NULL:
        core.turns = <uint64_t *>(arena + offset)
    return offset + 64


cdef uint64_t layout_place(mmu_t *m, char *arena) noexcept nogil:
    """Point every array into the arena; with a NULL arena only find how much they take."""
    cdef uint64_t offset = 0
    cdef int i
    for i in range(m.core_count):
        offset = place_core(m, &m.cores[i], arena, offset)
    for i in range(m.data_first, 3):
        offset = cache_place(&m.data[i], arena, offset, False, False)
    return offset


# --- one by one -------------------------------------------------------------------------------

cdef list layout_arrays(mmu_t *m, int core, object geometry):
    """(name, level of a walk cache's entries, address of the cache_t) of a core's arrays."""
    cdef core_t *c = &m.cores[core]
    cdef int i
    found = [(geometry.tlbs[i].name, 0, <uint64_t>&c.tlb[i]) for i in range(m.plan.tlbs)]
    for i in range(6):
        if c.guest.has[i]:
            found.append((f"guest-{i}" if i else "guest", i, <uint64_t>&c.guest.level[i]))
    for i in range(6):
        if c.host.has[i]:
            found.append((f"host-{i}" if i else "host", i, <uint64_t>&c.host.level[i]))
    if m.plan.has_nested:
        found.append(("nested-tlb", 0, <uint64_t>&c.nested))
    return found


cdef object layout_clear(mmu_t *m, object geometry, object seeds):
    """Power on: every array empty, each with its seed."""
    cdef int i, n = 0
    cdef uint64_t address
    memset(arena_start(m), 0, m.arena_size)
    for i in range(m.core_count):
        for _, _, address in layout_arrays(m, i, geometry):
            cache_clear(<cache_t *>address, seeds[n])
            n += 1
    for i in range(m.data_first, 3):
        cache_clear(&m.data[i], seeds[n])
        n += 1
