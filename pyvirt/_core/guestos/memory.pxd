# Frames: a buddy allocator, references, and who maps what.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.guestos.state cimport NOTHING, guest_t, kind_t


cdef void give_range(guest_t *g, uint64_t first, uint64_t end) noexcept nogil
cdef uint32_t take_frames(guest_t *g, uint32_t order, kind_t kind) noexcept nogil
cdef void give_frames(guest_t *g, uint32_t frame, uint32_t order) noexcept nogil
cdef bint has_block(const guest_t *g, uint32_t order) noexcept nogil
cdef bint ensure_nodes(guest_t *g, uint64_t count) noexcept nogil
cdef void add_mapping(guest_t *g, uint32_t frame, uint32_t owner, uint64_t va) noexcept nogil
cdef void remove_mapping(guest_t *g, uint32_t frame, uint32_t owner, uint64_t va) noexcept nogil
cdef void gather(guest_t *g, uint32_t frame) noexcept nogil
cdef void release_gathered(guest_t *g) noexcept nogil
