"""Frames of simulated memory: found in a directory, taken from a pool, made at the first write.

A frame of RAM is one of three things: *owned* (written once; in the pool), *attached* (still the
content of a read-only buffer, such as a mapped image file), or untouched (zeros, and costs
nothing).
"""

from cpython.pythread cimport WAIT_LOCK, PyThread_acquire_lock, PyThread_release_lock
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset

from pyvirt._core.types cimport PAGE_OFFSET, PAGE_SHIFT, PAGE_SIZE, hpa_t

cdef extern from "chunk.h" nogil:
    void *pv_chunk_alloc(size_t bytes, int huge)
    void pv_chunk_free(void *p)
    int pv_huge_pages_offered()

cdef enum:
    CHUNK_FRAMES = 512          # 2 MiB: the huge page of the hosts we know
    # A chunk on huge pages is held whole once touched. From this many frames on, a whole unused
    # chunk is less than a tenth of what is held.
    HUGE_FROM_FRAMES = 10 * CHUNK_FRAMES

cdef uint8_t[4096] ZERO_FRAME
memset(ZERO_FRAME, 0, PAGE_SIZE)


cdef const uint8_t *pm_unowned(const physmem_t *m, hpa_t pa) noexcept nogil:
    """Content of a frame that is not owned: of its buffer, or zeros; NULL outside RAM."""
    cdef uint64_t low = 0, high = m.segment_count, middle
    while low < high:
        middle = (low + high) >> 1
        if pa < m.segments[middle].start:
            high = middle
        elif pa >= m.segments[middle].end:
            low = middle + 1
        else:
            return (m.segments[middle].data
                    + ((pa & ~<uint64_t>PAGE_OFFSET) - m.segments[middle].start))
    if pm_in_ram(m, pa, 1):
        return ZERO_FRAME
    return NULL


cdef bint pm_in_ram(const physmem_t *m, hpa_t pa, uint64_t n) noexcept nogil:
    """Whether RAM contains all of [pa, pa + n). Adjacent regions were merged, so one must."""
    cdef uint64_t low = 0, high = m.region_count, middle
    while low < high:
        middle = (low + high) >> 1
        if pa < m.regions[middle].start:
            high = middle
        elif pa >= m.regions[middle].end:
            low = middle + 1
        else:
            return n <= m.regions[middle].end - pa
    return n == 0 and m.region_count != 0 and pa == m.regions[m.region_count - 1].end


cdef uint8_t *new_frame(physmem_t *m) noexcept nogil:
    """A frame from the pool, content undefined; NULL when the host has no memory."""
    cdef uint8_t **chunks
    cdef uint8_t *chunk
    cdef bint huge
    if m.chunk_count == 0 or m.chunk_used == CHUNK_FRAMES:
        chunks = <uint8_t **>realloc(m.chunks, (m.chunk_count + 1) * sizeof(uint8_t *))
        if chunks == NULL:
            return NULL
        m.chunks = chunks
        huge = m.huge_pages and m.frames >= HUGE_FROM_FRAMES and pv_huge_pages_offered()
        chunk = <uint8_t *>pv_chunk_alloc(CHUNK_FRAMES * PAGE_SIZE, huge)
        if chunk == NULL:
            return NULL
        m.chunks[m.chunk_count] = chunk
        m.chunk_count += 1
        m.chunk_used = 0
        m.huge_chunks += huge
    chunk = m.chunks[m.chunk_count - 1] + m.chunk_used * PAGE_SIZE
    m.chunk_used += 1
    m.frames += 1
    return chunk


cdef bint make_root(physmem_t *m, hpa_t limit) noexcept nogil:
    """An empty directory for addresses below `limit`."""
    m.limit = limit
    m.root_length = ((limit - 1) >> NODE_SHIFT) + 1
    m.directory_pages = 0
    m.root = <node_t *>calloc(m.root_length, sizeof(node_t))
    if m.root == NULL:
        m.root_length = m.limit = 0
    return m.root != NULL


cdef void free_root(node_t *root, uint64_t length) noexcept nogil:
    cdef uint64_t i
    for i in range(length):
        free(root[i])
    free(root)


cdef node_t directory_slot(physmem_t *m, hpa_t pa) noexcept nogil:
    """Where the directory keeps the pointer to the frame of `pa`; its node made as needed.

    A node is large and cleared by the system page by page when it is first touched, as large
    calloc()s are, so that only the pages with an entry are held.
    """
    cdef uint64_t index = pa >> PAGE_SHIFT & NODE_MASK, frames
    cdef node_t node = m.root[pa >> NODE_SHIFT]
    if node == NULL:
        frames = min(<uint64_t>NODE_MASK + 1, (m.limit >> PAGE_SHIFT) - (pa >> PAGE_SHIFT) + index)
        # whole pages, so that each can be looked at
        node = <node_t>calloc((frames + 511) & ~<uint64_t>511, sizeof(uint8_t *))
        if node == NULL:
            return NULL
        m.root[pa >> NODE_SHIFT] = node
    if memcmp(&node[index & ~<uint64_t>511], ZERO_FRAME, PAGE_SIZE) == 0:
        m.directory_pages += 1
    return &node[index]


