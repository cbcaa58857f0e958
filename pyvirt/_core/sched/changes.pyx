"""What a caller changes between events, all at the present time."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memset

from pyvirt._core.sched.due cimport arm_timer
from pyvirt._core.sched.hooks cimport hook_add, hook_change, hook_dequeue, hook_enqueue, hook_remove
from pyvirt._core.sched.jobs cimport book_wait, may_compete, settle, work_of
from pyvirt._core.sched.loop cimport (
    book,
    charge,
    enter,
    fill,
    make_runnable,
    place,
    rearm,
    resume,
    stop,
    stops,
)
from pyvirt._core.sched.policies cimport (
    policy_join,
    policy_leave,
    policy_new,
    policy_pull,
    policy_push,
)
from pyvirt._core.sched.queue cimport join_queue, leave_queue
from pyvirt._core.sched.state cimport (
    COSTOP,
    FULL_SPEED,
    GONE,
    HAS_JOBS,
    HAS_LIMIT,
    HELD,
    LIMITED,
    NEVER,
    NO_CPU,
    NO_NODE,
    NO_WORLD,
    PACED,
    PARKED,
    POLICY_PLUG,
    QUEUED,
    READY,
    RUN,
    WAIT,
    WHY_BLOCK,
    WHY_COSTART,
    WHY_COSTOP,
    WHY_MOVE,
    WHY_NEW,
    WHY_PARK,
    WHY_REFILL,
    WHY_UNPARK,
    load_t,
    pace_t,
    queue_t,
    sched_t,
    vm_t,
    why_t,
    world_state_t,
    world_t,
)
from pyvirt._core.sched.sync cimport leave_team
from pyvirt._core.sched.virtual cimport rescaled, set_step
from pyvirt._core.sched.work cimport NO_RECORD, free_hist, free_work, work_t
from pyvirt._core.types cimport ns_t


cdef void new_world(
    sched_t *s, uint32_t id, uint32_t queue, uint32_t vm, uint32_t weight, uint32_t slice,
    const load_t *load, bint has_jobs
) noexcept nogil:
    """A world that does nothing yet; capacity and a slot in its queue are there."""
    cdef world_t *w = &s.worlds[id]
    cdef load_t *l = &s.loads[id]
    memset(w, 0, sizeof(world_t))
    l[0] = load[0]
    join_queue(s, id, queue)
    join_vm(s, id, vm)
    w.weight, w.slice = weight, slice
    if id == 0 and s.world_count == 1:
        s.slice = slice
    elif s.slice != slice:
        s.slice = 0
    w.cpu = NO_CPU
    if s.paces != NULL:
        memset(&s.paces[id], 0, sizeof(pace_t))
        s.paces[id].speed = s.paces[id].memory_speed = FULL_SPEED
        s.paces[id].home = NO_NODE
        w.flags |= PACED
    w.state = WAIT
    w.since = l.born = l.area_since = s.now
    l.arrival = l.refill = l.pause_end = NEVER
    set_step(w)
    if has_jobs:
        w.flags |= HAS_JOBS
    policy_new(s, w)
    if s.policy == POLICY_PLUG:
        memset(&s.plug.worlds[id * s.plug.world_size], 0, s.plug.world_size)
        hook_add(s, id)


cdef void start_world(sched_t *s, uint32_t id, ns_t first) noexcept nogil:
    """From now on it competes, or its first job arrives at `first`."""
    if s.worlds[id].flags & HAS_JOBS:
        s.loads[id].arrival = first
        arm_timer(s, id)
    else:
        s.worlds[id].wait += s.now - s.worlds[id].since
        enter(s, id, WHY_NEW, s.now)
        place(s, id, s.now)


cdef void join_vm(sched_t *s, uint32_t id, uint32_t vm) noexcept nogil:
    """As its last world."""
    cdef vm_t *v = &s.vms[vm]
    cdef uint32_t *link = &v.first
    while link[0] != NO_WORLD:
        link = &s.siblings[link[0]]
    link[0] = id
    s.siblings[id] = NO_WORLD
    v.worlds += 1
    s.worlds[id].vm = vm


cdef void leave_vm(sched_t *s, uint32_t id) noexcept nogil:
    cdef vm_t *v = &s.vms[s.worlds[id].vm]
    cdef uint32_t *link = &v.first
    while link[0] != id:
        link = &s.siblings[link[0]]
    link[0] = s.siblings[id]
    v.worlds -= 1


cdef void halt(sched_t *s, uint32_t id, world_state_t state) noexcept nogil:
    """From any state into one in which a world does not compete."""
    cdef world_t *w = &s.worlds[id]
    cdef load_t *l = &s.loads[id]
    cdef uint32_t cpu = w.cpu
    cdef bint ran
    if w.state == RUN:
        charge(s, id, s.now)
        # between events of one moment its work may be done, and that event still to come
        if w.state == RUN and w.flags & (HAS_JOBS | HAS_LIMIT) and stops(s, id, s.now):
            fill(s, cpu, NO_WORLD, s.now)
    ran = w.state == RUN
    if w.state == LIMITED:
        l.refill = NEVER
        arm_timer(s, id)
    if ran or w.state == READY or (s.policy == POLICY_PLUG and w.state != WAIT):
        stop(s, id, state, WHY_BLOCK, s.now)
        if ran:
            fill(s, cpu, NO_WORLD, s.now)
    else:
        if w.state == WAIT:
            book_wait(w, l, s.now)
        else:
            book(w, s.now)
        w.state = state


cdef void remove_world(sched_t *s, uint32_t id) noexcept nogil:
    """Its number becomes free."""
    cdef load_t *l = &s.loads[id]
    halt(s, id, WAIT)
    if s.policy == POLICY_PLUG:
        hook_remove(s, id)
    s.worlds[id].state = GONE
    l.arrival = l.pause_end = NEVER
    arm_timer(s, id)
    leave_queue(s, id)
    leave_vm(s, id)
    if l.more != NO_RECORD:
        if s.more.works[l.more].team != NO_RECORD:
            leave_team(s, id, s.now)
        free_work(&s.more, l.more)
        l.more = NO_RECORD
    free_hist(&s.more, l.wake_hist)
    l.wake_hist = NO_RECORD


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
    if s.policy == POLICY_PLUG:
        begin_change(s, id)
        w.weight = weight
        if s.vms[w.vm].worlds == 1:
            s.vms[w.vm].weight = weight
        end_change(s, id)
        return
    if s.vms[w.vm].worlds == 1:
        s.vms[w.vm].weight = weight
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


cdef void begin_change(sched_t *s, uint32_t id) noexcept nogil:
    """Before a plug-in policy's parameters change: a ready world is out of its queue."""
    if s.worlds[id].state == RUN:
        charge(s, id, s.now)
    if s.worlds[id].state == READY:
        hook_dequeue(s, id)


