# The state of one host's CPU scheduling: worlds, CPUs, run queues and what is due when.
#
# There is one run queue for each set of CPUs that some world may run on (its affinity), and the CPUs
# of that set share it: without affinities one queue for all, with every world pinned one for each
# CPU. A CPU that several queues serve takes the best of their best.
#
# A running world is in no queue's tree, but for `AHEAD`. All times are integer nanoseconds.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from pyvirt._core.sched.timeline cimport timeline_t
from pyvirt._core.sched.work cimport more_t
from pyvirt._core.types cimport ns_t

cdef enum:
    MOST_WORLDS = 1 << 20
    WORLD_BITS = 20                 # of a key: the world's number
    CPU_BITS = 10
    MOST_CPUS = 1024
    MASK_WORDS = 16                 # of 64 CPUs each
    MOST_WEIGHT = 1 << 20
    MOST_QUEUES = 65535
    NO_WORLD = 0xFFFFFFFF
    NO_CPU = 0xFFFF
    NO_NODE = 0xFFFF
    LATENCY_BUCKETS = 512           # eight for each power of two

# Virtual time is CPU time over weight, in units of 2**-10 ns at weight 1.
cdef enum:
    VIRTUAL_SHIFT = 10

cdef enum:
    FULL_SPEED = 1 << 16

# Bounds that do not fit in an enum of C; verbatim, so that who cimports this needs no header.
cdef extern from * nogil:
    """
    #ifndef PYVIRT_SCHED_BOUNDS
    #define PYVIRT_SCHED_BOUNDS
    #define SPREAD ((int64_t)1 << 43)           /* keys have 44 bits for ranks */
    #define MOST_SLICE (((int64_t)1 << 32) - 1) /* of weight 1, half of SPREAD in virtual time */
    #define MOST_TIMESLICE ((int64_t)1 << 52)
    #define MOST_REMAIN ((int64_t)1 << 42)
    #define NEVER INT64_MAX
    #define MOST_TIME ((int64_t)1 << 61)
    #define DUE_HORIZON ((int64_t)1 << 53)      /* keys of CPU events have 54 bits for times */
    #define TIMER_HORIZON ((int64_t)1 << 43)    /* and those of timers 44 */
    #endif
    """
    const int64_t SPREAD            # of the ranks in a queue
    const int64_t MOST_SLICE
    const int64_t MOST_TIMESLICE    # of plug-in policies
    const int64_t MOST_REMAIN
    const ns_t NEVER
    const ns_t MOST_TIME
    const ns_t DUE_HORIZON          # how far the keys of CPU events reach
    const ns_t TIMER_HORIZON        # and those of timers

cdef enum world_state_t:
    GONE = 0                        # its number is free
    WAIT = 1
    READY = 2
    RUN = 3
    LIMITED = 4                     # would run, but has used up its limit: esxtop's MLMTD
    COSTOP = 5                      # would run, but waits for its siblings: esxtop's CSTP

cdef enum world_flag_t:
    HAS_JOBS = 1                    # runs only while it has work
    HAS_LIMIT = 2
    WOKEN = 4                       # has not run since it woke
    HELD = 8                        # blocked by the caller: work that arrives does not wake it
    FRESH = 16                      # has not competed yet
    ELIGIBLE = 32                   # EEVDF: is in the tree by deadline
    AHEAD = 64                      # stride: runs, and is in the tree with its rank after the slice
    PACED = 128                     # may work at another than full speed

cdef enum source_t:
    SOURCE_NONE = 0                 # work comes from the caller alone
    SOURCE_OPEN = 1                 # jobs arrive whether or not the last one is done
    SOURCE_CLOSED = 2               # the next job comes some time after the last is done
    SOURCE_TRACE = 3                # work comes at recorded rates
    SOURCE_TEAM = 4                 # it shares a barrier or a lock with others

cdef enum pause_t:                  # what a world waits for up to a time
    PAUSE_SWAP = 1                  # pages that the host swapped out: esxtop's SWPWT
    PAUSE_DEVICE = 2

