# NUMA home nodes: a service that a policy switches on.
#
# A virtual machine gets the node with the fewest vCPUs; one with more vCPUs than a node has cores is
# split into equal parts, each with a home of its own and its part of the memory. From time to time
# the part moves whose move evens the nodes out best; its memory follows bit by bit, and until it is
# there the part works slower.
#
# A policy has a `numa_t` in its own record, a `numa_vm_t` in each VM record, and calls numa_begin
# from `begin`, numa_place from `enqueue` for a world without a home, numa_change from `change`,
# numa_remove from `remove`, and numa_timed from `timed` when `due` has come; it lets its timer be due then. Where its worlds may
# run is its choice: `home_mask` has the CPUs of a world's home.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from pyvirt._core.sched.state cimport MASK_WORDS, NO_NODE, sched_t
from pyvirt._core.types cimport ns_t

cdef enum:
    MOST_NODES = 16
    MOST_PARTS = 8

ctypedef struct part_t:
    uint32_t pages[MOST_NODES]      # of its memory, on each node
    uint32_t all_pages
    uint32_t worlds
    uint16_t home
    ns_t run                        # of its worlds, when it was measured last
    ns_t rdy
    ns_t measured
    int64_t asked                   # CPUs in 2**-16: what its worlds ran or were ready for,
    int64_t entitled                # what it is to have of that,
    int64_t owed                    # and what it did not get

ctypedef struct numa_vm_t:
    uint32_t parts                  # 0: it has no home
    int64_t asked                   # CPUs in 2**-16
    int64_t entitled
    part_t part[MOST_PARTS]

ctypedef struct numa_t:
    # set by the policy before numa_begin
    ns_t rebalance_ns               # time between two looks at the nodes
    uint32_t threshold_percent      # of a node: less imbalance than that is left alone
    uint32_t drain_pages            # of a part that follow in
    ns_t drain_ns
    uint32_t penalty                # how much slower it is with all memory remote, in 2**-16
    bint prefer_threads             # a VM is wide with more vCPUs than a node has threads, not cores
    # the service's own
    bint on
    ns_t due                        # when numa_timed is to be called
    ns_t next_rebalance
    ns_t next_drain
    uint64_t moves

ctypedef struct numa_vms_t:         # where the records are
    char *base                      # of VM 0
    size_t size                     # of a VM record

# CPUs in 2**-16 that a virtual machine is entitled to; NULL: by weight, what others do not ask for is
# given to the rest.
ctypedef int64_t (*entitled_t)(sched_t *s, uint32_t vm) noexcept nogil
# A world's home has changed: the policy moves it.
ctypedef void (*rehomed_t)(sched_t *s, uint32_t id) noexcept nogil

cdef void numa_begin(sched_t *s, numa_t *n) noexcept nogil
cdef void numa_place(sched_t *s, numa_t *n, numa_vms_t vms, uint32_t vm, uint32_t pages) noexcept nogil
cdef void numa_change(sched_t *s, numa_t *n, numa_vms_t vms, uint32_t vm) noexcept nogil
cdef void numa_remove(
    sched_t *s, numa_t *n, numa_vms_t vms, uint32_t id) noexcept nogil
cdef void numa_timed(
    sched_t *s, numa_t *n, numa_vms_t vms, entitled_t entitled, rehomed_t rehomed) noexcept nogil


cdef object read_numa(numa_t *n, object numa)


cdef inline numa_vms_t numa_vms_at(numa_vm_t *first, size_t size) noexcept nogil:
    cdef numa_vms_t vms
    vms.base = <char *>first
    vms.size = size
    return vms


cdef inline uint32_t home_of(const sched_t *s, uint32_t id) noexcept nogil:
    """A world's home node, or NO_NODE."""
    return NO_NODE if s.paces == NULL else s.paces[id].home


cdef inline const uint64_t *home_mask(const sched_t *s, uint32_t id) noexcept nogil:
    """The CPUs of a world's home node; NULL if it has none."""
    if s.paces == NULL or s.paces[id].home == NO_NODE:
        return NULL
    return &s.topology.node_mask[s.paces[id].home * MASK_WORDS]


cdef inline bint at_home(const sched_t *s, uint32_t id, uint32_t cpu) noexcept nogil:
    """Whether a CPU belongs to the world's home node, or the world has none."""
    return (s.paces == NULL or s.paces[id].home == NO_NODE
            or s.paces[id].home == s.topology.node[cpu])
