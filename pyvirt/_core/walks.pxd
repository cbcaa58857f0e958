# Walks through the caches of a core.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pyvirt._core.nestedwalk cimport nested_t
from pyvirt._core.paging cimport dimension_t, walk_t
from pyvirt._core.state cimport record_t, run_t
from pyvirt._core.types cimport hpa_t

cdef struct host_t:                 # a guest-physical address, translated
    uint64_t pa
    uint64_t rights                 # the nested leaf with the rights of all levels
    int shift                       # of the nested page


cdef inline void count_reference(run_t *x, bint host, int level, hpa_t pa) noexcept nogil:
    """Count an entry that a walk reads, and note it if someone wants to know."""
    cdef record_t *record
    if x.marking:
        return
    x.refs += 1
    if host:
        x.counters.host_refs[level] += 1
    else:
        x.counters.guest_refs[level] += 1
    if x.m.buffer != NULL:
        record = &x.m.buffer[x.m.buffered]
        record.access = x.m.accesses
        record.pa = pa
        record.vcpu = <uint16_t>x.vcpu
        record.dimension = host
        record.level = <uint8_t>level
        x.m.buffered += 1


cdef uint16_t walk_guest(run_t *x, uint64_t va, uint32_t access, walk_t *w,
                         host_t *last) noexcept nogil
cdef uint16_t walk_real(run_t *x, uint64_t gpa, uint32_t access, walk_t *w,
                        host_t *last) noexcept nogil
cdef uint16_t walk_dimension(run_t *x, dimension_t *d, bint host, uint64_t address, uint32_t access,
                             walk_t *w, host_t *last) noexcept nogil
cdef uint16_t translate_host(run_t *x, uint64_t gpa, uint32_t access, int level, host_t *place,
                             walk_t *w) noexcept nogil
cdef uint16_t mark_path(run_t *x, dimension_t *d, bint host, uint64_t address,
                        const uint64_t *slots, uint64_t *entries, uint32_t from_cache, int first,
                        int leaf, uint32_t access, walk_t *w) noexcept nogil
cdef bint walks_choose_nested(nested_t *t, run_t *x, uint32_t access) noexcept nogil
