"""Leaping over what repeats itself, exactly.

Where nothing is drawn, the schedule of worlds that go on in the same way becomes periodic: at some
time all that decides what happens next is as it was before, but for a shift in time. What came to
pass in between (a period) will come to pass again, so that every clock and counter grows by as
much as it did, for as many periods as fit. The time is found by Brent's algorithm (BIT 20, 1980): a
copy of the state, taken anew after 2**k events, is compared with the state after each.

Two states are the same if all of this is: who is in which state and place, what is left of slices,
work, budgets and remainders, counted from the present; and virtual times, but for one shift in
each queue. Clocks that stood still in the period (of a world that waits for what comes later) stay
where they are, and end the leap before they are due.

Of plug-in policies those of pyvirt's own can take part, which say themselves whether their records are
the same, and what these are after the leap (`leaps_t`); also, whether what the policy's timer does
changes nothing. If not, no leap goes beyond it: what is done then is done, and the search begins anew.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy

from pyvirt._core.sched.due cimport load_due, move_due_base, move_timer_base, next_cpu_event
from pyvirt._core.sched.loop cimport next_event, run_until
from pyvirt._core.sched.policies.eevdf cimport has_deadlines
from pyvirt._core.sched.state cimport (
    CPU_BITS,
    FIXED,
    GONE,
    HAS_JOBS,
    HAS_LIMIT,
    LATENCY_BUCKETS,
    LIMITED,
    MASK_WORDS,
    NEVER,
    NO_WORLD,
    POLICY_HSTRIDE,
    POLICY_LINUX,
    POLICY_LOTTERY,
    POLICY_PLUG,
    POLICY_RR,
    POLICY_STRIDE,
    READY,
    RUN,
    SOURCE_CLOSED,
    SOURCE_NONE,
    SOURCE_OPEN,
    WAIT,
    cpu_t,
    load_t,
    plug_t,
    queue_t,
    sched_t,
    world_t,
)
from pyvirt._core.sched.virtual cimport ahead, sync_queue, wrapping
from pyvirt._core.sched.work cimport NO_RECORD, RESPONSE_BUCKETS, work_t
from pyvirt._core.types cimport ns_t

cdef enum:
    FIRST_POWER = 64                # events from the first copy to the second
    LAST_POWER = 1 << 22            # and to the last: then the search ends
    MOST_HISTS = 4096               # of response times, that are copied
    MOST_VAIN = 4                   # stretches in a row in which no leap was made
    MOST_STRIDE = 4096              # events between two looks


cdef struct past_t:                 # a copy of the state, and what shows fast that another differs
    sched_t s
    uint32_t cpu                    # that is due next
    uint32_t running                # on it
    ns_t wait                       # until then
    int64_t *shift                  # of each queue's virtual times, found by `same`
    plug_t plug                     # with copies of the policy's records
    char *records                   # the block in which these are, or NULL
    work_t *works                   # of sched_t.more
    uint64_t *hists


# --- what can be leapt over ---


cdef bint regular(sched_t *s) noexcept nogil:
    """Whether nothing is drawn, and all that decides is what `same` compares."""
    cdef const load_t *l
    cdef const work_t *k
    cdef uint32_t i
    # A timeline is of each switch.
    if s.timeline != NULL or s.more.hists_count > MOST_HISTS:
        return False
    if s.policy in (POLICY_LOTTERY, POLICY_HSTRIDE) or s.paces != NULL:
        return False
    if s.policy == POLICY_PLUG and (s.plug.leaps == NULL or not s.plug.leaps.regular(s)):
        return False
    for i in range(s.cpu_count):
        # Of queues that share a CPU, virtual times would have to shift alike.
        if s.cpus[i].serve_count > 1 and s.policy != POLICY_RR:
            return False
    for i in range(s.world_count):
        l = &s.loads[i]
        if s.worlds[i].state == GONE or not s.worlds[i].flags & HAS_JOBS:
            continue
        if l.source not in (SOURCE_NONE, SOURCE_OPEN, SOURCE_CLOSED):
            return False
        if l.source != SOURCE_NONE and (l.work_kind != FIXED or l.gap_kind != FIXED):
            return False
        if l.more != NO_RECORD and l.source != SOURCE_NONE:
            k = &s.more.works[l.more]
            if k.work.kind != FIXED or k.gap.kind != FIXED:
                return False
    return True


# --- copies ---


cdef size_t hists_size(const sched_t *s) noexcept nogil:
    return s.more.hists_count * RESPONSE_BUCKETS * sizeof(uint64_t)


cdef size_t records_size(const sched_t *s) noexcept nogil:
    cdef const plug_t *g = s.plug
    if s.policy != POLICY_PLUG:
        return 0
    return (g.own_size + s.cpu_count * g.cpu_size + s.world_count * g.world_size
            + s.vm_count * g.vm_size)


cdef void take_records(past_t *p, const sched_t *s) noexcept nogil:
    """Copy what a plug-in policy keeps."""
    cdef plug_t *g = &p.plug
    g[0] = s.plug[0]
    p.s.plug = g
    g.own = p.records
    g.worlds = g.own + g.own_size
    g.vms = g.worlds + s.world_count * g.world_size
    g.cpus = g.vms + s.vm_count * g.vm_size
    memcpy(g.own, s.plug.own, g.own_size)
    memcpy(g.worlds, s.plug.worlds, s.world_count * g.world_size)
    memcpy(g.vms, s.plug.vms, s.vm_count * g.vm_size)
    memcpy(g.cpus, s.plug.cpus, s.cpu_count * g.cpu_size)


cdef bint make_past(past_t *p, const sched_t *s) noexcept nogil:
    p.s.worlds = <world_t *>malloc(s.world_count * sizeof(world_t))
    p.s.loads = <load_t *>malloc(s.world_count * sizeof(load_t))
    p.s.cpus = <cpu_t *>malloc(s.cpu_count * sizeof(cpu_t))
    p.s.queues = <queue_t *>malloc(s.queue_count * sizeof(queue_t))
    p.shift = <int64_t *>malloc(s.queue_count * sizeof(int64_t))
    p.works = <work_t *>malloc((s.more.works_count + 1) * sizeof(work_t))
    p.hists = <uint64_t *>malloc(hists_size(s) + 1)
    p.records = <char *>malloc(records_size(s) + 1)
    if (p.s.worlds == NULL or p.s.loads == NULL or p.s.cpus == NULL or p.s.queues == NULL
            or p.shift == NULL or p.works == NULL or p.hists == NULL or p.records == NULL):
        free_past(p)
        return False
    return True


cdef void free_past(past_t *p) noexcept nogil:
    free(p.s.worlds)
    free(p.s.loads)
    free(p.s.cpus)
    free(p.s.queues)
    free(p.shift)
    free(p.works)
    free(p.hists)
    free(p.records)


cdef void sync_all(sched_t *s) noexcept nogil:
    cdef uint32_t i
    if s.policy == POLICY_STRIDE:
        for i in range(s.queue_count):
            sync_queue(&s.queues[i], s.now)


cdef void take(past_t *p, sched_t *s) noexcept nogil:
    """Copy the state between two events; trees of keys follow from the rest."""
    cdef sched_t kept = p.s
    sync_all(s)
    p.s = s[0]
    p.s.worlds, p.s.loads, p.s.cpus, p.s.queues = kept.worlds, kept.loads, kept.cpus, kept.queues
    memcpy(p.s.worlds, s.worlds, s.world_count * sizeof(world_t))
    memcpy(p.s.loads, s.loads, s.world_count * sizeof(load_t))
    memcpy(p.s.cpus, s.cpus, s.cpu_count * sizeof(cpu_t))
    memcpy(p.s.queues, s.queues, s.queue_count * sizeof(queue_t))
    if s.more.works_count:
        memcpy(p.works, s.more.works, s.more.works_count * sizeof(work_t))
    if s.more.hists_count:
        memcpy(p.hists, s.more.hists, hists_size(s))
    if s.policy == POLICY_PLUG:
        take_records(p, s)
        if s.plug.leaps.begin != NULL:
            s.plug.leaps.begin(s)
    look(s, &p.cpu, &p.running, &p.wait)


cdef inline void look(
    const sched_t *s, uint32_t *cpu, uint32_t *running, ns_t *wait
) noexcept nogil:
    """What can be compared at once."""
    cdef ns_t when = next_cpu_event(s)
    cpu[0], running[0], wait[0] = 0, NO_WORLD, NEVER
    if when != NEVER:
        cpu[0] = <uint32_t>s.due[1] & ((1 << CPU_BITS) - 1)
        running[0] = s.cpus[cpu[0]].running
        wait[0] = when - s.now


# --- the same, but for a shift ---


cdef inline bint moved(ns_t before, ns_t after, ns_t by) noexcept nogil:
    """A clock that ticked on by a period, or one that is not set."""
    return after - before == by or (before == NEVER and after == NEVER)


cdef inline bint moved_or_stood(ns_t before, ns_t after, ns_t by) noexcept nogil:
    return after == before or after - before == by


cdef bint same_cpus(const past_t *p, const sched_t *s, ns_t by) noexcept nogil:
    cdef const cpu_t *a
    cdef const cpu_t *b
    cdef uint32_t i
    for i in range(s.cpu_count):
        a, b = &p.s.cpus[i], &s.cpus[i]
        if a.running != b.running or not moved(a.event, b.event, by):
            return False
        if b.running != NO_WORLD and b.slice_end - a.slice_end != by:
            return False
        if b.running == NO_WORLD and not moved_or_stood(a.idle_since, b.idle_since, by):
            return False
    return memcmp(p.s.idle, s.idle, MASK_WORDS * sizeof(uint64_t)) == 0


cdef bint same_load(
    const load_t *a, const load_t *b, uint8_t flags, bint waits, ns_t by
) noexcept nogil:
    """`waits`: not for a CPU, so that its clocks may stand still."""
    if (a.random != b.random or a.random_gap != b.random_gap or a.jobs != b.jobs
            or a.halted != b.halted or a.pause != b.pause or a.interrupts != b.interrupts
            or not moved_or_stood(a.area_since, b.area_since, by)):
        return False
    if flags & HAS_JOBS and a.left != b.left or flags & HAS_LIMIT and a.budget != b.budget:
        return False
    if waits:
        return (moved_or_stood(a.arrival, b.arrival, by) and moved_or_stood(a.refill, b.refill, by)
                and moved_or_stood(a.pause_end, b.pause_end, by)
                and moved_or_stood(a.period_end, b.period_end, by))
    return (moved(a.arrival, b.arrival, by) and moved(a.refill, b.refill, by)
            and moved(a.pause_end, b.pause_end, by)
            and moved_or_stood(a.period_end, b.period_end, by))


cdef bint same_head(const past_t *p, const sched_t *s, const load_t *l, ns_t by) noexcept nogil:
    """Whether the job that is worked on came as long ago."""
    cdef const work_t *a
    cdef const work_t *b
    if l.more == NO_RECORD:
        return True
    a, b = &p.works[l.more], &s.more.works[l.more]
    if a.head.random != b.head.random:
        return False
    return (moved(a.head.at, b.head.at, by) if l.jobs
            else moved_or_stood(a.head.at, b.head.at, by))


cdef bint same_world(const past_t *p, const sched_t *s, uint32_t i, ns_t by) noexcept nogil:
    cdef const world_t *a = &p.s.worlds[i]
    cdef const world_t *b = &s.worlds[i]
    cdef bint waits = b.state == WAIT or b.state == LIMITED
    if (a.state != b.state or a.cpu != b.cpu or a.flags != b.flags or a.marks != b.marks
            or a.rem != b.rem or a.remain != b.remain):
        return False
    if b.state == RUN and b.since - a.since != by:
        return False
    if not moved_or_stood(a.since, b.since, by):
        return False
    if b.state == RUN or b.state == READY:
        if ahead(b.v, a.v) != p.shift[b.queue]:
            return False
        if has_deadlines(s) and ahead(b.deadline, a.deadline) != p.shift[b.queue]:
            return False
    if b.flags & (HAS_JOBS | HAS_LIMIT):
        if not same_load(&p.s.loads[i], &s.loads[i], b.flags, waits, by):
            return False
        if not same_head(p, s, &s.loads[i], by):
            return False
        # A period of its limit that began in between must have begun as long ago.
        if (b.flags & HAS_LIMIT and not waits
                and s.loads[i].period_end == p.s.loads[i].period_end):
            return False
    return True


cdef bint same(past_t *p, sched_t *s) noexcept nogil:
    """Whether what follows is what followed the copy."""
    cdef ns_t by = s.now - p.s.now
    cdef const world_t *w
    cdef uint32_t i
    if s.policy == POLICY_LINUX and by % s.tick:
        return False
    if not by or not same_cpus(p, s, by):
        return False
    sync_all(s)
    for i in range(s.queue_count):
        # That of round robin is the number of entries.
        p.shift[i] = (<int64_t>(s.sequence - p.s.sequence) if s.policy == POLICY_RR
                      else ahead(s.queues[i].v, p.s.queues[i].v))
        if (s.queues[i].running != p.s.queues[i].running
                or s.queues[i].weight != p.s.queues[i].weight
                or (s.policy != POLICY_RR and s.queues[i].v_rem != p.s.queues[i].v_rem)):
            return False
    for i in range(s.world_count):
        w = &s.worlds[i]
        if w.state != GONE and not same_world(p, s, i, by):
            return False
    return s.policy != POLICY_PLUG or s.plug.leaps.same(&p.s, s)


# --- the leap ---


cdef uint64_t periods(past_t *p, sched_t *s, ns_t until, uint64_t most) noexcept nogil:
    """How many more fit: not past `until`, nor past the timer of a world that stood still."""
    cdef ns_t by = s.now - p.s.now, due, end = until
    cdef uint64_t each = s.events - p.s.events, times
    cdef uint32_t i
    for i in range(s.world_count):
        if s.worlds[i].state == GONE:
            continue
        due = load_due(&s.loads[i])
        if due != NEVER and due == load_due(&p.s.loads[i]) and due - 1 < end:
            end = due - 1
    if end <= s.now:
        return 0
    times = <uint64_t>((end - s.now) // by)
    if times > most // each:
        times = most // each
    return s.plug.leaps.fit(&p.s, s, times, most) if s.policy == POLICY_PLUG else times


cdef inline void grow(int64_t before, int64_t *now, int64_t times) noexcept nogil:
    """By as much as it grew, so many times. A clock that is not set was not before, and stays so."""
    now[0] = wrapping(now[0], <int64_t>(<uint64_t>ahead(now[0], before) * <uint64_t>times))


cdef void leap_world(const world_t *a, world_t *b, int64_t times) noexcept nogil:
    grow(a.v, &b.v, times)
    grow(a.deadline, &b.deadline, times)
    grow(a.since, &b.since, times)
    grow(a.run, &b.run, times)
    grow(a.rdy, &b.rdy, times)
    grow(a.wait, &b.wait, times)
    grow(a.mlmtd, &b.mlmtd, times)
    grow(<int64_t>a.switches, <int64_t *>&b.switches, times)
    grow(<int64_t>a.migrations, <int64_t *>&b.migrations, times)


cdef void leap_load(const load_t *a, load_t *b, int64_t times) noexcept nogil:
    grow(a.left, &b.left, times)            # of a world without jobs
    grow(a.budget, &b.budget, times)        # or without a limit
    grow(a.arrival, &b.arrival, times)
    grow(a.refill, &b.refill, times)
    grow(a.period_end, &b.period_end, times)
    grow(a.pause_end, &b.pause_end, times)
    grow(a.idle, &b.idle, times)
    grow(a.swap, &b.swap, times)
    grow(a.area, &b.area, times)
    grow(a.area_since, &b.area_since, times)
    grow(a.wake_sum, &b.wake_sum, times)
    grow(<int64_t>a.wakes, <int64_t *>&b.wakes, times)
    grow(<int64_t>a.done, <int64_t *>&b.done, times)


cdef void leap_cpu(const cpu_t *a, cpu_t *b, int64_t times) noexcept nogil:
    grow(a.began, &b.began, times)
    grow(a.slice_end, &b.slice_end, times)
    grow(a.event, &b.event, times)
    grow(a.idle_since, &b.idle_since, times)
    grow(a.idle, &b.idle, times)
    grow(<int64_t>a.switches, <int64_t *>&b.switches, times)


cdef void leap(past_t *p, sched_t *s, int64_t times) noexcept nogil:
    """So many periods on, from the second of two states that are the same."""
    cdef queue_t *q
    cdef uint32_t i
    cdef size_t k
    for i in range(s.world_count):
        leap_world(&p.s.worlds[i], &s.worlds[i], times)
        leap_load(&p.s.loads[i], &s.loads[i], times)
    for i in range(s.cpu_count):
        leap_cpu(&p.s.cpus[i], &s.cpus[i], times)
    for i in range(s.queue_count):
        q = &s.queues[i]
        q.base = wrapping(q.base, <int64_t>(<uint64_t>p.shift[i] * <uint64_t>times))
        grow(p.s.queues[i].v, &q.v, times)
        grow(p.s.queues[i].service, &q.service, times)
        grow(p.s.queues[i].synced, &q.synced, times)
        grow(p.s.queues[i].started, &q.started, times)
    for i in range(s.more.works_count):
        grow(p.works[i].head.at, &s.more.works[i].head.at, times)
    for k in range(s.more.hists_count * <size_t>RESPONSE_BUCKETS):
        grow(<int64_t>p.hists[k], <int64_t *>&s.more.hists[k], times)
    for i in range(LATENCY_BUCKETS):
        grow(<int64_t>p.s.latency[i], <int64_t *>&s.latency[i], times)
    grow(<int64_t>p.s.sequence, <int64_t *>&s.sequence, times)
    grow(<int64_t>p.s.events, <int64_t *>&s.events, times)
    grow(p.s.now, &s.now, times)
    if s.policy == POLICY_PLUG:
        s.events += s.plug.leaps.leap(&p.s, s, times)
    move_due_base(s)
    move_timer_base(s, s.now)


cdef ns_t stride_of(const sched_t *s) noexcept nogil:
    """Every period is that long, or a multiple of it, but within one gap of jobs; 0: nobody knows.

    It is the least gap of those whose jobs arrive at fixed times.
    """
    cdef const load_t *l
    cdef ns_t least = 0
    cdef uint32_t i
    if s.policy == POLICY_PLUG and s.plug.leaps.watch != NULL:
        return 0                    # that wants to see each event
    for i in range(s.world_count):
        l = &s.loads[i]
        if (s.worlds[i].state != GONE and s.worlds[i].flags & HAS_JOBS
                and l.source == SOURCE_OPEN and l.arrival != NEVER
                and l.arrival - s.now <= l.gap and (not least or l.gap < least)):
            least = l.gap
    return least


cdef bint one_step(
    sched_t *s, ns_t stride, ns_t *at, ns_t end, uint64_t most, bint *far
) noexcept nogil:
    """The next event, or all up to the next multiple of the stride; False: that is beyond the end.

    A stride of many events counts as none (`far`): its parts may repeat themselves.
    """
    cdef uint64_t count
    if not stride or far[0]:
        if s.policy == POLICY_PLUG and s.plug.leaps.watch != NULL:
            s.plug.leaps.watch(s, next_event(s))
        run_until(s, end, 1)
        return True
    if at[0] > end - stride:
        return False
    at[0] += stride
    if most > MOST_STRIDE:
        most = MOST_STRIDE
    count = run_until(s, at[0], most)
    if count == most:
        far[0] = True
    return count < most


cdef uint64_t search(
    past_t *p, sched_t *s, ns_t end, ns_t until, uint64_t most, bint *found
) noexcept nogil:
    """On up to `end`, until a leap was made or is given up; how many events happened.

    The leap goes to `until` at most.
    """
    cdef uint64_t begin = s.events, since = 0, power = FIRST_POWER, times
    cdef ns_t stride = stride_of(s), at = s.now, wait
    cdef bint far = False
    cdef uint32_t cpu, running
    found[0] = False
    if stride:
        run_until(s, at, most)      # the rest of this moment
        power = 1
    take(p, s)
    while s.events - begin < most and next_event(s) <= end:
        if not one_step(s, stride, &at, end, most - (s.events - begin), &far):
            if not far:
                break
            power, since = FIRST_POWER, 0
            take(p, s)
            continue
        since += 1
        look(s, &cpu, &running, &wait)
        if cpu == p.cpu and running == p.running and wait == p.wait and same(p, s):
            times = periods(p, s, until, most - (s.events - begin))
            if times:
                leap(p, s, <int64_t>times)
            found[0] = True
            break
        if since == power:
            if power == LAST_POWER:
                break
            power *= 2
            since = 0
            take(p, s)
    return s.events - begin


cdef uint64_t some_events(const sched_t *s, uint64_t most) noexcept nogil:
    """So many that the copies of a search cost little beside them."""
    cdef uint64_t count = 4 * <uint64_t>s.world_count + FIRST_POWER
    return count if count < most else most


cdef inline ns_t end_of_stretch(const sched_t *s, ns_t until) noexcept nogil:
    """Up to a plug-in policy's timer, beyond which no leap goes."""
    return s.plug.timer if s.policy == POLICY_PLUG and s.plug.timer < until else until


