"""Plug-in policies in Python: a method for each hook.

The engine holds the GIL while it runs such a policy, and calls a method only where the subclass has
one: each call costs some 50 ns.
"""

from copy import deepcopy
from typing import NamedTuple

from cpython.long cimport PyLong_AsLongLongAndOverflow
from libc.stdint cimport int64_t, uint32_t

from pyvirt._core.sched.hooks cimport allowed, set_fault
from pyvirt._core.sched.plug cimport (
    Plug,
    account,
    ask,
    asked,
    costart,
    costop,
    park,
    unpark,
)
from pyvirt._core.sched.state cimport (
    FAULT_RAISED,
    FAULT_TIMER,
    FAULT_WORLD,
    GONE,
    HOOK_PICK,
    NEVER,
    NO_CPU,
    NO_WORLD,
    sched_t,
    vm_t,
    world_t,
)
from pyvirt._core.types cimport ns_t

from pyvirt.errors import InvalidTypeError, InvalidValueError

_WHY = (
    "wake", "new", "slice", "preempt", "refill", "unpark", "costart", "move",
    "block", "limit", "park", "costop",
)
_STATES = ("gone", "wait", "ready", "run", "limited", "costop")

ctypedef void (*world_hook_t)(sched_t *, uint32_t) noexcept nogil
ctypedef void (*why_hook_t)(sched_t *, uint32_t, uint32_t) noexcept nogil


class PolicyWorld(NamedTuple):
    """What a policy sees of a world, at the moment of the call."""

    weight: int
    vm: int
    state: str
    cpu: int | None
    run_ns: int
    slice_ns: int


class PolicyVM(NamedTuple):
    """What a policy sees of a virtual machine."""

    weight: int
    reservation: int
    limit: int | None
    params: tuple
    worlds: list


