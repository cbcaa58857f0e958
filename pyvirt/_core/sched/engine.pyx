"""The owner of one host's scheduling, and its door to Python."""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

import numpy as np

from pyvirt._core.arrays cimport as_int
from pyvirt._core.sched.changes cimport (
    block_world,
    halt_world,
    interrupt_world,
    new_world,
    pause_world,
    remove_world,
    set_vm_values,
    set_world_limit,
    set_world_queue,
    set_world_weight,
    start_world,
    submit_work,
    wake_world,
)
from pyvirt._core.sched.due cimport move_timer_base
from pyvirt._core.sched.hooks cimport hook_begin
from pyvirt._core.sched.forward cimport run_forward
from pyvirt._core.sched.jobs cimport draw_gap
from pyvirt._core.sched.loads cimport describe, describe_team
from pyvirt._core.sched.loop cimport next_event, run_until, serve
from pyvirt._core.sched.pace cimport work_in
from pyvirt._core.sched.plug cimport Plug, services
from pyvirt._core.sched.policies.eevdf cimport has_deadlines
from pyvirt._core.sched.queue cimport (
    add_room,
    find_queue,
    free_queue,
    make_room,
    new_queue,
    set_serves,
)
from pyvirt._core.sched.random cimport other_seed
from pyvirt._core.sched.state cimport (
    COSTOP,
    EXPONENTIAL,
    FAULT_AFFINITY,
    FAULT_ARGUMENT,
    FAULT_ENDLESS,
    FAULT_NONE,
    FAULT_RAISED,
    FAULT_STATE,
    FAULT_TIMER,
    FAULT_TIMESLICE,
    FAULT_WORLD,
    FIXED,
    FULL_SPEED,
    GONE,
    HAS_JOBS,
    HELD,
    LATENCY_BUCKETS,
    LIMITED,
    MASK_WORDS,
    MOST_CPUS,
    MOST_QUEUES,
    MOST_SLICE,
    MOST_TIME,
    MOST_WEIGHT,
    MOST_WORLDS,
    NEVER,
    NO_CPU,
    NO_NODE,
    NO_WORLD,
    PAUSE_DEVICE,
    PAUSE_SWAP,
    POLICY_EEVDF,
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
    SOURCE_TEAM,
    SOURCE_TRACE,
    UNIFORM,
    WAIT,
    cpu_t,
    hnode_t,
    load_t,
    pace_t,
    queue_t,
    sched_t,
    topology_t,
    vm_t,
    world_t,
)
from pyvirt._core.sched.sync cimport join_team
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
from pyvirt._core.sched.work cimport (
    NO_RECORD,
    PHASE_SPIN,
    RESPONSE_BUCKETS,
    begin_more,
    free_more,
    free_team,
    free_work,
    load_more,
    more_t,
    save_more,
    size_of_more,
    work_t,
)
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
_SOURCES = {
    None: SOURCE_NONE,
    "open": SOURCE_OPEN,
    "closed": SOURCE_CLOSED,
    "trace": SOURCE_TRACE,
    "team": SOURCE_TEAM,
}
_KINDS = {"fixed": FIXED, "exponential": EXPONENTIAL, "uniform": UNIFORM}
STATES = ("gone", "wait", "ready", "run", "limited", "costop")
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

COUNTER_DTYPE = np.dtype([
    ("state", "u1"), ("cpu", "<i4"), ("weight", "<u4"), ("vm", "<u4"),
    ("run", "<i8"), ("rdy", "<i8"), ("mlmtd", "<i8"), ("cstp", "<i8"), ("wait", "<i8"),
    ("elapsed", "<i8"),
    ("switches", "<u8"), ("migrations", "<u8"),
    ("jobs", "<i8"), ("jobs_done", "<u8"), ("job_time", "<i8"),
    ("wakes", "<u8"), ("wake_time", "<i8"), ("wake_most", "<i8"),
    ("used", "<i8"),
    ("idle", "<i8"), ("swpwt", "<i8"), ("interrupts", "<u8"),
])
WORK_DTYPE = np.dtype([
    ("spin", "<i8"), ("useful", "<i8"), ("waits", "<u8"), ("wait_time", "<i8"), ("yields", "<u8"),
    ("holder_preempted", "<u8"), ("holder_off", "<i8"), ("waiter_preempted", "<u8"),
    ("demanded", "<i8"), ("dropped", "<i8"), ("dropped_jobs", "<u8"), ("response_most", "<i8"),
])
SPEED_DTYPE = np.dtype([
    ("used", "<i8"), ("stalled", "<i8"), ("moves", "<u4", (5,)),
    ("home", "<i4"), ("home_moves", "<u4"), ("remote", "<f8"), ("remote_time", "<i8"),
])
CPU_DTYPE = np.dtype([("world", "<i4"), ("run", "<i8"), ("idle", "<i8"), ("switches", "<u8")])

