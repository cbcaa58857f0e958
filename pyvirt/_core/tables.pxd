# Tables that are edited, and the frames that they take.

from libc.stdint cimport uint64_t

from pyvirt._core.frames cimport pm_frame
from pyvirt._core.paging cimport (
    ACCESS_ANY,
    ACCESS_LINEAR,
    ACCESS_PURE,
    ACCESS_TABLE,
    MAX_LEVELS,
    dimension_t,
    load_entry,
    locate,
    walk_t,
)
from pyvirt._core.types cimport PAGE_OFFSET, hpa_t
from pyvirt._core.undo cimport undo_list_t

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

cdef enum:
    PS = 0x80                       # of an entry above level 1: it is a leaf

cdef struct builder_t:              # tables that grow
    dimension_t d
    uint64_t first_frame            # of the range that tables are taken from
    uint64_t next_frame             # never used so far, up to frame_end; own physical space
    uint64_t frame_end
    uint64_t free_frame             # given back: a list linked through their first words; or 0
    uint64_t table_flags            # of an entry that points to a table
    uint64_t tables                 # frames in use as tables
    undo_list_t undo                # of the edit that is under way
    hpa_t path[MAX_LEVELS + 1]      # of the last descent: where the entry of each level is


cdef inline built_t host_of(builder_t *b, uint64_t address, int level, hpa_t *pa) noexcept nogil:
    """Host-physical address of an own-physical one that holds a table."""
    cdef walk_t w
    if locate(&b.d, address, ACCESS_ANY | ACCESS_TABLE | ACCESS_LINEAR | ACCESS_PURE, level, pa,
              &w, NULL):
        return BUILT_NESTED
    if pm_frame(b.d.mem, pa[0]) == NULL:
        return BUILT_NESTED
    return BUILT


cdef inline uint64_t get_entry(builder_t *b, hpa_t pa) noexcept nogil:
    return load_entry(&b.d, pm_frame(b.d.mem, pa) + (pa & PAGE_OFFSET), 0)


cdef built_t set_entry(builder_t *b, hpa_t pa, uint64_t entry) noexcept nogil
cdef built_t new_table(builder_t *b, int level, uint64_t *address) noexcept nogil
cdef void free_table(builder_t *b, uint64_t address, int level) noexcept nogil
cdef bint is_empty(builder_t *b, uint64_t base, int level) noexcept nogil
cdef built_t split(builder_t *b, hpa_t slot, int level) noexcept nogil
