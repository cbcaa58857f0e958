# Where a world that becomes ready may run at once: the choice of an idle CPU.
#
# Its last CPU, whose private caches may still hold its data; else one of a wholly idle core, which it
# has for itself; else an idle thread; of these the nearest to its last CPU, then the lowest number.
#
# An idle CPU that a plug-in policy has asked to pick is about to get a world: it is left out.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.sched.state cimport NO_CPU, sched_t
from pyvirt._core.sched.topology cimport SAME_CORE, SAME_SOCKET, lowest_bit, near_mask


cdef inline bint is_free(const sched_t *s, uint32_t cpu) noexcept nogil:
    """Whether a CPU is idle, and nothing is on the way to it."""
    return (s.idle[cpu >> 6] & ~s.asked[cpu >> 6]) >> (cpu & 63) & 1


cdef inline bint core_idle(const sched_t *s, uint32_t cpu) noexcept nogil:
    """Whether all threads of the CPU's core are idle."""
    cdef uint32_t core = s.topology.core[cpu], i
    for i in range(s.topology.first[core], s.topology.first[core + 1]):
        if not is_free(s, s.topology.threads[i]):
            return False
    return True


cdef inline uint32_t lowest_idle(
    const sched_t *s, const uint64_t *allowed, const uint64_t *among, const uint64_t *near,
    bint whole
) noexcept nogil:
    """The lowest idle CPU in all three masks (NULL: all), of a wholly idle core if `whole`."""
    cdef uint32_t i, cpu
    cdef uint64_t free
    for i in range(s.topology.words):
        free = s.idle[i] & ~s.asked[i] & allowed[i]
        if among != NULL:
            free &= among[i]
        if near != NULL:
            free &= near[i]
        while free:
            cpu = 64 * i + lowest_bit(free)
            if not whole or core_idle(s, cpu):
                return cpu
            free &= free - 1
    return NO_CPU


cdef inline uint32_t idle_cpu_among(
    const sched_t *s, uint32_t id, const uint64_t *among
) noexcept nogil:
    """The idle CPU that suits a world best, of those in a mask (NULL: all); NO_CPU: there is none."""
    cdef const uint64_t *allowed = s.queues[s.worlds[id].queue].mask
    cdef uint32_t last = s.worlds[id].cpu, cpu, far
    cdef uint64_t bit
    cdef bint whole = s.topology.smt
    if not s.idle_count:
        return NO_CPU
    if last != NO_CPU:
        bit = s.idle[last >> 6] & ~s.asked[last >> 6] & allowed[last >> 6]
        if among != NULL:
            bit &= among[last >> 6]
        if bit >> (last & 63) & 1:
            return last
    while True:
        if last != NO_CPU and not s.topology.flat:
            for far in range(SAME_CORE, SAME_SOCKET + 1):
                cpu = lowest_idle(s, allowed, among, near_mask(s, last, far), whole)
                if cpu != NO_CPU:
                    return cpu
        cpu = lowest_idle(s, allowed, among, NULL, whole)
        if cpu != NO_CPU or not whole:
            return cpu
        whole = False


cdef inline uint32_t idle_cpu(const sched_t *s, uint32_t id) noexcept nogil:
    """The idle CPU that suits a world best, of those that it may run on; NO_CPU: there is none."""
    return idle_cpu_among(s, id, NULL)
