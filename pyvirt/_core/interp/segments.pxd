# Descriptors in guest memory, and segment registers.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyvirt._core.interp.cpu cimport cpu_t, segment_t
from pyvirt._core.protection.verdict cimport verdict_t

cdef enum:                      # what find gives
    FOUND = 1
    OUTSIDE = 0                 # of its table, or there is no LDT
    FAULTED = -1                # a page fault is raised

cdef int find(cpu_t *c, uint16_t selector, uint64_t *raw) noexcept nogil
cdef bint descriptor_for(
    cpu_t *c, uint16_t selector, int vector, int ext, uint64_t *raw
) noexcept nogil
cdef bint refuse(cpu_t *c, verdict_t v) noexcept nogil
cdef void make_segment(uint16_t selector, uint64_t raw, segment_t *s) noexcept nogil
cdef void null_segment(uint16_t selector, segment_t *s) noexcept nogil
cdef void settle_segment(segment_t *s) noexcept nogil
cdef void real_segment(cpu_t *c, uint32_t which, uint16_t selector) noexcept nogil
cdef void set_segment(cpu_t *c, uint32_t which, const segment_t *s) noexcept nogil
cdef void set_cpl(cpu_t *c, uint32_t cpl) noexcept nogil
cdef bint mark_accessed(cpu_t *c, uint16_t selector, uint64_t *raw) noexcept nogil
cdef bint load_segment(cpu_t *c, uint32_t which, uint16_t selector) noexcept nogil
