"""Bytes that a device has put out and nobody has taken yet."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy


cdef bint buffer_put(bytebuf_t *b, const uint8_t *data, size_t count) noexcept nogil:
    """All of `data` or nothing; what found no room is counted."""
    cdef size_t wanted
    cdef uint8_t *moved
    if count == 0:
        return True
    if count > b.most - b.length:
        b.lost += count
        return False
    if b.length + count > b.capacity:
        wanted = 2 * b.capacity
        if wanted < b.length + count:
            wanted = b.length + count
        if wanted < 256:
            wanted = 256
        moved = <uint8_t *>realloc(b.data, wanted)
        if moved == NULL:
            b.lost += count
            return False
        b.data = moved
        b.capacity = wanted
    memcpy(b.data + b.length, data, count)
    b.length += count
    return True


cdef void buffer_free(bytebuf_t *b) noexcept nogil:
    free(b.data)
    b.data = NULL
    b.length = b.capacity = 0
