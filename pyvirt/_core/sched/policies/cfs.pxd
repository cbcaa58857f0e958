# Linux's completely fair scheduler, up to Linux 6.5: the rules stand at `Cfs`.

from libc.stdint cimport int64_t, uint8_t, uint32_t

from pyvirt._core.sched.ordered cimport node_t
from pyvirt._core.sched.plug cimport Plug
from pyvirt._core.types cimport ns_t

cdef enum:
    SHARE_BITS = 10                 # of a share, so that parts of a VM's are not rounded away
    NICE_0 = 1024                   # the weight at which virtual runtime is CPU time
    LATENCY = 6000000               # ns, for one CPU
    GRANULARITY = 750000
    WAKEUP = 1000000
    BALANCE = 16000000              # for each CPU
    MOST_MOVED = 32                 # worlds that one CPU pulls at a time (sched_nr_migrate)

ctypedef struct cfs_t:
    ns_t latency
    ns_t granularity
    ns_t wakeup
    ns_t tick
    ns_t balance
    int64_t imbalance               # percent
    int64_t groups                  # a VM's worlds divide its weight

ctypedef struct cfs_cpu_t:
    uint32_t root                   # who waits, by virtual runtime
    uint32_t count                  # worlds that wait or run
    int64_t load                    # sum of their shares
    int64_t least                   # min_vruntime
    uint32_t last                   # put back here and not picked since, or NO_WORLD
    uint32_t why                    # it was

ctypedef struct cfs_world_t:
    node_t node                     # in its CPU's queue
    int64_t v                       # virtual runtime in ns, rounded down
    int64_t rem                     # it is v + rem / share
    int64_t share                   # its weight, or its part of its VM's, times 2**SHARE_BITS
    ns_t paid                       # of what is not charged yet, how much `v` contains
    uint32_t home                   # the CPU whose queue it belongs to, or NO_CPU
    uint8_t competes                # waits or runs

cdef class Cfs(Plug):
    pass
