"""Ends of timeslices under the ESX policy, one after the other.

What the event loop and the hooks `charge`, `enqueue`, `pick` and `timeslice` do in the usual case,
in one: a world's timeslice ends, it waits where it ran, and its CPU takes the first that waits there.
Whatever else there is to do is left to them: before anything is changed, all that matters is
known.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from pyvirt._core.sched.due cimport arm_cpu, next_cpu_event, next_timer
from pyvirt._core.sched.pace cimport moved, set_speed_among, threads_of, work_in
from pyvirt._core.sched.policies.esx_queue cimport goes_first, may_pull, passed_after, swap_first
from pyvirt._core.sched.policies.esx_state cimport (
    COSCHED_STRICT,
    NOWHERE,
    STALLED,
    cpu_of,
    esx_cpu_t,
    esx_t,
    esx_vm_t,
    esx_world_t,
    host_of,
    vm_of,
    world_of,
)
from pyvirt._core.sched.policies.esx_turns cimport leave, start
from pyvirt._core.sched.state cimport (
    CPU_BITS,
    NO_CPU,
    PACED,
    QUEUED,
    READY,
    RUN,
    cpu_t,
    pace_t,
    sched_t,
    world_t,
)
from pyvirt._core.types cimport ns_t


cdef inline void charge_slice(sched_t *s, world_t *w, uint32_t id, ns_t now) noexcept nogil:
    cdef ns_t dt = now - w.since
    w.run += dt
    w.since = now
    if w.flags & PACED:
        work_in(&s.paces[id], dt)


cdef inline void take_over(
    sched_t *s, uint32_t cpu, cpu_t *c, uint32_t id, world_t *w, ns_t now
) noexcept nogil:
    """A ready world gets the CPU from another one."""
    w.rdy += now - w.since
    w.since = now
    w.switches += 1
    if w.cpu != cpu:
        w.migrations += w.cpu != NO_CPU
        if w.flags & PACED:
            moved(s, id, w.cpu, cpu)
        w.cpu = <uint16_t>cpu
    c.running = id
    c.began = now
    c.switches += 1
    w.marks &= ~QUEUED


cdef uint64_t run(sched_t *s, ns_t until, uint64_t most) noexcept nogil:
    """Let events happen until one is not as usual; returns how many did, perhaps none."""
    cdef esx_t *e = host_of(s)
    cdef esx_world_t *all_mine = world_of(s, 0)
    cdef esx_world_t *mine
    cdef esx_vm_t *v
    cdef esx_cpu_t *queue
    cdef cpu_t *c
    cdef world_t *w
    cdef world_t *n
    cdef pace_t *p
    cdef ns_t now, end, timer = next_timer(s)
    cdef int64_t passed
    cdef uint64_t count = 0
    cdef uint32_t cpu, id, vm, next, threads
    cdef bint stays, together = e.cosched >= COSCHED_STRICT
    if s.idle_count or s.timeline != NULL or e.with_numa or e.cosched == COSCHED_STRICT:
        return 0
    if timer <= until:
        until = timer - 1               # timers come first
    while count < most:
        now = next_cpu_event(s)
        if now > until or s.plug.timer <= now or e.stale:
            break
        cpu = <uint32_t>s.due[1] & ((1 << CPU_BITS) - 1)
        c = &s.cpus[cpu]
        id = c.running
        w = &s.worlds[id]
        mine = all_mine + id
        vm = w.vm
        v = vm_of(s, vm)
        if w.flags & ~PACED or (v.watch and together and v.worlds > 1):
            break                       # its VM is to be looked at when it stops
        queue = cpu_of(s, cpu)
        next = queue.who[1]
        passed = passed_after(s, id, now - w.since)
        stays = goes_first(queue, passed, id)
        if may_pull(s, passed if stays else queue.key[1]):
            break
        if stays:
            next = id
        n = &s.worlds[next]
        if n.flags & ~PACED:
            break
        s.now = now
        end = now + e.quantum
        c.slice_end = end
        charge_slice(s, w, id, now)
        mine.vt = passed
        queue.first = NOWHERE
        w.state = READY
        leave(s, mine, vm, v, STALLED)
        if stays:
            start(s, id, mine)
        else:
            w.marks |= QUEUED
            swap_first(e, all_mine, queue, cpu, id, passed)
            start(s, next, all_mine + next)
            take_over(s, cpu, c, next, n, now)
        n.state = RUN
        if n.flags & PACED:
            p = &s.paces[next]
            threads = threads_of(s, cpu)
            if p.threads != threads:    # no CPU is idle, and speeds do not depend on homes
                set_speed_among(s, next, threads)
        arm_cpu(s, cpu, end)
        count += 1
    s.events += count
    return count
