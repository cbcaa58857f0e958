# The Walker object: a chain of dimensions over one memory, with batches and memos.

from cpython.pythread cimport PyThread_type_lock
from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyvirt._core.batch cimport batch_t
from pyvirt._core.paging cimport MAX_DIMENSIONS, dimension_t, memo_t, walk_t
from pyvirt._core.physmem cimport PhysMem


cdef class Translation:
    cdef walk_t w

cdef class Walker:
    cdef readonly PhysMem mem
    cdef readonly Walker outer
    cdef readonly object root
    cdef dict options
    cdef dimension_t plain[MAX_DIMENSIONS]      # without memos: any number of threads
    cdef dimension_t fast[MAX_DIMENSIONS]       # with memos: one batch at a time
    cdef memo_t *memos[MAX_DIMENSIONS]
    cdef int count                              # of dimensions
    cdef bint marks                             # some dimension sets A and D
    cdef PyThread_type_lock memo_lock
    cdef object __weakref__

    cdef object _make_memos(self)
    cdef object _check(self)
    cdef object _step(self, uint64_t address, uint32_t asked, walk_t *w)
    cdef uint16_t translate_one_c(self, uint64_t va, uint32_t access, walk_t *w) noexcept nogil
    cdef uint64_t translate_c(self, const uint64_t *vas, uint64_t n, uint32_t access,
                              const batch_t *out, bint stop, bint require_ram) noexcept nogil
