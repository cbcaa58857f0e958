# The state of a hypervisor's MMU: one pool of table pages for shadow tables and nested tables, the
# lists that tie their entries together, and the vCPUs that run on them.
#
# Every present entry is in exactly one list. A leaf is in the list of the guest frame that it maps
# (the reverse map), a link in the list of the page that it points to (its parents). Both lists run
# through `links`, which has one element for each entry of the pool, so that nothing is allocated
# after the start.
#
# Host-physical memory is the guest's, each frame at its own number, and the pool above it. So a
# leaf holds the guest frame, and a link the place of its page: a processor can walk the tables.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from pyvirt._core.events cimport event_t
from pyvirt._core.frames cimport physmem_t, pm_in_ram
from pyvirt._core.paging cimport MAX_LEVELS, dimension_t
from pyvirt._core.state cimport mmu_t, run_t

cdef enum:
    NO_PAGE = 0                     # page 0 of the pool is never used,
    NO_SLOT = 0                     # so neither is entry 0
    PREVIOUS_ROOTS = 7              # at most; KVM keeps 3
    MEMO_SLOTS = 4096               # a power of two
    INSTRUCTION_EVENTS = 16         # accesses of one instruction, or of the delivery of a fault
    GENERATIONS = 1 << 18           # 12 bits on top of an MMIO entry, 6 above bit 0
    MAX_RESTARTS = 256              # of one instruction
    UNSYNC_LIMIT = 64               # at most; Xen keeps 3 a vCPU
    PML_ENTRIES = 512               # of a page-modification log (SDM 30.3.6)

# Entries of shadow and nested tables have the format of x86-64 and NPT.
cdef enum:
    ENTRY_P = 1
    ENTRY_W = 2
    ENTRY_U = 4
    ENTRY_A = 0x20
    ENTRY_D = 0x40
    ENTRY_LARGE = 0x80              # a leaf of level 2
    ENTRY_MMIO = 0x200              # not present: no memory is there, see `mmio_entry`
    ENTRY_LOGGED = 0x400            # W was taken for the dirty log only: a write gives it back
    ENTRY_SWITCH = 0x800            # AGILE_SWITCH: leads to the guest's own table, by host address
    ENTRY_ENDS = 0x880              # ends a walk of shadow pages above level 1: LARGE or SWITCH

cdef enum:
    FRAME_SHIFT = 12
    GROUP = 8                       # entries that a prefetch looks at, aligned

# Rights that the entries above a table, or all entries of a page, leave.
cdef enum:
    RIGHT_W = 1
    RIGHT_U = 2
    RIGHT_X = 4
    RIGHT_ALL = 7
    RIGHT_CLEAN = 8                 # beside W: D is for the processor to set

# The role: what besides the guest frame tells shadow pages apart.
cdef enum:
    ROLE_LEVEL = 0xF                # 1: the table of 4 KiB leaves
    ROLE_RIGHTS_SHIFT = 4           # three bits: what the entries above leave
    ROLE_DIRECT = 1 << 7            # shadows no guest table: a piece of a large page, or nested
    ROLE_WP = 1 << 8                # CR0.WP
    ROLE_SMEP = 1 << 9              # CR4.SMEP where CR0.WP is clear
    ROLE_SMAP = 1 << 10             # CR4.SMAP where CR0.WP is clear
    ROLE_NX = 1 << 11               # EFER.NXE
    ROLE_4_BYTE = 1 << 12           # the guest's entries have 4 bytes
    ROLE_QUADRANT_SHIFT = 13        # two bits: which part of such a table it shadows
    ROLE_PSE = 1 << 15              # CR4.PSE of such a guest; KVM would find the page without

cdef enum mode_t:
    MODE_SHADOW = 0
    MODE_TDP = 1                    # nested tables, one page a fault
    MODE_LEGACY = 2                 # nested tables in the shadow pages' pool, with prefetch
    MODE_AGILE = 3                  # shadow tables that lead into the guest's own, and nested ones
    MODE_NATIVE = 4                 # no hypervisor: the guest's tables are the machine's

# What has to be done before a vCPU runs again.
cdef enum request_t:
    REQUEST_FLUSH = 1               # its TLB
    REQUEST_SYNC = 2                # the tables below the root
    REQUEST_OBSOLETE = 4            # forget roots that are invalid
    REQUEST_GUEST_FLUSH = 8         # the guest flushed everything: sync, forget stale roots
    REQUEST_ROOT = 16               # there is no root
    REQUEST_MOVE = 32               # agile paging: tables that are written often, to nested mode

