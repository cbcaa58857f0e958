# TLBs: looking an address up in the arrays of a core, and filling them.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyvirt._core.state cimport core_t, plan_t

cdef enum:
    SIZE_4K = 0
    SIZE_2M = 1
    SIZE_1G = 2

cdef struct found_t:                # an entry
    uint64_t slot
    uint64_t value
    uint32_t set
    int way
    int array
    int level
    int size


cdef inline int size_shift(int size) noexcept nogil:
    return 12 + 9 * size


cdef inline int size_of_shift(int shift) noexcept nogil:
    """The class of a page; 4 MiB pages of 32-bit tables are kept as two of 2 MiB."""
    return 0 if shift < 21 else 1 if shift < 30 else 2


cdef inline uint64_t tag_of(uint64_t va, int size, uint64_t low) noexcept nogil:
    """The tag of the page of `size` that holds va; low: bits 18:0 of a 4 KiB one's."""
    return va >> size_shift(size) << 19 | low | <uint64_t>size << 1


cdef bint tlb_find(const plan_t *plan, core_t *core, int kind, uint64_t va, uint64_t low,
                   uint64_t global_low, found_t *found) noexcept nogil
cdef void tlb_fill(const plan_t *plan, core_t *core, int kind, int level, uint64_t va, int size,
                   uint64_t low, uint64_t other_low, uint64_t value, bint fresh) noexcept nogil
cdef uint64_t tlb_others(const plan_t *plan, const core_t *core, int kind, int first,
                         int second) noexcept nogil
