# What only worlds with richer workloads hold: distributions with parameters, demand traces, a place
# among the vCPUs that share a barrier or a lock; and histograms of times, of the worlds that have them.
#
# Records are numbered; a world's load names its record, and worlds without one take no room here.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from pyvirt._core.types cimport ns_t

cdef enum:
    NO_RECORD = 0xFFFFFFFF
    RESPONSE_BUCKETS = 1376         # of a histogram: 32 for each power of two, up to 2**47 ns
    PARTS_PER_CPU = 1000000000      # unit of demand: ns of work in a second
    MOST_DEMAND = 4000000000

cdef enum:                          # distributions beyond those of state.pxd
    BETWEEN = 3                     # uniform from a to b
    LOGNORMAL = 4
    PARETO = 5                      # bounded
    EMPIRICAL = 6                   # each of a table's values as likely

ctypedef struct dist_t:             # of times
    uint8_t kind
    uint32_t table
    ns_t mean                       # of FIXED, EXPONENTIAL, UNIFORM; least of BETWEEN
    uint64_t range                  # BETWEEN: number of values
    double a                        # LOGNORMAL: sigma; PARETO: least
    double b                        # PARETO: 1 - (least / most)**alpha
    double c                        # LOGNORMAL: the median; PARETO: -1 / alpha

ctypedef struct flow_t:             # a place in a world's arrivals
    ns_t at                         # when this one comes, or NEVER
    ns_t origin                     # trace: when its present lap began
    ns_t length                     # trace: time that this one's work is of
    ns_t work                       # trace: what it brings
    int64_t rem                     # trace: rest of the work so far, in 1 / PARTS_PER_CPU ns
    uint64_t random                 # from the gap after this one on
    uint32_t segment                # trace

cdef enum phase_t:
    PHASE_NONE = 0
    PHASE_WORK = 1                  # before the barrier, outside the lock
    PHASE_SECTION = 2               # holds the lock
    PHASE_SPIN = 3                  # waits and burns its CPU's time
    PHASE_SLEEP = 4                 # waits halted

cdef enum team_kind_t:
    TEAM_FREE = 0
    TEAM_BARRIER = 1
    TEAM_TICKET = 2                 # a lock that is handed on in the order of requests
    TEAM_TAS = 3                    # a lock that whoever tests it while it is free gets

ctypedef struct team_t:             # worlds that share a barrier or a lock
    uint8_t kind
    uint32_t first                  # member, in the order of their additions; or the next free record
    uint32_t members
    uint32_t arrived                # at the barrier
    uint32_t holder                 # of the lock, or NO_RECORD
    uint64_t ticket                 # next
    uint64_t random                 # of who wins a test-and-set
    uint64_t rounds                 # of the barrier; sections of the lock
    ns_t spin                       # most time of spinning before it sleeps; -1: no bound
    ns_t window                     # of spinning after which the CPU is yielded; 0: never

ctypedef struct work_t:
    dist_t work
    dist_t gap
    dist_t section
    flow_t ahead                    # trace: the next arrival
    flow_t head                     # the job that is worked on, or came to an idle world
    uint32_t table                  # of the trace: starts, end, demands
    uint32_t hist                   # its histogram of response times, or NO_RECORD
    uint8_t repeat                  # trace: begins again at its end
    uint8_t drop                    # trace: work not done when the next comes is dropped
    uint8_t phase
    uint32_t team                   # or NO_RECORD
    uint32_t next                   # member of the team; or the next free record
    ns_t grain                      # trace: work comes in parts of this time
    ns_t came                       # work of the trace
    ns_t dropped                    # of it
    uint64_t dropped_jobs
    ns_t response_most
    # of a member
    uint64_t ticket
    ns_t spin_left                  # before it sleeps
    ns_t window_left                # before it yields
    ns_t asked                      # since when it waits
    ns_t held                       # since when it has the lock
    ns_t held_run                   # its CPU time then
    uint64_t held_switches          # its switches, as they will be if it is not preempted
    ns_t spun                       # CPU time without progress
    ns_t waited                     # from arrivals and requests to the end of waiting
    ns_t held_off                   # time that it had the lock and no CPU
    uint64_t waits                  # arrivals and requests that had to wait
    uint64_t holder_preempted
    uint64_t waiter_preempted       # times that it was given the lock while preempted
    uint64_t yields

ctypedef struct table_t:            # of values that several worlds may use
    int64_t *values
    uint32_t count
    uint32_t users                  # 0: the table is free
    uint32_t next                   # free one

ctypedef struct more_t:             # all records of a host
    work_t *works
    team_t *teams
    uint64_t *hists                 # of RESPONSE_BUCKETS each, one after the other
    table_t *tables
    uint32_t works_count            # numbers in use are below this one
    uint32_t works_room
    uint32_t works_free             # first of the free ones, or NO_RECORD
    uint32_t teams_count
    uint32_t teams_room
    uint32_t teams_free
    uint32_t hists_count
    uint32_t hists_room
    uint32_t hists_free
    uint32_t tables_count
    uint32_t tables_room
    uint32_t tables_free

cdef void begin_more(more_t *m) noexcept nogil
cdef void free_more(more_t *m) noexcept nogil
cdef uint32_t new_work(more_t *m) noexcept nogil
cdef void free_work(more_t *m, uint32_t work) noexcept nogil
cdef uint32_t new_team(more_t *m) noexcept nogil
cdef void free_team(more_t *m, uint32_t team) noexcept nogil
cdef uint32_t new_hist(more_t *m) noexcept nogil
cdef void free_hist(more_t *m, uint32_t hist) noexcept nogil
cdef uint32_t new_table(more_t *m, const int64_t *values, uint32_t count) noexcept nogil
cdef bint use_table(more_t *m, uint32_t table, const int64_t *values, uint32_t count) noexcept nogil
cdef void drop_table(more_t *m, uint32_t table) noexcept nogil
cdef size_t size_of_more(const more_t *m) noexcept nogil
cdef object save_more(const more_t *m)
cdef object load_more(more_t *m, object saved)


cdef inline uint32_t response_bucket(ns_t time) noexcept nogil:
    """Up to 64 ns one a nanosecond, then 32 for each power of two; the last one is open."""
    cdef uint32_t shift = 0, bucket
    while time >= 64:
        time >>= 1
        shift += 1
    bucket = 32 * shift + <uint32_t>time
    return bucket if bucket < RESPONSE_BUCKETS else RESPONSE_BUCKETS - 1


cdef inline void count_time(more_t *m, uint32_t hist, ns_t time) noexcept nogil:
    """In a histogram, if there is one."""
    if hist != NO_RECORD:
        m.hists[<size_t>hist * RESPONSE_BUCKETS + response_bucket(time)] += 1
