# Entry formats and the page walk. One dimension is one set of page tables; dimensions chain inside
# out, from the tables that translate the program's addresses to those that yield host-physical ones.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from pyvirt._core.frames cimport physmem_t
from pyvirt._core.types cimport hpa_t

cdef enum:
    MAX_LEVELS = 5
    MAX_DIMENSIONS = 4
    MEMO_BITS = 12                  # 4,096 slots for 2 MiB regions a dimension
    PAGE_MEMO_BITS = 14             # 16,384 pages of the nested dimension

cdef enum format_t:
    FORMAT_X86_64 = 0               # 4 or 5 levels of 8-byte entries
    FORMAT_PAE = 1                  # 3 levels; the top one has 4 entries without rights
    FORMAT_X86_32 = 2               # 2 levels of 4-byte entries
    FORMAT_EPT = 3                  # Intel's nested format
    FORMAT_NPT = 4                  # AMD's: x86-64 entries, other fault rules

cdef enum access_t:                 # what is asked of a translation, bits
    ACCESS_ANY = 0                  # no right is needed: where does it map?
    ACCESS_READ = 1
    ACCESS_WRITE = 2
    ACCESS_EXEC = 4
    ACCESS_USER = 8
    ACCESS_TABLE = 16               # made by an inner dimension's walk, to read or mark its entry
    ACCESS_LINEAR = 32              # made for a guest's address (sets bit 7 of a qualification)
    ACCESS_PURE = 64                # leaves A and D alone, whatever the dimension says

cdef enum fault_t:                  # pyvirt.errors.Fault
    FAULT_NONE = 0
    FAULT_NOT_PRESENT = 1
    FAULT_RESERVED = 2
    FAULT_MISCONFIGURED = 3
    FAULT_NO_READ = 4
    FAULT_NO_WRITE = 5
    FAULT_NO_EXEC = 6
    FAULT_NOT_USER = 7
    FAULT_SMEP = 8
    FAULT_SMAP = 9
    FAULT_PROTECTION_KEY = 10
    FAULT_NON_CANONICAL = 11
    FAULT_OUTSIDE_TABLE = 12
    FAULT_OUTSIDE_DATA = 13
    FAULT_NO_MEMORY = 14            # the host could not hold the frame of an A or D update
    FAULT_SKIPPED = 15              # on_fault="stop" ended the batch before this element

cdef struct level_t:                # the entries of one level
    uint64_t table_reserved         # reserved if the entry points to a table
    uint64_t leaf_reserved          # reserved if the entry maps a page
    uint64_t leaf_address           # where a leaf keeps the address
    uint64_t offset                 # mask of the offset in a page mapped here
    uint64_t index_mask             # of entries in a table
    uint8_t shift                   # of the address, for the index
    bint has_rights                 # R/W, U/S, NX, A are defined (not in a PAE PDPTE)
    bint may_map                    # bit 7 makes it a leaf (level 1: always one)

cdef struct memo_entry_t:           # a 2 MiB region whose tables were walked
    uint64_t tag                    # address >> 21 | epoch << 43
    const uint8_t *table            # the table of 4 KiB leaves, or the one large leaf
    uint16_t flags                  # mask: what the levels above leave of the leaf's flags
    uint8_t kind                    # of the leaf: 0 4 KiB, 1 2 MiB, 2 1 GiB

cdef struct memo_page_t:            # one page of a nested dimension, translated
    uint64_t tag                    # address >> 12 | epoch << 43
    uint64_t page                   # physical; flags of all its levels in the low 12 bits

cdef struct memo_t:
    memo_page_t *pages              # of a nested dimension, 2 ** PAGE_MEMO_BITS; or NULL
    uint64_t version                # of the memory, when the entries were made
    uint64_t epoch                  # << 43; entries of other epochs are dead
    memo_entry_t entries[1 << 12]


cdef inline uint64_t memo_index(uint64_t address) noexcept nogil:
    """Where a memo keeps the 2 MiB region of `address` (Fibonacci hashing)."""
    return ((address >> 21) * 0x9E3779B97F4A7C15ULL) >> (64 - MEMO_BITS)


cdef struct dimension_t:
    physmem_t *mem
    dimension_t *outer              # translates the addresses in this one's entries; or NULL
    memo_t *memo                    # or NULL
    uint64_t root                   # of the top table, in this dimension's physical addresses
    uint64_t table_address          # mask of the address in an entry that points to a table
    uint64_t present                # present if any of these bits is set
    uint64_t rights_and             # bits that count only if set in every entry
    uint64_t rights_or              # bits that count if set in any
    uint64_t accessed               # the A bit, or 0 where A and D are not updated
    uint64_t dirty
    uint32_t pkru
    uint32_t pkrs
    uint8_t format
    uint8_t levels
    uint8_t address_bits            # of the addresses that the tables translate
    uint8_t entry_shift             # log2 of the size of an entry
    uint8_t table_access            # how an inner dimension's walk uses this one
    bint is_ept
    bint is_npt
    bint sign_extended              # addresses must be canonical
    bint wp
    bint smep
    bint smap                       # and EFLAGS.AC clear
    bint nxe
    bint pke
    bint pks
    bint exec_only
    bint mbec
    bint ept_ad
    level_t level[MAX_LEVELS + 1]   # [1] is the level of 4 KiB leaves

