"""What a caller changes between events, all at the present time."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset

from pyvirt._core.sched.due cimport arm_timer
from pyvirt._core.sched.jobs cimport book_wait, may_compete, settle, work_of
from pyvirt._core.sched.loop cimport charge, enter, fill, make_runnable, place, rearm, stop
from pyvirt._core.sched.policies cimport (
    policy_join,
    policy_leave,
    policy_new,
    policy_pull,
    policy_push,
)
from pyvirt._core.sched.queue cimport join_queue, leave_queue
from pyvirt._core.sched.state cimport (
    GONE,
    HAS_JOBS,
    HAS_LIMIT,
    HELD,
    LIMITED,
    NEVER,
    NO_CPU,
    NO_WORLD,
    READY,
    RUN,
    WAIT,
    load_t,
    queue_t,
    sched_t,
    world_state_t,
    world_t,
)
from pyvirt._core.sched.sync cimport leave_team
from pyvirt._core.sched.virtual cimport rescaled, set_step
from pyvirt._core.sched.work cimport NO_RECORD, free_work, work_t
from pyvirt._core.types cimport ns_t


cdef void add_world(
    sched_t *s, uint32_t id, uint32_t queue, uint32_t weight, uint32_t slice, const load_t *load,
    bint has_jobs, ns_t first
) noexcept nogil:
    """A new world; capacity and a slot in its queue are there."""
    cdef world_t *w = &s.worlds[id]
    cdef load_t *l = &s.loads[id]
    memset(w, 0, sizeof(world_t))
    l[0] = load[0]
    join_queue(s, id, queue)
    w.weight, w.slice = weight, slice
    if id == 0 and s.world_count == 1:
        s.slice = slice
    elif s.slice != slice:
        s.slice = 0
    w.cpu = NO_CPU
    w.state = WAIT
    w.since = l.born = l.area_since = s.now
    l.arrival = first
    l.refill = l.pause_end = NEVER
    set_step(w)
    policy_new(s, w)
    if has_jobs:
        w.flags |= HAS_JOBS
        arm_timer(s, id)
    else:
        enter(s, id, s.now)
        place(s, id, s.now)


cdef void halt(sched_t *s, uint32_t id, world_state_t state) noexcept nogil:
    """From any state into one in which a world does not compete."""
    cdef world_t *w = &s.worlds[id]
    cdef load_t *l = &s.loads[id]
    cdef uint32_t cpu = w.cpu
    cdef bint ran = w.state == RUN
    if ran:
        charge(s, id, s.now)
    if ran or w.state == READY:
        stop(s, id, state, s.now)
        if ran:
            fill(s, cpu, NO_WORLD, s.now)
    elif w.state == LIMITED:
        w.mlmtd += s.now - w.since
        l.refill = NEVER
        arm_timer(s, id)
    else:
        book_wait(w, l, s.now)
    w.state, w.since = state, s.now


cdef void remove_world(sched_t *s, uint32_t id) noexcept nogil:
    """Its number becomes free."""
    cdef load_t *l = &s.loads[id]
    halt(s, id, GONE)
    l.arrival = l.pause_end = NEVER
    arm_timer(s, id)
    leave_queue(s, id)
    if l.more != NO_RECORD:
        if s.more.works[l.more].team != NO_RECORD:
            leave_team(s, id, s.now)
        free_work(&s.more, l.more)
        l.more = NO_RECORD


cdef void block_world(sched_t *s, uint32_t id) noexcept nogil:
    """Until `wake_world`; work may arrive meanwhile."""
    if not s.worlds[id].flags & HELD:
        halt(s, id, WAIT)
        s.worlds[id].flags |= HELD


cdef void wake_world(sched_t *s, uint32_t id) noexcept nogil:
    """End a block."""
    cdef world_t *w = &s.worlds[id]
    cdef load_t *l = &s.loads[id]
    if w.flags & HELD:
        book_wait(w, l, s.now)
        w.flags &= ~HELD
        if may_compete(s, w, l):
            make_runnable(s, id, s.now)


cdef void pause_world(sched_t *s, uint32_t id, ns_t time, uint8_t pause) noexcept nogil:
    """Let it wait for a device or a page; what it waits for already, it waits longer for."""
    cdef load_t *l = &s.loads[id]
    halt(s, id, WAIT)
    l.pause = pause
    l.pause_end = (s.now if l.pause_end == NEVER else l.pause_end) + time
    arm_timer(s, id)


cdef void halt_world(sched_t *s, uint32_t id) noexcept nogil:
    """Its guest has nothing to do until an interrupt."""
    halt(s, id, WAIT)
    s.loads[id].halted = 1


cdef void interrupt_world(sched_t *s, uint32_t id, ns_t work) noexcept nogil:
    """It wakes up if it halted, and does this work before it goes on."""
    cdef world_t *w = &s.worlds[id]
    cdef load_t *l = &s.loads[id]
    if w.state == RUN:
        charge(s, id, s.now)
    l.interrupts += 1
    l.halted = 0
    l.left += work
    if w.state == WAIT:
        if may_compete(s, w, l):
            make_runnable(s, id, s.now)
    elif w.state == RUN:
        rearm(s, w.cpu, s.now)


cdef void submit_work(sched_t *s, uint32_t id, ns_t work) noexcept nogil:
    """More work for a world whose work comes from the caller."""
    cdef world_t *w = &s.worlds[id]
    cdef load_t *l = &s.loads[id]
    cdef work_t *k = work_of(s, l)
    if w.state == RUN:
        charge(s, id, s.now)
    settle(l, s.now)
    l.halted = 0
    l.left += work
    if not l.jobs:
        l.jobs = 1
        if k != NULL:
            k.head.at = s.now
    if w.state == WAIT:
        if may_compete(s, w, l):
            make_runnable(s, id, s.now)
    elif w.state == RUN:
        rearm(s, w.cpu, s.now)


cdef void set_world_weight(sched_t *s, uint32_t id, uint32_t weight) noexcept nogil:
    """What it is ahead of the others stays the same CPU time."""
    cdef world_t *w = &s.worlds[id]
    cdef queue_t *q = &s.queues[w.queue]
    cdef uint32_t old = w.weight
    cdef bint active = w.state == READY or w.state == RUN
    if w.state == RUN:
        charge(s, id, s.now)
    elif w.state == READY:
        policy_pull(s, q, id)
    if active:
        policy_leave(s, q, w, s.now)
        q.weight -= old
    w.weight = weight
    w.remain, w.rem = rescaled(w.remain, old, weight), 0
    set_step(w)
    if active:
        policy_join(s, q, w, s.now)
        q.weight += weight
    if w.state == READY:
        policy_push(s, q, id)


cdef void set_world_queue(sched_t *s, uint32_t id, uint32_t queue) noexcept nogil:
    """Other CPUs; there is a slot in the new queue. If it ran, it must queue up again."""
    cdef world_t *w = &s.worlds[id]
    cdef uint32_t cpu = w.cpu
    cdef bint ran = w.state == RUN, active = ran or w.state == READY
    if ran:
        charge(s, id, s.now)
    if active:
        stop(s, id, WAIT, s.now)
    leave_queue(s, id)
    join_queue(s, id, queue)
    if active:
        enter(s, id, s.now)
    if ran:
        fill(s, cpu, id, s.now)
    if w.state == READY:
        place(s, id, s.now)


cdef void set_world_limit(sched_t *s, uint32_t id, ns_t quota, ns_t period) noexcept nogil:
    """At most `quota` ns of each period, the first of which begins now; a quota of 0: no limit."""
    cdef world_t *w = &s.worlds[id]
    cdef load_t *l = &s.loads[id]
    if w.state == RUN:
        charge(s, id, s.now)
    l.quota = l.budget = quota
    l.period, l.period_end = period, s.now + period
    if quota:
        w.flags |= HAS_LIMIT
    else:
        w.flags &= ~HAS_LIMIT
    if w.state == RUN:
        rearm(s, w.cpu, s.now)
    elif w.state == LIMITED:
        l.refill = NEVER
        arm_timer(s, id)
        w.mlmtd += s.now - w.since
        enter(s, id, s.now)
        place(s, id, s.now)