cdef uint64_t leap_stretches(past_t *p, sched_t *s, ns_t until, uint64_t most) noexcept nogil:
    """Search in each stretch, until some in a row were of no use."""
    cdef uint64_t count = 0
    cdef uint32_t vain = 0
    cdef bint found
    cdef ns_t end
    while count < most and vain < MOST_VAIN and next_event(s) <= until:
        end = end_of_stretch(s, until)
        count += search(p, s, end, until, most - count, &found)
        vain = 0 if found else vain + 1
        if end < s.now:
            end = end_of_stretch(s, until)
        if count < most:
            count += run_until(s, end, most - count)    # at the least the timer's event
        if end < until and count < most:
            count += run_until(s, end_of_stretch(s, until), some_events(s, most - count))
    return count


cdef uint64_t run_forward(sched_t *s, ns_t until, uint64_t most) noexcept nogil:
    """What `run_until` does; periods are leapt over.

    The search begins when more events happened than there are worlds.
    """
    cdef uint64_t count
    cdef past_t past
    count = run_until(s, until, some_events(s, most))
    if count == most or next_event(s) > until or not regular(s) or not make_past(&past, s):
        return count + run_until(s, until, most - count)
    count += leap_stretches(&past, s, until, most - count)
    free_past(&past)
    return count + run_until(s, until, most - count)
