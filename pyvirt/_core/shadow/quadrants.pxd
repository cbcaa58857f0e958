# 32-bit and PAE guests: a shadow root for each GiB, and shadow pages that are parts of a table.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.paging cimport FORMAT_PAE
from pyvirt._core.shadow.state cimport (
    ROLE_4_BYTE,
    ROLE_QUADRANT_SHIFT,
    cpu_t,
    hyper_t,
    level_of,
    page_t,
)

cdef enum pdptes_t:
    PDPTES_SAME = 0
    PDPTES_CHANGED = 1
    PDPTES_RESERVED = 2             # one has a reserved bit: the load faults
    PDPTES_OUTSIDE = 3              # one is of a table that is not in memory


cdef inline uint32_t quadrant_of(const page_t *p) noexcept nogil:
    return p.role >> ROLE_QUADRANT_SHIFT & 3


cdef inline uint32_t place_of_entry(const page_t *p, uint32_t index) noexcept nogil:
    """Offset, in the guest's table, of the entry that a shadow entry comes from."""
    if not p.role & ROLE_4_BYTE:
        return index << 3
    if level_of(p) == 1:
        return (quadrant_of(p) << 9 | index) << 2
    return (quadrant_of(p) << 8 | index >> 1) << 2      # two shadow entries for 4 MiB


cdef inline bint top_table(const cpu_t *v, uint64_t va, uint64_t *base) noexcept nogil:
    """Where the table is that a walk begins with; False: a PDPTE says that there is none."""
    cdef uint64_t pdpte
    if v.guest.format != FORMAT_PAE:
        base[0] = v.cr3 & v.guest.table_address
        return True
    pdpte = v.pdptes[va >> 30 & 3]
    base[0] = pdpte & v.guest.table_address
    return pdpte & 1


cdef bint written_entries(const page_t *p, uint32_t offset, uint32_t *first,
                          uint32_t *count) noexcept nogil
cdef pdptes_t load_pdptes(hyper_t *s, cpu_t *v, uint64_t cr3) noexcept nogil
cdef uint64_t top_frame(const cpu_t *v, uint32_t quarter) noexcept nogil
