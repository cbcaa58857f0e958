# Prefetching for streams that walk, see ahead.h.

from libc.stdint cimport uint64_t

from pyvirt._core.nestedwalk cimport nested_t
from pyvirt._core.shortwalk cimport shortwalk_t

cdef extern from "ahead.h" nogil:
    enum:
        AHEAD_GROUP

    ctypedef struct ahead_t:
        uint64_t due

    void ahead_start(ahead_t *a)
    void ahead_native(ahead_t *a, const shortwalk_t *h, const char *vas, uint64_t stride,
                      uint64_t i, uint64_t n)
    void ahead_nested(ahead_t *a, const nested_t *t, const char *vas, uint64_t stride, uint64_t i,
                      uint64_t n)
