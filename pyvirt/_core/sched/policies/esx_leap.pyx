"""What repeats itself under the ESX policy: its records, for pyvirt._core.sched.forward.

Hosts without limits, home nodes and co-scheduling: there, a world is no more than its virtual time and
its place in a queue, and whose turn it is depends on differences of virtual times alone. The order
within a queue follows from these; how its heaps hang together does not matter.

Two states are the same if all virtual times but those of certain worlds have grown by as much as that
of the host. A world that waits for work, and is so far behind that it will be brought up to the host's
time when it wakes, may have stood still.
"""

from libc.stdint cimport INT64_MAX, int64_t, uint32_t

from pyvirt._core.sched.policies.esx_state cimport (
    BINS,
    COSCHED_STRICT,
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
    """What the policy's timer does ends a period: it must not have come in between."""
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


cdef void leap(sched_t *before, sched_t *s, int64_t times) noexcept nogil:
    cdef esx_t *e = host_of(s)
    cdef esx_world_t *w
    cdef esx_cpu_t *c
    cdef int64_t by = (e.v - host_of(before).v) * times
    cdef uint32_t id, cpu, bin
    for id in range(s.world_count):
        w = world_of(s, id)
        if w.known:
            w.vt += (w.vt - world_of(before, id).vt) * times
            if w.queue != NOWHERE:
                w.key += by
    for cpu in range(s.cpu_count):
        c = cpu_of(s, cpu)
        for bin in range(1, 2 * BINS):
            if c.who[bin] != NOWHERE:
                c.key[bin] += by
    if e.least != INT64_MAX:
        e.least += by                   # still no more than any
    e.v += by


leaps.regular, leaps.same, leaps.leap = regular, same, leap