cdef void end_change(sched_t *s, uint32_t id) noexcept nogil:
    """Tell it, and queue a ready world anew. One that runs goes on unless the policy asks."""
    hook_change(s, id)
    if s.worlds[id].state == READY and not s.worlds[id].marks & QUEUED:
        hook_enqueue(s, id, WHY_MOVE)


cdef void set_vm_values(sched_t *s, uint32_t vm, const vm_t *values, bint weights) noexcept nogil:
    """New weight, reservation, limit and parameters; the weight also of its worlds, in equal parts."""
    cdef vm_t *v = &s.vms[vm]
    cdef uint32_t id = v.first, part
    if s.policy == POLICY_PLUG:
        while id != NO_WORLD:
            begin_change(s, id)
            id = s.siblings[id]
    v.weight, v.reservation, v.limit = values.weight, values.reservation, values.limit
    memcpy(v.param, values.param, sizeof(v.param))
    part = v.weight // v.worlds if v.weight >= v.worlds else 1
    id = v.first
    while weights and s.policy == POLICY_PLUG and id != NO_WORLD:
        s.worlds[id].weight = part
        id = s.siblings[id]
    id = v.first
    while id != NO_WORLD:
        if s.policy == POLICY_PLUG:
            end_change(s, id)
        elif weights:
            set_world_weight(s, id, part)
        id = s.siblings[id]


cdef void set_world_queue(sched_t *s, uint32_t id, uint32_t queue) noexcept nogil:
    """Other CPUs; there is a slot in the new queue. If it ran, it must queue up again."""
    cdef world_t *w = &s.worlds[id]
    cdef uint32_t cpu = w.cpu
    cdef bint ran, active
    if w.state == RUN:
        charge(s, id, s.now)
    ran = w.state == RUN
    active = ran or w.state == READY
    if active:
        stop(s, id, WAIT, WHY_MOVE, s.now)
    leave_queue(s, id)
    join_queue(s, id, queue)
    if s.policy == POLICY_PLUG:
        hook_change(s, id)
    if active:
        enter(s, id, WHY_MOVE, s.now)
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
    elif l.refill != NEVER:
        l.refill = NEVER
        arm_timer(s, id)
        resume(s, id, WHY_REFILL, s.now)


# --- services of plug-in policies ---


cdef void hold(sched_t *s, uint32_t id, uint8_t mark) noexcept nogil:
    """Take a world that would run out of competition: PARKED or COSTOPPED."""
    cdef world_t *w = &s.worlds[id]
    cdef world_state_t state
    cdef why_t why
    if w.state == GONE or w.state == WAIT or w.marks & mark:
        return
    w.marks |= mark
    if w.state == RUN:
        charge(s, id, s.now)
        if w.state == RUN and w.flags & (HAS_JOBS | HAS_LIMIT) and stops(s, id, s.now):
            return
    if not w.marks & mark:          # a hook took it back
        if w.state == RUN:
            rearm(s, w.cpu, s.now)  # its work may have ended just now, and it waits
        return
    if w.state == RUN or w.state == READY:
        state, why = (LIMITED, WHY_PARK) if mark == PARKED else (COSTOP, WHY_COSTOP)
        stop(s, id, state, why, s.now)
    elif w.state != WAIT:
        resume(s, id, WHY_UNPARK, s.now)


cdef void release(sched_t *s, uint32_t id, uint8_t mark) noexcept nogil:
    """The reverse: it is queued if nothing else keeps it."""
    cdef world_t *w = &s.worlds[id]
    if w.marks & mark:
        w.marks &= ~mark
        if w.state == LIMITED or w.state == COSTOP:
            resume(s, id, WHY_UNPARK if mark == PARKED else WHY_COSTART, s.now)
