"""The memory of one host's scheduling, and its time."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

import numpy as np

from pyvirt._core.arrays cimport as_int
from pyvirt._core.sched.arguments cimport check_hooks
from pyvirt._core.sched.due cimport move_timer_base
from pyvirt._core.sched.forward cimport run_forward
from pyvirt._core.sched.hooks cimport hook_begin
from pyvirt._core.sched.loop cimport next_event, run_until
from pyvirt._core.sched.plug cimport Plug, services
from pyvirt._core.sched.plugged cimport serve
from pyvirt._core.sched.queue cimport (
    free_queues,
    groups_size,
    move_tree,
    new_queue,
    pending_size,
)
from pyvirt._core.sched.state cimport (
    FAULT_AFFINITY,
    FAULT_ARGUMENT,
    FAULT_ENDLESS,
    FAULT_NONE,
    FAULT_RAISED,
    FAULT_STATE,
    FAULT_TIMER,
    FAULT_TIMESLICE,
    FAULT_WORLD,
    FULL_SPEED,
    GONE,
    MASK_WORDS,
    MOST_CPUS,
    MOST_QUEUES,
    MOST_TIME,
    MOST_WORLDS,
    NEVER,
    NO_CPU,
    NO_WORLD,
    POLICY_EEVDF,
    POLICY_HSTRIDE,
    POLICY_LINUX,
    POLICY_LOTTERY,
    POLICY_PLUG,
    POLICY_RR,
    POLICY_STRIDE,
    cpu_t,
    load_t,
    pace_t,
    plug_t,
    queue_t,
    sched_t,
    topology_t,
    turn_t,
    vm_t,
    world_t,
)
from pyvirt._core.sched.timeline cimport Recorder, switch_t
from pyvirt._core.sched.topology cimport (
    DISTANCES,
    build_topology,
    free_topology,
    has_paces,
    most_threads,
    set_speeds,
)
from pyvirt._core.sched.winner cimport winner_clear
from pyvirt._core.sched.work cimport begin_more, free_more, size_of_more
from pyvirt._core.types cimport ns_t

from pyvirt._core.sched.plug import HOOKS
from pyvirt.errors import InvalidTypeError, InvalidValueError, PolicyError

POLICIES = {
    "rr": POLICY_RR,
    "stride": POLICY_STRIDE,
    "hstride": POLICY_HSTRIDE,
    "lottery": POLICY_LOTTERY,
    "eevdf": POLICY_EEVDF,
}
_FAULTS = {
    FAULT_WORLD: "there is no such world",
    FAULT_STATE: "that world is not ready and queued",
    FAULT_AFFINITY: "that world's affinity does not contain this CPU",
    FAULT_TIMESLICE: "a timeslice is at least 1 ns",
    FAULT_TIMER: "the timer lies in the past, or there is no hook for it",
    FAULT_ARGUMENT: "it named a world or CPU that does not exist",
    FAULT_ENDLESS: "at this moment hooks call each other, or CPUs are asked, without end",
    FAULT_RAISED: "the hook raised",
}


cdef class Owner:
    """Worlds, CPUs and run queues of one host.

    Parameters
    ----------
    policy : str or Plug
        One of POLICIES, or a plug-in policy.
    cpus : int
        How many.
    seed : int
        Of what the policy draws, not 0.
    capacity : int
        Worlds that there is room for at first.
    tick : int, optional
        Of Linux's way of EEVDF, in ns.
    topology : (ndarray of uint16, ndarray of uint32, ndarray of int64), optional
        Core, last-level cache, NUMA node and socket of each CPU, dense numbers from 0; the speed
        of a thread by the number of busy ones of its core; what moves cost by distance.
        Default: each CPU is a core, they share the rest, and moves cost nothing.
    """

    def __init__(self, policy, cpus, seed, capacity, tick=None, topology=None):
        cdef sched_t *s = &self.s
        cdef uint32_t cpu
        cdef uint64_t mask[MASK_WORDS]
        if self.begun:
            raise InvalidTypeError("this scheduler is initialised already, or failed to be")
        if isinstance(policy, Plug):
            check_hooks(policy)
        elif not isinstance(policy, str) or policy not in POLICIES:
            raise InvalidValueError(
                f"policy must be one of {', '.join(POLICIES)}, got {policy!r:.80}")
        s.cpu_count = as_int(cpus, "cpus", 1, MOST_CPUS)
        s.random = as_int(seed, "seed", 1, 0xFFFFFFFFFFFFFFFF)
        capacity = as_int(capacity, "capacity", 1, MOST_WORLDS)
        if tick is not None:
            if policy != "eevdf":
                raise InvalidValueError(
                    f"linux_tick_ns is for the policy eevdf, not for {policy!r:.80}")
            s.tick = as_int(tick, "linux_tick_ns", 1, 1 << 32)
        self.begun = True
        self.leaps = True
        self.free_ids = []
        self.free_vms = []
        self.tables = {}
        begin_more(&s.more)
        if isinstance(policy, Plug):
            self.plugin = policy
            self.plugin._take()
            self.plug = self.plugin.table
            self.plug.user = <void *>self.plugin
            self.plug.services = &services
            self.policy = self.plugin.name
            s.plug = &self.plug
            s.policy = POLICY_PLUG
        else:
            self.policy = policy
            s.policy = POLICY_LINUX if tick is not None else POLICIES[policy]
        s.cpu_leaves = 2
        while s.cpu_leaves < s.cpu_count:
            s.cpu_leaves *= 2
        s.cpus = <cpu_t *>calloc(s.cpu_count, sizeof(cpu_t))
        s.due = <uint64_t *>calloc(2 * s.cpu_leaves, sizeof(uint64_t))
        s.turns = <turn_t *>calloc(s.cpu_count, sizeof(turn_t))
        if s.cpus == NULL or s.due == NULL or s.turns == NULL:
            raise MemoryError
        winner_clear(s.due, s.cpu_leaves)
        memset(mask, 0, sizeof(mask))
        for cpu in range(s.cpu_count):
            s.cpus[cpu].running = s.cpus[cpu].before = NO_WORLD
            s.cpus[cpu].event = NEVER
            mask[cpu >> 6] |= <uint64_t>1 << (cpu & 63)
        memcpy(s.idle, mask, sizeof(mask))
        s.idle_count = s.cpu_count
        self._set_topology(topology)
        self._grow(capacity)
        self._grow_vms(capacity)
        if new_queue(s, mask) == MOST_QUEUES:
            raise MemoryError
        if s.policy == POLICY_PLUG:
            self.plug.own = <char *>calloc(1, self.plug.own_size or 1)
            self.plug.cpus = <char *>calloc(s.cpu_count, self.plug.cpu_size or 1)
            if self.plug.own == NULL or self.plug.cpus == NULL:
                raise MemoryError
            if self.plugin.own is not None:
                memcpy(self.plug.own, <const char *>self.plugin.own, len(self.plugin.own))
            self._begin()
            hook_begin(s)
            self._end()

    def __dealloc__(self):
        free(self.plug.own)
        free(self.plug.cpus)
        free(self.plug.worlds)
        free(self.plug.vms)
        free(self.plug.tree)
        free(self.s.vms)
        free(self.s.siblings)
        free_queues(self.s.queues, self.s.queue_count)
        free_topology(&self.s.topology)
        free(self.s.serves)
        free(self.s.cpus)
        free(self.s.due)
        free(self.s.turns)
        free(self.s.worlds)
        free(self.s.loads)
        free(self.s.paces)
        free(self.s.timers)
        free_more(&self.s.more)

    cdef sched_t *pointer(self) noexcept nogil:
        return &self.s

    cdef object _check(self):
        if self.s.worlds == NULL:
            raise InvalidTypeError("this scheduler was not initialised")
        # set and read with the GIL held
        if self.busy:
            raise InvalidValueError("this scheduler runs, in another thread or below this call")

    cdef object _begin(self):
        """Something is about to happen: not after a fault of a plug-in policy."""
        self._check()
        self._raise()
        self.busy = True

    cdef object _end(self):
        """It happened: CPUs that were asked pick, and what a plug-in policy did wrong is raised."""
        if self.s.policy == POLICY_PLUG:
            serve(&self.s, self.s.now)
        self.busy = False
        self._raise()

    cdef object _raise(self):
        if self.s.fault.kind == FAULT_NONE:
            return
        error = self.plugin.raised()
        if error is not None:
            raise error
        raise PolicyError(
            self.policy, HOOKS.get(self.s.fault.hook, ""), _FAULTS[self.s.fault.kind],
            value=self.s.fault.value,
            cpu=None if self.s.fault.cpu == NO_CPU else self.s.fault.cpu,
            world=None if self.s.fault.world == NO_WORLD else self.s.fault.world,
            when_ns=self.s.fault.when)

    cdef object _set_topology(self, object topology):
        """Of the machine: shape, speeds of threads, costs of moves."""
        cdef topology_t *t = &self.s.topology
        cdef uint32_t cpus = self.s.cpu_count
        if topology is None:
            shape = np.zeros((4, cpus), np.uint16)
            shape[0] = np.arange(cpus)
            topology = (shape, np.full(2, FULL_SPEED, np.uint32), np.zeros(DISTANCES, np.int64))
        cdef const uint16_t[:, ::1] numbers = topology[0]
        cdef const uint32_t[::1] speeds = topology[1]
        cdef const ns_t[::1] costs = topology[2]
        if topology[0].shape != (4, cpus) or len(topology[2]) != DISTANCES:
            raise InvalidValueError(
                f"a topology of {cpus} CPUs has shape (4, {cpus}), not {topology[0].shape}")
        if not build_topology(t, cpus, &numbers[0, 0]):
            raise MemoryError("no memory for the topology, or its numbers are not dense")
        if len(topology[1]) != most_threads(t) + 1:
            raise InvalidValueError(
                f"{most_threads(t)} threads have as many speeds, not {len(topology[1]) - 1}")
        if not set_speeds(t, &speeds[0], &costs[0]):
            raise MemoryError

    cdef object _grow(self, object worlds):
        """Make room for so many worlds."""
        cdef sched_t *s = &self.s
        cdef size_t capacity = room(s.capacity, worlds)
        if capacity == s.capacity:
            return
        enlarge(<void **>&s.worlds, capacity * sizeof(world_t))
        enlarge(<void **>&s.loads, capacity * sizeof(load_t))
        enlarge(<void **>&s.timers, 2 * capacity * sizeof(uint64_t))
        enlarge(<void **>&s.siblings, capacity * sizeof(uint32_t))
        if s.policy == POLICY_PLUG:
            # the record of each world is zeroed when its number is given
            enlarge(<void **>&self.plug.worlds, capacity * self.plug.world_size)
            self._grow_trees(<uint32_t>capacity)
        if has_paces(&s.topology):
            enlarge(<void **>&s.paces, capacity * sizeof(pace_t))
        s.capacity = <uint32_t>capacity
        move_timer_base(s, s.now)

    cdef object _grow_trees(self, uint32_t leaves):
        """Those of a plug-in policy."""
        cdef plug_t *p = &self.plug
        cdef uint64_t *grown
        cdef uint32_t i
        if not p.trees:
            return
        grown = <uint64_t *>calloc(2 * <size_t>leaves * p.trees, sizeof(uint64_t))
        if grown == NULL:
            raise MemoryError
        for i in range(p.trees):
            move_tree(
                &grown[2 * <size_t>leaves * i], leaves,
                &p.tree[2 * <size_t>p.leaves * i], p.leaves)
        free(p.tree)
        p.tree, p.leaves = grown, leaves

    cdef object _grow_vms(self, object vms):
        """Make room for so many virtual machines."""
        cdef sched_t *s = &self.s
        cdef size_t capacity = room(s.vm_capacity, vms)
        if capacity == s.vm_capacity:
            return
        enlarge(<void **>&s.vms, capacity * sizeof(vm_t))
        if s.policy == POLICY_PLUG:
            enlarge(<void **>&self.plug.vms, capacity * self.plug.vm_size)
        s.vm_capacity = <uint32_t>capacity

    # --- time ---

    def _run(self, until, most):
        """Let events up to `until` happen, at most `most`, or any number for None."""
        cdef ns_t end
        cdef uint64_t limit = 0xFFFFFFFFFFFFFFFF, count
        self._check()
        end = as_int(until, "until_ns", self.s.now, MOST_TIME)
        if most is not None:
            limit = as_int(most, "events", 0, 0xFFFFFFFFFFFFFFFF)
        self._begin()
        if self.plugin is not None and self.plugin.needs_gil:
            count = run_until(&self.s, end, limit)
        elif self.leaps:
            with nogil:
                count = run_forward(&self.s, end, limit)
        else:
            with nogil:
                count = run_until(&self.s, end, limit)
        if count < limit and self.s.fault.kind == FAULT_NONE:
            self.s.now = end
        self._end()
        return count

    def step(self):
        """Let the next event happen, and make its time the present.

        Returns
        -------
        bool
            False if nothing will ever happen.
        """
        cdef uint64_t count
        self._begin()
        count = run_until(&self.s, MOST_TIME, 1)
        self._end()
        return count == 1

    def next_event_time(self):
        """Give the time of the next event in ns; None if nothing will ever happen."""
        cdef ns_t when
        self._check()
        when = next_event(&self.s)
        return None if when >= NEVER else when

    @property
    def fast_forward(self):
        """Whether `run` may leap over what repeats itself, exactly; True at first."""
        return self.leaps

    @fast_forward.setter
    def fast_forward(self, on):
        self.leaps = bool(on)

    @property
    def now_ns(self):
        """The present time."""
        return self.s.now

    @property
    def events(self):
        """Events that happened so far."""
        return self.s.events

    @property
    def cpus(self):
        """Number of CPUs."""
        return self.s.cpu_count

    @property
    def nbytes(self):
        """Bytes of memory that worlds, queues and timers take."""
        cdef uint32_t i
        size = self.s.capacity * (sizeof(world_t) + sizeof(load_t) + 20 + self.plug.world_size)
        size += self.plug.leaves * self.plug.trees * 2 * sizeof(uint64_t)
        size += self.s.vm_capacity * (sizeof(vm_t) + self.plug.vm_size)
        if self.s.paces != NULL:
            size += self.s.capacity * sizeof(pace_t)
        size += self.s.cpu_count * (sizeof(cpu_t) + sizeof(turn_t)) + self.s.cpu_leaves * 16 + sizeof(sched_t)
        for i in range(self.s.queue_count):
            size += self.s.queues[i].leaves * 20 + sizeof(queue_t)
            size += pending_size(&self.s, self.s.queues[i].leaves)
            size += groups_size(&self.s, self.s.queues[i].leaves)
        return size + size_of_more(&self.s.more)

    # --- timeline ---

    def record(self, ring=None):
        """Begin to record which world each CPU takes up, and when; `timeline` gives it.

        What was recorded before is forgotten. Recording is no part of the state: a copy does not
        record, and `restore` begins anew.

        Parameters
        ----------
        ring : int, optional
            Keep so many switches, the last ones, 24 bytes each. Default: all, as long as there is
            memory.
        """
        self._check()
        self.recorder = Recorder(self.s.cpu_count, ring)
        self.s.timeline = &self.recorder.t
        self._begin_recording()

    cdef void _begin_recording(self) noexcept:
        """From the present time, with the worlds that run."""
        cdef uint32_t cpu
        cdef switch_t *r
        self.recorder.begin(self.s.now)
        for cpu in range(self.s.cpu_count):
            r = &self.recorder.t.open[cpu]
            r.t_ns, r.ready_ns, r.world = self.s.now, 0, self.s.cpus[cpu].running
            r.cpu, r.state, r.unused = <uint16_t>cpu, GONE, 0
            self.recorder.t.on[cpu] = r.world

    def stop_recording(self):
        """End what `record` began, and forget it."""
        self._check()
        self.s.timeline = NULL
        self.recorder = None

    def _switches(self, clear):
        """What `Recorder.take` gives."""
        self._check()
        if self.recorder is None:
            raise InvalidValueError("nothing is recorded: call record() before time passes")
        return self.recorder.take(clear, self.s.now)


cdef size_t room(size_t present, size_t wanted) noexcept:
    """A power of two that is enough."""
    cdef size_t capacity = max(present, <size_t>4)
    while capacity < wanted:
        capacity *= 2
    return capacity


cdef object enlarge(void **block, size_t size):
    """Without memory the block stays what it was."""
    cdef void *grown = realloc(block[0], size or 1)
    if grown == NULL:
        raise MemoryError
    block[0] = grown
