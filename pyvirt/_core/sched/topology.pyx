"""The shape of the machine: its arrays and masks, made once."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from pyvirt._core.sched.state cimport FULL_SPEED, MASK_WORDS, topology_t
from pyvirt._core.types cimport ns_t


cdef uint32_t count(const uint16_t *numbers, uint32_t cpus) noexcept nogil:
    """One more than the largest number."""
    cdef uint32_t cpu, most = 0
    for cpu in range(cpus):
        if numbers[cpu] >= most:
            most = <uint32_t>numbers[cpu] + 1
    return most


cdef void set_masks(uint64_t *masks, const uint16_t *numbers, uint32_t cpus) noexcept nogil:
    cdef uint32_t cpu
    for cpu in range(cpus):
        masks[numbers[cpu] * MASK_WORDS + (cpu >> 6)] |= <uint64_t>1 << (cpu & 63)


cdef bint build_topology(topology_t *t, uint32_t cpus, const uint16_t *numbers) noexcept nogil:
    """Fill an empty topology."""
    cdef uint32_t core, cpu, at = 0, parts
    cdef uint16_t *block
    cdef uint64_t *masks
    t.cores, t.llcs = count(numbers, cpus), count(&numbers[cpus], cpus)
    t.nodes, t.sockets = count(&numbers[2 * cpus], cpus), count(&numbers[3 * cpus], cpus)
    if t.cores > cpus or t.llcs > cpus or t.nodes > cpus or t.sockets > cpus:
        return False
    parts = t.cores + t.llcs + t.nodes + t.sockets
    block = <uint16_t *>calloc(6 * <size_t>cpus + 1, sizeof(uint16_t))
    masks = <uint64_t *>calloc(<size_t>parts * MASK_WORDS, sizeof(uint64_t))
    if block == NULL or masks == NULL:
        free(block)
        free(masks)
        return False
    memcpy(block, numbers, 4 * <size_t>cpus * sizeof(uint16_t))
    t.core, t.llc, t.node, t.socket = block, block + cpus, block + 2 * cpus, block + 3 * cpus
    t.threads, t.first = block + 4 * cpus, block + 5 * cpus
    t.core_mask = masks
    t.llc_mask = masks + t.cores * MASK_WORDS
    t.node_mask = t.llc_mask + t.llcs * MASK_WORDS
    t.socket_mask = t.node_mask + t.nodes * MASK_WORDS
    set_masks(t.core_mask, t.core, cpus)
    set_masks(t.llc_mask, t.llc, cpus)
    set_masks(t.node_mask, t.node, cpus)
    set_masks(t.socket_mask, t.socket, cpus)
    for core in range(t.cores):
        t.first[core] = <uint16_t>at
        for cpu in range(cpus):
            if t.core[cpu] == core:
                t.threads[at] = <uint16_t>cpu
                at += 1
    t.first[t.cores] = <uint16_t>at
    t.words = (cpus + 63) // 64
    t.smt = t.cores < cpus
    t.flat = not t.smt and t.llcs == 1
    return True


cdef uint32_t most_threads(const topology_t *t) noexcept nogil:
    """Of a core."""
    cdef uint32_t core, most = 0
    for core in range(t.cores):
        most = max(most, <uint32_t>(t.first[core + 1] - t.first[core]))
    return most


cdef bint set_speeds(topology_t *t, const uint32_t *speeds, const ns_t *costs) noexcept nogil:
    """Set how fast threads are, and what moves cost."""
    cdef size_t size = (most_threads(t) + 1) * sizeof(uint32_t)
    t.speed = <uint32_t *>malloc(size)
    if t.speed == NULL:
        return False
    memcpy(t.speed, speeds, size)
    memcpy(t.move_cost, costs, sizeof(t.move_cost))
    return True


cdef bint has_paces(const topology_t *t) noexcept nogil:
    """Whether worlds may work at another than full speed."""
    cdef uint32_t i
    for i in range(1, most_threads(t) + 1):
        if t.speed[i] != FULL_SPEED:
            return True
    for i in range(DISTANCES):
        if t.move_cost[i]:
            return True
    return False


cdef void free_topology(topology_t *t) noexcept nogil:
    free(t.speed)
    free(t.core)
    free(t.core_mask)