cdef class PythonPolicy(Plug):
    """A policy whose hooks are methods of a subclass; see the guide, "Write a policy".

    A subclass must have `enqueue`, `dequeue` and `pick`; the other hooks are left out where it has
    no such method, and a timeslice is then the world's own slice. Its attributes are the policy's
    state: snapshots copy them. An object serves one scheduler; copies of that get copies of it.

    An exception that a hook raises ends the run: the scheduler stands still at that event and
    raises it.

    Notes
    -----
    The hooks, with `id` the number of a world:

    * ``begin()`` once, before there is any world
    * ``add(id)``, ``remove(id)``: it came into being, it goes; it waits
    * ``change(id)``: its weight, affinity or its VM's parameters changed; a ready one is out of its
      queue, and will be enqueued
    * ``enqueue(id, why)``: it is ready from now on. `why` is ``"wake"``, ``"new"``, ``"slice"``
      (its timeslice ended), ``"preempt"``, ``"refill"`` (of its limit), ``"unpark"``,
      ``"costart"`` or ``"move"`` (changed)
    * ``dequeue(id)``: it leaves its queue without running
    * ``charge(id, dt)``: it ran for `dt` ns
    * ``pick(cpu)``: give what the CPU runs from now on, and take it out of its queue; None: nothing
    * ``timeslice(cpu, id)``: how long at most until the CPU picks again, in ns
    * ``stopped(id, why)``: it ran, or was parked or co-stopped, and is not queued: ``"block"``,
      ``"limit"``, ``"park"``, ``"costop"`` or ``"move"``
    * ``timed()``: `timer` was due, and is None again

    The engine places nothing by itself: `enqueue` asks a CPU to pick.
    """

    def __cinit__(self, *args, **kwargs):
        own = type(self)
        self.name = own.__name__
        declared = own.vm_params
        if declared is not PythonPolicy.vm_params:
            if not isinstance(declared, dict) or len(declared) > 4:
                raise InvalidTypeError(f"{self.name}.vm_params must be a dict of at most 4")
            self.vm_params = dict(declared)
        self.needs_gil = True
        self.table.timeslice = own_slice

        def found(hook):
            method = getattr(own, hook, None)
            if method is not None and not callable(method):
                raise InvalidTypeError(f"{own.__name__}.{hook} must be a method")
            return None if method is None else method.__get__(self)

        self.on_begin = found("begin")
        self.on_add = found("add")
        self.on_remove = found("remove")
        self.on_change = found("change")
        self.on_enqueue = found("enqueue")
        self.on_dequeue = found("dequeue")
        self.on_charge = found("charge")
        self.on_pick = found("pick")
        self.on_timeslice = found("timeslice")
        self.on_stopped = found("stopped")
        self.on_timed = found("timed")
        if self.on_begin is not None:
            self.table.begin = <void (*)(sched_t *) noexcept nogil>call_begin
        if self.on_add is not None:
            self.table.add = <world_hook_t>call_add
        if self.on_remove is not None:
            self.table.remove = <world_hook_t>call_remove
        if self.on_change is not None:
            self.table.change = <world_hook_t>call_change
        if self.on_enqueue is not None:
            self.table.enqueue = <why_hook_t>call_enqueue
        if self.on_dequeue is not None:
            self.table.dequeue = <world_hook_t>call_dequeue
        if self.on_charge is not None:
            self.table.charge = <void (*)(sched_t *, uint32_t, ns_t) noexcept nogil>call_charge
        if self.on_pick is not None:
            self.table.pick = <uint32_t (*)(sched_t *, uint32_t) noexcept nogil>call_pick
        if self.on_timeslice is not None:
            self.table.timeslice = <ns_t (*)(
                sched_t *, uint32_t, uint32_t) noexcept nogil>call_timeslice
        if self.on_stopped is not None:
            self.table.stopped = <why_hook_t>call_stopped
        if self.on_timed is not None:
            self.table.timed = <void (*)(sched_t *) noexcept nogil>call_timed

    def __init__(self):
        pass

    def __eq__(self, other):
        """Whether the other one is of the same class: attributes are state."""
        return type(self) is type(other)

    def __hash__(self):
        return hash(type(self))

    def __repr__(self):
        return f"<{self.name}>"

    # --- state as a value ---

    def _take(self):
        if self.taken:
            raise InvalidValueError(f"this {self.name} serves another scheduler: make a new one")
        self.taken = True

    def _twin(self):
        """Another one, in the same state."""
        twin = type(self).__new__(type(self))
        twin._set_attributes(self._attributes())
        return twin

    def _attributes(self):
        return deepcopy(vars(self), {id(self): self})

    def _set_attributes(self, attributes):
        mine = vars(self)
        mine.clear()
        mine.update(deepcopy(attributes))

    def __reduce__(self):
        return _new, (type(self),), self._attributes()

    def __setstate__(self, state):
        self._set_attributes(state)

    cdef object raised(self):
        error, self.error = self.error, None
        return error

    # --- services ---

    cdef sched_t *host(self) except NULL:
        if self.s == NULL:
            raise InvalidValueError("a policy may ask its host only while one of its hooks runs")
        return self.s

    cdef uint32_t a_world(self, object id) except? 0xFFFFFFFF:
        cdef sched_t *s = self.host()
        if not isinstance(id, int) or not 0 <= id < s.world_count or (
                s.worlds[<uint32_t>id].state == GONE):
            raise InvalidValueError(f"there is no world {id!r:.80}")
        return id

    cdef uint32_t a_cpu(self, object cpu) except? 0xFFFFFFFF:
        if not isinstance(cpu, int) or not 0 <= cpu < self.host().cpu_count:
            raise InvalidValueError(f"there is no CPU {cpu!r:.80}")
        return cpu

    @property
    def now(self):
        """The present time in ns."""
        return self.host().now

    @property
    def cpu_count(self):
        """Number of CPUs."""
        return self.host().cpu_count

    @property
    def timer(self):
        """When `timed` is due, in ns; None: never. Not before the present time."""
        cdef ns_t timer = self.host().plug.timer
        return None if timer == NEVER else timer

    @timer.setter
    def timer(self, value):
        cdef sched_t *s = self.host()
        if value is None:
            s.plug.timer = NEVER
        elif not isinstance(value, int):
            raise InvalidTypeError(f"timer must be an integer or None, got {value!r:.80}")
        elif value < s.now or value >= NEVER:
            set_fault(s, FAULT_TIMER, s.hook, NO_CPU, NO_WORLD,
                      value if -NEVER <= value <= NEVER else (-NEVER if value < 0 else NEVER))
        else:
            s.plug.timer = value

    def world(self, id):
        """Give a world's weight, vm, state, cpu (where it runs or ran last), run_ns, slice_ns."""
        cdef world_t *w = &self.host().worlds[self.a_world(id)]
        return PolicyWorld(
            w.weight, w.vm, _STATES[w.state], None if w.cpu == NO_CPU else w.cpu, w.run, w.slice)

    def weight(self, id):
        """Give a world's weight."""
        return self.host().worlds[self.a_world(id)].weight

    def vm(self, number):
        """Give a VM's weight, reservation, limit, parameters in the order of `vm_params`, worlds."""
        cdef sched_t *s = self.host()
        cdef vm_t *v
        cdef uint32_t id
        if not isinstance(number, int) or not 0 <= number < s.vm_count or (
                not s.vms[<uint32_t>number].worlds):
            raise InvalidValueError(f"there is no VM {number!r:.80}")
        v = &s.vms[<uint32_t>number]
        id = v.first
        worlds = []
        while id != NO_WORLD:
            worlds.append(id)
            id = s.siblings[id]
        params = tuple([v.param[i] for i in range(4)][:len(self.vm_params)])
        return PolicyVM(
            v.weight, v.reservation, None if v.limit < 0 else v.limit, params, worlds)

    def running(self, cpu):
        """Give the world that runs on a CPU, or None: a CPU that is about to pick is idle."""
        cdef uint32_t id = self.host().cpus[self.a_cpu(cpu)].running
        return None if id == NO_WORLD else id

    def began(self, cpu):
        """Give when the running world got the CPU, in ns."""
        return self.host().cpus[self.a_cpu(cpu)].began

    def allowed(self, id, cpu):
        """Whether a world's affinity contains a CPU."""
        return bool(allowed(self.host(), self.a_world(id), self.a_cpu(cpu)))

    def ask(self, cpu):
        """Let a CPU pick again at the present time, when the hook's event is over."""
        ask(self.host(), self.a_cpu(cpu))

    def asked(self, cpu):
        """Whether a CPU will pick at this moment anyway; an idle one may be taken then."""
        return bool(asked(self.host(), self.a_cpu(cpu)))

    def account(self, cpu):
        """Charge what runs on a CPU up to the present time."""
        account(self.host(), self.a_cpu(cpu))

    def park(self, id):
        """Take a world out of competition (state ``limited``) until `unpark`."""
        park(self.host(), self.a_world(id))

    def unpark(self, id):
        """The reverse: it is enqueued, unless something else keeps it."""
        unpark(self.host(), self.a_world(id))

    def costop(self, id):
        """Take a world out of competition (state ``costop``) until `costart`."""
        costop(self.host(), self.a_world(id))

    def costart(self, id):
        """The reverse: it is enqueued, unless something else keeps it."""
        costart(self.host(), self.a_world(id))


