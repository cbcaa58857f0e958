# Areas of address spaces: mapped, unmapped, and given other rights.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.guestos.state cimport area_t, guest_t, proc_t, status_t

cdef struct range_t:                # of the leaves that were changed
    uint64_t start                  # the first one's address
    uint64_t end                    # where the last one ends
    bint any                        # whether there was one


cdef bint room_for_areas(proc_t *p, uint64_t count) noexcept nogil
cdef void unmap_range(guest_t *g, proc_t *p, uint32_t pid, uint64_t start, uint64_t end,
                      range_t *changed) noexcept nogil
cdef status_t map_area(guest_t *g, uint32_t pid, uint64_t size, const area_t *wanted,
                       uint64_t *va) noexcept nogil
cdef status_t unmap(guest_t *g, uint32_t pid, uint64_t start, uint64_t end) noexcept nogil
cdef status_t protect(guest_t *g, uint32_t pid, uint64_t start, uint64_t end,
                      uint32_t rights) noexcept nogil
