# What a processor sees of its devices: ports, one interrupt line, and time. It knows none of them.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

ctypedef uint32_t (*port_in_t)(void *board, uint16_t port, int size) noexcept nogil
ctypedef void (*port_out_t)(void *board, uint16_t port, int size, uint32_t value) noexcept nogil
ctypedef int (*acknowledge_t)(void *board) noexcept nogil
ctypedef void (*advance_t)(void *board, uint64_t now) noexcept nogil

cdef enum:
    NO_VECTOR = -1          # an acknowledge that found nothing to deliver

cdef struct bus_t:
    void *board             # handed back to the functions
    port_in_t port_in       # size 1, 2 or 4 bytes; ports that nobody has read as ones
    port_out_t port_out
    acknowledge_t acknowledge   # the vector, 0 to 255, that INTR stands for; the line follows
    advance_t advance       # devices do what is due up to `now`, and set `next_event` anew
    uint64_t now            # cycles of the processor's time stamp counter when it last called
    uint64_t next_event     # when `advance` is due at the latest; the largest number: never
    int line                # the level of INTR
    int stop                # not 0: the processor shall stop, since its machine was switched off or reset
