# Edits of ranges of tables.

from libc.stdint cimport uint64_t

from pyvirt._core.tables cimport builder_t, built_t


cdef inline uint64_t leaf_of(uint64_t pa, uint64_t flags, bint wide_32) noexcept nogil:
    """A leaf entry. A 4 MiB one of 32-bit tables has the address bits 39:32 in bits 20:13."""
    cdef uint64_t entry = pa | flags
    if wide_32:
        entry = entry << 32 >> 32 | pa >> 32 << 13
    return entry


cdef built_t map_run(builder_t *b, uint64_t va, uint64_t entry, int target, uint64_t count,
                     bint overwrite, uint64_t *done) noexcept nogil
cdef built_t edit_range(builder_t *b, uint64_t va, uint64_t size, bint remove, uint64_t clear,
                        uint64_t put, uint64_t limit, uint64_t *changed) noexcept nogil
cdef built_t finish(builder_t *b, built_t status) noexcept nogil