cdef enum:                          # why a large entry was not made
    LARGE_GUEST = 0                 # the guest's own page is smaller
    LARGE_HOST = 1                  # the host's is
    LARGE_SHADOWED = 2              # a frame in it holds a shadowed table
    LARGE_SLOT = 3                  # it leaves the memory
    LARGE_LOGGED = 4                # writes to it are logged, by 4 KiB
    LARGE_REFUSALS = 5

cdef enum log_t:                    # how writes to 2 MiB of memory are logged
    LOG_OFF = 0
    LOG_PROTECT = 1                 # entries are read-only until the first write
    LOG_PML = 2                     # the processor notes each D that it sets

cdef struct link_t:                 # of an entry, in the list that it is in
    uint32_t next
    uint32_t prev                   # NO_SLOT: it is the first

cdef struct page_t:                 # one table of the pool
    uint64_t gfn                    # of the guest's table; direct: the first frame that it maps
    uint64_t marks[8]               # links below which a table may be out of sync
    uint32_t role
    uint32_t parents                # first link that points here
    uint32_t same_next              # older page of the same frame
    uint32_t same_prev
    uint32_t older                  # by the time of making
    uint32_t newer
    uint32_t roots                  # how often it is some vCPU's current or previous root
    uint32_t visit                  # of the walk that came here last
    uint16_t marked                 # bits set in marks
    uint16_t present                # entries
    uint16_t traced                 # emulated writes since it was in step again
    uint8_t writes                  # emulated ones since it was last used
    bint unsync                     # the guest may write the table without an exit
    bint invalid                    # zapped while a root
    bint used                       # not on the free list

cdef struct root_t:
    uint32_t page                   # NO_PAGE: none
    bint nested                     # agile paging: the guest's own root table, and no page
    uint64_t cr3

cdef struct counters_t:             # in the order of COUNTER_DTYPE
    # exits by reason, named as SVM's
    uint64_t x_pf                         # page faults
    uint64_t x_npf                        # violations of nested tables
    uint64_t x_invlpg                     # INVLPG
    uint64_t x_cr3_write                  # MOV to CR3
    uint64_t x_cr0                        # MOV to CR0
    uint64_t x_cr4                        # MOV to CR4
    uint64_t x_io                         # I/O ports
    uint64_t x_other                      # VM_EXIT events
    # faults, by what became of them
    uint64_t pf_taken                     # all but pf_mmio
    uint64_t pf_fixed                     # hidden: an entry was made or changed
    uint64_t pf_guest                     # true: reflected to the guest
    uint64_t pf_emulate                   # writes to tables, first touches of no memory
    uint64_t pf_spurious                  # the entry was right already
    uint64_t pf_mmio                      # an entry knew that no memory is there
    # what KVM counts
    uint64_t invlpg                       # INVLPG that were emulated
    uint64_t tlb_flush                    # entries of a vCPU with a flush pending
    uint64_t remote_tlb_flush_requests    # flushes asked of all vCPUs
    int64_t pages_4k                      # leaves of 4 KiB there are
    int64_t pages_2m                      # leaves of 2 MiB there are
    uint64_t mmu_cache_miss               # pages made
    uint64_t mmu_shadow_zapped            # pages zapped
    uint64_t mmu_pte_write                # writes to tables emulated
    uint64_t mmu_pde_zapped               # upper entries dropped for a new one
    uint64_t mmu_flooded                  # pages zapped for many writes
    uint64_t mmu_recycled                 # pages zapped for the limit
    int64_t mmu_unsync                    # pages out of sync there are
    # what else a shadow MMU does
    uint64_t accesses                     # made, those that ran again included
    uint64_t guest_faults                 # page and protection faults of the guest
    uint64_t guest_walks                  # walks of the guest's tables
    uint64_t guest_a_set                  # A bits set in the guest's entries
    uint64_t guest_d_set                  # D bits
    uint64_t filled                       # entries made or changed by faults
    uint64_t prefetched                   # entries made ahead of their use
    uint64_t pages_found                  # pages found by frame and role
    uint64_t roots_hit                    # loads of CR3 that hit a previous root
    uint64_t roots_built                  # roots found by frame, or made
    uint64_t syncs                        # tables compared
    uint64_t sync_compared                # entries of them
    uint64_t sync_dropped                 # of these, dropped
    uint64_t sync_changed                 # of these, changed
    uint64_t unsyncs                      # tables that went out of sync
    uint64_t unsync_evicted               # resynced for the limit on unsync ones
    uint64_t write_protected              # entries that lost W
    uint64_t reverse_map_walked           # entries looked at for that
    uint64_t reverse_map_longest          # the longest list of one frame
    uint64_t large_refused[5]             # large entries not made, by reason
    uint64_t host_invalidated             # entries dropped for the host
    uint64_t traces_lifted                # tables whose trace was lifted
    # the dirty log
    uint64_t x_pml_full                   # exits for a full page-modification log
    uint64_t pf_fast                      # faults fixed without the lock
    uint64_t log_faults                   # writes that the log alone made fault
    uint64_t logged                       # frames that became dirty
    uint64_t log_protected                # entries that lost W or D for the log
    uint64_t large_split                  # large entries replaced by small ones for the log
    uint64_t collapsed                    # small entries dropped for a large one after it
    uint64_t x_invpcid                    # INVPCID
    # agile paging
    uint64_t agile_intervals              # that ended
    uint64_t agile_moved                  # tables that went to nested mode
    uint64_t agile_returned               # tables that went back to shadow mode
    uint64_t agile_trapped                # writes to tables that trapped
    uint64_t agile_untrapped              # that did not, their table being in nested mode
    uint64_t agile_switches[6]            # switching entries and roots made, by level of the table
    uint64_t agile_root_hits              # loads of CR3 without an exit

