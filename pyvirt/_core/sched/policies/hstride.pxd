# Hierarchical stride scheduling (Waldspurger and Weihl, MIT/LCS/TM-528, 1995): worlds are the leaves
# of a balanced binary tree, in the order of their slots. Every node has the tickets of its active
# worlds, and a pass; from the root the way goes to the child of least pass that has a ready world,
# the left one of equals. CPU time moves on the pass of each node on the way by its strides.
#
# A node that gets its first tickets starts at its sibling's pass if that is later than its own. Queues
# are compared by the passes of their roots, and the root of one that gets its first tickets starts
# at the latest of the others that have any.

from libc.stdint cimport int64_t, uint32_t

from pyvirt._core.sched.state cimport (
    NO_WORLD,
    VIRTUAL_SHIFT,
    hnode_t,
    queue_t,
    sched_t,
    world_t,
)
from pyvirt._core.sched.virtual cimport ahead, wrapping
from pyvirt._core.types cimport ns_t


cdef inline void grow_groups(
    hnode_t *groups, uint32_t leaves, const hnode_t *old, uint32_t count
) noexcept nogil:
    """A tree of twice the size: the old root becomes the left child of the new one."""
    cdef uint32_t level = 1, i
    if not count:
        return
    groups[1] = old[1]
    while level <= count:
        for i in range(level):
            groups[2 * level + i] = old[level + i]
        level *= 2


cdef inline void catch_up(hnode_t *g, const hnode_t *other) noexcept nogil:
    if other.tickets and ahead(other.pass_, g.pass_) > 0:
        g.pass_ = other.pass_


cdef inline void change_tickets(sched_t *s, queue_t *q, uint32_t slot, int64_t by) noexcept nogil:
    cdef uint32_t i = q.leaves + slot, other
    cdef hnode_t *g
    while i:
        g = &q.groups[i]
        if not g.tickets and i > 1:
            catch_up(g, &q.groups[i ^ 1])
        elif not g.tickets:
            for other in range(s.queue_count):
                catch_up(g, &s.queues[other].groups[1])
        g.tickets += by
        g.rem = 0
        i >>= 1


cdef inline void change_ready(queue_t *q, uint32_t slot, int by) noexcept nogil:
    cdef uint32_t i = q.leaves + slot
    while i:
        q.groups[i].ready += <uint32_t>by
        i >>= 1


cdef inline void charge_hstride(queue_t *q, const world_t *w, ns_t dt) noexcept nogil:
    cdef uint32_t i = q.leaves + w.slot
    cdef hnode_t *g
    cdef int64_t scaled
    while i:
        g = &q.groups[i]
        scaled = (dt << VIRTUAL_SHIFT) + g.rem
        g.pass_ = wrapping(g.pass_, scaled // g.tickets)
        g.rem = scaled % g.tickets
        i >>= 1


cdef inline uint32_t best_hstride(const queue_t *q) noexcept nogil:
    cdef uint32_t i = 1
    cdef const hnode_t *left
    if not q.groups[1].ready:
        return NO_WORLD
    while i < q.leaves:
        left = &q.groups[2 * i]
        i *= 2
        if not left.ready or (left[1].ready and ahead(left[1].pass_, left.pass_) < 0):
            i += 1
    return q.owner[i - q.leaves]
