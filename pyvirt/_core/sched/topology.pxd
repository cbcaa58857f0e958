# The shape of the machine: how far CPUs are apart, and the masks of what they share.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyvirt._core.sched.state cimport MASK_WORDS, sched_t, topology_t
from pyvirt._core.types cimport ns_t

cdef extern from "sched/bits.h" nogil:
    uint32_t lowest_bit(uint64_t word)  # that is not 0

cdef enum distance_t:
    SAME_CPU = 0
    SAME_CORE = 1
    SAME_LLC = 2
    SAME_NODE = 3
    SAME_SOCKET = 4
    OTHER_SOCKET = 5
    DISTANCES = 6

# `numbers`: core of each CPU, then LLC, node and socket. False: no memory, or no dense numbers.
cdef bint build_topology(topology_t *t, uint32_t cpus, const uint16_t *numbers) noexcept nogil
cdef uint32_t most_threads(const topology_t *t) noexcept nogil
# Of 0, 1, 2 and more busy threads of a core; False: no memory.
cdef bint set_speeds(topology_t *t, const uint32_t *speeds, const ns_t *costs) noexcept nogil
cdef bint has_paces(const topology_t *t) noexcept nogil
cdef void free_topology(topology_t *t) noexcept nogil


cdef inline uint32_t distance(const sched_t *s, uint32_t a, uint32_t b) noexcept nogil:
    """How far two CPUs are apart: a `distance_t`."""
    cdef const topology_t *t = &s.topology
    if a == b:
        return SAME_CPU
    if t.core[a] == t.core[b]:
        return SAME_CORE
    if t.llc[a] == t.llc[b]:
        return SAME_LLC
    if t.node[a] == t.node[b]:
        return SAME_NODE
    return SAME_SOCKET if t.socket[a] == t.socket[b] else OTHER_SOCKET


cdef inline const uint64_t *near_mask(const sched_t *s, uint32_t cpu, uint32_t far) noexcept nogil:
    """The CPUs at most so far away, from SAME_CORE to SAME_SOCKET, itself among them."""
    cdef const topology_t *t = &s.topology
    if far == SAME_CORE:
        return &t.core_mask[t.core[cpu] * MASK_WORDS]
    if far == SAME_LLC:
        return &t.llc_mask[t.llc[cpu] * MASK_WORDS]
    if far == SAME_NODE:
        return &t.node_mask[t.node[cpu] * MASK_WORDS]
    return &t.socket_mask[t.socket[cpu] * MASK_WORDS]