cdef struct rules_t:                # see pyvirt.mmu.shadow.ShadowRules for each
    bint unsync
    bint clean_read_only
    bint keep_pages
    bint refill_at_invlpg
    bint refill_at_injection
    bint sync_at_cr3
    bint sync_at_link
    bint prefetch_accessed
    bint stay_unsync
    bint large_pages
    bint flood_leaves
    bint refill_at_write
    bint log_writes_only
    bint split_eagerly
    uint32_t prefetch               # entries of an aligned group; 0: none
    uint32_t flood_limit            # 0: none
    uint32_t previous_roots
    uint32_t least_free
    uint32_t refill
    uint32_t batch                  # tables of one pass of a sync
    uint32_t unsync_limit           # 0: none
    uint32_t trace_limit            # 0: a table goes unsync at once

cdef enum:
    AGILE_PENDING = 16              # tables that wait to be moved, at most

cdef struct agile_t:                # agile paging; see pyvirt.mmu.agile.AgileRules
    uint64_t length                 # of an interval, in events; 0: none ends
    uint64_t left                   # of this one
    uint32_t interval               # its number
    uint32_t writes                 # that trap in one interval before a table moves; 0: never
    uint32_t root_cache             # previous roots whose load needs no exit
    uint32_t moved                  # tables in `hyper_t.moved`
    uint32_t pending_count
    uint32_t pending[AGILE_PENDING] # their frames
    uint32_t running                # vCPU
    bint by_process
    bint all_back
    bint hardware_ad

cdef struct table_t:                # a guest frame, as agile paging sees it
    uint32_t switches               # first entry that switches to the table in it
    uint32_t interval               # that `writes` is of
    uint32_t writes                 # that trapped
    uint32_t root                   # frame of the table that it was moved with
    uint8_t nested                  # in nested mode: the table's level when it moved; else 0
    uint8_t written                 # in this interval: moved, or by the hypervisor
    uint8_t listed                  # in `hyper_t.moved`
    uint8_t stays                   # while an interval ends

cdef struct guest_walk_t:           # how the guest's own tables translate an address
    uint64_t gpa
    uint64_t error                  # code of the guest's page fault
    uint64_t entry[MAX_LEVELS + 1]  # by level, as they were read
    uint64_t table[MAX_LEVELS + 1]  # guest frame of the table of a level
    uint16_t offset[MAX_LEVELS + 1] # of the entry in it
    uint16_t code                   # 0 or a result code
    uint8_t above[MAX_LEVELS + 1]   # rights that the entries above that table leave
    uint8_t rights                  # of the page
    uint8_t level                   # of the leaf

