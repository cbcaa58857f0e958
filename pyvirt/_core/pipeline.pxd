# One access: TLBs, walk caches, walks in one or two dimensions.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyvirt._core.state cimport request_t, run_t

# The outcome of an access: 3:0 a fault's kind, and then as pyvirt.errors.describe_fault; else
cdef enum:
    OUTCOME_LEVEL_SHIFT = 4         # 6:4 the TLB level that hit, 0: walked
    OUTCOME_REFS_SHIFT = 7          # 12:7 references of the walk
    OUTCOME_MOST_REFS = 63          # or more
    OUTCOME_SIZE_SHIFT = 13         # 14:13 size of the mapping
    OUTCOME_WEAK = 0x8000           # an entry was there, but lacked a right or D

# Of a leaf: W, U, A, G, the protection key, NX. D has a meaning of its own in a value.
cdef extern from *:
    """
    #define VALUE_KEPT 0xF800000000000126ULL
    """
    const uint64_t VALUE_KEPT


cdef uint16_t access_one(run_t *x, uint64_t va, int kind, bint user, uint64_t *pa) noexcept nogil
cdef uint16_t access_missed(run_t *x, uint64_t va, int kind, const request_t *r,
                            uint64_t *pa) noexcept nogil
