# Walks of agile translation: from shadow tables into the guest's own.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyvirt._core.paging cimport walk_t
from pyvirt._core.state cimport run_t
from pyvirt._core.walks cimport host_t

cdef uint16_t walk_agile(run_t *x, uint64_t va, uint32_t access, walk_t *w,
                         host_t *last) noexcept nogil
