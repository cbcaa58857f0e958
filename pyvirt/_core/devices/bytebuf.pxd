# Bytes that a device has put out and nobody has taken yet.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t

cdef struct bytebuf_t:
    uint8_t *data
    size_t length
    size_t capacity
    size_t most             # it does not grow beyond
    uint64_t lost           # bytes that found no room

cdef bint buffer_put(bytebuf_t *b, const uint8_t *data, size_t count) noexcept nogil
cdef void buffer_free(bytebuf_t *b) noexcept nogil
