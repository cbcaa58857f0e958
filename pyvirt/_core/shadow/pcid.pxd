# Process-context identifiers: what a load of CR3 and INVPCID flush.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.shadow.access cimport done_t
from pyvirt._core.shadow.state cimport cpu_t, hyper_t

cdef enum:
    PCID_MASK = 0xFFF

cdef void flush_pcid(hyper_t *s, cpu_t *v, uint64_t pcid) noexcept nogil
cdef done_t invpcid(hyper_t *s, cpu_t *v, uint32_t type, uint64_t pcid, uint64_t va) noexcept nogil
