# The state of a simulated MMU: cores with their caches, vCPUs with their registers.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pyvirt._core.cache cimport cache_t
from pyvirt._core.contexts cimport contexts_t
from pyvirt._core.counters cimport counters_t
from pyvirt._core.paging cimport dimension_t
from pyvirt._core.frames cimport physmem_t
from pyvirt._core.nestedwalk cimport rest_t
from pyvirt._core.shortwalk cimport shortwalk_t

cdef enum:
    MAX_TLBS = 16
    TLB_LEVELS = 7                  # as many as an outcome code has room for
    PML_ENTRIES = 512               # SDM 30.3.6
    REFERENCE_ROOM = 4096           # references buffered between two drains

cdef enum kind_t:
    KIND_FETCH = 0
    KIND_LOAD = 1
    KIND_STORE = 2

cdef enum:
    SHORT_NO = 0
    SHORT_YES = 1
    SHORT_UNKNOWN = 2               # until the first walk of the nested tables

cdef enum mode_t:
    MODE_NATIVE = 0
    MODE_NESTED = 1
    MODE_TLB_ONLY = 2

cdef enum agile_t:                  # where a walk of agile translation begins
    AGILE_NO = 0                    # translation is not agile
    AGILE_SHADOW = 1                # in the hypervisor's shadow tables
    AGILE_ROOT = 2                  # in the guest's root table, whose place in the host is known
    AGILE_NESTED = 3                # in the guest's root table, as every nested walk

cdef enum:
    AGILE_SWITCH = 0x800            # of a shadow entry: it leads to the guest's own next table

# A cached mapping is kept as the x86 leaf that it amounts to: the host-physical page in bits 51:12,
# W, U, A, D, G, protection key and NX where a leaf has them. What the nested tables allow is in
# bits that a leaf leaves to software.
cdef enum:
    VALUE_W = 2
    VALUE_U = 4
    VALUE_D = 0x40                  # no walk is needed to set a D bit, in any dimension
    VALUE_G = 0x100
    VALUE_NESTED_SHIFT = 52         # R, W, X in bits 54:52
    VALUE_OWN_SHIFT = 55            # size of the page in the vCPU's own tables, in bits 56:55:
    OWN_4M = 3                      # 0 to 2 as in a tag, or 4 MiB

cdef enum walkcache_kind_t:
    WALKCACHE_NONE = 0
    WALKCACHE_SPLIT = 1             # one array for each level, by virtual address
    WALKCACHE_PAGE_TABLE = 2        # one array of entries, by physical address
    WALKCACHE_PATH = 3              # one array of whole paths, by virtual address

cdef struct walkcache_t:
    uint8_t kind
    bint to_host                    # guest's, in nested mode: leads to host-physical tables
    bint has[6]                     # an array for this level's entries
    cache_t level[6]                # [0]: the only one of the other kinds
    uint64_t *paths                 # of a slot: value and second word for levels 2 to 5

cdef struct core_t:
    cache_t tlb[MAX_TLBS]
    walkcache_t guest
    walkcache_t host
    cache_t nested
    uint64_t *turns                 # of a level: which of several arrays is filled next
    counters_t *counters

cdef struct plan_t:                 # which arrays serve whom
    int tlbs
    int levels
    int count[3][TLB_LEVELS + 1]    # [kind][level]
    uint8_t index[3][TLB_LEVELS + 1][MAX_TLBS]
    uint8_t level_of[MAX_TLBS]
    uint8_t pages[MAX_TLBS]         # bits by size
    uint8_t takes[MAX_TLBS][3]      # size that a page of a size is filled as; 3: not at all
    bint inclusive
    bint smashes                    # some array does
    bint has_nested

cdef struct request_t:              # what an access of one kind and CPL asks of a mapping
    uint64_t mask
    uint64_t wanted
    uint64_t dirty                  # VALUE_D if the access needs it
    uint32_t access                 # bits of access_t
    bint judged                     # masks do not tell: protection keys

cdef struct vcpu_t:
    dimension_t guest               # guest.outer is &host in nested mode
    dimension_t host
    uint64_t cr0
    uint64_t cr3
    uint64_t cr4
    uint64_t ep4ta
    uint16_t vpid
    uint16_t pcid
    uint16_t context                # ids
    uint16_t global_context
    uint16_t host_context
    int core
    bint paging                     # CR0.PG
    uint8_t agile                   # one of agile_t, in nested mode
    bint agile_ad                   # A and D of shadow leaves go into the guest's tables, too
    request_t requests[3][2]        # [kind][user]
    uint64_t pml_count
    uint64_t pml[PML_ENTRIES]
    dimension_t shadow              # of agile translation; root 0 unless a walk begins there

cdef packed struct record_t:        # one reference of a walk, in the order of RECORD_DTYPE
    uint64_t access                 # which access made it, counted from the last reset
    uint64_t pa                     # of the entry, host-physical
    uint16_t vcpu
    uint8_t dimension               # 0: the guest's (or only) tables, 1: the nested ones
    uint8_t level

cdef struct mmu_t:
    plan_t plan
    core_t *cores
    vcpu_t *vcpus
    int core_count
    int vcpu_count
    uint8_t mode
    bint set_ad
    bint pml
    bint conservative
    contexts_t contexts
    physmem_t *mem                  # NULL: tlb-only
    char *arena                     # everything that the pointers in cores point to
    uint64_t arena_size
    uint64_t accesses               # since the last reset
    record_t *buffer                # of references, or NULL if no one wants them
    uint64_t buffered
    cache_t data[3]                 # L1, L2, L3 for references
    int data_first                  # the first that exists
    int data_levels
    record_t *ring                  # the caller's, or NULL
    uint64_t ring_size
    uint64_t ring_written
    bint globals                    # a global page was cached at some time
    bint pieces                     # and a part of a page

cdef struct run_t:                  # one access on its way
    mmu_t *m
    core_t *core
    vcpu_t *v
    counters_t *counters
    uint64_t guest_low              # bits 18:0 of tags
    uint64_t global_low
    uint64_t host_low
    uint32_t refs                   # of the walk
    uint8_t short_host              # whether the nested tables can be walked the short way,
    shortwalk_t host                # and by what
    rest_t rest                     # of a walk that began as a short one; rest.first 0: none
    bint marking                    # an A or D bit: what that takes is not counted
    bint in_shadow                  # agile: the last walk ended in shadow tables
    int switched                    # agile: level of the guest's first table of a walk, whose
                                    # place in the host came with a shadow entry; else 0
    uint64_t violated               # guest-physical address of the last nested fault
    int vcpu
