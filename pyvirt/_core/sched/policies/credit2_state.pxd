# Xen's credit2 scheduler: what it keeps for each world, CPU, run queue and VM.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from pyvirt._core.sched.ordered cimport fifo_t, node_t, nodes_at, nodes_t
from pyvirt._core.sched.state cimport MASK_WORDS, sched_t
from pyvirt._core.types cimport ns_t

cdef enum:
    LOAD_ONE = 1 << 18              # the load of a world that always wants the CPU

cdef enum credit2_kind_t:           # a run queue for each
    EACH_CPU = 0
    EACH_CORE = 1
    EACH_LLC = 2
    EACH_NODE = 3
    EACH_SOCKET = 4
    ALL_CPUS = 5

ctypedef struct credit2_own_t:
    ns_t credit                     # that a reset adds, and the floor below 0
    ns_t most_credit
    ns_t min_run
    ns_t max_run
    ns_t ratelimit
    ns_t cap_period
    ns_t resist                     # credit that a world of another CPU must have more
    ns_t compensation               # credit for coming from another CPU
    ns_t window                     # of load averages
    int64_t under                   # difference of loads that is borne while some CPU is free
    int64_t over                    # and otherwise
    uint32_t queues
    uint32_t spent                  # first VM whose pool is to be refilled, or NO_WORLD
    uint32_t serving                # CPU that picks at this moment, or NO_CPU
    uint32_t kind                   # of run queues: credit2_kind_t

ctypedef struct credit2_world_t:
    node_t place                 # in its run queue, by credit
    node_t link                     # among the worlds of its run queue
    int64_t credit                  # when `added` was what it was
    int64_t added                   # that of the run queue then
    int64_t residue                 # of the last division
    ns_t budget                     # its part of the VM's pool
    int64_t load                    # average, up to `load_since`
    ns_t load_since
    uint16_t queue                  # or NO_CPU
    uint8_t competes                # waits or runs
    uint8_t parked

ctypedef struct credit2_cpu_t:
    uint32_t was                    # what ran until now and may go on: its number plus 1, or 0
    uint16_t queue                  # that serves it
    uint8_t sliced                  # that had its whole timeslice

# There are at most as many run queues as CPUs.
ctypedef struct credit2_queue_t:
    uint64_t mask[MASK_WORDS]       # its CPUs
    uint32_t cpus
    uint32_t waiting                # tree of the worlds that wait
    fifo_t worlds                   # all that belong here
    uint32_t competing
    int64_t most                    # largest weight
    int64_t added                   # credits by all resets
    int64_t load                    # average of `competing`, up to `since`
    ns_t since

ctypedef struct credit2_place_t:    # a CPU, and the run queue of the same number
    credit2_cpu_t cpu
    credit2_queue_t queue

ctypedef struct credit2_vm_t:
    ns_t pool                       # CPU time that nobody has taken in this period
    int64_t cap                     # percent of a CPU
    uint32_t next                   # in the list of those to be refilled
    uint8_t spent                   # is in that list


cdef inline credit2_own_t *own(const sched_t *s) noexcept nogil:
    return <credit2_own_t *>s.plug.own


cdef inline credit2_world_t *world(const sched_t *s, uint32_t id) noexcept nogil:
    return &(<credit2_world_t *>s.plug.worlds)[id]


cdef inline credit2_cpu_t *cpu_of(const sched_t *s, uint32_t cpu) noexcept nogil:
    return &(<credit2_place_t *>s.plug.cpus)[cpu].cpu


cdef inline credit2_queue_t *queue_of(const sched_t *s, uint32_t queue) noexcept nogil:
    return &(<credit2_place_t *>s.plug.cpus)[queue].queue


cdef inline credit2_vm_t *vm_of(const sched_t *s, uint32_t id) noexcept nogil:
    """The VM of a world."""
    return &(<credit2_vm_t *>s.plug.vms)[s.worlds[id].vm]


cdef inline nodes_t places(const sched_t *s) noexcept nogil:
    return nodes_at(&(<credit2_world_t *>s.plug.worlds).place, sizeof(credit2_world_t))


cdef inline nodes_t links(const sched_t *s) noexcept nogil:
    return nodes_at(&(<credit2_world_t *>s.plug.worlds).link, sizeof(credit2_world_t))


cdef inline int64_t weight(const sched_t *s, uint32_t id) noexcept nogil:
    return s.vms[s.worlds[id].vm].weight


# --- credits: CPU time, in ns of the heaviest world of the run queue ---


cdef inline int64_t credit(const sched_t *s, uint32_t id) noexcept nogil:
    """With the resets since it was last looked at, each of which clips it."""
    cdef const credit2_world_t *w = world(s, id)
    cdef int64_t more = queue_of(s, w.queue).added - w.added
    if more and w.credit + more > own(s).most_credit:
        return own(s).most_credit
    return w.credit + more


cdef inline void set_credit(sched_t *s, uint32_t id, int64_t value) noexcept nogil:
    world(s, id).credit = value
    world(s, id).added = queue_of(s, world(s, id).queue).added


cdef inline int64_t after(const sched_t *s, uint32_t id, ns_t dt, int64_t *residue) noexcept nogil:
    """Its credit after it used the CPU for some time, and what the division leaves over."""
    cdef int64_t mine = weight(s, id), most = queue_of(s, world(s, id).queue).most
    cdef int64_t left = credit(s, id), burned
    if mine == most:
        # the usual case: nothing is divided, and what was left over stays
        residue[0] = world(s, id).residue
        left -= dt
    else:
        burned = dt * most + world(s, id).residue
        left -= burned // mine
        residue[0] = burned % mine
    return left if left > -own(s).credit else -own(s).credit


cdef inline int64_t credit_now(const sched_t *s, uint32_t id) noexcept nogil:
    """Of a running world, with what is not charged yet."""
    cdef int64_t residue
    return after(s, id, s.now - s.worlds[id].since, &residue)
