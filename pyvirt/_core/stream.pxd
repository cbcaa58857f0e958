# Streams of accesses and of events.

from libc.stdint cimport uint16_t, uint64_t

from pyvirt._core.events cimport event_t
from pyvirt._core.operations cimport done_t
from pyvirt._core.state cimport mmu_t

cdef enum prefetch_t:
    PREFETCH_NEVER = 0
    PREFETCH_AUTO = 1               # while most accesses of a block walk
    PREFETCH_ALWAYS = 2


cdef uint64_t stream_accesses(mmu_t *m, int vcpu, int kind, bint user, const uint64_t *vas,
                              uint64_t n, uint64_t *pas, uint16_t *codes, bint stop,
                              int prefetch) noexcept nogil
cdef uint64_t stream_events(mmu_t *m, const event_t *events, uint64_t n, uint64_t *pas,
                            uint16_t *codes, bint stop, int prefetch,
                            done_t *done) noexcept nogil
