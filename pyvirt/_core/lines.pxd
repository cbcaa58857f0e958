# An access that is written as events, and the lines of text traces.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pyvirt._core.events cimport event_t

cdef enum:
    MOST_BYTES = 65535          # of one access
    MOST_EVENTS = 17            # that one access becomes: its pages, all but the first whole

cdef event_t *put(
    event_t *out, uint8_t op, uint64_t addr, uint64_t size, uint16_t vcpu, uint32_t arg
) noexcept nogil
