"""Barriers and locks: who waits for whom, and what happens to those who waited.

A barrier opens when all members of the team have arrived. A ticket lock goes to the one that asked
first, whether or not it has a CPU: a waiter that is preempted holds up all behind it. A test-and-set
lock goes to any that tests it while it is free, which takes a CPU: one of those that spin on a CPU
when it is given back, each as likely, or else the first that comes to run. Sleepers are woken in the
order of their requests.
"""

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.sched.jobs cimport draw_work, may_compete, note_response, settle
from pyvirt._core.sched.loop cimport charge, make_runnable, rearm
from pyvirt._core.sched.random cimport draw_below, draw_dist
from pyvirt._core.sched.state cimport NEVER, NO_WORLD, RUN, WAIT, load_t, sched_t, world_t
from pyvirt._core.sched.work cimport (
    NO_RECORD,
    PHASE_NONE,
    PHASE_SECTION,
    PHASE_SLEEP,
    PHASE_SPIN,
    PHASE_WORK,
    TEAM_BARRIER,
    TEAM_TAS,
    TEAM_TICKET,
    free_team,
    team_t,
    work_t,
)
from pyvirt._core.types cimport ns_t


cdef inline work_t *member(sched_t *s, uint32_t id) noexcept nogil:
    return &s.more.works[s.loads[id].more]


cdef inline team_t *team_of(sched_t *s, const work_t *k) noexcept nogil:
    return &s.more.teams[k.team]


cdef inline bint waits(const work_t *k) noexcept nogil:
    return k.phase == PHASE_SPIN or k.phase == PHASE_SLEEP


# --- one member ---


cdef void begin_round(sched_t *s, uint32_t id, ns_t now) noexcept nogil:
    """Work before the barrier, or outside the lock."""
    cdef load_t *l = &s.loads[id]
    cdef work_t *k = member(s, id)
    k.phase = PHASE_WORK
    k.head.at = now
    l.left = draw_work(s, l)


cdef void end_round(sched_t *s, uint32_t id, ns_t now) noexcept nogil:
    """Count it, and begin the next one."""
    cdef load_t *l = &s.loads[id]
    cdef work_t *k = member(s, id)
    settle(l, now)
    l.done += 1
    note_response(s, k, now - k.head.at)
    begin_round(s, id, now)


cdef bint begin_wait(sched_t *s, uint32_t id, ns_t now) noexcept nogil:
    """Returns whether it spins; else it is to stop."""
    cdef work_t *k = member(s, id)
    cdef team_t *t = team_of(s, k)
    k.waits += 1
    k.asked = now
    if t.spin == 0:
        k.phase = PHASE_SLEEP
        return False
    k.phase = PHASE_SPIN
    k.spin_left, k.window_left = t.spin, t.window
    return True


cdef void hold(sched_t *s, uint32_t id, ns_t now) noexcept nogil:
    """The lock is its own from now on, with or without a CPU."""
    cdef load_t *l = &s.loads[id]
    cdef work_t *k = member(s, id)
    cdef world_t *w = &s.worlds[id]
    team_of(s, k).holder = id
    k.phase = PHASE_SECTION
    k.held, k.held_run = now, w.run
    # If it has no CPU, it comes to run once without having been preempted as the holder.
    k.held_switches = w.switches + (w.state != RUN)
    l.left = draw_dist(&l.random, &k.section, s.more.tables)


cdef void go_on(sched_t *s, uint32_t id, bint slept, ns_t now) noexcept nogil:
    """A member that waited, and has new work, runs on, or wakes up if it can."""
    cdef world_t *w = &s.worlds[id]
    if w.state == RUN:
        rearm(s, w.cpu, now)
    elif slept and w.state == WAIT and may_compete(s, w, &s.loads[id]):
        make_runnable(s, id, now)


cdef bint end_wait(sched_t *s, uint32_t id, ns_t now) noexcept nogil:
    """Book the wait of a member; returns whether it slept. Its phase is to be set next."""
    cdef work_t *k = member(s, id)
    if s.worlds[id].state == RUN:
        charge(s, id, now)
    k.waited += now - k.asked
    return k.phase == PHASE_SLEEP


# --- all members ---


cdef void open_barrier(sched_t *s, team_t *t, uint32_t last, ns_t now) noexcept nogil:
    """All have arrived; `last`, or NO_WORLD, has not waited."""
    cdef uint32_t id = t.first
    cdef bint slept
    t.arrived = 0
    t.rounds += 1
    # first, so that a policy which stops it while others are charged does not find its work done
    if last != NO_WORLD:
        end_round(s, last, now)
    while id != NO_RECORD:
        if id != last and waits(member(s, id)):
            slept = end_wait(s, id, now)
            end_round(s, id, now)
            go_on(s, id, slept, now)
        id = member(s, id).next


cdef uint32_t next_holder(sched_t *s, team_t *t) noexcept nogil:
    """Who gets the lock, or is woken to ask for it anew; NO_WORLD if that has to wait."""
    cdef uint32_t id = t.first, best = NO_WORLD, spinning = 0, asleep = NO_WORLD
    cdef uint64_t chosen
    cdef work_t *k
    while id != NO_RECORD:
        k = member(s, id)
        if waits(k):
            if best == NO_WORLD or k.ticket < member(s, best).ticket:
                best = id
            if k.phase == PHASE_SLEEP:
                if asleep == NO_WORLD or k.ticket < member(s, asleep).ticket:
                    asleep = id
            elif s.worlds[id].state == RUN:
                spinning += 1
        id = k.next
    if t.kind == TEAM_TICKET:
        return best
    if not spinning:
        return asleep
    chosen = draw_below(&t.random, spinning) if spinning > 1 else 0
    id = t.first
    while True:
        k = member(s, id)
        if k.phase == PHASE_SPIN and s.worlds[id].state == RUN:
            if not chosen:
                return id
            chosen -= 1
        id = k.next