def _new(kind):
    """Make a policy without its attributes, for unpickling."""
    return kind.__new__(kind)


# --- from the engine to the methods; it holds the GIL ---


cdef ns_t own_slice(sched_t *s, uint32_t cpu, uint32_t id) noexcept nogil:
    return s.worlds[id].slice


cdef inline PythonPolicy entered(sched_t *s):
    return <PythonPolicy>s.plug.user


cdef void failed(sched_t *s, PythonPolicy self, object error) noexcept:
    if self.error is None:
        self.error = error
    set_fault(s, FAULT_RAISED, s.hook, NO_CPU, NO_WORLD, 0)


cdef void call_begin(sched_t *s) noexcept:
    cdef PythonPolicy self = entered(s)
    cdef sched_t *before = self.s
    self.s = s
    try:
        self.on_begin()
    except BaseException as error:
        failed(s, self, error)
    self.s = before


cdef void call_timed(sched_t *s) noexcept:
    cdef PythonPolicy self = entered(s)
    cdef sched_t *before = self.s
    self.s = s
    try:
        self.on_timed()
    except BaseException as error:
        failed(s, self, error)
    self.s = before


cdef inline void call_world(sched_t *s, PythonPolicy self, object method, uint32_t id) noexcept:
    cdef sched_t *before = self.s
    self.s = s
    try:
        method(id)
    except BaseException as error:
        failed(s, self, error)
    self.s = before


