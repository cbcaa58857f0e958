"""Paging-structure caches: what spares a walk its upper levels.

Three organisations (Barr, Cox, Rixner, ISCA 2010): *split*, a translation cache with an array for
each level, as Intel's PML4E, PDPTE and PDE caches (SDM vol. 3, 5.10.3); *page-table*, one array of
entries tagged by their physical address, as AMD's page walk cache; *path*, one array in which an
entry holds all pointers of one path.
"""

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.cache cimport cache_find, cache_set, cache_slot, cache_t
from pyvirt._core.paging cimport dimension_t
from pyvirt._core.policies cimport put, touch
from pyvirt._core.state cimport (
    WALKCACHE_PATH,
    WALKCACHE_SPLIT,
    walkcache_t,
)

cdef enum:
    PATH_WORDS = 8                  # two for each of the levels 2 to 5


cdef int find_split(
    walkcache_t *c, const dimension_t *d, uint64_t address, uint64_t low, path_t *path
) noexcept nogil:
    cdef int level, way
    cdef uint64_t number, key
    cdef cache_t *array
    cdef uint32_t set
    for level in range(2, d.levels + 1):
        if not c.has[level]:
            continue
        array = &c.level[level]
        number = address >> d.level[level].shift
        key = number << 19 | low
        set = cache_set(array, number)
        way = cache_find(array, set, key, key)
        if way >= 0:
            touch(array, set, way)
            path.value[level] = array.values[cache_slot(array, set, way)]
            path.second[level] = array.second[cache_slot(array, set, way)]
            return level
    return 0


cdef int find_path(
    walkcache_t *c, const dimension_t *d, uint64_t address, uint64_t low, path_t *path
) noexcept nogil:
    """The longest prefix; among equals the lowest way. The levels above it come along."""
    cdef cache_t *array = &c.level[0]
    cdef int level, n
    cdef uint32_t way, depth
    cdef uint64_t tag
    cdef const uint64_t *words
    for level in range(2, d.levels + 1):
        for way in range(array.ways):
            tag = array.tags[way]
            depth = <uint32_t>(tag >> 1 & 3) + 2
            if (tag == 0 or (tag & 0x7FFF8) != (low & 0x7FFF8) or <int>depth > level
                    or not array.values[way] >> level & 1):
                continue
            if tag >> 19 << d.level[depth].shift >> d.level[level].shift != (
                    address >> d.level[level].shift):
                continue
            touch(array, 0, way)
            words = &c.paths[way * PATH_WORDS]
            for n in range(level, d.levels + 1):
                if array.values[way] >> n & 1:
                    path.value[n] = words[2 * (n - 2)]
                    path.second[n] = words[2 * (n - 2) + 1]
            return level
    return 0


cdef int walkcache_find(
    walkcache_t *c, const dimension_t *d, uint64_t address, uint64_t low, path_t *path
) noexcept nogil:
    """The lowest level whose entry for `address` is known, or 0; filled into `path`."""
    if c.kind == WALKCACHE_SPLIT:
        return find_split(c, d, address, low, path)
    if c.kind == WALKCACHE_PATH:
        return find_path(c, d, address, low, path)
    return 0


cdef void store_split(
    walkcache_t *c, const dimension_t *d, uint64_t address, uint64_t low, const path_t *path,
    int first, int last
) noexcept nogil:
    cdef int level, way
    cdef uint64_t number, key, slot, evicted
    cdef cache_t *array
    cdef uint32_t set
    for level in range(first, last - 1, -1):
        if not c.has[level]:
            continue
        array = &c.level[level]
        number = address >> d.level[level].shift
        key = number << 19 | low
        set = cache_set(array, number)
        way = cache_find(array, set, key, key)
        if way >= 0:
            slot = cache_slot(array, set, way)
            array.values[slot] = path.value[level]
            touch(array, set, way)
        else:
            slot = put(array, set, key, path.value[level], &evicted)
        array.second[slot] = path.second[level]


cdef void store_path(
    walkcache_t *c, const dimension_t *d, uint64_t address, uint64_t low, const path_t *path,
    int top, int last
) noexcept nogil:
    cdef cache_t *array = &c.level[0]
    cdef uint64_t key, slot, evicted, known = 0
    cdef int way, level
    key = address >> d.level[last].shift << 19 | low | <uint64_t>(last - 2) << 1
    for level in range(last, top + 1):
        known |= <uint64_t>1 << level
    way = cache_find(array, 0, key, key)
    if way >= 0:
        slot = way
        array.values[slot] = known
        touch(array, 0, way)
    else:
        slot = put(array, 0, key, known, &evicted)
    for level in range(last, top + 1):
        c.paths[slot * PATH_WORDS + 2 * (level - 2)] = path.value[level]
        c.paths[slot * PATH_WORDS + 2 * (level - 2) + 1] = path.second[level]


cdef void walkcache_store(
    walkcache_t *c, const dimension_t *d, uint64_t address, uint64_t low, const path_t *path,
    int top, int first, int last
) noexcept nogil:
    """Remember the entries of the levels `first` down to `last`, which a walk has read.

    `path` holds those of `top` down to `last`: above `first` what the cache itself knew.
    """
    if first < last:
        return                      # nothing was read but the leaf
    if c.kind == WALKCACHE_SPLIT:
        store_split(c, d, address, low, path, first, last)
    elif c.kind == WALKCACHE_PATH:
        store_path(c, d, address, low, path, top, last)


cdef bint walkcache_entry(
    walkcache_t *c, uint64_t pa, uint64_t low, uint64_t *entry
) noexcept nogil:
    """An entry by its physical address, from a page-table cache."""
    cdef cache_t *array = &c.level[0]
    cdef uint64_t key = pa >> 2 << 3 | 1, first
    cdef uint32_t set = cache_set(array, pa >> 3), way
    first = cache_slot(array, set, 0)
    for way in range(array.ways):
        if array.tags[first + way] == key and array.second[first + way] == low:
            touch(array, set, way)
            entry[0] = array.values[first + way]
            return True
    return False


cdef void walkcache_keep(
    walkcache_t *c, uint64_t pa, uint64_t low, uint64_t entry
) noexcept nogil:
    """Remember an entry that points to a table, by its physical address."""
    cdef cache_t *array = &c.level[0]
    cdef uint64_t key = pa >> 2 << 3 | 1, first, slot, evicted
    cdef uint32_t set = cache_set(array, pa >> 3), way
    first = cache_slot(array, set, 0)
    for way in range(array.ways):
        if array.tags[first + way] == key and array.second[first + way] == low:
            array.values[first + way] = entry
            touch(array, set, way)
            return
    slot = put(array, set, key, entry, &evicted)
    array.second[slot] = low
