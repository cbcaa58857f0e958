"""The event loop: slices end, work ends, limits are met, jobs arrive.

At equal times timers come before CPUs, and each in the order of their numbers; of one world, the
refill of its limit comes first, then the end of a pause, then the arrival of a job. Between timers
and CPUs comes the timer of a plug-in policy.

A plug-in policy says itself which CPU picks anew: it asks for it, and those asked are served when
the event is over (pyvirt._core.sched.plugged). All that waits for it in between is consistent: a CPU
whose world stopped is idle.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pyvirt._core.sched.changes cimport halt
from pyvirt._core.sched.due cimport (
    arm_cpu,
    arm_timer,
    disarm_cpu,
    load_due,
    move_timer_base,
    next_cpu_event,
    next_timer,
)
from pyvirt._core.sched.hooks cimport (
    hook_charge,
    hook_enqueue,
    hook_timed,
)
from pyvirt._core.sched.jobs cimport (
    arrive,
    book_wait,
    finish,
    has_work,
    may_compete,
    work_of,
)
from pyvirt._core.sched.pace cimport moved, set_speed, time_for, work_in
from pyvirt._core.sched.placement cimport idle_cpu
from pyvirt._core.sched.plugged cimport ask_cpu, plug_requeue, plug_stop, serve
from pyvirt._core.sched.policies cimport (
    policy_charge,
    policy_choose,
    policy_join,
    policy_leave,
    policy_pull,
    policy_push,
    policy_queued,
    policy_run,
    policy_timeslice,
)
from pyvirt._core.sched.policies.stride cimport stride_best, stride_out
from pyvirt._core.sched.queue cimport fetch_later, first
from pyvirt._core.sched.requeues cimport only_requeues, requeue_slices
from pyvirt._core.sched.slices cimport end_slices, only_slices
from pyvirt._core.sched.state cimport (
    COSTOP,
    COSTOPPED,
    CPU_BITS,
    GONE,
    FAULT_NONE,
    HAS_JOBS,
    HAS_LIMIT,
    LATENCY_BUCKETS,
    LIMITED,
    NEVER,
    NO_CPU,
    NO_WORLD,
    PACED,
    PARKED,
    POLICY_PLUG,
    POLICY_STRIDE,
    READY,
    RUN,
    SOURCE_CLOSED,
    SOURCE_TEAM,
    SOURCE_TRACE,
    WAIT,
    WHY_BLOCK,
    WHY_LIMIT,
    WHY_REFILL,
    WHY_SLICE,
    WHY_WAKE,
    WOKEN,
    WORLD_BITS,
    cpu_t,
    load_t,
    queue_t,
    sched_t,
    why_t,
    world_state_t,
    world_t,
)
from pyvirt._core.sched.sync cimport (
    SPIN_ON,
    SPIN_SLEEP,
    SPIN_YIELD,
    begin_round,
    end_of_phase,
    end_of_spin,
    spin_t,
    spins,
)
from pyvirt._core.sched.timeline cimport note_switch
from pyvirt._core.sched.virtual cimport sync_queue
from pyvirt._core.sched.work cimport NO_RECORD, PHASE_SPIN, count_time, work_t
from pyvirt._core.types cimport ns_t

# The queues of stride are synced before what they collected could overflow: 2**20 slices of 2**32
# ns. Those of other policies keep what they need with each charge.
cdef enum:
    SYNC_EVENTS = (1 << 20) - 1


# --- one world ---


cdef void count_spin(work_t *k, ns_t dt) noexcept nogil:
    k.spun += dt
    k.spin_left -= dt
    k.window_left -= dt


# What only some worlds need stands apart: the usual case stays short.
cdef void charge_load(sched_t *s, world_t *w, uint32_t id, ns_t dt) noexcept nogil:
    cdef load_t *l = &s.loads[id]
    cdef ns_t work = work_in(&s.paces[id], dt) if w.flags & PACED else dt
    if not w.flags & (HAS_JOBS | HAS_LIMIT):
        return
    l.budget -= dt
    if l.more != NO_RECORD and s.more.works[l.more].phase == PHASE_SPIN:
        count_spin(&s.more.works[l.more], dt)
    else:
        l.left -= work


cdef inline void charge_now(sched_t *s, queue_t *q, world_t *w, uint32_t id, ns_t now) noexcept nogil:
    cdef ns_t dt = now - w.since
    w.run += dt
    w.since = now
    if w.flags & (HAS_JOBS | HAS_LIMIT | PACED):
        charge_load(s, w, id, dt)
    if s.policy == POLICY_PLUG:
        hook_charge(s, id, dt)
        return
    q.service += dt
    q.started += dt
    policy_charge(s, q, w, dt)


cdef void charge(sched_t *s, uint32_t id, ns_t now) noexcept nogil:
    """Book what a running world used up to now. A plug-in policy may stop it over that."""
    charge_now(s, &s.queues[s.worlds[id].queue], &s.worlds[id], id, now)


cdef inline void refresh(load_t *l, ns_t now) noexcept nogil:
    """Begin the limit's present period if the last one is over."""
    if now >= l.period_end:
        l.period_end += ((now - l.period_end) // l.period + 1) * l.period
        l.budget = l.quota


cdef ns_t load_event(sched_t *s, uint32_t cpu, uint32_t id, ns_t now) noexcept nogil:
    """The first of: end of the slice, of the work, of the limit or its period."""
    cdef ns_t when = s.cpus[cpu].slice_end, change
    cdef load_t *l = &s.loads[id]
    if s.worlds[id].flags & PACED:
        set_speed(s, id, cpu)
    if s.worlds[id].flags & HAS_JOBS:
        if l.source != SOURCE_TEAM or not spins(s, id, now, &change):
            change = now + (
                time_for(&s.paces[id], l.left) if s.worlds[id].flags & PACED else l.left)
        if change < when:
            when = change
    if s.worlds[id].flags & HAS_LIMIT:
        refresh(l, now)             # it may have been ready for longer than a period
        if now + l.budget < when:
            when = now + l.budget
        if l.period_end < when:
            when = l.period_end
    return when


cdef inline void set_event(sched_t *s, uint32_t cpu, uint32_t id, ns_t now) noexcept nogil:
    """Arm the CPU for what comes first."""
    if s.worlds[id].flags & (HAS_JOBS | HAS_LIMIT | PACED):
        arm_cpu(s, cpu, load_event(s, cpu, id, now))
    else:
        arm_cpu(s, cpu, s.cpus[cpu].slice_end)


cdef void rearm(sched_t *s, uint32_t cpu, ns_t now) noexcept nogil:
    """After work or limit of the running world changed; it is charged up to now."""
    set_event(s, cpu, s.cpus[cpu].running, now)


cdef void note_latency(sched_t *s, uint32_t id, ns_t now) noexcept nogil:
    """Count the time from a wake-up to the run: eight buckets for each power of two."""
    cdef world_t *w = &s.worlds[id]
    cdef load_t *l = &s.loads[id]
    cdef ns_t waited = now - w.since
    cdef ns_t rest = waited
    cdef uint32_t shift = 0, bucket
    w.flags &= ~WOKEN
    l.wakes += 1
    l.wake_sum += waited
    if waited > l.wake_most:
        l.wake_most = waited
    while rest >= 16:
        rest >>= 1
        shift += 1
    bucket = 8 * shift + <uint32_t>rest
    count_time(&s.more, l.wake_hist, waited)
    s.latency[bucket if bucket < LATENCY_BUCKETS else LATENCY_BUCKETS - 1] += 1


cdef void pay_move(sched_t *s, uint32_t id, uint32_t before, uint32_t cpu) noexcept nogil:
    moved(s, id, before, cpu)


cdef void record(sched_t *s, uint32_t cpu, uint32_t id, ns_t now) noexcept nogil:
    """Add to the timeline that the CPU takes up a ready world, or none."""
    cdef uint32_t before = s.timeline.on[cpu]
    cdef ns_t ready = now - s.worlds[id].since if id != NO_WORLD else 0
    cdef uint8_t state = GONE if before == NO_WORLD else s.worlds[before].state
    if before == id:
        return                      # it was taken off and goes on at the same moment
    if state == RUN:
        state = READY               # and went on elsewhere at the same moment
    s.timeline.on[cpu] = id
    note_switch(s.timeline, now, cpu, id, ready, state)


cdef inline void begin(sched_t *s, uint32_t cpu, uint32_t id, ns_t now) noexcept nogil:
    """A ready world, already out of its queue, gets the CPU after another world or idleness."""
    cdef world_t *w = &s.worlds[id]
    if w.flags & WOKEN:
        note_latency(s, id, now)
    if s.timeline != NULL:
        record(s, cpu, id, now)
    w.rdy += now - w.since
    w.since = now
    w.state = RUN
    w.switches += 1
    if w.cpu != cpu:
        w.migrations += w.cpu != NO_CPU
        if w.flags & PACED:
            pay_move(s, id, w.cpu, cpu)
        w.cpu = <uint16_t>cpu
    s.cpus[cpu].running = id
    s.cpus[cpu].began = now
    s.cpus[cpu].switches += 1


cdef void take_cpu(sched_t *s, uint32_t cpu, uint32_t id, ns_t now) noexcept nogil:
    """What `begin` does, for policies that are plugged in."""
    begin(s, cpu, id, now)


# --- one CPU ---


cdef void settle_core(sched_t *s, uint32_t cpu, ns_t now) noexcept nogil:
    """A thread became busy or idle: the others of its core work at another speed from now on."""
    cdef uint32_t core = s.topology.core[cpu], i, other, id
    for i in range(s.topology.first[core], s.topology.first[core + 1]):
        other = s.topology.threads[i]
        id = s.cpus[other].running
        if other != cpu and id != NO_WORLD and s.worlds[id].state == RUN:
            if s.worlds[id].since < now:
                charge(s, id, now)
            if s.cpus[other].running == id:
                set_event(s, other, id, now)


cdef void fill(sched_t *s, uint32_t cpu, uint32_t before, ns_t now) noexcept nogil:
    """Give the CPU, on which `before` (or NO_WORLD) ran until now, the best world, or none."""
    cdef cpu_t *c = &s.cpus[cpu]
    cdef uint32_t id
    cdef uint64_t bit = <uint64_t>1 << (cpu & 63)
    cdef world_t *w
    cdef queue_t *q
    if s.policy == POLICY_PLUG:
        c.before = before
        ask_cpu(s, cpu)
        return
    id = policy_choose(s, c, now)
    if id == NO_WORLD:
        if c.running != NO_WORLD:
            if s.timeline != NULL:
                record(s, cpu, NO_WORLD, now)
            c.running = NO_WORLD
            c.idle_since = now
            s.idle[cpu >> 6] |= bit
            s.idle_count += 1
            disarm_cpu(s, cpu)
            if s.paces != NULL and s.topology.smt:
                settle_core(s, cpu, now)
        return
    if c.running == NO_WORLD:
        c.idle += now - c.idle_since
        s.idle[cpu >> 6] &= ~bit
        s.idle_count -= 1
        if s.paces != NULL and s.topology.smt:
            settle_core(s, cpu, now)
    w = &s.worlds[id]
    q = &s.queues[w.queue]
    policy_run(s, q, id)
    q.running += 1
    q.started += now
    if id == before:
        w.state = RUN               # at the same moment: it just goes on
    else:
        begin(s, cpu, id, now)
    c.slice_end = now + policy_timeslice(s, id, now)
    set_event(s, cpu, id, now)


cdef void place(sched_t *s, uint32_t id, ns_t now) noexcept nogil:
    """Let a ready world run at once if a CPU of its is idle: the one that suits it best."""
    cdef uint32_t cpu
    if not s.idle_count or s.policy == POLICY_PLUG:
        return
    cpu = idle_cpu(s, id)
    if cpu != NO_CPU:
        fill(s, cpu, NO_WORLD, now)


cdef void enter(sched_t *s, uint32_t id, why_t why, ns_t now) noexcept nogil:
    """A world begins to compete; its state so far is booked by the caller."""
    cdef world_t *w = &s.worlds[id]
    cdef queue_t *q = &s.queues[w.queue]
    if s.policy == POLICY_PLUG:
        w.state = READY
        w.since = now
        hook_enqueue(s, id, why)
        return
    policy_join(s, q, w, now)
    q.weight += w.weight
    policy_queued(s, w)
    w.state = READY
    w.since = now
    policy_push(s, q, id)


cdef void book(world_t *w, ns_t now) noexcept nogil:
    """Count the time in the present state, of a world that does not run."""
    cdef ns_t dt = now - w.since
    if w.state == READY:
        w.rdy += dt
    elif w.state == LIMITED:
        w.mlmtd += dt
    elif w.state == COSTOP:
        w.cstp += dt
    else:
        w.wait += dt
    w.since = now


cdef void stop(sched_t *s, uint32_t id, world_state_t state, why_t why, ns_t now) noexcept nogil:
    """A ready world, or a running one that is charged, stops to compete. Its CPU is not refilled."""
    cdef world_t *w = &s.worlds[id]
    cdef queue_t *q = &s.queues[w.queue]
    if s.policy == POLICY_PLUG:
        plug_stop(s, id, state, why, now)
        return
    if w.state == READY:
        policy_pull(s, q, id)
        w.rdy += now - w.since
        w.flags &= ~WOKEN
        policy_leave(s, q, w, now)
    else:
        policy_leave(s, q, w, now)
        q.running -= 1
        q.started -= now
    q.weight -= w.weight
    w.state = state
    w.since = now


cdef void resume(sched_t *s, uint32_t id, why_t why, ns_t now) noexcept nogil:
    """One cause of LIMITED or COSTOP is gone, or came: the state that is left, perhaps READY."""
    cdef world_t *w = &s.worlds[id]
    cdef world_state_t state = READY
    if s.loads[id].refill != NEVER or w.marks & PARKED:
        state = LIMITED
    elif w.marks & COSTOPPED:
        state = COSTOP
    if w.state == state:
        return
    book(w, now)
    if state == READY:
        enter(s, id, why, now)
        place(s, id, now)
    else:
        w.state = state


cdef inline void requeue(sched_t *s, uint32_t cpu, uint32_t id, ns_t now) noexcept nogil:
    """The slice is over: the world goes back into its queue, and the CPU takes the best."""
    cdef cpu_t *c = &s.cpus[cpu]
    cdef world_t *w = &s.worlds[id]
    cdef queue_t *q = &s.queues[w.queue]
    cdef uint32_t next
    if s.policy == POLICY_PLUG:
        plug_requeue(s, cpu, id, WHY_SLICE, now)
        return
    policy_queued(s, w)
    w.state = READY
    policy_push(s, q, id)
    if s.policy <= POLICY_STRIDE and c.serve_count == 1:
        # The usual case of `fill`: there is a world, of the same queue.
        next = stride_best(s, q) if s.policy == POLICY_STRIDE else first(q)
        policy_run(s, q, next)
        if next == id:
            w.state = RUN
        else:
            begin(s, cpu, next, now)
        if q.leaves > 4096:
            fetch_later(s, q, s.worlds[next].slot)
        c.slice_end = now + policy_timeslice(s, next, now)
        set_event(s, cpu, next, now)
    else:
        q.running -= 1
        q.started -= now
        fill(s, cpu, id, now)
    if s.idle_count and w.state == READY:
        place(s, id, now)


cdef void make_runnable(sched_t *s, uint32_t id, ns_t now) noexcept nogil:
    """A waiting world has work: it competes, or is over its limit."""
    cdef world_t *w = &s.worlds[id]
    cdef load_t *l = &s.loads[id]
    book_wait(w, l, now)
    if w.flags & HAS_LIMIT:
        refresh(l, now)
        if l.budget <= 0:
            w.state = LIMITED
            s.unseen += 1
            l.refill = l.period_end
            arm_timer(s, id)
            return
    w.flags |= WOKEN
    enter(s, id, WHY_WAKE, now)
    place(s, id, now)


# --- events ---


cdef bint end_of_work(sched_t *s, uint32_t id, ns_t now) noexcept nogil:
    """A job or a phase is done; returns whether the world goes on."""
    cdef load_t *l = &s.loads[id]
    cdef bint more
    if l.source == SOURCE_TEAM:
        return end_of_phase(s, id, now)
    more = finish(s, l, now)
    if l.source == SOURCE_CLOSED:
        arm_timer(s, id)
    return more


cdef void end_slice(sched_t *s, uint32_t cpu, uint32_t id, ns_t now) noexcept nogil:
    """Before its time."""
    cdef world_t *w = &s.worlds[id]
    if s.policy == POLICY_STRIDE:
        stride_out(&s.queues[w.queue], w)
    s.cpus[cpu].slice_end = now


cdef bint stops(sched_t *s, uint32_t id, ns_t now) noexcept nogil:
    """Stop a running world that is charged if its work is done or its limit used up."""
    cdef world_t *w = &s.worlds[id]
    cdef load_t *l = &s.loads[id]
    cdef work_t *k = work_of(s, l)
    cdef spin_t spin = SPIN_ON
    cdef bint goes_on = True
    if k != NULL and k.phase == PHASE_SPIN:
        spin = end_of_spin(s, k)
        goes_on = spin != SPIN_SLEEP
        if spin == SPIN_YIELD:
            end_slice(s, w.cpu, id, now)
    elif w.flags & HAS_JOBS and l.left == 0:
        goes_on = end_of_work(s, id, now)
    if not goes_on:
        stop(s, id, WAIT, WHY_BLOCK, now)
        return True
    if w.flags & HAS_LIMIT:
        refresh(l, now)
        if l.budget <= 0:
            l.refill = l.period_end
            arm_timer(s, id)
            stop(s, id, LIMITED, WHY_LIMIT, now)
            return True
    # a policy may have stopped it while other members of its team were charged
    return w.state != RUN


cdef void with_load(sched_t *s, uint32_t cpu, uint32_t id, ns_t now) noexcept nogil:
    """An event of a CPU whose world has jobs or a limit; it is charged."""
    if stops(s, id, now):
        fill(s, cpu, NO_WORLD, now)
    elif now >= s.cpus[cpu].slice_end:
        requeue(s, cpu, id, now)
    else:
        set_event(s, cpu, id, now)


cdef inline void cpu_event(sched_t *s, uint32_t cpu, ns_t now) noexcept nogil:
    cdef uint32_t id = s.cpus[cpu].running
    cdef world_t *w = &s.worlds[id]
    charge_now(s, &s.queues[w.queue], w, id, now)
    if s.policy == POLICY_PLUG and w.state != RUN:
        return
    if w.flags & (HAS_JOBS | HAS_LIMIT):
        with_load(s, cpu, id, now)
    else:
        requeue(s, cpu, id, now)


cdef void job_event(sched_t *s, uint32_t id, ns_t now) noexcept nogil:
    """A job arrives, or the next part of a trace; it may take the place of undone work."""
    cdef world_t *w = &s.worlds[id]
    cdef load_t *l = &s.loads[id]
    # a job that is worked on goes on, but for dropped ones, and after interrupts
    cdef bint other_work = not l.jobs or l.source == SOURCE_TRACE
    if l.source == SOURCE_TEAM:
        l.jobs, l.area_since = 1, now
        l.arrival = NEVER
        begin_round(s, id, now)
    else:
        if w.state == RUN and other_work:
            charge(s, id, now)
        arrive(s, l, now)
    arm_timer(s, id)
    if w.state == WAIT:
        if may_compete(s, w, l):
            make_runnable(s, id, now)
    elif other_work:
        if not has_work(s, w, l):
            halt(s, id, WAIT)
        elif w.state == RUN:
            set_event(s, w.cpu, id, now)


cdef void timer_event(sched_t *s, uint32_t id, ns_t now) noexcept nogil:
    """A limit is refilled, a pause ends, or a job arrives."""
    cdef world_t *w = &s.worlds[id]
    cdef load_t *l = &s.loads[id]
    if l.refill == now:
        l.refill = NEVER
        arm_timer(s, id)
        refresh(l, now)
        resume(s, id, WHY_REFILL, now)
    elif l.pause_end == now:
        book_wait(w, l, now)
        l.pause_end = NEVER
        arm_timer(s, id)
        if may_compete(s, w, l):
            make_runnable(s, id, now)
    else:
        job_event(s, id, now)


cdef ns_t next_event(sched_t *s) noexcept nogil:
    """The time of the next event, or NEVER."""
    cdef ns_t timer, cpu = next_cpu_event(s)
    if s.policy == POLICY_PLUG:
        if s.fault.kind != FAULT_NONE:
            return NEVER
        if s.plug.timer < cpu:
            cpu = s.plug.timer
    while True:
        timer = next_timer(s)
        if timer == NEVER or timer > cpu:
            return cpu
        if load_due(&s.loads[<uint32_t>s.timers[1] & ((1 << WORLD_BITS) - 1)]) == timer:
            return timer
        move_timer_base(s, timer)   # it was behind the horizon


cdef inline uint64_t events(sched_t *s, ns_t until, uint64_t most, bint plugged) noexcept nogil:
    cdef uint64_t count = 0
    cdef ns_t cpu, timer
    cdef uint32_t id
    while count < most:
        cpu = next_cpu_event(s)
        timer = next_timer(s)
        if timer <= cpu and not (plugged and s.plug.timer < timer):
            if timer > until:
                break
            id = <uint32_t>s.timers[1] & ((1 << WORLD_BITS) - 1)
            if load_due(&s.loads[id]) != timer:
                move_timer_base(s, timer)
                continue
            s.now = timer
            timer_event(s, id, timer)
        elif plugged and s.plug.timer <= cpu:
            if s.plug.timer > until:
                break
            s.now = s.plug.timer
            hook_timed(s)
        else:
            if cpu > until:
                break
            s.now = cpu
            cpu_event(s, <uint32_t>s.due[1] & ((1 << CPU_BITS) - 1), cpu)
        count += 1
        if plugged:
            serve(s, s.now)
            if s.fault.kind != FAULT_NONE:
                break
    s.events += count
    return count


cdef uint64_t run_until(sched_t *s, ns_t until, uint64_t most) noexcept nogil:
    """Let events up to and at `until` happen, at most so many; returns how many did.

    `now` becomes the time of the last one. The fault of a plug-in policy ends it.
    """
    if s.policy == POLICY_STRIDE:
        return run_stride(s, until, most)
    if s.policy != POLICY_PLUG:
        return events(s, until, most, False)
    if s.plug.run != NULL:
        return run_turns(s, until, most)
    if s.plug.requeue != NULL or s.plug.turns != NULL:
        return run_requeues(s, until, most)
    return events(s, until, most, True) if s.fault.kind == FAULT_NONE else 0


cdef inline uint64_t between(const sched_t *s, uint64_t most) noexcept nogil:
    """Events until a long stretch is tried again: enough to make the attempt cheap."""
    cdef uint64_t some = 64 + 8 * <uint64_t>s.cpu_count
    return some if some < most else most


cdef uint64_t run_turns(sched_t *s, ns_t until, uint64_t most) noexcept nogil:
    """What a policy of pyvirt's own does at once, and the rest, event by event."""
    cdef uint64_t done = 0
    while done < most and s.fault.kind == FAULT_NONE:
        done += s.plug.run(s, until, most - done)
        if done == most or not events(s, until, 1, True):
            break                       # nothing more is due
        done += 1
    return done


cdef uint64_t run_requeues(sched_t *s, ns_t until, uint64_t most) noexcept nogil:
    """Stretches of a plug-in policy that is asked once for each slice, and the rest."""
    cdef uint64_t done = 0, count, part
    cdef bint far = True
    while done < most and s.fault.kind == FAULT_NONE:
        part = most - done
        if far and only_requeues(s, until, part):
            count = requeue_slices(s, until, part)
            s.events += count
            serve(s, s.now)
            far = count > s.cpu_count
        else:
            part = between(s, part)
            count = events(s, until, part, True)
            if count < part:
                most = 0                # nothing more is due
            far = True
        done += count
    return done


cdef uint64_t run_stride(sched_t *s, ns_t until, uint64_t most) noexcept nogil:
    """The usual stretches apart from the rest."""
    cdef uint64_t done = 0, count, part, before
    cdef uint32_t i
    cdef bint far = True
    while done < most:
        part = most - done
        before = s.events
        if far and only_slices(s, until, part):
            count = end_slices(s, until, part)
            s.events += count
            far = count > s.cpu_count
        else:
            part = between(s, part)
            count = events(s, until, part, False)
            if count < part:
                most = 0                # nothing more is due
            far = True
        done += count
        if (before ^ s.events) > SYNC_EVENTS:
            for i in range(s.queue_count):
                sync_queue(&s.queues[i], s.now)
    return done
