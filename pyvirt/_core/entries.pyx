"""All valid entries of a core's arrays, as an array."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

import numpy as np

from pyvirt._core.cache cimport cache_t
from pyvirt._core.contexts cimport CONTEXT_GLOBAL, context_t
from pyvirt._core.layout cimport arena_start, layout_arrays
from pyvirt._core.state cimport (
    WALKCACHE_PAGE_TABLE,
    WALKCACHE_PATH,
    core_t,
    mmu_t,
    walkcache_t,
)

ENTRY_DTYPE = np.dtype([
    ("structure", "U32"), ("set", "<u4"), ("way", "<u4"), ("page", "<u8"), ("size", "u1"),
    ("vpid", "<u2"), ("pcid", "<u2"), ("global", "?"), ("ep4ta", "<u8"), ("value", "<u8")])


cdef inline uint64_t at(const uint64_t *words, int64_t moved, uint64_t i) noexcept nogil:
    """A word of an array, in a copy that lies `moved` bytes further on."""
    return (<const uint64_t *>(<const char *>words + moved))[i]


cdef list rows_of(
    const cache_t *c, const walkcache_t *w, int level, str name, int64_t moved,
    const context_t *contexts
):
    """The entries of one array; `w` is the walk cache that it belongs to, or NULL."""
    cdef uint64_t slot, tag, low, value, number
    cdef uint32_t set, way, depth
    cdef int size
    cdef const context_t *k
    rows = []
    for set in range(c.sets):
        for way in range(c.ways):
            slot = <uint64_t>set * c.stride + way
            tag = low = at(c.tags, moved, slot)
            if tag == 0:
                continue
            value = at(c.values, moved, slot)
            depth = <uint32_t>(tag >> 1 & 3)
            if w != NULL and w.kind == WALKCACHE_PAGE_TABLE:
                low = at(c.second, moved, slot)
                number, size = tag >> 4, 0
            else:
                number = tag >> 19
                if w != NULL and w.kind == WALKCACHE_PATH:
                    size = depth + 2
                    value = at(w.paths, moved, slot * 8 + 2 * depth)
                else:
                    size = level if level else depth
                    if tag >> 63 and number >> 44:
                        number |= <uint64_t>0x7F << 45      # the sign of an address
                value &= 0x000FFFFFFFFFF000ULL
            k = &contexts[low >> 3 & 0xFFFF]
            rows.append((name, set, way, number, size, k.vpid, k.pcid,
                         bool(k.flags & CONTEXT_GLOBAL), k.ep4ta, value))
    return rows


cdef object entries_of(mmu_t *m, int core, object geometry, bytes arena, bytes contexts):
    """What a core caches, from copies of the arena and the contexts of one moment."""
    cdef core_t *cached = &m.cores[core]
    cdef const context_t *items = <const context_t *><const char *>contexts
    cdef int64_t moved = <const char *>arena - arena_start(m)
    cdef const walkcache_t *w
    cdef cache_t *c
    cdef uint64_t address
    rows = []
    for name, level, address in layout_arrays(m, core, geometry):
        c = <cache_t *>address
        w = NULL
        if c.second != NULL:
            w = &cached.guest if name.startswith("guest") else &cached.host
        rows += rows_of(c, w, level, name, moved, items)
    return np.array(rows, dtype=ENTRY_DTYPE)