cdef struct memo_t:                 # where a page's leaf was found
    uint64_t page                   # address >> 12
    uint32_t epoch                  # dead if it is not the pool's
    uint32_t slot

cdef struct check_t:                # what an access asks of a leaf: entry & mask == wanted
    uint64_t mask
    uint64_t wanted
    uint64_t used                   # A, and D for a write
    uint32_t access                 # bits of access_t

cdef struct cpu_t:                  # a vCPU
    dimension_t guest               # its own tables
    uint64_t cr0
    uint64_t cr3
    uint64_t cr4
    uint64_t efer
    root_t root
    root_t previous[PREVIOUS_ROOTS]
    uint64_t pcid_mask              # of the PCID in CR3; 0 without CR4.PCIDE
    uint32_t role                   # of its shadow pages, less level and rights
    bint quartered                  # a 32-bit or PAE guest: a root for each GiB, none previous
    bint rooted                     # those roots are there, as far as there are tables
    root_t quarters[4]
    uint64_t pdptes[4]              # of a PAE guest, as they were when CR3 was loaded
    uint32_t requests
    bint faulted                    # the guest is in its fault handler
    uint64_t error                  # code of that fault
    uint64_t fault_address
    uint64_t accumulator            # what was loaded last
    check_t check[3][2]             # [load, store, fetch][user]
    uint32_t events                 # of the instruction that is under way
    event_t instruction[INSTRUCTION_EVENTS]
    uint32_t pml_count
    uint64_t pml[PML_ENTRIES]       # guest frames that the processor noted since the last exit
    memo_t memo[MEMO_SLOTS]

cdef struct hyper_t:
    uint8_t mode
    uint8_t levels                  # of shadow or nested tables
    rules_t rules
    physmem_t *mem                  # the guest's
    uint64_t frames                 # guest frames of the slot: [0, frames)
    uint8_t *backing                # of each 2 MiB: 1 if the host keeps it in one page
    uint8_t *log                    # of each 2 MiB: one of log_t
    uint64_t *dirty                 # one bit a frame; clear where there is no log
    uint32_t logging                # how many 2 MiB are logged
    bint pml                        # vCPUs note what they write: some 2 MiB are logged so
    uint32_t *reverse               # by guest frame: first 4 KiB leaf that maps it
    uint32_t *reverse_large         # by 2 MiB of guest frames
    uint32_t *same                  # by `place_of`: newest page of a guest frame
    uint16_t *shadowed              # by 2 MiB: shadow pages of tables in it
    page_t *pages
    uint64_t *entries               # 512 a page
    link_t *links                   # one an entry
    uint64_t first_frame            # of the host, past the guest's: page p lies at this frame + p
    physmem_t pool                  # the pages at those frames, for a processor that walks them
    mmu_t *front                    # that processor; NULL: none
    run_t *runs                     # on it, one a vCPU
    agile_t agile
    table_t *tables                 # by guest frame; NULL: no agile paging
    uint32_t *moved                 # frames of tables in nested mode, in the order of their moves
    uint32_t capacity               # pages [1, capacity)
    uint32_t limit                  # how many may be used; 0: all
    uint32_t used
    uint32_t free                   # list through `newer` of those that were used
    uint32_t oldest
    uint32_t newest
    uint32_t nested_root
    uint32_t visit                  # number of the last walk over marks
    uint32_t *found                 # what that walk found; room for all
    uint32_t found_count
    uint32_t budget                 # pages that it may still note
    uint64_t unsync[UNSYNC_LIMIT]   # their frames, oldest first; kept under rules.unsync_limit only
    uint32_t unsync_count
    uint32_t high                   # the highest page that was ever used
    uint32_t epoch                  # changes with every link and root, see `new_epoch`
    uint64_t generation             # of the memory slots: older MMIO entries are not believed
    cpu_t *cpus
    uint32_t cpu_count
    counters_t *counters


cdef inline uint32_t level_of(const page_t *p) noexcept nogil:
    return p.role & ROLE_LEVEL


cdef inline uint32_t root_for(const cpu_t *v, uint64_t va) noexcept nogil:
    """The top page that a vCPU's address goes through, or NO_PAGE."""
    return v.quarters[va >> 30 & 3].page if v.quartered else v.root.page


cdef inline bint is_direct(const page_t *p) noexcept nogil:
    return p.role & ROLE_DIRECT


