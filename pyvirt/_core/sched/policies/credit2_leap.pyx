"""What repeats itself under credit2: its records, for pyvirt._core.sched.forward.

Machines without caps, whose timer is never due. What decides is each world's credit, counted up to the
present reset of its run queue, which clips it; the place of those that wait, counted from the resets,
too; what divisions left over; for how long each CPU's world has run, where its rate limit counts it;
and, where there are several run queues, average loads and up to when they are.

An average that nobody brought up to date in the period must be one that time does not change: of a
world that never competes, or always.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from pyvirt._core.sched.policies.credit2_state cimport (
    LOAD_ONE,
    cpu_of,
    credit,
    credit2_cpu_t,
    credit2_queue_t,
    credit2_vm_t,
    credit2_world_t,
    own,
    queue_of,
    world,
)
from pyvirt._core.sched.state cimport GONE, NEVER, NO_CPU, NO_WORLD, sched_t
from pyvirt._core.types cimport ns_t


cdef bint regular(sched_t *s) noexcept nogil:
    """Without caps, present or past ones whose period still runs."""
    cdef uint32_t vm
    if own(s).spent != NO_WORLD or s.plug.timer != NEVER:
        return False
    for vm in range(s.vm_count):
        if s.vms[vm].worlds and (<credit2_vm_t *>s.plug.vms)[vm].cap:
            return False
    return True


cdef inline bint same_load(
    int64_t before, int64_t load, ns_t since_before, ns_t since, ns_t by, int64_t competing
) noexcept nogil:
    if load != before:
        return False
    return since - since_before == by or (
        since == since_before and load == competing * LOAD_ONE)


cdef bint same_cpus(sched_t *before, sched_t *s, ns_t by) noexcept nogil:
    cdef const credit2_cpu_t *a
    cdef const credit2_cpu_t *b
    cdef ns_t rate = own(s).ratelimit
    cdef uint32_t cpu
    for cpu in range(s.cpu_count):
        a, b = cpu_of(before, cpu), cpu_of(s, cpu)
        if a.was != b.was or (b.was and a.sliced != b.sliced):
            return False
        if (s.cpus[cpu].running != NO_WORLD
                and s.cpus[cpu].began - before.cpus[cpu].began != by
                and (s.now - s.cpus[cpu].began < rate
                     or before.now - before.cpus[cpu].began < rate)):
            return False
    return True


cdef bint same_queues(sched_t *before, sched_t *s, ns_t by) noexcept nogil:
    cdef const credit2_queue_t *a
    cdef const credit2_queue_t *b
    cdef uint32_t i
    for i in range(own(s).queues):
        a, b = queue_of(before, i), queue_of(s, i)
        if (a.competing != b.competing or a.most != b.most
                or a.worlds.first != b.worlds.first or a.worlds.last != b.worlds.last):
            return False
        if own(s).queues > 1 and not same_load(
                a.load, b.load, a.since, b.since, by, b.competing):
            return False
    return True


cdef bint same_world(sched_t *before, sched_t *s, uint32_t id, ns_t by) noexcept nogil:
    cdef const credit2_world_t *a = world(before, id)
    cdef const credit2_world_t *b = world(s, id)
    if a.queue != b.queue or a.competes != b.competes or a.parked != b.parked:
        return False
    if b.queue == NO_CPU:
        return True                 # it was never ready
    # the order of a run queue's worlds decides between equally good exchanges
    if (a.residue != b.residue or a.link.left != b.link.left or a.link.right != b.link.right
            or credit(before, id) != credit(s, id)):
        return False
    if a.place.contained != b.place.contained:
        return False
    if b.place.contained and (
            b.place.key - a.place.key
            != queue_of(s, b.queue).added - queue_of(before, b.queue).added):
        return False
    return own(s).queues == 1 or same_load(
        a.load, b.load, a.load_since, b.load_since, by, b.competes)


cdef bint same(sched_t *before, sched_t *s) noexcept nogil:
    cdef ns_t by = s.now - before.now
    cdef uint32_t id
    if not same_cpus(before, s, by) or not same_queues(before, s, by):
        return False
    for id in range(s.world_count):
        if s.worlds[id].state != GONE and not same_world(before, s, id, by):
            return False
    return True


cdef uint64_t fit(sched_t *before, sched_t *s, uint64_t times, uint64_t most) noexcept nogil:
    """As many as asked for, while the sums of resets are far from the end of their numbers."""
    cdef int64_t far = <int64_t>1 << 61, step, rest
    cdef uint32_t i
    for i in range(own(s).queues):
        step = queue_of(s, i).added - queue_of(before, i).added
        rest = far - queue_of(s, i).added
        if rest < 0:
            return 0
        if step and times > <uint64_t>(rest // step):
            times = <uint64_t>(rest // step)
    return times


cdef uint64_t leap(sched_t *before, sched_t *s, int64_t times) noexcept nogil:
    """The timer is never due.

    Credits are as they were: of a world that was looked at in the period, counted from resets as
    much later; of one that was not, they are what each reset clips.
    """
    cdef credit2_queue_t *q
    cdef const credit2_world_t *a
    cdef credit2_world_t *b
    cdef int64_t step
    cdef uint32_t id, i
    for i in range(own(s).queues):
        q = queue_of(s, i)
        q.added += (q.added - queue_of(before, i).added) * times
        q.since += (q.since - queue_of(before, i).since) * times
    for id in range(s.world_count):
        a, b = world(before, id), world(s, id)
        if s.worlds[id].state == GONE or b.queue == NO_CPU:
            continue
        step = queue_of(s, b.queue).added - queue_of(before, b.queue).added
        step = step // (times + 1) * times
        if b.added != a.added or credit(s, id) != credit(before, id):
            b.added += step
        if b.place.contained:
            b.place.key += step
        b.budget += (b.budget - a.budget) * times
        b.load_since += (b.load_since - a.load_since) * times
    return 0


leaps.regular, leaps.same = regular, same
leaps.begin, leaps.watch, leaps.fit, leaps.leap = NULL, NULL, fit, leap
