# Lottery scheduling (Waldspurger and Weihl, OSDI 1994): each slice goes to a ticket drawn at random;
# a world has as many as its weight. Compensation tickets and transfers are not modelled.
#
# `node` is a tree of sums over the slots, and the draw goes down from its root; a CPU of several
# queues draws among all their tickets, in the order of the queues.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.sched.random cimport draw_below
from pyvirt._core.sched.state cimport NO_WORLD, cpu_t, queue_t, sched_t


cdef inline void add_tickets(queue_t *q, uint32_t slot, int sign, uint32_t count) noexcept nogil:
    cdef uint32_t i = q.leaves + slot
    while i:
        q.node[i] += <uint64_t>(<long long>sign * count)
        i >>= 1


cdef inline uint32_t choose_lottery(sched_t *s, const cpu_t *c) noexcept nogil:
    cdef uint64_t total = 0, ticket
    cdef uint32_t i, n
    cdef queue_t *q
    for i in range(c.serves, c.serves + c.serve_count):
        total += s.queues[s.serves[i]].node[1]
    if not total:
        return NO_WORLD
    ticket = draw_below(&s.random, total)
    i = c.serves
    q = &s.queues[s.serves[i]]
    while ticket >= q.node[1]:
        ticket -= q.node[1]
        i += 1
        q = &s.queues[s.serves[i]]
    n = 1
    while n < q.leaves:
        n *= 2
        if ticket >= q.node[n]:
            ticket -= q.node[n]
            n += 1
    return q.owner[n - q.leaves]
