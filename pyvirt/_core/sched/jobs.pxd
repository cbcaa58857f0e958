# The jobs of a world: what comes, what it is, and how long it took. Nothing here lets a world run or
# stop; the event loop does.

from libc.stdint cimport uint64_t

from pyvirt._core.sched.random cimport draw_dist, draw_time
from pyvirt._core.sched.state cimport (
    HAS_JOBS,
    HELD,
    NEVER,
    PAUSE_SWAP,
    load_t,
    sched_t,
    world_t,
)
from pyvirt._core.sched.work cimport (
    NO_RECORD,
    PHASE_SLEEP,
    flow_t,
    table_t,
    work_t,
)
from pyvirt._core.types cimport ns_t

cdef bint arrive(sched_t *s, load_t *l, ns_t now) noexcept nogil
cdef bint finish(sched_t *s, load_t *l, ns_t now) noexcept nogil
cdef void begin_trace(flow_t *f, const work_t *k, const table_t *t, ns_t origin) noexcept nogil
cdef void note_response(sched_t *s, work_t *k, ns_t time) noexcept nogil


cdef inline work_t *work_of(sched_t *s, const load_t *l) noexcept nogil:
    """Give the world's record, or NULL."""
    return NULL if l.more == NO_RECORD else &s.more.works[l.more]


cdef inline void settle(load_t *l, ns_t now) noexcept nogil:
    """Before the number of jobs changes."""
    l.area += l.jobs * (now - l.area_since)
    l.area_since = now


cdef inline ns_t draw_work(sched_t *s, load_t *l) noexcept nogil:
    if l.more == NO_RECORD:
        return draw_time(&l.random, l.work_kind, l.work)
    return draw_dist(&l.random, &s.more.works[l.more].work, s.more.tables)


cdef inline ns_t draw_gap(sched_t *s, const load_t *l, uint64_t *state) noexcept nogil:
    if l.more == NO_RECORD:
        return draw_time(state, l.gap_kind, l.gap)
    return draw_dist(state, &s.more.works[l.more].gap, s.more.tables)


cdef inline bint has_work(const sched_t *s, const world_t *w, const load_t *l) noexcept nogil:
    """Whether a world would use a CPU, if nothing held it back."""
    if l.halted:
        return False
    if not w.flags & HAS_JOBS:
        return True
    if l.more != NO_RECORD and s.more.works[l.more].phase == PHASE_SLEEP:
        return False
    return l.jobs > 0 or l.left > 0


cdef inline bint may_compete(const sched_t *s, const world_t *w, const load_t *l) noexcept nogil:
    """Whether a waiting world is to compete now."""
    return not w.flags & HELD and l.pause_end == NEVER and has_work(s, w, l)


cdef inline void book_wait(world_t *w, load_t *l, ns_t now) noexcept nogil:
    """Book the time of a waiting world up to now, before what it waits for changes."""
    cdef ns_t time = now - w.since
    w.wait += time
    if l.pause_end != NEVER:
        if l.pause == PAUSE_SWAP:
            l.swap += time
    elif not w.flags & HELD:
        l.idle += time
    w.since = now
