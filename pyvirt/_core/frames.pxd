# Frames of physical memory: a sparse directory, copy-on-write over read-only buffers.
#
# Readers need no lock: a frame, once installed in the directory, stays until the memory is freed,
# and is filled before it is installed. Writers take the memory's lock (pm_lock, pm_unlock).

from cpython.pythread cimport PyThread_type_lock
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from pyvirt._core.types cimport PAGE_SHIFT, hpa_t

cdef enum pm_status:
    PM_OK = 0
    PM_OUTSIDE = 1              # not in RAM
    PM_NO_MEMORY = 2            # the host has no memory for another frame

ctypedef uint8_t **node_t           # of the directory: pointers to owned frames, or NULL

cdef enum:
    NODE_SHIFT = 32                 # a node covers 4 GiB ...
    NODE_MASK = 0xFFFFF             # ... in 2**20 frames, or fewer where RAM ends before

cdef struct region_t:           # one stretch of RAM, whole frames
    hpa_t start
    hpa_t end                   # exclusive

cdef struct segment_t:          # a part of RAM whose first content is a read-only buffer
    hpa_t start
    hpa_t end                   # exclusive
    const uint8_t *data

cdef struct physmem_t:
    node_t *root                # [pa >> 32] -> [pa >> 12 & 0xFFFFF] -> owned frame
    uint64_t limit              # one past the highest RAM address
    uint64_t root_length        # nodes up to there
    uint64_t directory_pages    # 4 KiB pages of nodes with a frame: the system holds no others
    region_t *regions           # sorted, disjoint
    uint64_t region_count
    segment_t *segments         # sorted, disjoint, each within one region
    uint64_t segment_count
    uint64_t segment_capacity
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
    if pa >= m.limit:
        return NULL
    node = m.root[pa >> NODE_SHIFT]
    if node == NULL:
        return NULL
    return node[pa >> PAGE_SHIFT & NODE_MASK]


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
cdef pm_status load_sparse(physmem_t *m, hpa_t pa, uint64_t n, const uint8_t *data) noexcept nogil
cdef bint make_root(physmem_t *m, hpa_t limit) noexcept nogil
cdef void free_root(node_t *root, uint64_t length) noexcept nogil
cdef node_t directory_slot(physmem_t *m, hpa_t pa) noexcept nogil
cdef void free_chunks(physmem_t *m) noexcept nogil
cdef uint64_t frames_in_pool(const physmem_t *m) noexcept nogil
cdef uint64_t match_frames(const physmem_t *m, uint64_t offset, uint64_t mask, uint64_t value,
                           uint64_t *bases) noexcept nogil
cdef uint64_t owned_frames(const physmem_t *m, uint64_t *bases) noexcept nogil
