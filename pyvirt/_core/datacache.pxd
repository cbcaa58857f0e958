# A model of data caches for the references of walks.

from pyvirt._core.state cimport mmu_t


cdef void drain(mmu_t *m) noexcept nogil
