# Virtual time: of a world, its CPU time over its weight; of a queue, that of all over all.
#
# Both are exact: what a division leaves over is kept. They may wrap around; only differences count.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from pyvirt._core.sched.state cimport (
    MOST_REMAIN,
    VIRTUAL_SHIFT,
    queue_t,
    world_t,
)
from pyvirt._core.types cimport ns_t


cdef inline int64_t floor_div(int64_t a, int64_t b) noexcept nogil:
    """Rounded down; `b` is positive."""
    return a // b if a >= 0 else -((b - 1 - a) // b)


cdef inline int64_t wrapping(int64_t a, int64_t b) noexcept nogil:
    """Give the sum modulo 2**64."""
    return <int64_t>(<uint64_t>a + <uint64_t>b)


cdef inline int64_t ahead(int64_t a, int64_t b) noexcept nogil:
    """How much `a` is later than `b`."""
    return <int64_t>(<uint64_t>a - <uint64_t>b)


cdef inline void set_step(world_t *w) noexcept nogil:
    """Prepare the charge of a whole slice, which then takes no division."""
    cdef uint64_t scaled = <uint64_t>w.slice << VIRTUAL_SHIFT
    w.step = <int64_t>(scaled // w.weight)
    w.step_rem = <uint32_t>(scaled % w.weight)


cdef inline void advance_world(world_t *w, ns_t dt) noexcept nogil:
    """Add the virtual time of `dt` ns of CPU time."""
    cdef uint64_t scaled
    cdef uint32_t rem
    if dt == w.slice:
        w.v = wrapping(w.v, w.step)
        rem = w.rem + w.step_rem
        if rem >= w.weight:
            rem -= w.weight
            w.v = wrapping(w.v, 1)
        w.rem = rem
        return
    scaled = (<uint64_t>dt << VIRTUAL_SHIFT) + w.rem
    w.v = wrapping(w.v, <int64_t>(scaled // w.weight))
    w.rem = <uint32_t>(scaled % w.weight)


cdef inline void sync_queue(queue_t *q, ns_t now) noexcept nogil:
    """Bring the queue's virtual time up to `now`, with what its running worlds have in progress."""
    cdef ns_t total = q.service + <int64_t>q.running * now - q.started
    cdef int64_t scaled
    if q.weight:
        scaled = ((total - q.synced) << VIRTUAL_SHIFT) + q.v_rem
        q.v = wrapping(q.v, scaled // q.weight)
        q.v_rem = scaled % q.weight
    q.synced = total


cdef inline int64_t rescaled(int64_t remain, uint32_t old, uint32_t new) noexcept nogil:
    """What `remain` becomes with another weight: the same CPU time, at most 4.3 s at weight 1."""
    if remain > MOST_REMAIN:
        remain = MOST_REMAIN
    elif remain < -MOST_REMAIN:
        remain = -MOST_REMAIN
    return floor_div(remain * old, new)
