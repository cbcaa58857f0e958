# Xen's RTDS: what it keeps for each world.

from libc.stdint cimport int64_t, uint8_t, uint32_t

from pyvirt._core.sched.ordered cimport node_t
from pyvirt._core.sched.plug cimport Plug
from pyvirt._core.types cimport ns_t

cdef enum:
    PERIOD = 0                      # of vm_t.param
    BUDGET = 1
    EXTRATIME = 2

# A place in the run queue is the level, then the deadline.
cdef enum:
    DEADLINE_BITS = 48
    MOST_LEVEL = 1 << 14

ctypedef struct rtds_own_t:
    uint32_t queue                  # tree of those that wait, by level and deadline
    uint32_t servers                # tree of all that compete or are out of budget, by deadline
    uint32_t serving                # CPU that picks at this moment, or NO_CPU
    ns_t base                       # of the deadlines in `queue`

ctypedef struct rtds_world_t:
    node_t place                 # in `queue`
    node_t due                      # in `servers`
    ns_t deadline                   # end of its period
    ns_t budget                     # rest
    uint32_t level                  # times that it went on after its budget, in this period
    uint8_t serves                  # is among `servers`
    uint8_t depleted                # parked until its next period

cdef class Rtds(Plug):
    pass