cdef uint8_t *pm_writable(physmem_t *m, hpa_t pa, pm_status *status) noexcept nogil:
    """The owned frame of `pa`, made from its present content if need be. Lock held."""
    cdef uint8_t *frame = pm_owned(m, pa)
    cdef const uint8_t *content
    cdef uint8_t **slot
    status[0] = PM_OK
    if frame != NULL:
        return frame
    content = pm_unowned(m, pa)
    if content == NULL:
        status[0] = PM_OUTSIDE
        return NULL
    slot = directory_slot(m, pa)
    if slot != NULL:
        frame = new_frame(m)
    if frame == NULL:
        status[0] = PM_NO_MEMORY
        return NULL
    memcpy(frame, content, PAGE_SIZE)
    slot[0] = frame
    return frame


cdef pm_status pm_read(const physmem_t *m, hpa_t pa, uint64_t n, uint8_t *out) noexcept nogil:
    """Copy n bytes out, across frames; nothing is copied unless all are in RAM."""
    cdef uint64_t part
    if not pm_in_ram(m, pa, n):
        return PM_OUTSIDE
    while n:
        part = min(n, PAGE_SIZE - (pa & PAGE_OFFSET))
        memcpy(out, pm_frame(m, pa) + (pa & PAGE_OFFSET), part)
        out += part
        pa += part
        n -= part
    return PM_OK


cdef pm_status pm_write(physmem_t *m, hpa_t pa, uint64_t n, const uint8_t *data) noexcept nogil:
    """Copy n bytes in, across frames; nothing is changed unless all are in RAM. Lock held."""
    cdef uint64_t part
    cdef uint8_t *frame
    cdef pm_status status
    if not pm_in_ram(m, pa, n):
        return PM_OUTSIDE
    m.version += 1
    while n:
        part = min(n, PAGE_SIZE - (pa & PAGE_OFFSET))
        frame = pm_writable(m, pa, &status)
        if frame == NULL:
            return status
        memcpy(frame + (pa & PAGE_OFFSET), data, part)
        data += part
        pa += part
        n -= part
    return PM_OK


cdef pm_status load_sparse(physmem_t *m, hpa_t pa, uint64_t n, const uint8_t *data) noexcept nogil:
    """As pm_write, but zeros that fall on an untouched frame leave it untouched. Lock held."""
    cdef uint64_t part
    cdef pm_status status
    if not pm_in_ram(m, pa, n):
        return PM_OUTSIDE
    m.version += 1
    while n:
        part = min(n, PAGE_SIZE - (pa & PAGE_OFFSET))
        if memcmp(data, ZERO_FRAME, part) != 0 or pm_frame(m, pa) != <const uint8_t *>ZERO_FRAME:
            status = pm_write(m, pa, part, data)
            if status != PM_OK:
                return status
        data += part
        pa += part
        n -= part
    return PM_OK


cdef void pm_lock(physmem_t *m) noexcept nogil:
    PyThread_acquire_lock(m.lock, WAIT_LOCK)


cdef void pm_unlock(physmem_t *m) noexcept nogil:
    PyThread_release_lock(m.lock)


cdef void free_chunks(physmem_t *m) noexcept nogil:
    """Give the pool back."""
    cdef uint64_t i
    for i in range(m.chunk_count):
        pv_chunk_free(m.chunks[i])
    free(m.chunks)


cdef uint64_t frames_in_pool(const physmem_t *m) noexcept nogil:
    """Frames that the pool holds: a chunk on huge pages is held whole."""
    return m.frames + (CHUNK_FRAMES - m.chunk_used if m.huge_chunks else 0)


cdef uint64_t owned_frames(const physmem_t *m, uint64_t *bases) noexcept nogil:
    """Base addresses of the owned frames, ascending; returns their number."""
    cdef uint64_t i, j, count = 0, frames = m.limit >> PAGE_SHIFT, last
    for i in range(m.root_length):
        if m.root[i] == NULL:
            continue
        j = i << (NODE_SHIFT - PAGE_SHIFT)
        last = min(frames, j + NODE_MASK + 1)
        while j < last and count < m.frames:
            if m.root[i][j & NODE_MASK] != NULL:
                bases[count] = j << PAGE_SHIFT
                count += 1
            j += 1
    return count


cdef uint64_t match_frames(
    const physmem_t *m, uint64_t offset, uint64_t mask, uint64_t value, uint64_t *bases
) noexcept nogil:
    """Bases of owned and attached frames with (word at offset & mask) == value."""
    cdef uint64_t count = 0, total, i
    cdef hpa_t pa
    total = owned_frames(m, bases)
    for i in range(total):
        if load_u64(pm_owned(m, bases[i]) + offset) & mask == value:
            bases[count] = bases[i]
            count += 1
    for i in range(m.segment_count):
        pa = m.segments[i].start
        while pa < m.segments[i].end:
            if (pm_owned(m, pa) == NULL
                    and load_u64(m.segments[i].data + (pa - m.segments[i].start) + offset)
                    & mask == value):
                bases[count] = pa
                count += 1
            pa += PAGE_SIZE
    return count
