# Xen's credit scheduler: what it keeps for each world, CPU and VM.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from pyvirt._core.sched.ordered cimport fifo_t, node_t, nodes_at, nodes_t
from pyvirt._core.sched.state cimport sched_t
from pyvirt._core.types cimport ns_t

cdef enum:
    BOOST = 0                       # woke from sleep with credits left
    UNDER = 1                       # has credits
    OVER = 2                        # has none
    RANKS = 3

ctypedef struct credit_own_t:
    ns_t timeslice
    ns_t tick
    ns_t credit                     # CPU time of one
    ns_t ratelimit
    ns_t balance_gap                # from one look at other CPUs' queues to the next
    int64_t period                  # credits of a CPU from one accounting to the next
    int64_t balance                 # credits of all active worlds at the last accounting
    uint32_t ticks                  # from one accounting to the next
    uint32_t first                  # VM with active worlds, or NO_WORLD
    uint32_t waiting                # worlds in all queues
    uint32_t eager                  # of these, in ranks before OVER
    uint32_t serving                # CPU that picks at this moment, or NO_CPU

ctypedef struct credit_world_t:
    node_t node                     # in the queue of its CPU
    int64_t credit
    ns_t carry                      # CPU time that is not a credit yet, down to minus a half
    uint16_t home                   # the CPU in whose queue it waits
    uint8_t rank
    uint8_t queued                  # the rank under which it waits
    uint8_t active                  # earns credits
    uint8_t parked                  # used up its cap

ctypedef struct credit_cpu_t:
    fifo_t queue[RANKS]
    uint32_t waiting                # worlds in them
    uint32_t was                    # what ran until now and may go on: its number plus 1, or 0
    uint8_t unsorted                # some wait under a rank that is no longer theirs
    uint8_t held                    # what ran goes on, because of the rate limit
    ns_t rest                       # of the rate limit, or 0
    ns_t balance                    # when it may next look at other queues for more than OVER

ctypedef struct credit_vm_t:
    uint32_t active                 # worlds that earn credits
    uint32_t before                 # VM with active worlds, or NO_WORLD
    uint32_t next


cdef inline credit_own_t *own(const sched_t *s) noexcept nogil:
    return <credit_own_t *>s.plug.own


cdef inline credit_world_t *world(const sched_t *s, uint32_t id) noexcept nogil:
    return &(<credit_world_t *>s.plug.worlds)[id]


cdef inline credit_cpu_t *cpu_of(const sched_t *s, uint32_t cpu) noexcept nogil:
    return &(<credit_cpu_t *>s.plug.cpus)[cpu]


cdef inline credit_vm_t *vm_of(const sched_t *s, uint32_t vm) noexcept nogil:
    return &(<credit_vm_t *>s.plug.vms)[vm]


cdef inline nodes_t links(const sched_t *s) noexcept nogil:
    return nodes_at(&(<credit_world_t *>s.plug.worlds).node, sizeof(credit_world_t))
