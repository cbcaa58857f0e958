# What the ESX policy keeps of the host, its pools, CPUs, VMs and worlds.
#
# Virtual time is CPU time over entitlement: units of 2**-10 ns of a world that is entitled to one
# CPU. Entitlements are in ns of CPU time a second.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from pyvirt._core.sched.numa cimport numa_t
from pyvirt._core.sched.state cimport NEVER, sched_t
from pyvirt._core.types cimport ns_t

cdef enum:
    NOWHERE = 0xFFFFFFFF            # no CPU's queue, no node of a heap
    ONE_CPU = 1000000000            # ns of CPU time a second
    LEAST_ENTITLED = 1000           # whoever is entitled to less counts as this much
    UNIT = 1 << 10
    BIN_BITS = 5
    BINS = 1 << BIN_BITS            # of a CPU's queue

# The host's virtual time is set back when it is more, long before it overflows.
cdef extern from * nogil:
    """
    #define MOST_V ((int64_t)1 << 60)
    """
    const int64_t MOST_V

cdef enum cosched_t:
    COSCHED_NONE = 0
    COSCHED_BALANCE = 1
    COSCHED_STRICT = 2
    COSCHED_RELAXED = 3

cdef enum pace_t:                   # of a vCPU's progress
    IDLE = 0                        # halted: as if it ran, but not beyond its siblings
    RUNNING = 1
    STALLED = 2                     # would run

ctypedef struct bucket_t:           # the limit of a VM or pool
    ns_t quota                      # CPU time in a period, or -1: none
    ns_t used                       # in this period, up to `since`
    ns_t since
    uint32_t running                # worlds under it
    uint32_t spent                  # it has not a nanosecond for each of them

ctypedef struct esx_pool_t:
    bucket_t bucket
    double shares
    int64_t reservation             # ns of CPU time a second
    int64_t limit                   # likewise, or -1
    uint32_t parent                 # number of its pool; pool 0 is the root and its own parent
    uint32_t first                  # of the pools in it, which follow each other
    uint32_t count                  # of them
    uint32_t limited                # it or one above it has a limit
    int64_t demand                  # of its VMs and pools, each within its limit, when last solved

ctypedef struct esx_world_t:
    int64_t key                     # in the queue
    uint32_t child                  # the heap of its bin: first child, next and previous sibling;
    uint32_t next                   # a first child's `prev` is its parent
    uint32_t prev
    uint32_t queue                  # CPU where it waits, or NOWHERE
    int64_t vt                      # virtual time
    double rate                     # of it, a ns of CPU time
    ns_t offset                     # of its progress: what is not time that it ran
    uint8_t pace
    uint8_t laggard                 # it waits for a CPU, and holds a sibling back
    uint8_t known                   # to the policy: between `add` and `remove`
    uint8_t plain                   # neither limits nor siblings matter: its VM is not looked at
    uint8_t bin                     # where it stands in its queue

ctypedef struct esx_vm_t:           # where there are home nodes, a `numa_vm_t` follows each
    bucket_t bucket
    double rate                     # of its worlds
    double given                    # what it is entitled to, of which that was computed
    ns_t since                      # when the progress of those that are halted was computed
    ns_t floor                      # no progress of its worlds is less
    ns_t due                        # when a skew crosses a threshold, or NEVER
    ns_t alarm                      # the earlier of that and the end of its limit
    ns_t node                       # of the tree of alarms, the least of what is below
    int64_t demand                  # when entitlements were solved last, within its limit
    uint32_t wants                  # of its worlds, how many would run then
    uint32_t changed                # next VM of those of which others would run now, or NOWHERE
    uint32_t pool
    uint32_t worlds                 # that the policy knows
    uint8_t entitled                # some of its worlds were counted as wanting a CPU
    uint8_t busy                    # its worlds are being stopped or started
    uint8_t limited                 # it or a pool above it has a limit
    uint8_t fits                    # there is a CPU for each of its worlds at once
    uint8_t idles                   # some of its worlds may be halted
    uint8_t watch                   # a skew may cross a threshold before those that run stop
    uint8_t blocked                 # some of its worlds may have begun to wait since `since`
    uint8_t gang                    # its worlds were stopped, to start all at once
    uint8_t counts                  # it is among those of which others may want to run now
    uint32_t later                  # VM that is to be looked at after it
    uint32_t next_gang              # of the VMs that wait to start all at once, in no order
    uint32_t last_gang