cdef enum distribution_t:
    FIXED = 0
    EXPONENTIAL = 1
    UNIFORM = 2                     # from 0 to twice the mean

cdef enum policy_t:
    POLICY_RR = 0
    POLICY_STRIDE = 1               # up to here: one tree by rank, the least of which runs
    POLICY_EEVDF = 2
    POLICY_LINUX = 3                # EEVDF that looks at the clock at ticks only
    POLICY_LOTTERY = 4
    POLICY_HSTRIDE = 5
    POLICY_PLUG = 6                 # sched_t.plug

# What plug-in policies are told, and what they may ask for: pyvirt._core.sched.plug.

cdef enum mark_t:
    QUEUED = 1                      # the policy has it in a queue
    PARKED = 2                      # by the policy, out of competition
    COSTOPPED = 4                   # likewise

cdef enum why_t:
    WHY_WAKE = 0                    # enqueue: it has work
    WHY_NEW = 1                     # it came into being with work
    WHY_SLICE = 2                   # its timeslice ended
    WHY_PREEMPT = 3                 # its CPU was asked for
    WHY_REFILL = 4                  # its limit's period began, or its limit was lifted
    WHY_UNPARK = 5
    WHY_COSTART = 6
    WHY_MOVE = 7                    # enqueue and stopped: its parameters change
    WHY_BLOCK = 8                   # stopped: it has no work, or was taken away
    WHY_LIMIT = 9
    WHY_PARK = 10
    WHY_COSTOP = 11

cdef enum hook_t:
    HOOK_NONE = 0
    HOOK_BEGIN = 1
    HOOK_ADD = 2
    HOOK_REMOVE = 3
    HOOK_CHANGE = 4
    HOOK_ENQUEUE = 5
    HOOK_DEQUEUE = 6
    HOOK_CHARGE = 7
    HOOK_PICK = 8
    HOOK_TIMESLICE = 9
    HOOK_STOPPED = 10
    HOOK_TIMED = 11
    HOOK_REQUEUE = 12

cdef enum fault_kind_t:
    FAULT_NONE = 0
    FAULT_WORLD = 1                 # picked: no such world
    FAULT_STATE = 2                 # picked: not ready, or not queued
    FAULT_AFFINITY = 3              # picked: not allowed on that CPU
    FAULT_TIMESLICE = 4
    FAULT_TIMER = 5
    FAULT_ARGUMENT = 6              # a service was called for no such world or CPU
    FAULT_ENDLESS = 7               # it asks without end, or hooks call each other without end
    FAULT_RAISED = 8                # a hook in Python raised

# How deep hooks may be nested, through `park` and its like.
cdef enum:
    MOST_DEPTH = 64

cdef struct sched_s
ctypedef sched_s sched_t

ctypedef struct fault_t:
    uint32_t kind
    uint32_t hook
    uint32_t cpu                    # or NO_CPU
    uint32_t world                  # or NO_WORLD
    int64_t value                   # what was returned
    ns_t when

ctypedef struct services_t:         # what policies in other languages call
    void (*ask)(sched_t *s, uint32_t cpu) noexcept nogil
    bint (*allowed)(const sched_t *s, uint32_t id, uint32_t cpu) noexcept nogil
    void (*account)(sched_t *s, uint32_t cpu) noexcept nogil
    void (*park)(sched_t *s, uint32_t id) noexcept nogil
    void (*unpark)(sched_t *s, uint32_t id) noexcept nogil
    void (*costop)(sched_t *s, uint32_t id) noexcept nogil
    void (*costart)(sched_t *s, uint32_t id) noexcept nogil

# The next event of a busy CPU, where they come in the order in which they were set.
ctypedef struct turn_t:
    ns_t when
    uint32_t cpu
    uint32_t world                  # that runs on it

