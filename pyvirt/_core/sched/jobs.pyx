"""The jobs of a world: arrivals, traces of demand, ends of work, response times.

Jobs of one world are done in the order of their arrival. When the job that is worked on arrived, and
what it brought, is not stored for those that wait: a second place in the arrivals (`work_t.head`)
follows behind the first and draws or computes the same again.
"""

from libc.stdint cimport int64_t, uint32_t

from pyvirt._core.sched.state cimport (
    NEVER,
    SOURCE_CLOSED,
    SOURCE_OPEN,
    SOURCE_TRACE,
    load_t,
    sched_t,
)
from pyvirt._core.sched.work cimport (
    NO_RECORD,
    PARTS_PER_CPU,
    count_time,
    flow_t,
    table_t,
    work_t,
)
from pyvirt._core.types cimport ns_t


cdef void note_response(sched_t *s, work_t *k, ns_t time) noexcept nogil:
    """Count the time from a job's arrival to its end."""
    if k.hist == NO_RECORD:
        return
    if time > k.response_most:
        k.response_most = time
    count_time(&s.more, k.hist, time)


# --- demand over time ---


cdef void set_part(flow_t *f, const work_t *k, const table_t *t) noexcept nogil:
    """What the part of the trace that begins at `f.at` brings, and how long it lasts."""
    cdef uint32_t segments = (t.count - 1) // 2
    cdef int64_t rate, rest
    if f.segment == segments:
        if not k.repeat:
            f.length = f.work = 0   # the end itself: what is not done may be dropped
            return
        f.origin += t.values[segments]
        f.segment = 0
    rate = t.values[segments + 1 + f.segment]
    f.length = f.origin + t.values[f.segment + 1] - f.at
    if rate and f.length > k.grain:
        f.length = k.grain
    # exact: what is less than 1 ns is kept for the next part
    rest = f.rem + rate * (f.length % PARTS_PER_CPU)
    f.work = rate * (f.length // PARTS_PER_CPU) + rest // PARTS_PER_CPU
    f.rem = rest % PARTS_PER_CPU


cdef void begin_trace(flow_t *f, const work_t *k, const table_t *t, ns_t origin) noexcept nogil:
    """The first part, at `origin`."""
    f.at = f.origin = origin
    f.segment, f.rem = 0, 0
    set_part(f, k, t)


cdef void next_part(flow_t *f, const work_t *k, const table_t *t) noexcept nogil:
    if f.segment == (t.count - 1) // 2:
        f.at = NEVER
        return
    f.at += f.length
    if f.at - f.origin == t.values[f.segment + 1]:
        f.segment += 1
    set_part(f, k, t)


cdef bint part_comes(sched_t *s, load_t *l, work_t *k) noexcept nogil:
    """The work of the next part of the trace; of no length or no demand there is none."""
    cdef bint first = False
    if k.drop and l.jobs:
        k.dropped += l.left
        k.dropped_jobs += 1
        l.jobs = l.left = 0
    if k.ahead.work:
        k.came += k.ahead.work
        l.jobs += 1
        first = l.jobs == 1
        if first:
            k.head = k.ahead
            l.left += k.ahead.work
    next_part(&k.ahead, k, &s.more.tables[k.table])
    l.arrival = k.ahead.at
    return first


# --- jobs ---


cdef bint arrive(sched_t *s, load_t *l, ns_t now) noexcept nogil:
    """A job comes; returns whether no other waits or is worked on."""
    cdef work_t *k = NULL if l.more == NO_RECORD else &s.more.works[l.more]
    settle(l, now)
    l.halted = 0
    if l.source == SOURCE_TRACE:
        return part_comes(s, l, k)
    l.jobs += 1
    if l.jobs == 1:
        if k != NULL:
            k.head.at, k.head.random = now, l.random_gap
        l.left += draw_work(s, l)
    l.arrival = NEVER
    if l.source == SOURCE_OPEN:
        l.arrival = now + draw_gap(s, l, &l.random_gap)
    return l.jobs == 1


cdef bint finish(sched_t *s, load_t *l, ns_t now) noexcept nogil:
    """The present work is done; returns whether there is another job."""
    cdef work_t *k = NULL if l.more == NO_RECORD else &s.more.works[l.more]
    l.left = 0
    if not l.jobs:
        return False                # it was an interrupt's
    settle(l, now)
    l.jobs -= 1
    l.done += 1
    if k != NULL:
        note_response(s, k, now - k.head.at)
    if l.source == SOURCE_CLOSED:
        l.arrival = now + draw_gap(s, l, &l.random_gap)
    if not l.jobs:
        return False
    if l.source == SOURCE_TRACE:
        next_part(&k.head, k, &s.more.tables[k.table])
        while not k.head.work:
            next_part(&k.head, k, &s.more.tables[k.table])
        l.left = k.head.work
    else:
        if k != NULL:
            k.head.at += draw_gap(s, l, &k.head.random)
        l.left = draw_work(s, l)
    return True
