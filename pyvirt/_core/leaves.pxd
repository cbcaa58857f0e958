# Enumeration of mappings.

from libc.stdint cimport uint8_t, uint16_t, uint64_t

cdef packed struct leaf_t:
    uint64_t va
    uint64_t pa                 # own physical space; host-physical once composed
    uint64_t size               # bytes
    uint64_t entry
    uint8_t page_shift
    uint16_t flags

cdef packed struct piece_t:     # a leaf cut to the page size of the next dimension
    uint64_t va
    uint64_t gpa
    uint64_t pa
    uint64_t size
    uint64_t entry
    uint8_t page_shift
    uint8_t nested_shift
    uint16_t flags
    uint16_t code