cdef void pass_on(sched_t *s, team_t *t, ns_t now) noexcept nogil:
    """The lock is free: give it to who waits, if anyone can take it."""
    cdef uint32_t id = next_holder(s, t)
    cdef work_t *k
    cdef bint slept
    if id == NO_WORLD:
        return
    k = member(s, id)
    if t.kind == TEAM_TAS and k.phase == PHASE_SLEEP:
        k.phase = PHASE_SPIN        # it tests again when it runs
        k.spin_left, k.window_left = t.spin, t.window
        go_on(s, id, True, now)
        return
    slept = end_wait(s, id, now)
    if s.worlds[id].state != RUN and not slept:
        k.waiter_preempted += 1
    hold(s, id, now)
    go_on(s, id, slept, now)


cdef bint end_of_phase(sched_t *s, uint32_t id, ns_t now) noexcept nogil:
    """A running member has done its work; returns whether it goes on, working or spinning."""
    cdef work_t *k = member(s, id)
    cdef team_t *t = team_of(s, k)
    cdef world_t *w = &s.worlds[id]
    if t.kind == TEAM_BARRIER:
        t.arrived += 1
        if t.arrived == t.members:
            open_barrier(s, t, id, now)
            return True
        return begin_wait(s, id, now)
    if k.phase == PHASE_WORK:
        k.ticket = t.ticket
        t.ticket += 1
        if t.holder == NO_RECORD:
            hold(s, id, now)
            return True
        return begin_wait(s, id, now)
    k.held_off += now - k.held - (w.run - k.held_run)
    t.holder = NO_RECORD
    t.rounds += 1
    end_round(s, id, now)
    pass_on(s, t, now)
    return True


# --- spinning ---


cdef spin_t end_of_spin(sched_t *s, work_t *k) noexcept nogil:
    """An event of a running member that spins, and is charged."""
    cdef team_t *t = team_of(s, k)
    if t.spin >= 0 and k.spin_left <= 0:
        k.phase = PHASE_SLEEP
        return SPIN_SLEEP
    if t.window and k.window_left <= 0:
        k.window_left = t.window
        k.yields += 1
        return SPIN_YIELD
    return SPIN_ON


cdef bint take_if_free(sched_t *s, uint32_t id, ns_t now) noexcept nogil:
    """A member that spins has a CPU, and tests the lock; returns whether it has it now."""
    cdef work_t *k = member(s, id)
    cdef team_t *t = team_of(s, k)
    if t.kind != TEAM_TAS or t.holder != NO_RECORD:
        return False
    k.waited += now - k.asked
    hold(s, id, now)
    return True


cdef bint spins(sched_t *s, uint32_t id, ns_t now, ns_t *until) noexcept nogil:
    """Whether a member that has a CPU spins, and until when at most; else it works."""
    cdef work_t *k = member(s, id)
    cdef team_t *t = team_of(s, k)
    cdef world_t *w = &s.worlds[id]
    if k.phase == PHASE_SPIN and not take_if_free(s, id, now):
        until[0] = NEVER
        if t.spin >= 0:
            until[0] = now + k.spin_left
        if t.window and now + k.window_left < until[0]:
            until[0] = now + k.window_left
        return True
    if k.phase == PHASE_SECTION and w.switches != k.held_switches:
        k.holder_preempted += 1     # it had lost its CPU since it has the lock
        k.held_switches = w.switches
    return False


# --- members come and go ---


cdef void join_team(sched_t *s, uint32_t id, uint32_t team) noexcept nogil:
    """As its last member; it begins when its first job comes."""
    cdef work_t *k = member(s, id)
    cdef team_t *t = &s.more.teams[team]
    cdef uint32_t other = t.first
    k.team, k.next, k.phase = team, NO_RECORD, PHASE_NONE
    t.members += 1
    if other == NO_RECORD:
        t.first = id
        return
    while member(s, other).next != NO_RECORD:
        other = member(s, other).next
    member(s, other).next = id


cdef void leave_team(sched_t *s, uint32_t id, ns_t now) noexcept nogil:
    """It competes no more; who waited for it alone goes on. Without members the team ends."""
    cdef work_t *k = member(s, id)
    cdef team_t *t = team_of(s, k)
    cdef uint32_t other = t.first, team = k.team
    cdef bint waited = waits(k)
    if other == id:
        t.first = k.next
    else:
        while member(s, other).next != id:
            other = member(s, other).next
        member(s, other).next = k.next
    k.team = k.next = NO_RECORD
    k.phase = PHASE_NONE
    t.members -= 1
    if not t.members:
        free_team(&s.more, team)
    elif t.kind == TEAM_BARRIER:
        if waited:
            t.arrived -= 1
        elif t.arrived == t.members:
            open_barrier(s, t, NO_WORLD, now)
    else:
        if t.holder == id:
            t.holder = NO_RECORD
        if t.holder == NO_RECORD:
            pass_on(s, t, now)
