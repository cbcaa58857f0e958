# What is cached, listed.

from pyvirt._core.state cimport mmu_t

cdef object entries_of(mmu_t *m, int core, object geometry, bytes arena, bytes contexts)
