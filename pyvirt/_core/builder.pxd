# The table builder.

from libc.stdint cimport uint64_t

from pyvirt._core.physmem cimport PhysMem
from pyvirt._core.tables cimport builder_t, built_t
from pyvirt._core.walker cimport Walker


cdef class PageTables:
    cdef readonly PhysMem mem
    cdef readonly Walker outer
    cdef readonly object root
    cdef dict options
    cdef tuple frame_range
    cdef builder_t b

    cdef object _check(self)
    cdef built_t _new_root(self, uint64_t *address)
    cdef object _edit(self, object va, object size, bint remove, uint64_t clear, uint64_t put,
                      object limit)
    cdef int _level_of(self, object page_shift) except -1
    cdef uint64_t _leaf_address(self, int level)
    cdef uint64_t _leaf_flags(self, object rights, object attrs, int level) except? 0
    cdef object _raise(self, built_t status, object va)