ctypedef struct stretch_t:          # ends of timeslices, one after the other
    turn_t *turns                   # the next one of each CPU: a ring, in their order
    ns_t until                      # none later than this is to happen,
    uint64_t most                   # and no more than so many
    uint64_t count                  # that happened
    uint32_t at                     # first of the ring
    uint32_t left                   # 1: what the policy said about the last one is left to the engine
    uint32_t next                   # the world that it gave then, and its timeslice
    ns_t slice

ctypedef struct leaps_t:            # of a policy of pyvirt's own: how what repeats itself is leapt over
    # whether all that decides in its records is what `same` compares
    bint (*regular)(sched_t *s) noexcept nogil
    # whether a state is as one before, but for a shift in time and virtual time
    bint (*same)(sched_t *before, sched_t *s) noexcept nogil
    # a copy of the state was made (or NULL)
    void (*begin)(sched_t *s) noexcept nogil
    # and before each event after that: when it will be (or NULL)
    void (*watch)(sched_t *s, ns_t when) noexcept nogil
    # of so many periods, how many can be leapt over, with at most so many events
    uint64_t (*fit)(sched_t *before, sched_t *s, uint64_t times, uint64_t most) noexcept nogil
    # its records after so many more periods, of which the engine's are already; gives the times that
    # its timer was due
    uint64_t (*leap)(sched_t *before, sched_t *s, int64_t times) noexcept nogil