cdef class SchedCore:
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
        if s.cpus == NULL or s.due == NULL:
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
        free(self.s.vms)
        free(self.s.siblings)
        free_queues(self.s.queues, self.s.queue_count)
        free_topology(&self.s.topology)
        free(self.s.serves)
        free(self.s.cpus)
        free(self.s.due)
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
        cdef size_t capacity = max(<size_t>s.capacity, 4)
        cdef void *grown
        while capacity < worlds:
            capacity *= 2
        if capacity == s.capacity:
            return
        grown = realloc(s.worlds, capacity * sizeof(world_t))
        if grown == NULL:
            raise MemoryError
        s.worlds = <world_t *>grown
        grown = realloc(s.loads, capacity * sizeof(load_t))
        if grown == NULL:
            raise MemoryError
        s.loads = <load_t *>grown
        grown = realloc(s.timers, 2 * capacity * sizeof(uint64_t))
        if grown == NULL:
            raise MemoryError
        s.timers = <uint64_t *>grown
        grown = realloc(s.siblings, capacity * sizeof(uint32_t))
        if grown == NULL:
            raise MemoryError
        s.siblings = <uint32_t *>grown
        if s.policy == POLICY_PLUG:
            # the record of each world is zeroed when its number is given
            grown = realloc(self.plug.worlds, capacity * self.plug.world_size or 1)
            if grown == NULL:
                raise MemoryError
            self.plug.worlds = <char *>grown
        if has_paces(&s.topology):
            grown = realloc(s.paces, capacity * sizeof(pace_t))
            if grown == NULL:
                raise MemoryError
            s.paces = <pace_t *>grown
        s.capacity = <uint32_t>capacity
        move_timer_base(s, s.now)

    cdef object _grow_vms(self, object vms):
        """Make room for so many virtual machines."""
        cdef sched_t *s = &self.s
        cdef size_t capacity = max(<size_t>s.vm_capacity, 4)
        cdef void *grown
        while capacity < vms:
            capacity *= 2
        if capacity == s.vm_capacity:
            return
        grown = realloc(s.vms, capacity * sizeof(vm_t))
        if grown == NULL:
            raise MemoryError
        s.vms = <vm_t *>grown
        if s.policy == POLICY_PLUG:
            grown = realloc(self.plug.vms, capacity * self.plug.vm_size or 1)
            if grown == NULL:
                raise MemoryError
            self.plug.vms = <char *>grown
        s.vm_capacity = <uint32_t>capacity

    cdef object _queue(self, object cpus):
        """The number of the queue of these CPUs, with a free slot; None: all CPUs."""
        cdef sched_t *s = &self.s
        cdef uint64_t mask[MASK_WORDS]
        cdef uint32_t cpu, queue = 0
        if cpus is not None:
            if isinstance(cpus, (str, bytes)) or not hasattr(cpus, "__iter__"):
                raise InvalidTypeError(f"affinity must be CPU numbers, got {cpus!r:.80}")
            memset(mask, 0, sizeof(mask))
            some = False
            for each in cpus:
                cpu = as_int(each, "affinity", 0, s.cpu_count - 1)
                mask[cpu >> 6] |= <uint64_t>1 << (cpu & 63)
                some = True
            if not some:
                raise InvalidValueError("affinity must name at least one CPU, got none")
            queue = find_queue(s, mask)
            if queue == s.queue_count:
                queue = new_queue(s, mask)
                if queue == MOST_QUEUES:
                    raise MemoryError("no memory for another run queue, or 65,535 are there")
        if not make_room(s, &s.queues[queue]):
            raise MemoryError
        return queue

    cdef uint32_t _world(self, object world) except? 0xFFFFFFFF:
        """Check the number of a world that exists."""
        cdef uint32_t id
        self._check()
        if not self.s.world_count:
            raise InvalidValueError(f"there is no world {world!r:.80}: none was added")
        id = as_int(world, "world", 0, self.s.world_count - 1)
        if self.s.worlds[id].state == GONE:
            raise InvalidValueError(f"world {id} was removed")
        return id

    # --- worlds ---

    def _add(self, weight, slice_ns, affinity, load, limit):
        """Add a world in a VM of its own; `load` is as `read_load` takes it."""
        cdef uint32_t w = as_int(weight, "weight", 1, MOST_WEIGHT)
        _, (id,) = self._add_vm(w, None, None, (), slice_ns, affinity, [load], limit)
        return id

    def _add_vm(self, weight, reservation, most, params, slice_ns, affinity, loads, limit):
        """Add a VM of one world for each load; gives its number and theirs.

        Worlds have equal parts of the weight. `most` is the limit of the VM, `limit` that of each
        world.
        """
        cdef sched_t *s = &self.s
        cdef vm_t values
        cdef vm_t *v
        cdef load_t l
        cdef uint32_t part, slice, id, vm
        self._check()
        self._raise()
        if len(loads) > MOST_WORLDS - s.world_count + len(self.free_ids):
            raise InvalidValueError(f"a host has at most {MOST_WORLDS:,} worlds")
        read_vm(&values, weight, reservation, most, self._params(params, None))
        part = max(1, values.weight // <uint32_t>len(loads))
        slice = as_int(slice_ns, "slice_ns", 1, MOST_SLICE)
        quota, period = self._limit(limit)
        for load in loads:
            read_load(s, &l, load, NO_RECORD)
        queue = self._queue(affinity)
        self._grow(s.world_count + len(loads))
        if not self.free_vms:
            self._grow_vms(s.vm_count + 1)
        while s.queues[<uint32_t>queue].members + <size_t>len(loads) > s.queues[<uint32_t>queue].leaves:
            if not add_room(s, &s.queues[<uint32_t>queue]):
                raise MemoryError
        works = self._describe(loads)
        self._begin()
        if self.free_vms:
            vm = self.free_vms.pop()
        else:
            vm = s.vm_count
            s.vm_count += 1
        v = &s.vms[vm]
        v[0] = values
        v.worlds, v.first = 0, NO_WORLD
        if s.policy == POLICY_PLUG:
            memset(&self.plug.vms[vm * self.plug.vm_size], 0, self.plug.vm_size)
        ids = []
        firsts = []
        for load, work in zip(loads, works, strict=True):
            firsts.append(read_load(s, &l, load, work))
            if self.free_ids:
                id = self.free_ids.pop()
            else:
                id = s.world_count
                s.world_count += 1
            new_world(s, id, queue, vm, part, slice, &l, load is not None)
            ids.append(id)
            if l.source == SOURCE_TEAM:
                join_team(s, id, load[7]["team"])
        for i in range(len(ids)):
            start_world(s, ids[i], firsts[i])
            if quota:
                set_world_limit(s, ids[i], quota, period)
        self._end()
        return vm, ids

    cdef object _describe(self, list loads):
        """The number of a record for each load that needs one, or NO_RECORD."""
        cdef load_t l
        cdef ns_t first
        cdef uint32_t work
        works = []
        try:
            for load in loads:
                first = read_load(&self.s, &l, load, NO_RECORD)
                if load is not None and len(load) == 8:
                    describe(&self.s, &l, load[7], self.tables, first)
                works.append(l.more)
        except BaseException:
            for work in works:
                if work != NO_RECORD:
                    free_work(&self.s.more, work)
            raise
        return works

    def _add_team(self, kind, spin, window, seed):
        """The number of a team for worlds that are added next; see `describe_team`."""
        self._check()
        return describe_team(&self.s, (kind, spin, window, seed))

    def _drop_team(self, team):
        """End a team that no world has joined."""
        if not self.s.more.teams[<uint32_t>team].members:
            free_team(&self.s.more, team)

    cdef object _params(self, object params, object before):
        """The four parameters of a VM from pairs of name and value; others as before or default."""
        names = () if self.plugin is None else self.plugin.vm_params
        values = [0, 0, 0, 0]
        given = dict(params)
        for name in given:
            if name not in names:
                known = f"knows {', '.join(names)}" if names else "has no parameters of VMs"
                raise InvalidTypeError(f"the policy {self.policy} {known}, got {name!r:.80}")
        for i, name in enumerate(names):
            default, least, most = names[name]
            values[i] = default if before is None else before[i]
            if name in given:
                values[i] = as_int(given[name], name, least, most)
        return values

    cdef object _vm(self, object vm):
        """Check the number of a VM that exists."""
        self._check()
        if not self.s.vm_count:
            raise InvalidValueError(f"there is no VM {vm!r:.80}: none was added")
        vm = as_int(vm, "vm", 0, self.s.vm_count - 1)
        if not self.s.vms[<uint32_t>vm].worlds:
            raise InvalidValueError(f"VM {vm} was removed")
        return vm

    def _set_vm(self, vm, weight, reservation, most, params):
        """Change what is not None."""
        cdef uint32_t number = self._vm(vm)
        cdef vm_t *v = &self.s.vms[number]
        cdef vm_t values
        read_vm(
            &values,
            v.weight if weight is None else weight,
            v.reservation if reservation is None else reservation,
            v.limit if most is None else most,
            self._params(params, [v.param[i] for i in range(4)]))
        self._begin()
        set_vm_values(&self.s, number, &values, weight is not None)
        self._end()

    def _vm_values(self, vm):
        """Weight, reservation, limit, parameters by name, worlds."""
        cdef uint32_t number = self._vm(vm)
        cdef vm_t *v = &self.s.vms[number]
        cdef uint32_t id = v.first
        names = () if self.plugin is None else self.plugin.vm_params
        worlds = []
        while id != NO_WORLD:
            worlds.append(id)
            id = self.s.siblings[id]
        return (v.weight, v.reservation, None if v.limit < 0 else v.limit,
                {name: v.param[i] for i, name in enumerate(names)}, worlds)

    def _limit(self, limit):
        if limit is None:
            return 0, 1
        try:
            quota, period = limit
        except (TypeError, ValueError):
            raise InvalidTypeError(
                f"limit must be (quota_ns, period_ns), got {limit!r:.80}") from None
        period = as_int(period, "period_ns", 1, 1 << 50)
        return as_int(quota, "quota_ns", 1, 1 << 50), period

    def remove(self, world):
        """Remove a world, in whatever state it is; its number may be given to a new one.

        Parameters
        ----------
        world : int
            From `add`.
        """
        cdef uint32_t id = self._world(world)
        self._begin()
        remove_world(&self.s, id)
        self.free_ids.append(id)
        if not self.s.vms[self.s.worlds[id].vm].worlds:
            self.free_vms.append(self.s.worlds[id].vm)
        self._end()

    def block(self, world):
        """Take a world off its CPU or queue until `wake`; jobs may arrive meanwhile.

        Parameters
        ----------
        world : int
            From `add`. One that is blocked already stays so.
        """
        cdef uint32_t id = self._world(world)
        self._begin()
        block_world(&self.s, id)
        self._end()

    def wake(self, world):
        """End what `block` began; the world competes if it has work.

        Parameters
        ----------
        world : int
            From `add`.
        """
        cdef uint32_t id = self._world(world)
        self._begin()
        wake_world(&self.s, id)
        self._end()

    def wait_swap(self, world, ns):
        """Let a world wait for pages that the host swapped out: esxtop's %SWPWT.

        Parameters
        ----------
        world : int
            From `add`. It stops at once, and goes on when its wait is over, if it has work. One
            that waits for pages already waits longer by so much.
        ns : int
            How long.

        Raises
        ------
        InvalidValueError
            A world that waits for a device.
        """
        self._pause(world, ns, PAUSE_SWAP, "a device")

    def wait_device(self, world, ns):
        """Let a world wait for a device of the host: part of esxtop's %VMWAIT.

        Parameters
        ----------
        world : int
            From `add`. It stops at once, and goes on when its wait is over, if it has work. One
            that waits for a device already waits longer by so much.
        ns : int
            How long.

        Raises
        ------
        InvalidValueError
            A world that waits for pages.
        """
        self._pause(world, ns, PAUSE_DEVICE, "pages")

    def _pause(self, world, ns, pause, other):
        cdef uint32_t id = self._world(world)
        time = as_int(ns, "ns", 1, 1 << 50)
        if self.s.loads[id].pause_end != NEVER and self.s.loads[id].pause != pause:
            raise InvalidValueError(f"world {id} waits for {other} already")
        self._begin()
        pause_world(&self.s, id, time, pause)
        self._end()

    def halt(self, world):
        """Let a world's guest halt its CPU: it is idle until an interrupt or a job comes.

        Parameters
        ----------
        world : int
            From `add`. What it has to do stays.

        Raises
        ------
        InvalidValueError
            A world that shares a barrier or a lock: it halts by itself, where its workload says so.
        """
        cdef uint32_t id = self._world(world)
        if self.s.loads[id].source == SOURCE_TEAM:
            raise InvalidValueError(f"world {id} shares a barrier or a lock, and halts by itself")
        self._begin()
        halt_world(&self.s, id)
        self._end()

    def interrupt(self, world, work_ns=0):
        """Interrupt a world's guest; it wakes up if it has halted.

        Parameters
        ----------
        world : int
            From `add`.
        work_ns : int, default 0
            CPU time of the handler, which comes before whatever the world does.

        Raises
        ------
        InvalidValueError
            Work for a world that always runs, or shares a barrier or a lock.
        """
        cdef uint32_t id = self._world(world)
        cdef load_t *l = &self.s.loads[id]
        work = as_int(work_ns, "work_ns", 0, 1 << 50)
        if work and (not self.s.worlds[id].flags & HAS_JOBS or l.source == SOURCE_TEAM):
            raise InvalidValueError(f"work_ns must be 0 for world {id}, which has no jobs")
        self._check_left(id, work)
        self._begin()
        interrupt_world(&self.s, id, work)
        self._end()

    def _check_left(self, id, work):
        cdef ns_t left = self.s.loads[<uint32_t>id].left
        if left + <int64_t>work > <int64_t>1 << 60:
            raise InvalidValueError(f"world {id} has {left:,} ns of work already")

    def submit(self, world, work_ns):
        """Give work to a world that was added with ``Jobs()``, at the present time.

        Parameters
        ----------
        world : int
            From `add`.
        work_ns : int
            CPU time; if the world has work left, it becomes more.

        Raises
        ------
        InvalidValueError
            A world whose work comes from elsewhere.
        """
        cdef uint32_t id = self._world(world)
        if not self.s.worlds[id].flags & HAS_JOBS or self.s.loads[id].source != SOURCE_NONE:
            raise InvalidValueError(f"world {id} was not added with Jobs(): it has its own work")
        work = as_int(work_ns, "work_ns", 1, 1 << 50)
        self._check_left(id, work)
        self._begin()
        submit_work(&self.s, id, work)
        self._end()

    def set_weight(self, world, weight):
        """Change a world's weight; what it is ahead or behind stays the same CPU time.

        Parameters
        ----------
        world : int
            From `add`.
        weight : int
            1 to 2**20.
        """
        cdef uint32_t id = self._world(world)
        cdef uint32_t w = as_int(weight, "weight", 1, MOST_WEIGHT)
        self._begin()
        set_world_weight(&self.s, id, w)
        self._end()

    def set_affinity(self, world, affinity):
        """Change the CPUs that a world may run on; if it runs, it queues up again.

        Parameters
        ----------
        world : int
            From `add`.
        affinity : iterable of int or None
            Numbers of CPUs; None: all.
        """
        cdef uint32_t id = self._world(world)
        cdef uint32_t queue = self._queue(affinity)
        self._begin()
        set_world_queue(&self.s, id, queue)
        self._end()

    def set_limit(self, world, limit):
        """Limit a world to some CPU time in each period, the first of which begins now.

        Parameters
        ----------
        world : int
            From `add`.
        limit : (int, int) or None
            Quota and period in ns; what is not used by the end of a period is lost.
        """
        cdef uint32_t id = self._world(world)
        quota, period = self._limit(limit)
        self._begin()
        set_world_limit(&self.s, id, quota, period)
        self._end()

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
        size += self.s.vm_capacity * (sizeof(vm_t) + self.plug.vm_size)
        if self.s.paces != NULL:
            size += self.s.capacity * sizeof(pace_t)
        size += self.s.cpu_count * sizeof(cpu_t) + self.s.cpu_leaves * 16 + sizeof(sched_t)
        for i in range(self.s.queue_count):
            size += self.s.queues[i].leaves * 20 + sizeof(queue_t)
            size += pending_size(&self.s, self.s.queues[i].leaves)
            size += groups_size(&self.s, self.s.queues[i].leaves)
        return size + size_of_more(&self.s.more)

    # --- counters ---

    def counters(self):
        """Give what each world did up to now, one row for each number.

        Returns
        -------
        ndarray of COUNTER_DTYPE
            ``state`` (an index into `STATES`), ``cpu`` (where it runs or ran last, or -1),
            ``weight``, ``vm`` (the number of its VM); times in ns: ``run``, ``rdy``, ``mlmtd`` (it
            would run, but has used up its limit, or is parked by the policy), ``cstp`` (it would
            run, but is co-stopped by the policy), ``wait``, which together are ``elapsed`` since
            it was added; ``switches``
            (it came to run after another world or idleness), ``migrations``; ``jobs`` in the
            system, ``jobs_done``, ``job_time`` (the sum of the times that jobs spent in the
            system); ``wakes`` that led to a run, ``wake_time`` from them to the run, and the
            longest; ``used``, the part of ``run`` that counts: less where a busy thread of the
            same core, a move or remote memory slowed it down; ``idle`` and ``swpwt``, the parts of
            ``wait`` in which it had nothing to do, or waited for pages that the host swapped out
            (the rest is for devices and `block`); ``interrupts``. What is counted begins when the
            world is added. The row of a removed world
            keeps its last values.
        """
        cdef sched_t *s = &self.s
        cdef world_t *w
        cdef load_t *l
        cdef uint32_t i
        cdef ns_t part, waits
        cdef bint paused
        cdef int64_t[:, ::1] into
        table = np.zeros((s.world_count, len(COUNTER_DTYPE)), np.int64)
        into = table
        for i in range(s.world_count):
            w = &s.worlds[i]
            l = &s.loads[i]
            part = 0 if w.state == GONE else s.now - w.since
            into[i, 0] = w.state
            into[i, 1] = -1 if w.cpu == NO_CPU else w.cpu
            into[i, 2] = w.weight
            into[i, 3] = w.vm
            into[i, 4] = w.run + (part if w.state == RUN else 0)
            into[i, 5] = w.rdy + (part if w.state == READY else 0)
            into[i, 6] = w.mlmtd + (part if w.state == LIMITED else 0)
            into[i, 7] = w.cstp + (part if w.state == COSTOP else 0)
            into[i, 8] = w.wait + (part if w.state == WAIT else 0)
            into[i, 9] = (w.since if w.state == GONE else s.now) - l.born
            into[i, 10] = <int64_t>w.switches
            into[i, 11] = <int64_t>w.migrations
            into[i, 12] = l.jobs
            into[i, 13] = <int64_t>l.done
            into[i, 14] = l.area + (0 if w.state == GONE else l.jobs * (s.now - l.area_since))
            into[i, 15] = <int64_t>l.wakes
            into[i, 16] = l.wake_sum
            into[i, 17] = l.wake_most
            into[i, 18] = used_now(s, i)
            waits = part if w.state == WAIT else 0
            paused = l.pause_end != NEVER
            into[i, 19] = l.idle + (0 if paused or w.flags & HELD else waits)
            into[i, 20] = l.swap + (waits if paused and l.pause == PAUSE_SWAP else 0)
            into[i, 21] = <int64_t>l.interrupts
        rows = np.zeros(s.world_count, COUNTER_DTYPE)
        for column, name in enumerate(COUNTER_DTYPE.names):
            rows[name] = table[:, column]
        return rows

    def speed_counters(self):
        """Give what made each world slower than full speed, one row for each number.

        Returns
        -------
        ndarray of SPEED_DTYPE
            ``used`` as in `counters`; ``stalled``, the part of ``run`` in ns that moves cost;
            ``moves`` to another CPU by distance: same core, last-level cache, NUMA node, socket,
            elsewhere. Where every world always works at full speed moves are not told apart, and
            these are 0. Under a policy with home nodes: ``home``, the NUMA node that the world
            belongs to (or -1), ``home_moves`` to another one, ``remote``, the share of its memory
            that is on other nodes, and ``remote_time``, the integral of that share in ns.
        """
        cdef sched_t *s = &self.s
        cdef pace_t p
        cdef uint32_t i, far
        rows = np.zeros(s.world_count, SPEED_DTYPE)
        rows["home"] = -1
        for i in range(s.world_count):
            rows["used"][i] = used_now(s, i)
            if s.paces != NULL:
                p = s.paces[i]
                if s.worlds[i].state == RUN:
                    work_in(&p, s.now - s.worlds[i].since)
                rows["stalled"][i] = p.stalled
                for far in range(1, DISTANCES):
                    rows["moves"][i, far - 1] = p.moves[far]
                if p.home != NO_NODE:
                    rows["home"][i] = p.home
                rows["home_moves"][i] = p.home_moves
                rows["remote"][i] = p.remote / <double>FULL_SPEED
                if s.worlds[i].state != GONE:
                    p.remote_time += p.remote * (s.now - p.remote_since) >> 16
                rows["remote_time"][i] = p.remote_time
        return rows

    def cpu_counters(self):
        """Give what each CPU did up to now.

        Returns
        -------
        ndarray of CPU_DTYPE
            ``world`` that runs (or -1), ``run`` and ``idle`` in ns, ``switches`` to a world.
        """
        cdef cpu_t *c
        cdef uint32_t i
        rows = np.zeros(self.s.cpu_count, CPU_DTYPE)
        for i in range(self.s.cpu_count):
            c = &self.s.cpus[i]
            idle = c.idle + (self.s.now - c.idle_since if c.running == NO_WORLD else 0)
            world = -1 if c.running == NO_WORLD else <int64_t>c.running
            rows[i] = (world, self.s.now - idle, idle, c.switches)
        return rows

    def latency_counts(self):
        """Give the histogram of times from a wake-up to the run, of all worlds.

        Returns
        -------
        ndarray of uint64
            Counts; `pyvirt.sched.latency_bounds` gives where each bucket begins: eight for each
            power of two of nanoseconds.
        """
        counts = np.zeros(LATENCY_BUCKETS, np.uint64)
        cdef uint64_t[::1] into = counts
        memcpy(&into[0], self.s.latency, sizeof(self.s.latency))
        return counts

    def work_counters(self):
        """Give what the workload of each world did, one row for each number.

        Returns
        -------
        ndarray of WORK_DTYPE
            Of worlds that share a barrier or a lock: ``spin``, CPU time in which they waited;
            ``waits``, the times that one arrived or asked and had to wait; ``wait_time`` of the
            waits that are over, running or not; ``yields``, the pause-loop exits;
            ``holder_preempted``, the times that one which held the lock lost its CPU, counted
            when it runs again; ``holder_off``, the time that locks which are given back by now were
            held without a CPU; ``waiter_preempted``, the times that one was given the lock while
            it spun, but had no CPU. Of demand traces: ``demanded`` work up to now in ns,
            ``dropped`` work, and ``dropped_jobs`` that it was of. ``response_most`` of worlds whose
            responses are recorded. ``useful`` is CPU time without ``spin``, of all worlds. All
            zero for worlds that have none of this, and after their removal.
        """
        cdef sched_t *s = &self.s
        cdef work_t *k
        cdef world_t *w
        cdef uint32_t i
        cdef ns_t part, spins
        table = np.zeros((s.world_count, len(WORK_DTYPE)), np.int64)
        cdef int64_t[:, ::1] into = table
        for i in range(s.world_count):
            w = &s.worlds[i]
            part = s.now - w.since if w.state == RUN else 0
            into[i, 1] = w.run + part
            if s.loads[i].more == NO_RECORD:
                continue
            k = &s.more.works[s.loads[i].more]
            spins = k.spun + (part if k.phase == PHASE_SPIN else 0)
            into[i, 0] = spins
            into[i, 1] -= spins
            into[i, 2] = <int64_t>k.waits
            into[i, 3] = k.waited
            into[i, 4] = <int64_t>k.yields
            into[i, 5] = <int64_t>k.holder_preempted
            into[i, 6] = k.held_off
            into[i, 7] = <int64_t>k.waiter_preempted
            into[i, 8] = k.came
            into[i, 9] = k.dropped
            into[i, 10] = <int64_t>k.dropped_jobs
            into[i, 11] = k.response_most
        rows = np.zeros(s.world_count, WORK_DTYPE)
        for column, name in enumerate(WORK_DTYPE.names):
            rows[name] = table[:, column]
        return rows

    def response_counts(self, worlds=None):
        """Give the histogram of the response times of some worlds, of their jobs that are done.

        Parameters
        ----------
        worlds : int or iterable of int, optional
            Worlds that were added with ``responses=True``; their counts are added up. Default:
            all such worlds.

        Returns
        -------
        ndarray of uint64
            Counts; `pyvirt.sched.response_bounds` gives where each bucket begins: 32 for each
            power of two of nanoseconds.

        Raises
        ------
        InvalidValueError
            A world whose responses are not recorded.
        """
        cdef uint32_t id, hist
        cdef size_t j
        cdef uint64_t *from_
        counts = np.zeros(RESPONSE_BUCKETS, np.uint64)
        cdef uint64_t[::1] into = counts
        self._check()
        if worlds is None:
            worlds = [i for i in range(self.s.world_count) if self._hist(i) != NO_RECORD]
        elif not hasattr(worlds, "__iter__"):
            worlds = [worlds]
        for world in worlds:
            id = self._world(world)
            hist = self._hist(id)
            if hist == NO_RECORD:
                raise InvalidValueError(f"world {id} was not added with responses=True")
            from_ = &self.s.more.hists[<size_t>hist * RESPONSE_BUCKETS]
            for j in range(RESPONSE_BUCKETS):
                into[j] += from_[j]
        return counts

    cdef uint32_t _hist(self, uint32_t id) noexcept:
        """The number of a world's histogram, or NO_RECORD."""
        cdef load_t *l = &self.s.loads[id]
        return NO_RECORD if l.more == NO_RECORD else self.s.more.works[l.more].hist

    def virtual_times(self):
        """Give each world's virtual time, rounded down, in units of 2**-10 ns at weight 1.

        Returns
        -------
        ndarray of int64
            Of a world that does not compete: what it had when it stopped.
        """
        cdef uint32_t i
        values = np.zeros(self.s.world_count, np.int64)
        cdef int64_t[::1] into = values
        for i in range(self.s.world_count):
            into[i] = self.s.worlds[i].v
        return values

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

    # --- state as a value ---

    def _state(self):
        """Everything that changes, as values; addresses in this process are left out."""
        cdef sched_t *s = &self.s
        cdef sched_t plain
        cdef queue_t q
        cdef uint32_t i
        self._check()
        plain = s[0]
        plain.worlds, plain.loads, plain.cpus, plain.queues = NULL, NULL, NULL, NULL
        plain.serves, plain.due, plain.timers, plain.paces = NULL, NULL, NULL, NULL
        memset(&plain.topology, 0, sizeof(plain.topology))
        memset(&plain.more, 0, sizeof(more_t))
        plain.timeline = NULL
        plain.plug, plain.vms, plain.siblings = NULL, NULL, NULL
        queues = []
        for i in range(s.queue_count):
            q = s.queues[i]
            nodes = (<char *>q.node)[:2 * q.leaves * sizeof(uint64_t)]
            owners = (<char *>q.owner)[:q.leaves * sizeof(uint32_t)]
            pending = (<char *>q.pending)[:pending_size(s, q.leaves)]
            groups = (<char *>q.groups)[:groups_size(s, q.leaves)]
            q.node, q.owner, q.pending, q.groups = NULL, NULL, NULL, NULL
            queues.append(((<char *>&q)[:sizeof(queue_t)], nodes, owners, pending, groups))
        return (
            (<char *>&plain)[:sizeof(sched_t)],
            (<char *>s.worlds)[:s.world_count * sizeof(world_t)],
            (<char *>s.loads)[:s.world_count * sizeof(load_t)],
            (<char *>s.paces)[:s.world_count * sizeof(pace_t)] if s.paces != NULL else b"",
            (<char *>s.cpus)[:s.cpu_count * sizeof(cpu_t)],
            (<char *>s.due)[:2 * s.cpu_leaves * sizeof(uint64_t)],
            queues,
            list(self.free_ids),
            (<char *>s.vms)[:s.vm_count * sizeof(vm_t)],
            (<char *>s.siblings)[:s.world_count * sizeof(uint32_t)],
            list(self.free_vms),
            None if s.policy != POLICY_PLUG else (
                self.plug.timer,
                (self.plug.own)[:self.plug.own_size],
                (self.plug.cpus)[:s.cpu_count * self.plug.cpu_size],
                (self.plug.worlds)[:s.world_count * self.plug.world_size],
                (self.plug.vms)[:s.vm_count * self.plug.vm_size],
                self.plugin._attributes(),
            ),
            save_more(&s.more),
        )

    def _set_state(self, state):
        """Back to what `_state` gave, of a scheduler with the same policy and CPUs."""
        cdef sched_t *s = &self.s
        cdef sched_t plain
        cdef queue_t *made
        cdef queue_t q
        cdef more_t records
        cdef bytes kept, worlds, loads, paces, cpus, due, nodes, owners, pending, groups, vms, siblings
        cdef bytes own, plug_cpus, plug_worlds, plug_vms
        cdef uint32_t count
        self._check()
        (kept, worlds, loads, paces, cpus, due, queues, free_ids, vms, siblings, free_vms,
         plug, more) = state
        if len(kept) == sizeof(sched_t):
            memcpy(&plain, <const char *>kept, sizeof(sched_t))
        if (len(kept) != sizeof(sched_t) or plain.policy != s.policy
                or plain.cpu_count != s.cpu_count
                or len(worlds) != plain.world_count * sizeof(world_t)
                or len(loads) != plain.world_count * sizeof(load_t)
                or len(paces) != (plain.world_count * sizeof(pace_t) if s.paces != NULL else 0)
                or len(cpus) != s.cpu_count * sizeof(cpu_t)
                or len(due) != 2 * s.cpu_leaves * sizeof(uint64_t)
                or len(queues) != plain.queue_count
                or len(vms) != plain.vm_count * sizeof(vm_t)
                or len(siblings) != plain.world_count * sizeof(uint32_t)
                or (plug is None) != (s.policy != POLICY_PLUG)):
            raise InvalidValueError("this snapshot is of a scheduler with other arguments")
        if plug is not None:
            timer, own, plug_cpus, plug_worlds, plug_vms, attributes = plug
            if (len(own) != self.plug.own_size
                    or len(plug_cpus) != s.cpu_count * self.plug.cpu_size
                    or len(plug_worlds) != plain.world_count * self.plug.world_size
                    or len(plug_vms) != plain.vm_count * self.plug.vm_size):
                raise InvalidValueError("this snapshot is of a scheduler with another policy")
        self._grow(max(1, plain.world_count))
        self._grow_vms(plain.vm_count)
        begin_more(&records)
        try:
            load_more(&records, more)
        except BaseException:
            free_more(&records)
            raise
        made = <queue_t *>calloc(plain.queue_count, sizeof(queue_t))
        if made == NULL:
            free_more(&records)
            raise MemoryError
        count = 0
        for fixed, nodes, owners, pending, groups in queues:
            memcpy(&q, <const char *><bytes>fixed, sizeof(queue_t))
            q.node = <uint64_t *>malloc(2 * q.leaves * sizeof(uint64_t))
            q.owner = <uint32_t *>malloc(q.leaves * sizeof(uint32_t))
            q.pending = <uint64_t *>malloc(pending_size(s, q.leaves))
            q.groups = <hnode_t *>malloc(groups_size(s, q.leaves))
            if q.node == NULL or q.owner == NULL or q.pending == NULL or q.groups == NULL:
                free_queue(&q)
                free_queues(made, count)
                free_more(&records)
                raise MemoryError
            memcpy(q.node, <const char *>nodes, 2 * q.leaves * sizeof(uint64_t))
            memcpy(q.owner, <const char *>owners, q.leaves * sizeof(uint32_t))
            memcpy(q.pending, <const char *>pending, pending_size(s, q.leaves))
            memcpy(q.groups, <const char *>groups, groups_size(s, q.leaves))
            made[count] = q
            count += 1
        free_queues(s.queues, s.queue_count)
        free_more(&s.more)
        plain.more = records
        plain.queues, plain.serves, plain.cpus, plain.due = made, s.serves, s.cpus, s.due
        plain.worlds, plain.loads, plain.timers = s.worlds, s.loads, s.timers
        plain.timeline = s.timeline
        plain.plug, plain.vms, plain.siblings = s.plug, s.vms, s.siblings
        plain.capacity, plain.vm_capacity = s.capacity, s.vm_capacity
        plain.paces = s.paces
        plain.topology = s.topology
        s[0] = plain
        memcpy(s.vms, <const char *>vms, len(vms))
        memcpy(s.siblings, <const char *>siblings, len(siblings))
        if plug is not None:
            self.plugin._set_attributes(attributes)
            self.plug.timer = timer
            memcpy(self.plug.own, <const char *>own, len(own))
            memcpy(self.plug.cpus, <const char *>plug_cpus, len(plug_cpus))
            memcpy(self.plug.worlds, <const char *>plug_worlds, len(plug_worlds))
            memcpy(self.plug.vms, <const char *>plug_vms, len(plug_vms))
        memcpy(s.worlds, <const char *>worlds, len(worlds))
        memcpy(s.loads, <const char *>loads, len(loads))
        if len(paces):
            memcpy(s.paces, <const char *>paces, len(paces))
        memcpy(s.cpus, <const char *>cpus, len(cpus))
        memcpy(s.due, <const char *>due, len(due))
        move_timer_base(s, s.timer_base)
        self.free_ids = list(free_ids)
        if self.recorder is not None:
            self._begin_recording()
        self.free_vms = list(free_vms)
        if not set_serves(s):
            raise MemoryError


cdef object check_hooks(Plug policy):
    if (policy.table.enqueue == NULL or policy.table.dequeue == NULL
            or policy.table.pick == NULL or policy.table.timeslice == NULL):
        raise InvalidValueError(
            f"policy {policy.name!r:.80} must have the hooks enqueue, dequeue, pick and timeslice")


cdef ns_t read_load(sched_t *s, load_t *l, object load, uint32_t work) except -1:
    """Read None or (source, work, kind, gap, kind, start, seed); gives when the first job comes.

    A start of None: after a gap. An eighth value is what `describe` takes, whose record is `work`,
    if there is one already.
    """
    cdef ns_t first = NEVER
    memset(l, 0, sizeof(load_t))
    l.more = work
    if load is None:
        return first
    source, mean, work_kind, gap, gap_kind, start, seed = load[:7]
    least = 1 if source in ("open", "closed") else 0
    l.source = _SOURCES[source]
    l.work_kind, l.gap_kind = _KINDS[work_kind], _KINDS[gap_kind]
    l.work = as_int(mean, "work_ns", least, 1 << 50)
    l.gap = as_int(gap, "gap_ns", least, 1 << 50)
    l.random = as_int(seed, "seed", 1, 0xFFFFFFFFFFFFFFFF)
    l.random_gap = other_seed(l.random)
    if start is not None:
        first = s.now + <ns_t>as_int(start, "start_ns", 0, 1 << 50)
    elif source is not None:
        first = s.now + draw_gap(s, l, &l.random_gap)
    return first


cdef object read_vm(vm_t *v, object weight, object reservation, object most, list params):
    """None: no reservation, no limit."""
    cdef int i
    memset(v, 0, sizeof(vm_t))
    v.weight = as_int(weight, "weight", 1, MOST_WEIGHT)
    v.reservation = 0 if reservation is None else as_int(reservation, "reservation", 0, 1 << 50)
    v.limit = -1 if most is None or most == -1 else as_int(most, "limit", 0, 1 << 50)
    for i in range(4):
        v.param[i] = params[i]


cdef ns_t used_now(const sched_t *s, uint32_t id) noexcept nogil:
    """Of a world's run time up to now, what counts."""
    cdef const world_t *w = &s.worlds[id]
    cdef ns_t part = s.now - w.since if w.state == RUN else 0
    cdef pace_t p
    if s.paces == NULL:
        return w.run + part
    p = s.paces[id]
    work_in(&p, part)
    return p.used


cdef void free_queues(queue_t *queues, uint32_t count) noexcept nogil:
    cdef uint32_t i
    for i in range(count):
        free_queue(&queues[i])
    free(queues)


cdef size_t pending_size(const sched_t *s, uint32_t leaves) noexcept nogil:
    return (2 * <size_t>leaves if has_deadlines(s) else 1) * sizeof(uint64_t)


cdef size_t groups_size(const sched_t *s, uint32_t leaves) noexcept nogil:
    return (2 * <size_t>leaves if s.policy == POLICY_HSTRIDE else 1) * sizeof(hnode_t)