cdef inline uint64_t frame_of(uint64_t entry) noexcept nogil:
    """The host's frame that an entry maps or points to: of a leaf, the guest frame by number."""
    return (entry & 0x000FFFFFFFFFF000ULL) >> FRAME_SHIFT


cdef inline uint32_t page_of(const hyper_t *s, uint64_t entry) noexcept nogil:
    """The page that a link points to."""
    return <uint32_t>(frame_of(entry) - s.first_frame)


cdef inline uint64_t link_to(const hyper_t *s, uint32_t page) noexcept nogil:
    """The address bits of a link."""
    return (s.first_frame + page) << FRAME_SHIFT


cdef inline bint is_leaf(uint64_t entry, uint32_t level) noexcept nogil:
    """Whether a present entry of a page of this level leads to no page of the pool."""
    return level == 1 or entry & ENTRY_ENDS


cdef inline bint shadows(const hyper_t *s) noexcept nogil:
    """Whether there are shadow tables."""
    return s.mode == MODE_SHADOW or s.mode == MODE_AGILE


cdef inline void new_epoch(hyper_t *s) noexcept nogil:
    """Forget where leaves were found; when the numbers come round, in earnest."""
    cdef uint32_t i
    s.epoch += 1
    if s.epoch == 0:
        for i in range(s.cpu_count):
            memset(s.cpus[i].memo, 0, sizeof(s.cpus[i].memo))
        s.epoch = 1


cdef inline void request_flush(hyper_t *s) noexcept nogil:
    """Ask every vCPU to flush its TLB before it runs on."""
    cdef uint32_t i
    s.counters.remote_tlb_flush_requests += 1
    for i in range(s.cpu_count):
        s.cpus[i].requests |= REQUEST_FLUSH


cdef inline void note_trap(hyper_t *s, uint64_t gfn) noexcept nogil:
    """Agile paging: a write to a guest's table trapped. One that is written often is to move."""
    cdef cpu_t *v
    cdef table_t *t
    if s.tables == NULL:
        return
    v = &s.cpus[s.agile.running]
    if s.agile.by_process:
        gfn = (v.cr3 & v.guest.table_address) >> FRAME_SHIFT
    t = &s.tables[gfn]
    if t.interval != s.agile.interval:
        t.interval = s.agile.interval
        t.writes = 0
    t.writes += 1
    s.counters.agile_trapped += 1
    if (s.agile.writes and t.writes >= s.agile.writes and v.guest.wp
            and s.agile.pending_count < AGILE_PENDING):
        s.agile.pending[s.agile.pending_count] = <uint32_t>gfn
        s.agile.pending_count += 1
        v.requests |= REQUEST_MOVE


cdef inline void note_store(hyper_t *s, uint64_t gfn) noexcept nogil:
    """Agile paging: a store went through; to a table in nested mode it would have trapped else."""
    if s.tables != NULL and gfn < s.frames and s.tables[gfn].nested:
        s.counters.agile_untrapped += 1


cdef inline uint64_t place_of(const hyper_t *s, uint64_t gfn) noexcept nogil:
    """Where `same` has the pages of a frame: those of frames outside memory share one list."""
    return gfn if gfn < s.frames else s.frames


cdef inline bint in_slot(const hyper_t *s, uint64_t gfn) noexcept nogil:
    """Whether there is memory at a guest frame."""
    return gfn < s.frames and pm_in_ram(s.mem, gfn << FRAME_SHIFT, 1)


cdef inline bint is_logged(const hyper_t *s, uint64_t gfn) noexcept nogil:
    """Whether writes to a frame of memory are logged."""
    return s.logging and s.log[gfn >> 9]


cdef inline void mark_dirty(hyper_t *s, uint64_t gfn) noexcept nogil:
    """Note a write to a frame of memory if its writes are logged."""
    cdef uint64_t bit = <uint64_t>1 << (gfn & 63)
    if is_logged(s, gfn) and not s.dirty[gfn >> 6] & bit:
        s.dirty[gfn >> 6] |= bit
        s.counters.logged += 1


cdef inline uint64_t mmio_entry(const hyper_t *s, uint64_t gfn) noexcept nogil:
    """The absent entry that remembers that no memory is at a frame, and since when."""
    return (gfn << FRAME_SHIFT | ENTRY_MMIO | (s.generation & 0xFFF) << 52
            | (s.generation >> 12) << 1)
