"""The pool of table pages as physical memory, for a processor that walks them.

A processor finds frames of host memory through a directory. That of `hyper_t.pool` has the pool's
pages alone; the guest's frames, which lie below, are in the directory of the guest's memory.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from pyvirt._core.frames cimport (
    directory_slot,
    free_root,
    make_root,
    node_t,
    physmem_t,
    region_t,
)
from pyvirt._core.shadow.state cimport FRAME_SHIFT, hyper_t


cdef bint open_pool(hyper_t *s) noexcept nogil:
    """Make the directory; False: the host has no memory."""
    cdef physmem_t *m = &s.pool
    memset(m, 0, sizeof(physmem_t))
    m.regions = <region_t *>calloc(1, sizeof(region_t))
    if m.regions == NULL or not make_root(m, (s.first_frame + s.capacity) << FRAME_SHIFT):
        return False
    m.region_count = 1
    m.regions[0].start = s.first_frame << FRAME_SHIFT
    m.regions[0].end = m.limit
    return True


cdef void close_pool(hyper_t *s) noexcept nogil:
    if s.pool.root != NULL:
        free_root(s.pool.root, s.pool.root_length)
    free(s.pool.regions)
    memset(&s.pool, 0, sizeof(physmem_t))


cdef bint show_page(hyper_t *s, uint32_t page) noexcept nogil:
    """Let the directory have a page that is used for the first time; it lies there for good."""
    cdef node_t slot
    if s.pool.root == NULL:
        return True
    slot = directory_slot(&s.pool, (s.first_frame + page) << FRAME_SHIFT)
    if slot == NULL:
        return False
    slot[0] = <uint8_t *>&s.entries[<uint64_t>page << 9]
    return True
