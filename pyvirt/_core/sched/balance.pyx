"""Balancing between run queues of CPUs: an idle one pulls, and from time to time the fullest push."""

from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t

from pyvirt._core.sched.state cimport MASK_WORDS, NO_CPU, NO_WORLD, sched_t
from pyvirt._core.sched.topology cimport OTHER_SOCKET, SAME_CORE, lowest_bit, near_mask


cdef uint32_t pull_nearest(
    sched_t *s, uint32_t cpu, waiter_t waiter, uint32_t *source
) noexcept nogil:
    """Find a world for an idle CPU: that of the nearest CPU which gives one, then lowest number.

    Returns it, or NO_WORLD; `source` becomes the CPU in whose queue it is.
    """
    cdef uint64_t seen[MASK_WORDS]
    cdef uint64_t rest, word
    cdef uint32_t far, i, other, id
    for i in range(s.topology.words):
        seen[i] = 0
    seen[cpu >> 6] = <uint64_t>1 << (cpu & 63)
    for far in range(SAME_CORE, OTHER_SOCKET + 1):
        for i in range(s.topology.words):
            word = near_mask(s, cpu, far)[i] if far < OTHER_SOCKET else ~<uint64_t>0
            rest = word & ~seen[i]
            seen[i] |= word
            while rest:
                other = 64 * i + lowest_bit(rest)
                if other >= s.cpu_count:
                    break
                id = waiter(s, other, cpu, INT64_MAX)
                if id != NO_WORLD:
                    source[0] = other
                    return id
                rest &= rest - 1
    return NO_WORLD


cdef uint32_t even_out(
    sched_t *s, const uint64_t *mask, load_of_t load, waiter_t waiter, move_t move,
    uint32_t percent
) noexcept nogil:
    """Move worlds from the most to the least loaded CPU of a mask, while that is more even."""
    cdef uint32_t i, cpu, most, least, id, moves = 0
    cdef int64_t each, high, low
    cdef uint64_t rest
    while moves < s.cpu_count:
        most = least = NO_CPU
        high = low = 0
        for i in range(s.topology.words):
            rest = mask[i]
            while rest:
                cpu = 64 * i + lowest_bit(rest)
                each = load(s, cpu)
                if most == NO_CPU or each > high:
                    most, high = cpu, each
                if least == NO_CPU or each < low:
                    least, low = cpu, each
                rest &= rest - 1
        if 100 * (high - low) <= percent * low:
            break
        id = waiter(s, most, least, high - low - 1)
        if id == NO_WORLD:
            break
        move(s, id, most, least)
        moves += 1
    return moves


cdef uint32_t push_apart(
    sched_t *s, load_of_t load, waiter_t waiter, move_t move, uint32_t percent
) noexcept nogil:
    """Even out the loads of CPUs: within each cache, then each node, each socket, and the host.

    Where the most loaded CPU has over `percent` more than the least loaded one, it gives worlds
    away, one at a time, as long as the larger of the two loads becomes less; at most as many as
    there are CPUs, of each cache, node and so on. Returns how many.
    """
    cdef uint64_t all_cpus[MASK_WORDS]
    cdef uint32_t i, moves = 0
    for i in range(s.topology.llcs):
        moves += even_out(s, &s.topology.llc_mask[i * MASK_WORDS], load, waiter, move, percent)
    if s.topology.nodes < s.topology.llcs:
        for i in range(s.topology.nodes):
            moves += even_out(
                s, &s.topology.node_mask[i * MASK_WORDS], load, waiter, move, percent)
    if s.topology.sockets < s.topology.nodes:
        for i in range(s.topology.sockets):
            moves += even_out(
                s, &s.topology.socket_mask[i * MASK_WORDS], load, waiter, move, percent)
    if s.topology.sockets > 1:
        for i in range(s.topology.words):
            all_cpus[i] = 0
        for i in range(s.cpu_count):
            all_cpus[i >> 6] |= <uint64_t>1 << (i & 63)
        moves += even_out(s, all_cpus, load, waiter, move, percent)
    return moves
