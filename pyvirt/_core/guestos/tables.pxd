# Page tables: where the entry of an address is, and tables made and given back.

from libc.stdint cimport uint64_t

from pyvirt._core.guestos.emit cimport entry_at
from pyvirt._core.guestos.state cimport (
    AREA_X,
    ENTRY_A,
    ENTRY_P,
    ENTRY_PS,
    ENTRY_U,
    area_t,
    guest_t,
    proc_t,
    status_t,
)

cdef enum:
    PAGE_BITS = 12
    INDEX_BITS = 9

cdef extern from *:
    """
    #define PV_ENTRY_ADDRESS 0x000FFFFFFFFFF000ULL
    #define PV_ENTRY_NX 0x8000000000000000ULL
    #define PV_IMAGE_AT 0x200000ULL
    #define PV_IMAGE_VA 0xFFFFFFFF81000000ULL
    #define PV_ENTRY_AREA 0xFFFFFE0000000000ULL
    """
    const uint64_t ENTRY_ADDRESS "PV_ENTRY_ADDRESS"
    const uint64_t ENTRY_NX "PV_ENTRY_NX"
    const uint64_t IMAGE_AT "PV_IMAGE_AT"       # where the kernel's image lies in memory
    const uint64_t IMAGE_VA "PV_IMAGE_VA"       # and where it is mapped
    const uint64_t ENTRY_AREA "PV_ENTRY_AREA"


cdef inline uint64_t find(const guest_t *g, uint64_t root, uint64_t va, int *level) noexcept nogil:
    """Physical address of the leaf of `va`, or of the first absent entry, and its level."""
    cdef uint64_t table = root, pa, e
    cdef int l = <int>g.levels
    while True:
        pa = table + 8 * (va >> (PAGE_BITS + INDEX_BITS * (l - 1)) & 511)
        if l > 1:
            e = entry_at(g, pa)
            if e & ENTRY_P and not e & ENTRY_PS:
                table = e & 0x000FFFFFFFFFF000ULL
                l -= 1
                continue
        level[0] = l
        return pa


cdef inline uint64_t span(int level) noexcept nogil:
    """Bytes that an entry of a level covers."""
    return <uint64_t>1 << (PAGE_BITS + INDEX_BITS * (level - 1))


cdef inline uint64_t leaf_flags(const area_t *area) noexcept nogil:
    """Bits of a leaf but W and D: Linux sets A in all that it makes (``vm_page_prot``)."""
    return ENTRY_P | ENTRY_U | ENTRY_A | (0 if area.rights & AREA_X else ENTRY_NX)


cdef uint64_t parent(const guest_t *g, uint64_t root, uint64_t va, int level) noexcept nogil
cdef status_t new_root(guest_t *g, proc_t *p) noexcept nogil
cdef void drop_root(guest_t *g, proc_t *p) noexcept nogil
cdef uint64_t make_entry(guest_t *g, proc_t *p, uint64_t va, int level) noexcept nogil
cdef bint frames_left(const guest_t *g, uint64_t count) noexcept nogil
cdef bint own_frame(guest_t *g, uint64_t pa) noexcept nogil
cdef void free_tables(guest_t *g, proc_t *p, uint64_t start, uint64_t end) noexcept nogil
cdef uint64_t next_area(const proc_t *p, uint64_t va) noexcept nogil
cdef area_t *area_of(const proc_t *p, uint64_t va) noexcept nogil
cdef bint boot_tables(guest_t *g) noexcept nogil