ctypedef struct plug_t:             # a plug-in policy: sizes, records, hooks
    size_t own_size
    size_t cpu_size
    size_t world_size
    size_t vm_size
    char *own                       # one record of the policy's own
    char *cpus                      # one for each CPU, world number, VM number
    char *worlds
    char *vms
    ns_t timer                      # when `timed` is due, or NEVER
    void (*begin)(sched_t *s) noexcept nogil
    void (*add)(sched_t *s, uint32_t id) noexcept nogil
    void (*remove)(sched_t *s, uint32_t id) noexcept nogil
    void (*change)(sched_t *s, uint32_t id) noexcept nogil
    void (*enqueue)(sched_t *s, uint32_t id, uint32_t why) noexcept nogil
    void (*dequeue)(sched_t *s, uint32_t id) noexcept nogil
    void (*charge)(sched_t *s, uint32_t id, ns_t dt) noexcept nogil
    uint32_t (*pick)(sched_t *s, uint32_t cpu) noexcept nogil
    ns_t (*timeslice)(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil
    void (*stopped)(sched_t *s, uint32_t id, uint32_t why) noexcept nogil
    void (*timed)(sched_t *s) noexcept nogil
    void *user                      # of hooks that need an object: not part of the state
    const services_t *services
    # charge, enqueue (WHY_SLICE), pick and timeslice in one
    uint32_t (*requeue)(sched_t *s, uint32_t cpu, uint32_t id, ns_t dt, ns_t *slice) noexcept nogil
    uint32_t trees                  # winner trees with a leaf for each world number
    uint32_t leaves                 # of each
    uint64_t *tree                  # one after the other, 2 * leaves keys each
    # a stretch of `requeue`s: pyvirt._core.sched.turns with that compiled into it
    void (*turns)(sched_t *s, stretch_t *t) noexcept nogil
    # pyvirt's own: ends of timeslices, up to a time and so many, until one needs the event loop
    uint64_t (*run)(sched_t *s, ns_t until, uint64_t most) noexcept nogil
    const leaps_t *leaps            # likewise, or NULL

ctypedef struct world_t:
    # what an event of an always runnable world touches
    int64_t v                       # virtual time, rounded down: the pass of stride; wraps around
    int64_t step                    # virtual time of one slice, rounded down
    ns_t since                      # start of the present state, or of what is not charged yet
    ns_t run                        # time in each state, up to `since`
    ns_t rdy
    uint64_t switches               # times that it came to run after another world or idleness
    uint32_t weight
    uint32_t rem                    # virtual time is v + rem / weight
    uint32_t step_rem               # likewise of `step`
    uint32_t slice                  # ns
    # a second cache line
    uint32_t slot                   # its leaf in its queue
    uint16_t queue
    uint16_t cpu                    # where it runs or ran last
    uint8_t state
    uint8_t flags
    uint8_t marks                   # of plug-in policies: mark_t
    uint32_t vm                     # that it belongs to
    uint64_t migrations             # times that it came to run on another CPU than before
    ns_t wait
    ns_t mlmtd
    ns_t cstp
    int64_t remain                  # while not active: what it is ahead of its queue
    int64_t deadline                # EEVDF: virtual, of its present request

ctypedef struct load_t:             # what only worlds with jobs, limits or pauses need
    ns_t born
    ns_t arrival                    # next job, or NEVER
    ns_t refill                     # end of its time in LIMITED, or NEVER
    uint64_t random                 # xorshift64*: of work
    uint64_t random_gap             # and of gaps
    ns_t left                       # work of the present job, and of interrupts
    int64_t jobs                    # that are in the system
    uint64_t done                   # jobs
    int64_t area                    # integral of `jobs` over time up to `area_since`: by Little's
    ns_t area_since                 # law, the sum of response times
    ns_t work                       # means
    ns_t gap
    ns_t quota                      # CPU time in a period
    ns_t period
    ns_t budget                     # rest of the quota
    ns_t period_end
    uint64_t wakes                  # that led to a run
    ns_t wake_sum                   # time from them to the run
    ns_t wake_most
    ns_t idle                       # part of `wait` in which it had nothing to do
    ns_t swap                       # part of `wait` for pages that the host swapped out
    ns_t pause_end                  # of its wait for a device or a page, or NEVER
    uint64_t interrupts
    uint32_t more                   # its record in sched_t.more, or NO_RECORD
    uint32_t wake_hist              # of times from a wake-up to the run, or NO_RECORD
    uint8_t source
    uint8_t work_kind
    uint8_t gap_kind
    uint8_t pause                   # what for
    uint8_t halted                  # by its guest, until an interrupt or a job

ctypedef struct cpu_t:
    uint32_t running                # or NO_WORLD
    uint32_t before                 # plug-in policies: what ran until this moment and may go on
    ns_t began                      # when the running world got the CPU
    ns_t slice_end
    ns_t event                      # next, or NEVER
    ns_t idle_since
    ns_t idle                       # up to `idle_since`
    uint64_t switches
    uint32_t serves                 # first of its queues in sched_t.serves
    uint32_t serve_count

ctypedef struct vm_t:               # worlds that belong together
    uint32_t weight                 # shares of the whole
    uint32_t worlds                 # how many; 0: its number is free
    uint32_t first                  # the rest: sched_t.siblings
    ns_t reservation                # CPU time per second of time
    ns_t limit                      # likewise; -1: none
    int64_t param[4]                # what the policy declares

ctypedef struct hnode_t:            # hierarchical stride: a group of worlds
    int64_t pass_                   # rounded down
    int64_t rem                     # pass_ + rem / tickets
    int64_t tickets                 # of its active worlds
    uint32_t ready                  # worlds

ctypedef struct queue_t:
    uint64_t *node                  # winner tree by rank; EEVDF: by deadline; lottery: tree of sums
    uint64_t *pending               # EEVDF: winner tree, by virtual time, of who is not eligible
    hnode_t *groups                 # hierarchical stride
    uint32_t leaves
    uint32_t members                # worlds that belong here, in whatever state
    uint32_t direct                 # every member's slot is its number
    uint32_t *owner                 # of each slot, or NO_WORLD
    int64_t base                    # rank of key 0
    uint32_t running                # worlds
    int64_t weight                  # of all active worlds: ready or running
    int64_t v                       # virtual time of the queue (stride's global pass)
    int64_t v_rem                   # v + v_rem / weight
    ns_t service                    # CPU time of its worlds that was charged
    ns_t synced                     # of that and what is in progress, how much `v` contains
    ns_t started                    # sum of `since` of the running ones
    uint64_t mask[MASK_WORDS]       # its CPUs

ctypedef struct pace_t:             # what only worlds need that work at different speeds
    ns_t used                       # work done: of `run`, what counts at full speed
    ns_t stall                      # time that passes before work goes on after a move
    ns_t stalled                    # of `run`, what moves cost so far
    uint32_t fraction               # of a unit of work, in 2**-16
    uint32_t speed                  # while it runs, in 2**-16
    uint32_t threads                # busy ones of its core, when that was set
    uint32_t memory_speed           # of that, what remote memory leaves
    uint32_t moves[6]               # to another CPU, by distance
    uint16_t home                   # NUMA node that it belongs to, or NO_NODE
    uint16_t part                   # of its virtual machine, which has that home
    uint32_t home_moves             # times that it got another home
    uint32_t remote                 # share of its memory that is elsewhere, in 2**-16
    ns_t remote_since
    ns_t remote_time                # integral of that share up to `remote_since`

ctypedef struct topology_t:         # numbers are dense, from 0; it never changes
    uint16_t *core                  # of each CPU; all arrays are in one block, which begins here
    uint16_t *llc
    uint16_t *node
    uint16_t *socket
    uint16_t *threads               # CPUs, core by core
    uint16_t *first                 # of each core, its place in `threads`; one more at the end
    uint64_t *core_mask             # CPUs of each core, MASK_WORDS words each
    uint64_t *llc_mask
    uint64_t *node_mask
    uint64_t *socket_mask
    uint32_t cores
    uint32_t llcs
    uint32_t nodes
    uint32_t sockets
    uint32_t *speed                 # of a thread, by the number of busy ones of its core, in 2**-16
    ns_t move_cost[6]               # time that a world loses after a move, by distance
    uint32_t words                  # of a mask in which there are CPUs
    bint flat                       # each CPU is a core, and all share one cache
    bint smt                        # there are cores of several threads

cdef struct sched_s:
    # what plug-in policies may read: as in include/pyvirt/sched.h
    ns_t now
    uint32_t cpu_count
    uint32_t world_count            # numbers in use are below this one
    uint32_t vm_count               # likewise
    uint32_t idle_count
    world_t *worlds
    cpu_t *cpus
    vm_t *vms
    uint32_t *siblings              # of each world: the next one of its VM, or NO_WORLD
    plug_t *plug                    # of POLICY_PLUG, else NULL
    uint64_t idle[MASK_WORDS]       # CPUs without a world
    uint64_t asked[MASK_WORDS]      # CPUs that are to pick again
    bint asking                     # perhaps there is one
    # the rest is the engine's
    uint32_t policy
    uint64_t events                 # that happened so far
    uint64_t random                 # xorshift64*, for policies that draw
    uint64_t sequence               # of entries into queues: the rank of round robin
    uint32_t capacity               # of worlds and timers
    uint32_t vm_capacity
    uint32_t queue_count
    uint32_t cpu_leaves
    ns_t tick                       # of POLICY_LINUX
    uint32_t slice                  # that all worlds have so far, or 0: they differ
    uint32_t hook                   # that runs
    uint32_t depth                  # of hooks
    uint32_t timed_count            # times that the policy's timer was due at
    ns_t timed_at                   # this moment
    bint turning                    # some CPU became busy or idle during this event, beside
    uint64_t turned[MASK_WORDS]     # other threads: these
    uint64_t unseen                 # times that a waiting world came over its limit: no hook is called
    fault_t fault                   # what a plug-in policy did wrong; nothing happens any more
    load_t *loads
    pace_t *paces                   # NULL: all worlds work at full speed
    queue_t *queues
    timeline_t *timeline            # where switches are recorded, or NULL
    uint32_t *serves                # the queues of each CPU, one CPU after the other
    uint64_t *due                   # winner tree of the CPUs' next events
    turn_t *turns                   # of each CPU: pyvirt._core.sched.slices; empty between runs
    ns_t due_base
    uint64_t *timers                # winner tree of the worlds' next arrival or refill
    ns_t timer_base
    uint64_t latency[LATENCY_BUCKETS]
    topology_t topology
    more_t more                     # of what only some worlds have
