# Short walks of two dimensions, see nestedwalk.h.

from libc.stdint cimport int8_t, uint8_t, uint64_t

from pyvirt._core.cache cimport cache_t
from pyvirt._core.shortwalk cimport ask_t, shortwalk_t

cdef extern from "nestedwalk.h" nogil:
    ctypedef struct rest_t:
        uint64_t next[6]
        uint64_t second[6]
        uint64_t rights
        uint64_t base
        uint64_t direct
        unsigned int refs
        int8_t first
        int8_t level
        int8_t known

    ctypedef struct nested_t:
        shortwalk_t guest
        shortwalk_t host
        ask_t access
        ask_t table
        ask_t page
        cache_t *tlb
        uint64_t beyond
        uint64_t dirty
        uint64_t host_nx
        uint64_t *tlb_hits
        uint64_t *host_walks
        rest_t *rest
        uint8_t ept
