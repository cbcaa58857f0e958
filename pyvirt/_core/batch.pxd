# Batches of translations.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pyvirt._core.paging cimport dimension_t, walk_t

cdef packed struct detail_t:        # of one element of a batch; fields as in walk_t
    uint64_t entry
    uint64_t gpa
    uint64_t nested_entry
    uint64_t error
    uint8_t nested_shift

cdef struct batch_t:                # where the results of a batch go; detail may be NULL
    uint64_t *pa
    uint16_t *code
    uint8_t *shift
    uint16_t *flags
    detail_t *detail

cdef void settle(dimension_t *d, walk_t *w, bint require_ram) noexcept nogil
cdef uint64_t translate_batch(dimension_t *d, const uint64_t *vas, uint64_t n, uint32_t access,
                              const batch_t *out, bint stop, bint require_ram) noexcept nogil
