"""TLBs: several levels of arrays, each for some kinds of access and some page sizes.

An access looks the arrays up level by level; a page found, or walked for, is then put into all
levels before. How the levels and arrays of real processors are laid out is data: see
`pyvirt.mmu.geometry`.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyvirt._core.cache cimport (
    cache_drop,
    cache_find,
    cache_set,
    cache_slot,
    cache_t,
)
from pyvirt._core.policies cimport put, touch
from pyvirt._core.state cimport core_t, plan_t

cdef enum:
    NOT_TAKEN = 3


cdef bint tlb_find(
    const plan_t *plan, core_t *core, int kind, uint64_t va, uint64_t low, uint64_t global_low,
    found_t *found
) noexcept nogil:
    """The first entry for va in look-up order: by level, by array, by size."""
    cdef int level, i, size
    cdef cache_t *c
    for level in range(1, plan.levels + 1):
        for i in range(plan.count[kind][level]):
            found.array = plan.index[kind][level][i]
            c = &core.tlb[found.array]
            for size in range(3):
                if c.state.present[size] == 0:
                    continue
                found.set = cache_set(c, va >> size_shift(size))
                found.way = cache_find(c, found.set, tag_of(va, size, low),
                                       tag_of(va, size, global_low))
                if found.way >= 0:
                    found.slot = cache_slot(c, found.set, found.way)
                    found.value = c.values[found.slot]
                    found.level = level
                    found.size = size
                    return True
    return False


cdef uint64_t tlb_others(
    const plan_t *plan, const core_t *core, int kind, int first, int second
) noexcept nogil:
    """Entries that serve a kind but are not 4 KiB pages of the two arrays."""
    cdef int level, i, array
    cdef uint64_t n = 0
    for level in range(1, plan.levels + 1):
        for i in range(plan.count[kind][level]):
            array = plan.index[kind][level][i]
            n += core.tlb[array].state.valid
            if array == first or array == second:
                n -= core.tlb[array].state.present[0]
    return n


cdef void drop_inner(const plan_t *plan, core_t *core, int level, uint64_t tag) noexcept nogil:
    """Inclusion: what an evicted entry of `level` maps leaves the levels before it."""
    cdef int array, size = <int>(tag >> 1 & 3), inner
    cdef uint64_t slot, number = tag >> 19, other, full = number
    cdef cache_t *c
    if size == 0 and tag >> 63:
        full |= <uint64_t>0x7F << 45        # the sign of an address, which a tag leaves out
    for array in range(plan.tlbs):
        if plan.level_of[array] >= level:
            continue
        c = &core.tlb[array]
        if size == 0:               # nothing smaller: only one set can hold it
            if c.state.present[0]:
                slot = cache_slot(c, cache_set(c, full), 0)
                for inner in range(<int>c.ways):
                    if c.tags[slot + inner] == tag:
                        cache_drop(c, slot + inner)
            continue
        for slot in range(<uint64_t>c.sets * c.stride):
            other = c.tags[slot]
            inner = <int>(other >> 1 & 3)
            if (other and inner <= size and (other ^ tag) & 0x7FFF8 == 0
                    and (other >> 19 << (9 * inner) ^ number << (9 * size)) << 19 >> 19
                    >> (9 * size) == 0):
                cache_drop(c, slot)


cdef int choose(
    const plan_t *plan, core_t *core, int kind, int level, uint64_t va, int size
) noexcept nogil:
    """Which array of a level a page goes into: a set with an invalid way, else in turn; or -1."""
    cdef uint8_t candidates[16]
    cdef int count = 0, i, array, as_size
    cdef uint32_t way
    cdef uint64_t first
    cdef const cache_t *c
    for i in range(plan.count[kind][level]):
        array = plan.index[kind][level][i]
        if plan.takes[array][size] != NOT_TAKEN:
            candidates[count] = <uint8_t>array
            count += 1
    if count == 0:
        return -1
    if count == 1:
        return candidates[0]
    for i in range(count):
        array = candidates[i]
        c = &core.tlb[array]
        as_size = plan.takes[array][size]
        first = cache_slot(c, cache_set(c, va >> size_shift(as_size)), 0)
        for way in range(c.ways):
            if c.tags[first + way] == 0:
                return array
    i = <int>(core.turns[level] % <uint64_t>count)
    core.turns[level] += 1
    return candidates[i]


cdef bint replace(
    const plan_t *plan, core_t *core, int kind, int level, uint64_t va, int size, uint64_t low,
    uint64_t other_low, uint64_t value
) noexcept nogil:
    """Put a mapping in the place of an entry for the same page; false if there is none."""
    cdef int i, array, as_size, way
    cdef uint64_t slot
    cdef uint32_t set
    cdef cache_t *c
    for i in range(plan.count[kind][level]):
        array = plan.index[kind][level][i]
        as_size = plan.takes[array][size]
        if as_size == NOT_TAKEN:
            continue
        c = &core.tlb[array]
        set = cache_set(c, va >> size_shift(as_size))
        way = cache_find(c, set, tag_of(va, as_size, low), tag_of(va, as_size, other_low))
        if way >= 0:
            slot = cache_slot(c, set, way)
            c.tags[slot] = tag_of(va, as_size, low)
            c.values[slot] = part(value, va, size, as_size)
            touch(c, set, way)
            return True
    return False


cdef inline uint64_t part(uint64_t value, uint64_t va, int size, int as_size) noexcept nogil:
    """The value of the smaller page around va within a larger one."""
    return value | (va & ((<uint64_t>1 << size_shift(size)) - 1)
                    & ~((<uint64_t>1 << size_shift(as_size)) - 1))


cdef void tlb_fill(
    const plan_t *plan, core_t *core, int kind, int level, uint64_t va, int size, uint64_t low,
    uint64_t other_low, uint64_t value, bint fresh
) noexcept nogil:
    """Put a page into one level, if any array there takes its size.

    `low` makes its tag (the global one for a global page), `other_low` the tag that it may have
    had before; `fresh` says that the level was looked up without a match.
    """
    cdef int array, as_size
    cdef uint64_t evicted, number
    cdef cache_t *c
    if not fresh and replace(plan, core, kind, level, va, size, low, other_low, value):
        return
    if plan.count[kind][level] == 1:
        array = plan.index[kind][level][0]
    else:
        array = choose(plan, core, kind, level, va, size)
        if array < 0:
            return
    as_size = plan.takes[array][size]
    if as_size == NOT_TAKEN:
        return
    c = &core.tlb[array]
    number = va >> size_shift(as_size)
    put(c, cache_set(c, number), number << 19 | low | <uint64_t>as_size << 1,
              part(value, va, size, as_size), &evicted)
    if evicted and plan.inclusive and level > 1:
        drop_inner(plan, core, level, evicted)
