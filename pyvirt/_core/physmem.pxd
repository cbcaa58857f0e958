# Physical memory: sparse frames, copy-on-write over read-only buffers.
#
# Readers need no lock: a frame, once installed in the directory, stays until the memory is freed,
# and is filled before it is installed. Writers take the memory's lock (pm_lock, pm_unlock).

from cpython.pythread cimport PyThread_type_lock
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from pyvirt._core.types cimport hpa_t

cdef enum pm_status:
    PM_OK = 0
    PM_OUTSIDE = 1              # not in RAM
    PM_NO_MEMORY = 2            # the host has no memory for another frame

ctypedef uint8_t **node_t           # of the directory: pointers to owned frames, or NULL

cdef struct region_t:           # one stretch of RAM, whole frames
    hpa_t start
    hpa_t end                   # exclusive

cdef struct segment_t:          # a part of RAM whose first content is a read-only buffer
    hpa_t start
    hpa_t end                   # exclusive
    const uint8_t *data

cdef struct physmem_t:
    node_t *root                # [pa >> node_shift] -> [pa >> 12 & node_mask] -> owned frame
    uint64_t root_length        # nodes up to the end of RAM
    uint64_t node_mask          # frames a node covers, less one
    uint64_t nodes              # present
    uint8_t node_shift          # 21 (a node is 4 KiB) unless the root would be too long
    region_t *regions           # sorted, disjoint
    uint64_t region_count
    segment_t *segments         # sorted, disjoint, each within one region
    uint64_t segment_count
    uint64_t version            # grows by at least one with every write
    uint64_t frames             # owned
    uint8_t **chunks            # of the frame pool
    uint64_t chunk_count
    uint64_t chunk_used         # frames handed out of the newest chunk
    uint64_t huge_chunks        # chunks that were asked for on huge pages
    bint huge_pages
    PyThread_type_lock lock     # held by writers


cdef inline uint8_t *pm_owned(const physmem_t *m, hpa_t pa) noexcept nogil:
    """The owned frame that holds `pa`, or NULL."""
    cdef node_t node
    if pa >> m.node_shift >= m.root_length:
        return NULL
    node = m.root[pa >> m.node_shift]
    if node == NULL:
        return NULL
    return node[pa >> 12 & m.node_mask]


cdef const uint8_t *pm_unowned(const physmem_t *m, hpa_t pa) noexcept nogil


cdef inline const uint8_t *pm_frame(const physmem_t *m, hpa_t pa) noexcept nogil:
    """The 4 KiB of the frame that holds `pa`, to read; NULL outside RAM."""
    cdef const uint8_t *frame = pm_owned(m, pa)
    if frame == NULL:
        frame = pm_unowned(m, pa)
    return frame


cdef inline uint64_t load_u64(const uint8_t *p) noexcept nogil:
    """A u64 from memory that may be unaligned (mapped image files are)."""
    cdef uint64_t value
    memcpy(&value, p, 8)
    return value


cdef uint8_t *pm_writable(physmem_t *m, hpa_t pa, pm_status *status) noexcept nogil
cdef pm_status pm_read(const physmem_t *m, hpa_t pa, uint64_t n, uint8_t *out) noexcept nogil
cdef pm_status pm_write(physmem_t *m, hpa_t pa, uint64_t n, const uint8_t *data) noexcept nogil
cdef bint pm_in_ram(const physmem_t *m, hpa_t pa, uint64_t n) noexcept nogil
cdef void pm_lock(physmem_t *m) noexcept nogil
cdef void pm_unlock(physmem_t *m) noexcept nogil


cdef class PhysMem:
    cdef physmem_t m
    cdef list buffers           # keeps what the segments point into alive
    cdef object __weakref__

    cdef physmem_t *pointer(self) noexcept nogil
