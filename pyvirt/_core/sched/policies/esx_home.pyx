"""Home nodes of VMs, and queues that are evened out: numa.pyx and balance.pyx for the ESX policy."""

from libc.stdint cimport int64_t, uint32_t

from pyvirt._core.sched.balance cimport push_apart
from pyvirt._core.sched.numa cimport (
    at_home,
    home_of,
    numa_begin,
    numa_change,
    numa_place,
    numa_remove,
    numa_timed,
    numa_vm_t,
    numa_vms_at,
    numa_vms_t,
)
from pyvirt._core.sched.plug cimport ask
from pyvirt._core.sched.policies.esx_gang cimport fits_host
from pyvirt._core.sched.policies.esx_queue cimport (
    drop,
    first_waiting,
    place_world,
    settle,
    take,
)
from pyvirt._core.sched.policies.esx_state cimport (
    COSCHED_BALANCE,
    COSCHED_STRICT,
    NOWHERE,
    cpu_of,
    esx_t,
    esx_vm_t,
    host_of,
    vm_of,
    world_of,
)
from pyvirt._core.sched.state cimport NEVER, NO_NODE, NO_WORLD, READY, RUN, sched_t

cdef enum:
    PAGES_PER_MB = 256


cdef inline numa_vms_t homes(sched_t *s) noexcept nogil:
    """They follow the VMs' records of the policy."""
    return numa_vms_at(<numa_vm_t *>(s.plug.vms + sizeof(esx_vm_t)), s.plug.vm_size)


cdef void begin_homes(sched_t *s) noexcept nogil:
    cdef esx_t *e = host_of(s)
    e.next_balance = s.now + e.balance if e.balance else NEVER
    if e.with_numa:
        numa_begin(s, &e.numa)
    else:
        e.numa.due = NEVER
    e.next_home = min(e.next_balance, e.numa.due)


cdef inline void see_fit(sched_t *s, uint32_t vm) noexcept nogil:
    """After the CPUs that its worlds may run on changed."""
    vm_of(s, vm).fits = host_of(s).cosched != COSCHED_STRICT or fits_host(s, vm)


cdef void give_home(sched_t *s, uint32_t id) noexcept nogil:
    """A world comes to compete: its VM gets its home, if it has none."""
    cdef esx_t *e = host_of(s)
    cdef uint32_t vm = s.worlds[id].vm
    if home_of(s, id) == NO_NODE:
        numa_place(s, &e.numa, homes(s), vm, <uint32_t>s.vms[vm].param[1] * PAGES_PER_MB)
        see_fit(s, vm)


cdef bint goes_home(sched_t *s, uint32_t id) noexcept nogil:
    """A world that ran elsewhere than its home, which is a new one, waits there from now on."""
    if at_home(s, id, s.worlds[id].cpu):
        return False
    settle(s, id, place_world(s, id, host_of(s).cosched == COSCHED_BALANCE))
    return True


cdef void change_home(sched_t *s, uint32_t vm) noexcept nogil:
    if host_of(s).with_numa:
        numa_change(s, &host_of(s).numa, homes(s), vm)


cdef void leave_home(sched_t *s, uint32_t id) noexcept nogil:
    if host_of(s).with_numa:
        numa_remove(s, &host_of(s).numa, homes(s), id)


cdef void rehomed(sched_t *s, uint32_t id) noexcept nogil:
    """A ready world goes to a queue of its new home; a running one when its CPU picks again."""
    cdef bint laggard = world_of(s, id).laggard
    see_fit(s, s.worlds[id].vm)
    if s.worlds[id].state == READY:
        drop(s, id)
        world_of(s, id).laggard = laggard
        settle(s, id, place_world(s, id, host_of(s).cosched == COSCHED_BALANCE))
    elif s.worlds[id].state == RUN:
        ask(s, s.worlds[id].cpu)


cdef int64_t load_of(sched_t *s, uint32_t cpu) noexcept nogil:
    """Worlds that wait or run, and the one of a gang that is to run next."""
    return (cpu_of(s, cpu).count + (s.cpus[cpu].running != NO_WORLD)
            + (cpu_of(s, cpu).reserved != NOWHERE))


cdef uint32_t waiter(sched_t *s, uint32_t source, uint32_t cpu, int64_t most) noexcept nogil:
    if most < 1:
        return NO_WORLD
    return first_waiting(s, source, cpu, host_of(s).cosched == COSCHED_BALANCE)


cdef void move(sched_t *s, uint32_t id, uint32_t source, uint32_t cpu) noexcept nogil:
    take(s, id)
    if cpu_of(s, source).first == id:
        cpu_of(s, source).first = NOWHERE
    settle(s, id, cpu)


cdef void tend_homes(sched_t *s) noexcept nogil:
    """Do what is due: queues are evened out, memory follows, VMs get other homes."""
    cdef esx_t *e = host_of(s)
    if e.next_balance <= s.now:
        push_apart(s, load_of, waiter, move, e.imbalance_percent)
        e.next_balance = s.now + e.balance
    if e.numa.due <= s.now:
        numa_timed(s, &e.numa, homes(s), NULL, rehomed)
    e.next_home = min(e.next_balance, e.numa.due)