cdef void call_add(sched_t *s, uint32_t id) noexcept:
    cdef PythonPolicy self = entered(s)
    call_world(s, self, self.on_add, id)


cdef void call_remove(sched_t *s, uint32_t id) noexcept:
    cdef PythonPolicy self = entered(s)
    call_world(s, self, self.on_remove, id)


cdef void call_change(sched_t *s, uint32_t id) noexcept:
    cdef PythonPolicy self = entered(s)
    call_world(s, self, self.on_change, id)


cdef void call_dequeue(sched_t *s, uint32_t id) noexcept:
    cdef PythonPolicy self = entered(s)
    call_world(s, self, self.on_dequeue, id)


cdef inline void call_why(
    sched_t *s, PythonPolicy self, object method, uint32_t id, uint32_t why
) noexcept:
    cdef sched_t *before = self.s
    self.s = s
    try:
        method(id, (<tuple>_WHY)[why])
    except BaseException as error:
        failed(s, self, error)
    self.s = before


cdef void call_enqueue(sched_t *s, uint32_t id, uint32_t why) noexcept:
    cdef PythonPolicy self = entered(s)
    call_why(s, self, self.on_enqueue, id, why)


cdef void call_stopped(sched_t *s, uint32_t id, uint32_t why) noexcept:
    cdef PythonPolicy self = entered(s)
    call_why(s, self, self.on_stopped, id, why)


cdef void call_charge(sched_t *s, uint32_t id, ns_t dt) noexcept:
    cdef PythonPolicy self = entered(s)
    cdef sched_t *before = self.s
    self.s = s
    try:
        self.on_charge(id, dt)
    except BaseException as error:
        failed(s, self, error)
    self.s = before


cdef int64_t integer(object value, object hook) except? -1:
    """What a hook returned; beyond 64 bits, the last value within."""
    cdef int overflow = 0
    cdef int64_t result
    if not isinstance(value, int):
        raise InvalidTypeError(f"{hook} must return an integer, got {value!r:.80}")
    result = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow:
        return NEVER if overflow > 0 else -NEVER
    return result


cdef uint32_t call_pick(sched_t *s, uint32_t cpu) noexcept:
    cdef PythonPolicy self = entered(s)
    cdef sched_t *before = self.s
    cdef int64_t id = NO_WORLD
    self.s = s
    try:
        found = self.on_pick(cpu)
        if found is not None:
            id = integer(found, "pick")
            if id < 0 or id >= s.world_count:
                set_fault(s, FAULT_WORLD, HOOK_PICK, cpu, NO_WORLD, id)
                id = NO_WORLD
    except BaseException as error:
        failed(s, self, error)
        id = NO_WORLD
    self.s = before
    return <uint32_t>id


cdef ns_t call_timeslice(sched_t *s, uint32_t cpu, uint32_t id) noexcept:
    cdef PythonPolicy self = entered(s)
    cdef sched_t *before = self.s
    cdef ns_t slice = 1
    self.s = s
    try:
        slice = integer(self.on_timeslice(cpu, id), "timeslice")
    except BaseException as error:
        failed(s, self, error)
    self.s = before
    return slice
