# What the host does to a machine's memory, as its entries see it.

from libc.stdint cimport uint64_t

from pyvirt._core.shadow.state cimport hyper_t

cdef void new_generation(hyper_t *s) noexcept nogil
cdef uint64_t drop_frames(hyper_t *s, uint64_t first, uint64_t end) noexcept nogil
