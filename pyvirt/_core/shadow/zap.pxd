# Zapping: a page of the pool goes with its entries, the links to it, and what is unsync below it.

from libc.stdint cimport uint32_t

from pyvirt._core.shadow.state cimport hyper_t

cdef struct zapped_t:
    uint32_t freed                  # pages given back
    uint32_t counted                # those, and roots in use that became invalid

cdef void zap(hyper_t *s, uint32_t page, zapped_t *z) noexcept nogil
cdef bint make_room(hyper_t *s) noexcept nogil
cdef void zap_all(hyper_t *s) noexcept nogil