cdef struct walk_t:                 # what one translation found
    uint64_t pa                     # host-physical address
    uint64_t gpa                    # address in this dimension's physical space; on a nested
                                    # fault the one that could not be translated
    uint64_t entry                  # the leaf, or the last entry read before a fault
    uint64_t rights                 # leaf entry with the rights of all levels
    uint64_t error                  # #PF error code, EPT exit qualification or NPF EXITINFO1
    uint64_t nested_entry           # likewise `entry` of the next dimension
    uint16_t code
    uint16_t flags
    uint8_t shift                   # log2 of the page size
    uint8_t nested_shift
    uint8_t smallest                # log2 of the smallest page of this and all dimensions out

cdef packed struct reference_t:     # one table read of a walk
    uint8_t dimension
    uint8_t level
    uint64_t pa                     # of the entry, host-physical
    uint64_t address                # of the entry, in its dimension's own physical space
    uint64_t entry

cdef struct recorder_t:
    reference_t *references
    uint64_t count
    uint64_t capacity               # further ones are counted, not stored
    uint8_t dimension


cdef inline uint64_t load_entry(
    const dimension_t *d, const uint8_t *p, uint64_t i
) noexcept nogil:
    """Entry `i` of the entries from `p` on, which may be unaligned."""
    cdef uint64_t entry = 0
    if d.entry_shift == 3:
        memcpy(&entry, p + (i << 3), 8)
    else:
        memcpy(&entry, p + (i << 2), 4)
    return entry


cdef inline void store_entry(
    const dimension_t *d, uint8_t *p, uint64_t i, uint64_t entry
) noexcept nogil:
    if d.entry_shift == 3:
        memcpy(p + (i << 3), &entry, 8)
    else:
        memcpy(p + (i << 2), &entry, 4)


cdef inline bint in_range(const dimension_t *d, uint64_t address) noexcept nogil:
    """Canonical, or for unsigned formats not wider than the tables; no branch on the address."""
    cdef uint64_t unused = 64 - d.address_bits
    if d.sign_extended:
        return <uint64_t>(<int64_t>(address << unused) >> unused) == address
    return address << unused >> unused == address


cdef inline uint16_t flags_x86(uint64_t rights) noexcept nogil:
    """R, W, X, U, A, D, G in bits 0 to 6; no branch on the entry, which no one can predict."""
    # where NX is not in force it is reserved, so a set bit 63 always forbids fetching
    return <uint16_t>(1 | (rights & 2) | (4 ^ (rights >> 61 & 4)) | (rights & 4) << 1
                      | (rights >> 1 & 0x30) | (rights >> 2 & 0x40))


cdef inline uint16_t flags_left(
    const dimension_t *d, uint64_t rights_and, uint64_t rights_or
) noexcept nogil:
    """Mask of the flags that a leaf keeps under tables with these rights."""
    if d.is_ept:
        return <uint16_t>(0x30 | (rights_and & 7) | (rights_and >> 7 & 8 if d.mbec else 0))
    return flags_x86(rights_and & 6 | rights_or) | 0x70


cdef inline uint16_t flags_of(const dimension_t *d, uint64_t rights) noexcept nogil:
    """`flags_x86`, or the same bits of an EPT entry."""
    if d.is_ept:
        return <uint16_t>((rights & 7) | (rights >> 7 & 8 if d.mbec else 0) | (rights >> 4 & 0x30))
    return flags_x86(rights)


cdef inline bint bad_memory_type(uint64_t entry) noexcept nogil:
    """Whether an EPT leaf has memory type 2, 3 or 7, which do not exist (SDM 30.3.3.1)."""
    return (0x8C >> (entry >> 3 & 7)) & 1


cdef uint16_t walk(dimension_t *d, uint64_t address, uint32_t access, walk_t *w,
                   recorder_t *recorder) noexcept nogil
cdef uint16_t locate(dimension_t *d, uint64_t address, uint32_t access, uint8_t level, hpa_t *pa,
                     walk_t *w, recorder_t *recorder) noexcept nogil

cdef object configure(dimension_t *d, object root, dict options)
cdef void memo_check(dimension_t *d) noexcept nogil
cdef void memo_store(dimension_t *d, uint64_t address, const uint8_t *entry, int level,
                     uint16_t flags) noexcept nogil
cdef bint ept_malformed(const dimension_t *d, uint64_t entry, bint leaf) noexcept nogil
cdef uint16_t judge(const dimension_t *d, uint64_t rights, uint32_t access) noexcept nogil
cdef uint16_t failed(dimension_t *d, uint16_t fault, int level, uint64_t rights, uint32_t access,
                     walk_t *w) noexcept nogil
