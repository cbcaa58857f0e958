# The address types of the field and the geometry of pages, in one place.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

ctypedef uint64_t gva_t     # guest virtual address
ctypedef uint64_t gpa_t     # guest physical address
ctypedef uint64_t hpa_t     # host physical address: what PhysMem is indexed by
ctypedef uint64_t vpn_t     # virtual page number
ctypedef int64_t ns_t       # simulated time

cdef enum:
    PAGE_SHIFT = 12
    PAGE_SIZE = 4096
    PAGE_OFFSET = 4095      # mask of the offset in a 4 KiB page
