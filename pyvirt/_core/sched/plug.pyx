"""Plug-in policies: their base class and their services."""

from libc.stdint cimport uint32_t

from pyvirt._core.sched.changes cimport hold, release
from pyvirt._core.sched.hooks cimport allowed, set_fault
from pyvirt._core.sched.loop cimport charge
from pyvirt._core.sched.state cimport (
    COSTOPPED,
    FAULT_ARGUMENT,
    HOOK_ADD,
    HOOK_BEGIN,
    HOOK_CHANGE,
    HOOK_CHARGE,
    HOOK_DEQUEUE,
    HOOK_ENQUEUE,
    HOOK_PICK,
    HOOK_REMOVE,
    HOOK_REQUEUE,
    HOOK_STOPPED,
    HOOK_TIMED,
    HOOK_TIMESLICE,
    NEVER,
    NO_CPU,
    NO_WORLD,
    PARKED,
    sched_t,
    vm_t,
)

from pyvirt.errors import InvalidTypeError

HOOKS = {
    HOOK_BEGIN: "begin",
    HOOK_ADD: "add",
    HOOK_REMOVE: "remove",
    HOOK_CHANGE: "change",
    HOOK_ENQUEUE: "enqueue",
    HOOK_DEQUEUE: "dequeue",
    HOOK_CHARGE: "charge",
    HOOK_PICK: "pick",
    HOOK_TIMESLICE: "timeslice",
    HOOK_STOPPED: "stopped",
    HOOK_TIMED: "timed",
    HOOK_REQUEUE: "requeue",
}


cdef class Plug:
    """A policy that is plugged into the scheduler: hooks and constants, no state.

    A subclass fills in `table` in its ``__init__`` and calls that of this class.

    Parameters
    ----------
    name : str
        Of the policy.
    parameters : dict
        Arguments that make another one like it: for copies, pickles and comparisons.
    vm_params : dict, optional
        Parameters of virtual machines, at most 4: name -> (default, least, most), integers.
    """

    def __cinit__(self, *args, **kwargs):
        self.name, self.parameters, self.vm_params = type(self).__name__, {}, {}
        self.table.timer = NEVER

    def __init__(self, name, parameters, vm_params=None):
        self.name = name
        self.parameters = dict(parameters)
        self.vm_params = dict(vm_params or {})
        if len(self.vm_params) > 4:
            raise InvalidTypeError(
                f"a policy has at most 4 parameters of VMs, got {', '.join(self.vm_params)}")

    cdef object fill_own(self, const void *own, size_t size):
        """What the policy's own record contains before `begin`: constants."""
        self.own = (<const char *>own)[:size]
        self.table.own_size = size

    cdef object raised(self):
        return None

    cdef object admit(self, const sched_t *s, uint32_t vm, const vm_t *values, uint32_t worlds):
        """Before anything is changed; most policies take every VM."""

    # What a policy with state of its own, in Python, does otherwise.

    def _take(self):
        """A scheduler begins to use it."""

    def _twin(self):
        """Give the policy of a copied scheduler."""
        return self

    def _attributes(self):
        return None

    def _set_attributes(self, attributes):
        pass

    def __eq__(self, other):
        return (type(self) is type(other)
                and self.name == (<Plug>other).name
                and self.parameters == (<Plug>other).parameters)

    def __hash__(self):
        return hash((type(self), self.name))

    def __reduce__(self):
        return _made, (type(self), self.parameters)

    def __repr__(self):
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.parameters.items())
        return f"{type(self).__name__}({arguments})"


def _made(kind, parameters):
    """Make a policy, for unpickling."""
    return kind(**parameters)


cdef inline bint is_world(sched_t *s, uint32_t id) noexcept nogil:
    if id < s.world_count:
        return True
    set_fault(s, FAULT_ARGUMENT, s.hook, NO_CPU, id, id)
    return False


cdef void park(sched_t *s, uint32_t id) noexcept nogil:
    """State LIMITED until `unpark`; a running world is charged and stopped."""
    if is_world(s, id):
        hold(s, id, PARKED)


cdef void unpark(sched_t *s, uint32_t id) noexcept nogil:
    """Enqueue it, unless its limit or a co-stop keeps it."""
    if is_world(s, id):
        release(s, id, PARKED)


cdef void costop(sched_t *s, uint32_t id) noexcept nogil:
    """State COSTOP until `costart`; a running world is charged and stopped."""
    if is_world(s, id):
        hold(s, id, COSTOPPED)


cdef void costart(sched_t *s, uint32_t id) noexcept nogil:
    """Enqueue it, unless its limit keeps it or it is parked."""
    if is_world(s, id):
        release(s, id, COSTOPPED)


cdef void account(sched_t *s, uint32_t cpu) noexcept nogil:
    """Call `charge` for what ran on the CPU since the last time, if anything did."""
    if cpu >= s.cpu_count:
        set_fault(s, FAULT_ARGUMENT, s.hook, cpu, NO_WORLD, cpu)
    elif s.cpus[cpu].running != NO_WORLD:
        charge(s, s.cpus[cpu].running, s.now)


cdef void ask_any(sched_t *s, uint32_t cpu) noexcept nogil:
    ask(s, cpu)


cdef bint allowed_any(const sched_t *s, uint32_t id, uint32_t cpu) noexcept nogil:
    return id < s.world_count and cpu < s.cpu_count and allowed(s, id, cpu)


services.ask, services.allowed, services.account = ask_any, allowed_any, account
services.park, services.unpark = park, unpark
services.costop, services.costart = costop, costart
