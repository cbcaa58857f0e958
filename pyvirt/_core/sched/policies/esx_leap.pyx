"""What repeats itself under the ESX policy: its records, for pyvirt._core.sched.forward.

Hosts without limits, home nodes and co-scheduling: there, a world is no more than its virtual time and
its place in a queue, and whose turn it is depends on differences of virtual times alone. The order
within a queue follows from these; how its heaps hang together does not matter.

Two states are the same if all virtual times but those of certain worlds have grown by as much as that
of the host. A world that waits for work, and is so far behind that it will be brought up to the host's
time when it wakes, may have stood still.

The policy's timer solves entitlements and brings the host's virtual time up to the least of those that
compete. The former does nothing where each change of demand is solved at once. Nor does the latter
where the next wake-up brings it as far: that is so wherever in a period the timer comes, if at no
moment between two wake-ups the least was more than what it was at the second. Then leaps go over it.
"""

from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint32_t, uint64_t

from pyvirt._core.sched.policies.esx_alarm cimport set_timer
from pyvirt._core.sched.policies.esx_queue cimport least_time
from pyvirt._core.sched.policies.esx_state cimport (
    BINS,
    COSCHED_STRICT,
    MOST_V,
    NOWHERE,
    cpu_of,
    esx_cpu_t,
    esx_t,
    esx_vm_t,
    esx_world_t,
    host_of,
    vm_of,
    world_of,
)
from pyvirt._core.sched.state cimport WAIT, sched_t
from pyvirt._core.types cimport ns_t



cdef bint regular(sched_t *s) noexcept nogil:
    cdef const esx_t *e = host_of(s)
    cdef uint32_t vm
    if e.limits or e.with_numa or e.balance:
        return False
    if e.cosched >= COSCHED_STRICT:
        for vm in range(s.vm_count):
            if vm_of(s, vm).worlds > 1:
                return False
    return True


cdef inline bint same_time(
    const esx_t *e, const esx_world_t *a, const esx_world_t *b, int64_t by, bint waits
) noexcept nogil:
    return b.vt - a.vt == by or (waits and a.vt == b.vt and a.vt <= e.v - e.credit)


cdef bint same_worlds(sched_t *before, sched_t *s, int64_t by) noexcept nogil:
    cdef const esx_world_t *a
    cdef const esx_world_t *b
    cdef uint32_t id
    for id in range(s.world_count):
        a, b = world_of(before, id), world_of(s, id)
        if a.known != b.known:
            return False
        if b.known and (
                a.pace != b.pace or a.queue != b.queue or a.rate != b.rate
                or not same_time(host_of(before), a, b, by, s.worlds[id].state == WAIT)):
            return False
    return True


cdef bint same_vms(sched_t *before, sched_t *s) noexcept nogil:
    cdef const esx_vm_t *a
    cdef const esx_vm_t *b
    cdef uint32_t vm
    for vm in range(s.vm_count):
        a, b = vm_of(before, vm), vm_of(s, vm)
        if (a.worlds != b.worlds or a.rate != b.rate or a.wants != b.wants
                or a.entitled != b.entitled or a.counts != b.counts):
            return False
    return True


cdef bint same(sched_t *before, sched_t *s) noexcept nogil:
    """The policy's timer must not have come in between."""
    cdef const esx_t *e = host_of(before)
    cdef const esx_t *f = host_of(s)
    cdef const esx_cpu_t *a
    cdef const esx_cpu_t *b
    cdef uint32_t cpu
    if (before.plug.timer != s.plug.timer or before.unseen != s.unseen or e.stale != f.stale
            or e.anew or f.anew or e.unseen != f.unseen):
        return False
    for cpu in range(s.cpu_count):
        a, b = cpu_of(before, cpu), cpu_of(s, cpu)
        if a.count != b.count or a.first != b.first or a.back != b.back:
            return False
    return same_vms(before, s) and same_worlds(before, s, f.v - e.v)


# --- over the timer ---


cdef void begin(sched_t *s) noexcept nogil:
    cdef esx_t *e = host_of(s)
    e.peak, e.first_v, e.calm = INT64_MIN, -1, e.resolve_on_wake


cdef void watch(sched_t *s, ns_t when) noexcept nogil:
    """Between two events the least grows: it is the most just before the second."""
    cdef esx_t *e = host_of(s)
    cdef ns_t now = s.now
    cdef int64_t least
    if not e.calm:
        return
    s.now = when
    least = least_time(s)
    s.now = now
    if least != INT64_MAX and least > e.peak:
        e.peak = least


cdef inline bint is_calm(const esx_t *e, const esx_t *f) noexcept nogil:
    """Whether the timer may come at any moment of the period, also between its last wake-up and the
    first one of the next."""
    return f.calm and f.first_v >= 0 and f.peak <= f.first_v + (f.v - e.v)


cdef inline uint64_t times_due(const esx_t *e, ns_t end) noexcept nogil:
    return <uint64_t>((end - e.next_solve) // e.resolve + 1) if e.next_solve <= end else 0


cdef uint64_t fit(sched_t *before, sched_t *s, uint64_t times, uint64_t most) noexcept nogil:
    """A whole period follows the last time that the timer is due, in which all is as usual."""
    cdef const esx_t *e = host_of(before)
    cdef const esx_t *f = host_of(s)
    cdef ns_t by = s.now - before.now
    cdef int64_t step = f.v - e.v
    cdef uint64_t rest = 0, due, each = s.events - before.events
    if s.plug.timer > s.now:
        rest = <uint64_t>((s.plug.timer - 1 - s.now) // by)
    if times <= rest:
        return times
    if not is_calm(e, f) or f.unseen != s.unseen or f.resolve < by or f.v >= MOST_V:
        return rest
    # nor over the time at which the host's virtual time is set back
    if step and times > <uint64_t>((MOST_V - f.v) // step):
        times = <uint64_t>((MOST_V - f.v) // step)
    while times > rest:
        due = times_due(f, s.now + <ns_t>times * by)
        if times * each + due > most:
            times -= (times * each + due - most + each - 1) // each
        elif times_due(f, s.now + <ns_t>(times - 1) * by) < due:
            times -= 1
        else:
            break
    return times


cdef uint64_t leap(sched_t *before, sched_t *s, int64_t times) noexcept nogil:
    cdef esx_t *e = host_of(s)
    cdef esx_world_t *w
    cdef esx_cpu_t *c
    cdef int64_t step = (e.v - host_of(before).v) * times
    cdef uint64_t due = times_due(e, s.now)
    cdef uint32_t id, cpu, bin
    for id in range(s.world_count):
        w = world_of(s, id)
        if w.known:
            w.vt += (w.vt - world_of(before, id).vt) * times
            if w.queue != NOWHERE:
                w.key += step
    for cpu in range(s.cpu_count):
        c = cpu_of(s, cpu)
        for bin in range(1, 2 * BINS):
            if c.who[bin] != NOWHERE:
                c.key[bin] += step
    if e.least != INT64_MAX:
        e.least += step                 # still no more than any
    e.v += step
    e.next_solve += <ns_t>due * e.resolve
    set_timer(s)
    return due


leaps.regular, leaps.same = regular, same
leaps.begin, leaps.watch, leaps.fit, leaps.leap = begin, watch, fit, leap
