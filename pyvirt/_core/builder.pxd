# The table builder.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.paging cimport MAX_LEVELS, dimension_t
from pyvirt._core.physmem cimport PhysMem
from pyvirt._core.types cimport hpa_t
from pyvirt._core.walker cimport Walker

cdef enum built_t:                  # how an edit ended
    BUILT = 0
    BUILT_TAKEN = 1                 # a mapping is there already
    BUILT_TABLE = 2                 # a table in use is where a large leaf should go
    BUILT_NO_FRAME = 3              # the frame range is exhausted
    BUILT_NESTED = 4                # a table lies where the next dimension maps no RAM
    BUILT_NO_MEMORY = 5             # the host has no memory
    BUILT_RESERVED = 6              # a present entry on the way is malformed
    BUILT_WIDE = 7                  # a 4 MiB page beyond 4 GiB has no 4 KiB parts
    BUILT_LIMIT = 8                 # too many leaves

cdef enum undo_kind_t:
    UNDO_RUN = 0                    # entries of one table: `entry`, `entry` + `step`, ...
    UNDO_SAVED = 1                  # entries of one table: `saved` from the index `entry` on
    UNDO_FREED = 2                  # a table that goes out of use if the edit succeeds

cdef struct undo_t:                 # what a part of an edit changed, as it was before
    uint64_t address                # of the first entry, host-physical; own-physical of a table
    uint64_t entry
    uint64_t step
    uint32_t count                  # entries; level of a table
    undo_kind_t kind

cdef struct builder_t:
    dimension_t d
    uint64_t first_frame            # of the range that tables are taken from
    uint64_t next_frame             # never used so far, up to frame_end; own physical space
    uint64_t frame_end
    uint64_t free_frame             # given back: a list linked through their first words; or 0
    uint64_t table_flags            # of an entry that points to a table
    uint64_t tables                 # frames in use as tables
    undo_t *undo
    uint64_t undo_count
    uint64_t undo_capacity
    uint64_t *saved                 # entries of UNDO_SAVED
    uint64_t saved_count
    uint64_t saved_capacity
    hpa_t path[MAX_LEVELS + 1]      # of the last descent: where the entry of each level is


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
