# Calls of a plug-in policy's hooks, and what is checked about them.
#
# After a fault no hook is called any more.

from libc.stdint cimport int64_t, uint32_t

from pyvirt._core.sched.state cimport (
    FAULT_AFFINITY,
    FAULT_ENDLESS,
    FAULT_NONE,
    FAULT_STATE,
    FAULT_TIMER,
    FAULT_TIMESLICE,
    FAULT_WORLD,
    HOOK_ADD,
    HOOK_BEGIN,
    HOOK_CHANGE,
    HOOK_CHARGE,
    HOOK_DEQUEUE,
    HOOK_ENQUEUE,
    HOOK_PICK,
    HOOK_REMOVE,
    HOOK_STOPPED,
    HOOK_TIMED,
    HOOK_TIMESLICE,
    MOST_DEPTH,
    MOST_TIMESLICE,
    NEVER,
    NO_CPU,
    NO_WORLD,
    QUEUED,
    READY,
    sched_t,
    world_t,
)
from pyvirt._core.types cimport ns_t

cdef enum:
    MOST_TIMED = 1000               # times that the policy's timer may be due at one moment


cdef inline bint allowed(const sched_t *s, uint32_t id, uint32_t cpu) noexcept nogil:
    """Whether the world's affinity contains the CPU."""
    return s.queues[s.worlds[id].queue].mask[cpu >> 6] >> (cpu & 63) & 1


cdef inline void set_fault(
    sched_t *s, uint32_t kind, uint32_t hook, uint32_t cpu, uint32_t world, int64_t value
) noexcept nogil:
    """The first one counts. It is noticed where CPUs that are asked are."""
    s.asking = True
    if s.fault.kind == FAULT_NONE:
        s.fault.kind, s.fault.hook = kind, hook
        s.fault.cpu, s.fault.world = cpu, world
        s.fault.value, s.fault.when = value, s.now


cdef inline bint hook_begins(sched_t *s, uint32_t hook) noexcept nogil:
    if s.fault.kind != FAULT_NONE:
        return False
    if s.depth >= MOST_DEPTH:
        set_fault(s, FAULT_ENDLESS, hook, NO_CPU, NO_WORLD, 0)
        return False
    s.depth += 1
    s.hook = hook
    return True


cdef inline void hook_ends(sched_t *s, uint32_t before) noexcept nogil:
    if s.plug.timer < s.now:
        set_fault(s, FAULT_TIMER, s.hook, NO_CPU, NO_WORLD, s.plug.timer)
    s.hook = before
    s.depth -= 1


cdef inline void call_world(
    sched_t *s, void (*hook)(sched_t *, uint32_t) noexcept nogil, uint32_t name, uint32_t id
) noexcept nogil:
    cdef uint32_t before = s.hook
    if hook != NULL and hook_begins(s, name):
        hook(s, id)
        hook_ends(s, before)


cdef inline void hook_begin(sched_t *s) noexcept nogil:
    if s.plug.begin != NULL and hook_begins(s, HOOK_BEGIN):
        s.plug.begin(s)
        hook_ends(s, 0)


cdef inline void hook_add(sched_t *s, uint32_t id) noexcept nogil:
    call_world(s, s.plug.add, HOOK_ADD, id)


cdef inline void hook_remove(sched_t *s, uint32_t id) noexcept nogil:
    call_world(s, s.plug.remove, HOOK_REMOVE, id)


cdef inline void hook_change(sched_t *s, uint32_t id) noexcept nogil:
    call_world(s, s.plug.change, HOOK_CHANGE, id)


cdef inline void hook_enqueue(sched_t *s, uint32_t id, uint32_t why) noexcept nogil:
    """The world is READY; it is queued if it still is so afterwards."""
    cdef uint32_t before = s.hook
    if hook_begins(s, HOOK_ENQUEUE):
        s.plug.enqueue(s, id, why)
        hook_ends(s, before)
        if s.worlds[id].state == READY:
            s.worlds[id].marks |= QUEUED


cdef inline void hook_dequeue(sched_t *s, uint32_t id) noexcept nogil:
    if s.worlds[id].marks & QUEUED:
        s.worlds[id].marks &= ~QUEUED
        call_world(s, s.plug.dequeue, HOOK_DEQUEUE, id)


cdef inline void hook_charge(sched_t *s, uint32_t id, ns_t dt) noexcept nogil:
    cdef uint32_t before = s.hook
    if dt > 0 and s.plug.charge != NULL and hook_begins(s, HOOK_CHARGE):
        s.plug.charge(s, id, dt)
        hook_ends(s, before)


cdef inline void hook_stopped(sched_t *s, uint32_t id, uint32_t why) noexcept nogil:
    cdef uint32_t before = s.hook
    if s.plug.stopped != NULL and hook_begins(s, HOOK_STOPPED):
        s.plug.stopped(s, id, why)
        hook_ends(s, before)


cdef inline bint may_run(sched_t *s, uint32_t hook, uint32_t id, uint32_t cpu) noexcept nogil:
    """Whether a policy gave a world that its CPU can take up."""
    cdef uint32_t kind
    if id == NO_WORLD or s.fault.kind != FAULT_NONE:
        return False
    if id >= s.world_count:
        kind = FAULT_WORLD
    elif s.worlds[id].state != READY or not s.worlds[id].marks & QUEUED:
        kind = FAULT_STATE
    elif not allowed(s, id, cpu):
        kind = FAULT_AFFINITY
    else:
        return True
    set_fault(s, kind, hook, cpu, id, id)
    return False


cdef inline uint32_t hook_pick(sched_t *s, uint32_t cpu) noexcept nogil:
    """A world that may run on this CPU, or NO_WORLD."""
    cdef uint32_t before = s.hook, id
    if not hook_begins(s, HOOK_PICK):
        return NO_WORLD
    id = s.plug.pick(s, cpu)
    hook_ends(s, before)
    return id if may_run(s, HOOK_PICK, id, cpu) else NO_WORLD


cdef inline ns_t checked_slice(
    sched_t *s, uint32_t hook, uint32_t cpu, uint32_t id, ns_t slice
) noexcept nogil:
    if slice < 1:
        set_fault(s, FAULT_TIMESLICE, hook, cpu, id, slice)
        return 1
    return slice if slice < MOST_TIMESLICE else MOST_TIMESLICE


cdef inline ns_t hook_timeslice(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil:
    """At most 2**52 ns, 52 days; a longer one counts as that."""
    cdef uint32_t before = s.hook
    cdef ns_t slice
    if not hook_begins(s, HOOK_TIMESLICE):
        return 1
    slice = s.plug.timeslice(s, cpu, id)
    hook_ends(s, before)
    return checked_slice(s, HOOK_TIMESLICE, cpu, id, slice)


cdef inline void hook_timed(sched_t *s) noexcept nogil:
    """The policy's timer is due; it must not be due again and again at one moment."""
    s.timed_count = s.timed_count + 1 if s.timed_at == s.now else 1
    s.timed_at = s.now
    if s.timed_count > MOST_TIMED:
        set_fault(s, FAULT_ENDLESS, HOOK_TIMED, NO_CPU, NO_WORLD, s.plug.timer)
    elif s.plug.timed == NULL:
        set_fault(s, FAULT_TIMER, HOOK_TIMED, NO_CPU, NO_WORLD, s.plug.timer)
    elif hook_begins(s, HOOK_TIMED):
        s.plug.timer = NEVER
        s.plug.timed(s)
        hook_ends(s, 0)
