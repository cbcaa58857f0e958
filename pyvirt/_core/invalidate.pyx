"""Dropping cached translations: a selector says which, and the arrays of a core are swept.

A sweep of all arrays of a core looks at every entry, some thousands in a real processor's; an
address narrows it to the sets that can hold it.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from pyvirt._core.cache cimport cache_drop, cache_set, cache_slot, cache_t
from pyvirt._core.contexts cimport (
    CONTEXT_COMBINED,
    CONTEXT_GLOBAL,
    CONTEXT_HOST,
    context_t,
)
from pyvirt._core.paging cimport dimension_t
from pyvirt._core.state cimport (
    OWN_4M,
    VALUE_OWN_SHIFT,
    WALKCACHE_NONE,
    WALKCACHE_PAGE_TABLE,
    WALKCACHE_PATH,
    core_t,
    mmu_t,
    run_t,
    walkcache_t,
)


cdef inline bint matches(const mmu_t *m, const selector_t *s, uint64_t low) noexcept nogil:
    """Whether the context in bits 18:3 is among those selected."""
    cdef const context_t *c = &m.contexts.items[low >> 3 & 0xFFFF]
    if c.flags & CONTEXT_HOST:
        return s.any_ep4ta or c.ep4ta == s.ep4ta
    if not s.any_vpid and c.vpid != s.vpid or s.but_vpid_0 and c.vpid == 0:
        return False
    if c.flags & CONTEXT_GLOBAL:
        if not s.globals:
            return False
    elif not s.any_pcid and c.pcid != s.pcid:
        return False
    if c.flags & CONTEXT_COMBINED:
        return s.any_ep4ta or c.ep4ta == s.ep4ta
    return not s.combined_only


cdef uint64_t sweep(mmu_t *m, cache_t *c, const selector_t *s, bint in_second) noexcept nogil:
    """Every entry of an array whose context is selected."""
    cdef uint64_t slot, dropped = 0, last = <uint64_t>c.sets * c.stride
    if c.state.valid == 0:
        return 0
    for slot in range(last):
        if c.tags[slot] and matches(m, s, c.second[slot] if in_second else c.tags[slot]):
            cache_drop(c, slot)
            dropped += 1
    return dropped


cdef uint64_t sweep_pages(
    mmu_t *m, cache_t *c, const selector_t *s, uint64_t address
) noexcept nogil:
    """The entries whose page holds an address, of any size."""
    cdef int size
    cdef uint32_t way
    cdef uint64_t first, number, dropped = 0
    for size in range(3):
        if c.state.present[size] == 0:
            continue
        if size == 0 and <uint64_t>(<int64_t>(address << 7) >> 7) != address:
            continue                # a tag has 57 bits: no page of 4 KiB can be there
        number = address >> (12 + 9 * size)
        first = cache_slot(c, cache_set(c, number), 0)
        for way in range(c.ways):
            if (c.tags[first + way] & ~<uint64_t>0x7FFF8
                    == (number << 19 | <uint64_t>size << 1 | 1)
                    and matches(m, s, c.tags[first + way])):
                cache_drop(c, first + way)
                dropped += 1
    return dropped


cdef uint64_t sweep_pieces(
    mmu_t *m, cache_t *c, const selector_t *s, uint64_t address
) noexcept nogil:
    """The entries that are parts of the page, in the vCPU's own tables, that holds an address.

    SDM 5.10.4.1 (formerly 4.10.4.1): where a page has several entries, INVLPG drops them all.
    """
    cdef uint64_t slot, tag, page, dropped = 0, last = <uint64_t>c.sets * c.stride
    cdef int shift, size
    for slot in range(last):
        tag = c.tags[slot]
        if tag == 0:
            continue
        size = 12 + 9 * <int>(tag >> 1 & 3)
        shift = <int>(c.values[slot] >> VALUE_OWN_SHIFT & 3)
        shift = 22 if shift == OWN_4M else 12 + 9 * shift
        page = tag >> 19 << size
        if size == 12:
            page = <uint64_t>(<int64_t>(page << 7) >> 7)    # a tag has 57 bits of an address
        if (page ^ address) >> max(shift, size) == 0 and matches(m, s, tag):
            cache_drop(c, slot)
            dropped += 1
    return dropped


cdef uint64_t sweep_regions(
    mmu_t *m, walkcache_t *w, const dimension_t *d, const selector_t *s, uint64_t address
) noexcept nogil:
    """The entries of a walk cache that would serve an address."""
    cdef cache_t *c
    cdef int level
    cdef uint32_t way, depth
    cdef uint64_t first, number, dropped = 0
    if w.kind == WALKCACHE_PATH:
        c = &w.level[0]
        for way in range(c.ways):
            depth = <uint32_t>(c.tags[way] >> 1 & 3) + 2
            if (c.tags[way] and path_shares(d, c, way, depth, address)
                    and matches(m, s, c.tags[way])):
                cache_drop(c, way)
                dropped += 1
        return dropped
    for level in range(2, d.levels + 1):
        if not w.has[level]:
            continue
        c = &w.level[level]
        number = address >> d.level[level].shift
        first = cache_slot(c, cache_set(c, number), 0)
        for way in range(c.ways):
            if (c.tags[first + way] & ~<uint64_t>0x7FFF8 == (number << 19 | 1)
                    and matches(m, s, c.tags[first + way])):
                cache_drop(c, first + way)
                dropped += 1
    return dropped


cdef inline bint path_shares(
    const dimension_t *d, const cache_t *c, uint32_t way, uint32_t depth, uint64_t address
) noexcept nogil:
    """Whether a path would serve the address at some level, the top one at least."""
    return (c.tags[way] >> 19 << d.level[depth].shift >> d.level[d.levels].shift
            == address >> d.level[d.levels].shift)


cdef uint64_t drop_regions(
    mmu_t *m, walkcache_t *w, const dimension_t *d, const selector_t *s, bint by_address
) noexcept nogil:
    cdef uint64_t dropped = 0
    cdef int level
    if w.kind == WALKCACHE_NONE:
        return 0
    if w.kind == WALKCACHE_PAGE_TABLE:
        # tagged by physical address: which ones serve a virtual address it cannot tell
        return sweep(m, &w.level[0], s, True)
    if by_address:
        return sweep_regions(m, w, d, s, s.address)
    if w.kind == WALKCACHE_PATH:
        return sweep(m, &w.level[0], s, False)
    for level in range(2, 6):
        if w.has[level]:
            dropped += sweep(m, &w.level[level], s, False)
    return dropped


cdef void drop(
    mmu_t *m, core_t *core, const dimension_t *guest, const dimension_t *host,
    const selector_t *s
) noexcept nogil:
    """Drop from one core what a selector describes; the dimensions say how wide regions are."""
    cdef int i
    if s.what & DROP_TLB:
        for i in range(m.plan.tlbs):
            if not s.by_address:
                core.counters.dropped[0] += sweep(m, &core.tlb[i], s, False)
            elif m.pieces:
                core.counters.dropped[0] += sweep_pieces(m, &core.tlb[i], s, s.address)
            else:
                core.counters.dropped[0] += sweep_pages(m, &core.tlb[i], s, s.address)
    if s.what & DROP_GUEST_CACHE:
        core.counters.dropped[1] += drop_regions(m, &core.guest, guest, s, s.by_address)
    if s.what & DROP_NESTED_TLB and m.plan.has_nested:
        core.counters.dropped[2] += (
            sweep_pages(m, &core.nested, s, s.address) if s.by_address
            else sweep(m, &core.nested, s, False))
    if s.what & DROP_HOST_CACHE:
        core.counters.dropped[3] += drop_regions(m, &core.host, host, s, s.by_address)


cdef void drop_for_page_fault(run_t *x, uint64_t va) noexcept nogil:
    """What served the address that faulted (SDM vol. 3, 5.10.4.1), in the current context."""
    cdef selector_t s
    memset(&s, 0, sizeof(selector_t))
    s.what = DROP_TLB | DROP_GUEST_CACHE
    s.vpid = x.v.vpid
    s.pcid = x.v.pcid
    s.globals = True
    s.ep4ta = x.v.ep4ta
    s.by_address = True
    s.address = va
    drop(x.m, x.core, &x.v.guest, &x.v.host, &s)


cdef void drop_for_violation(run_t *x, uint64_t va, uint64_t gpa) noexcept nogil:
    """What served the two addresses (SDM vol. 3, 30.4.3.1), in the current contexts."""
    cdef selector_t s
    drop_for_page_fault(x, va)
    memset(&s, 0, sizeof(selector_t))
    s.what = DROP_NESTED_TLB | DROP_HOST_CACHE
    s.ep4ta = x.v.ep4ta
    s.by_address = True
    s.address = gpa
    drop(x.m, x.core, &x.v.guest, &x.v.host, &s)
