# A digest of memory.

from libc.stdint cimport uint64_t

from pyvirt._core.frames cimport physmem_t

cdef uint64_t fnv_words(const physmem_t *m, uint64_t start, uint64_t end,
                        uint64_t mask) noexcept nogil
