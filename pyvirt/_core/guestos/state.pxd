# The state of the system: frames, processes, virtual processors, and the events they made.

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from pyvirt._core.events cimport event_t
from pyvirt._core.frames cimport physmem_t

cdef enum:
    NOTHING = 0xFFFFFFFF            # no frame, no process, the end of a list
    ORDERS = 10                     # blocks of 1 to 512 frames
    HUGE_ORDER = 9
    HUGE_FRAMES = 512
    MOST_CPUS = 64                  # one bit each in proc_t.cpus
    ASIDS = 16                      # room for address-space numbers of a vCPU; rules.asids are used
    OWNER_FILE = 0x80000000         # node_t.owner: a file's page cache, not a process

cdef enum entry_bits_t:             # of a page-table entry
    ENTRY_P = 1
    ENTRY_W = 2
    ENTRY_U = 4
    ENTRY_A = 0x20
    ENTRY_D = 0x40
    ENTRY_PS = 0x80
    ENTRY_G = 0x100
    ENTRY_TABLE = 0x67              # what Linux puts into an entry that names a table
    ENTRY_SWAPPED = 2               # an absent entry that is not 0

cdef enum kind_t:                   # what a frame is
    FRAME_FREE = 0
    FRAME_RESERVED = 1              # no memory, or not the system's
    FRAME_KERNEL = 2                # the kernel's own: never freed while its owner lives
    FRAME_TABLE = 3
    FRAME_PAGE = 4                  # anonymous
    FRAME_CACHE = 5                 # of a file

cdef enum stores_t:                 # how an entry is written
    STORES_DIRECT = 0               # an access through the direct map, with data
    STORES_TABLE = 1                # EVENT_STORE_TABLE
    STORES_BOTH = 2                 # an access without data, then EVENT_STORE_TABLE

cdef enum huge_t:
    HUGE_NEVER = 0
    HUGE_ALWAYS = 1
    HUGE_MADVISE = 2

cdef enum rights_t:                 # of an area
    AREA_R = 1
    AREA_W = 2
    AREA_X = 4
    AREA_HUGE = 8                   # madvise(MADV_HUGEPAGE)

cdef enum status_t:
    OK = 0
    NO_FRAMES = 1                   # the system is out of memory
    NO_MEMORY = 2                   # the host is
    BAD_ADDRESS = 3                 # no area holds it
    BAD_RIGHTS = 4                  # its area forbids the access
    NO_ROOM = 5                     # no range of addresses is free
    TAKEN = 6                       # areas overlap

cdef struct frame_t:
    uint32_t refs                   # mappings, and one for a file's cache
    uint32_t list                   # first node of its mappings; of a free block the next one
    uint32_t before                 # of a free block: the one before
    uint8_t kind                    # kind_t
    uint8_t order                   # of a free block
    uint8_t head                    # whether a free block begins here
    uint8_t data                    # whether it may hold what a stream stored

cdef struct node_t:                 # one mapping of a frame
    uint64_t va                     # or, in a file's cache, the index of the page
    uint32_t owner                  # process, or OWNER_FILE | file
    uint32_t next

cdef struct area_t:                 # a stretch of addresses that a process may use
    uint64_t start
    uint64_t end                    # exclusive
    uint32_t rights                 # rights_t
    uint32_t file                   # NOTHING: anonymous
    uint64_t offset                 # page of the file at `start`

cdef struct file_t:
    uint32_t *frames                # NOTHING: not in memory
    uint64_t pages

cdef struct proc_t:
    bint alive
    uint64_t root                   # of its tables; with isolation the user's is the next frame
    uint64_t object                 # direct-map address of the page with its stack and records
    area_t *areas                   # sorted
    uint64_t area_count
    uint64_t area_room
    uint64_t cpus                   # vCPUs on which it is current
    uint64_t context                # number of its address space, never used again
    uint64_t generation             # of its tables: grows with every flush
    uint64_t pages                  # 4 KiB pages mapped
    uint64_t tables                 # frames of its tables
    uint64_t top                    # areas without a given place are made below

