"""What happens to the references of walks: a model of data caches, and the caller's ring buffer.

References are buffered and handled some thousands at a time, in order, so that a walk is not
slowed by them and the result does not depend on where blocks end.
"""

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.cache cimport cache_find, cache_set
from pyvirt._core.policies cimport put, touch
from pyvirt._core.state cimport mmu_t, record_t

cdef enum:
    LINE_SHIFT = 6                  # 64-byte lines
    MEMORY = 3                      # index of data_cache_hits


cdef int look_up(mmu_t *m, uint64_t pa) noexcept nogil:
    """The level that holds a line, which then is in all levels before it too."""
    cdef uint64_t line = pa >> LINE_SHIFT, key = line << 3 | 1, evicted
    cdef int level = m.data_first, before, way = -1
    cdef uint32_t set
    while level < m.data_first + m.data_levels:
        set = cache_set(&m.data[level], line)
        way = cache_find(&m.data[level], set, key, key)
        if way >= 0:
            touch(&m.data[level], set, way)
            break
        level += 1
    for before in range(m.data_first, min(level, m.data_first + m.data_levels)):
        put(&m.data[before], cache_set(&m.data[before], line), key, 0, &evicted)
    return level if way >= 0 else MEMORY


cdef void drain(mmu_t *m) noexcept nogil:
    """Hand the buffered references on."""
    cdef uint64_t i
    cdef const record_t *record
    for i in range(m.buffered):
        record = &m.buffer[i]
        if m.data_levels:
            m.cores[m.vcpus[record.vcpu].core].counters.data_cache_hits[
                look_up(m, record.pa)] += 1
        if m.ring != NULL:
            m.ring[m.ring_written % m.ring_size] = record[0]
            m.ring_written += 1
    m.buffered = 0
