# Stride scheduling (Waldspurger and Weihl, MIT/LCS/TM-528, 1995): the least pass runs, and its pass
# grows by its stride, which is one over its tickets, for each slice; by a part of that for less.
#
# A world that stops to compete keeps what it is ahead of the queue's pass (`remain`), and rejoins
# as far ahead. A new one joins one stride ahead. With other tickets, `remain` is scaled by the
# strides.

from pyvirt._core.sched.state cimport queue_t, sched_t, world_t
from pyvirt._core.sched.virtual cimport ahead, rescaled, sync_queue, wrapping
from pyvirt._core.types cimport ns_t


cdef inline void stride_new(world_t *w) noexcept nogil:
    w.remain, w.rem = w.step, w.step_rem


cdef inline void stride_join(queue_t *q, world_t *w, ns_t now) noexcept nogil:
    """Before the world's weight counts in the queue's."""
    sync_queue(q, now)
    q.v_rem = 0
    w.v = wrapping(q.v, w.remain)


cdef inline void stride_leave(queue_t *q, world_t *w, ns_t now) noexcept nogil:
    """While the world's weight still counts."""
    sync_queue(q, now)
    q.v_rem = 0
    w.remain = ahead(w.v, q.v)