ctypedef struct esx_cpu_t:
    int64_t key[2 * BINS]           # of the first world of each bin, after them that of each node of
    uint32_t who[2 * BINS]          # the tree, of which node 1 is the root; its number, or NOWHERE
    uint32_t count                  # of who waits here
    uint32_t vacant                 # a bit for each bin that is empty
    uint32_t reserved               # world of a gang that is to run here next, or NOWHERE
    uint32_t first                  # world that ran here, or came while it was idle, or NOWHERE
    uint32_t back                   # world that ran here and waits again, but is in no bin yet

ctypedef struct esx_t:
    # parameters
    ns_t quantum
    ns_t resolve
    ns_t period
    int64_t credit                  # virtual times
    int64_t wake
    int64_t pull
    int64_t favour
    ns_t skew_stop
    ns_t skew_start
    uint32_t cosched
    uint32_t resolve_on_wake
    uint32_t pool_count             # the pools follow this record
    uint32_t charge_used            # where threads share a core: for what they get of it
    uint32_t imbalance_percent
    ns_t balance                    # time between two looks at all queues; 0: none
    # state
    uint32_t stale                  # entitlements are to be solved before the next charge
    uint32_t anew                   # then from nothing: VMs came, went or were changed
    uint32_t changed                # first VM of which other worlds may want to run, or NOWHERE
    uint32_t scarce                 # pools whose VMs and pools demand more than they may have
    uint32_t starting               # a gang is being started
    uint32_t parking                # worlds under limits that ended are being parked
    uint32_t active                 # worlds that run or wait in a queue
    uint32_t limits                 # VMs and pools that have one
    uint32_t leaves                 # of the tree of alarms
    uint32_t by_use                 # threads share cores, and worlds are charged for what they get
    uint32_t with_numa              # a parameter
    int64_t least                   # no key of who waits is less
    int64_t v                       # virtual time of the host
    ns_t next_solve
    ns_t next_refill
    ns_t pool_alarm                 # end of the first limit of a pool
    uint32_t gangs                  # first VM that waits to start all at once, or NO_WORLD
    ns_t next_balance
    ns_t next_home                  # the earlier of that and what is due for home nodes
    int64_t peak                    # of who competed since the last wake-up, the most of their least
    int64_t first_v                 # v after the first wake-up since a copy was made, or -1
    uint32_t calm                   # since then, each wake-up raised v to the peak at least
    uint64_t unseen                 # sched_t.unseen when entitlements were solved last
    numa_t numa


cdef inline esx_t *host_of(sched_t *s) noexcept nogil:
    return <esx_t *>s.plug.own


cdef inline esx_pool_t *pools_of(sched_t *s) noexcept nogil:
    return <esx_pool_t *>(s.plug.own + sizeof(esx_t))


cdef inline esx_world_t *world_of(sched_t *s, uint32_t id) noexcept nogil:
    return <esx_world_t *>s.plug.worlds + id


cdef inline esx_vm_t *vm_of(sched_t *s, uint32_t vm) noexcept nogil:
    return <esx_vm_t *>(s.plug.vms + vm * s.plug.vm_size)


cdef inline esx_cpu_t *cpu_of(sched_t *s, uint32_t cpu) noexcept nogil:
    return <esx_cpu_t *>s.plug.cpus + cpu


cdef inline bint ends_soon(const bucket_t *b, ns_t quantum) noexcept nogil:
    """Whether a limit may be used up before all that run now stop or are picked again.

    What was used is that of now. Whoever starts later looks again.
    """
    return b.quota >= 0 and b.quota - b.used < b.running * (quantum + 1)


cdef inline ns_t bucket_end(const bucket_t *b, ns_t quantum) noexcept nogil:
    """When a limit is used up if those that run go on; NEVER if they stop before that."""
    if b.running == 0 or not ends_soon(b, quantum):
        return NEVER
    return b.since + (b.quota - b.used) // b.running if b.quota > b.used else b.since


cdef inline bint is_together(sched_t *s, uint32_t vm) noexcept nogil:
    """Whether the progress of a VM's worlds matters."""
    return host_of(s).cosched >= COSCHED_STRICT and vm_of(s, vm).worlds > 1