cdef struct vcpu_t:
    uint32_t current                # process, or NOTHING
    bint user                       # the user's root is loaded (isolation)
    uint32_t asid                   # in use
    uint32_t next_asid
    uint64_t context[ASIDS]         # whose address space has the number; 0: nobody's
    uint64_t generation[ASIDS]      # of its tables when that was last flushed
    uint64_t user_stale             # numbers whose user half must be flushed at the next exit
    uint64_t entry                  # address of its entry area
    uint64_t data                   # address of its data

cdef struct rules_t:
    uint32_t stores                 # stores_t
    uint32_t huge                   # huge_t
    bint pcid
    bint isolation
    bint zero_page                  # reads of what was never written map one shared page
    bint delivery                   # faults and interrupts make the accesses of their delivery
    bint fork_flush                 # fork flushes all, not page by page
    bint broadcast                  # shoot-downs are one INVLPG for all, not one for each vCPU
    uint32_t page_accesses          # of zeroing or copying a page: 0, or a power of two up to 512
    uint32_t registers              # words saved at each kernel entry
    uint32_t handler_loads          # of kernel data, in each handler
    uint32_t flush_ceiling          # more pages than this are flushed with a load of CR3
    uint32_t fault_around           # pages of a file that one fault maps
    uint32_t asids                  # address-space numbers of a vCPU
    uint32_t reclaim_batch          # pages that reclaim unmaps before it flushes

cdef struct counters_t:
    uint64_t events
    uint64_t accesses               # of user code, that were asked for
    uint64_t faults                 # page faults, by what became of them:
    uint64_t zero_page
    uint64_t anonymous
    uint64_t huge
    uint64_t file_cached
    uint64_t file_read
    uint64_t swapped_in
    uint64_t copied
    uint64_t reused
    uint64_t forks                  # what processes did
    uint64_t execs
    uint64_t exits
    uint64_t switches
    uint64_t entries_written        # of tables
    uint64_t tables_made
    uint64_t tables_freed
    uint64_t flushes                # of a whole address space
    uint64_t page_flushes
    uint64_t shootdowns             # of other vCPUs
    uint64_t aged                   # A bits cleared
    uint64_t reclaimed
    uint64_t promoted
    uint64_t split

cdef struct guest_t:
    physmem_t *mem                  # what the tables are by the system's own view
    uint32_t levels
    uint64_t first                  # frame from which on memory is the system's
    uint64_t frame_count            # frames below the end of memory
    uint64_t free_frames
    uint64_t owned_frames           # frames that it was given at the start
    frame_t *frames
    uint32_t free[ORDERS]           # first block of each order
    node_t *nodes
    uint32_t node_count             # ever used
    uint32_t node_room
    uint32_t node_free              # list
    uint32_t nodes_idle             # in that list
    proc_t *procs
    uint32_t proc_count
    uint32_t proc_room
    uint64_t contexts               # given out
    uint64_t swap_slots             # given out
    file_t *files
    uint32_t file_count
    uint32_t *gathered              # frames to be freed after the flush
    uint64_t gathered_count
    uint64_t gathered_room
    vcpu_t cpus[MOST_CPUS]
    uint32_t cpu_count
    uint64_t direct_map             # address where all memory is mapped
    uint64_t boot_root              # the kernel's own tables
    uint64_t boot_user              # isolation: what every user root shares
    uint64_t zero_frame
    uint64_t hand                   # frame at which reclaim goes on
    event_t *events
    uint64_t event_count
    uint64_t event_room
    bint failed                     # the host had no memory for an event or a node
    uint32_t cpu                    # that acts
    uint32_t handler                # ARG_HANDLER while it handles a fault
    rules_t rules
    counters_t counters


cdef inline frame_t *frame_of(guest_t *g, uint64_t address) noexcept nogil:
    return &g.frames[address >> 12]
