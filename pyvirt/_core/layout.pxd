# The arrays of an MMU: from a geometry to places in the arena.

from libc.stdint cimport uint64_t

from pyvirt._core.state cimport mmu_t

cdef object layout_describe(mmu_t *m, object geometry, object data_cache)
cdef uint64_t layout_place(mmu_t *m, char *arena) noexcept nogil
cdef object layout_clear(mmu_t *m, object geometry, object seeds)
cdef list layout_arrays(mmu_t *m, int core, object geometry)


cdef inline char *arena_start(const mmu_t *m) noexcept nogil:
    """Where the first array lies: on a cache line of the host."""
    return <char *>((<uint64_t>m.arena + 63) & ~<uint64_t>63)
