# What Xen's policies share: the choice of an idle CPU while one of them picks.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.sched.placement cimport idle_cpu_among
from pyvirt._core.sched.state cimport MASK_WORDS, NO_CPU, sched_t


cdef inline uint32_t idle_but(
    const sched_t *s, uint32_t id, const uint64_t *among, uint32_t but
) noexcept nogil:
    """The idle CPU that suits a world best, of a mask (NULL: all), or NO_CPU.

    Not `but`, which picks at this moment: it counts as idle, and is no longer asked.
    """
    cdef uint64_t mask[MASK_WORDS]
    cdef uint32_t i
    if but == NO_CPU:
        return idle_cpu_among(s, id, among)
    if s.idle_count < 2:
        return NO_CPU
    for i in range(s.topology.words):
        mask[i] = among[i] if among != NULL else <uint64_t>-1
    mask[but >> 6] &= ~(<uint64_t>1 << (but & 63))
    return idle_cpu_among(s, id, mask)
