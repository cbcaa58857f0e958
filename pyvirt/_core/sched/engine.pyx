"""The worlds of one host: the door to Python."""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from pyvirt._core.arrays cimport as_int
from pyvirt._core.sched.arguments cimport read_limit, read_load, read_mask, read_params, read_vm
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
from pyvirt._core.sched.counters cimport Counted
from pyvirt._core.sched.loads cimport describe, describe_team
from pyvirt._core.sched.queue cimport add_room, find_queue, make_room, new_queue
from pyvirt._core.sched.snapshot cimport set_state, state_of
from pyvirt._core.sched.state cimport (
    HAS_JOBS,
    MASK_WORDS,
    MOST_QUEUES,
    MOST_SLICE,
    MOST_WEIGHT,
    MOST_WORLDS,
    NEVER,
    NO_WORLD,
    PAUSE_DEVICE,
    PAUSE_SWAP,
    POLICY_PLUG,
    SOURCE_NONE,
    SOURCE_TEAM,
    load_t,
    sched_t,
    vm_t,
)
from pyvirt._core.sched.sync cimport join_team
from pyvirt._core.sched.work cimport NO_RECORD, free_hist, free_team, free_work, new_hist
from pyvirt._core.types cimport ns_t

from pyvirt.errors import InvalidValueError

STATES = ("gone", "wait", "ready", "run", "limited", "costop")


cdef class SchedCore(Counted):
    """Worlds of one host that are added, changed and removed."""

    cdef object _queue(self, object cpus):
        """The number of the queue of these CPUs, with a free slot; None: all CPUs."""
        cdef sched_t *s = &self.s
        cdef uint64_t mask[MASK_WORDS]
        cdef uint32_t queue = 0
        if cpus is not None:
            read_mask(mask, s.cpu_count, cpus)
            queue = find_queue(s, mask)
            if queue == s.queue_count:
                queue = new_queue(s, mask)
                if queue == MOST_QUEUES:
                    raise MemoryError("no memory for another run queue, or 65,535 are there")
        if not make_room(s, &s.queues[queue]):
            raise MemoryError
        return queue

    def _add(self, weight, slice_ns, affinity, load, limit, wakes=False):
        """Add a world in a VM of its own; `load` is as `read_load` takes it."""
        cdef uint32_t w = as_int(weight, "weight", 1, MOST_WEIGHT)
        _, (id,) = self._add_vm(w, None, None, (), slice_ns, affinity, [load], limit, wakes)
        return id

    def _add_vm(
        self, weight, reservation, most, params, slice_ns, affinity, loads, limit, wakes=False
    ):
        """Add a VM of one world for each load; gives its number and theirs.

        Worlds have equal parts of the weight. `most` is the limit of the VM, `limit` that of each
        world. With `wakes` each has a histogram of the times from its wake-ups to its runs.
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
        read_vm(&values, weight, reservation, most, read_params(self.plugin, self.policy, params, None))
        if self.plugin is not None:
            self.plugin.admit(s, NO_WORLD, &values, <uint32_t>len(loads))
        part = max(1, values.weight // <uint32_t>len(loads))
        slice = as_int(slice_ns, "slice_ns", 1, MOST_SLICE)
        quota, period = read_limit(limit)
        for load in loads:
            read_load(s, &l, load, NO_RECORD)
        queue = self._queue(affinity)
        self._grow(s.world_count + len(loads))
        if not self.free_vms:
            self._grow_vms(s.vm_count + 1)
        while s.queues[<uint32_t>queue].members + <size_t>len(loads) > s.queues[<uint32_t>queue].leaves:
            if not add_room(s, &s.queues[<uint32_t>queue]):
                raise MemoryError
        works = self._describe(loads, wakes)
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
        for load, (work, hist) in zip(loads, works, strict=True):
            firsts.append(read_load(s, &l, load, work))
            l.wake_hist = hist
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

    cdef object _describe(self, list loads, bint wakes):
        """The numbers of a record and of a histogram for each load that needs one, or NO_RECORD."""
        cdef load_t l
        cdef ns_t first
        cdef uint32_t work, hist
        works = []
        try:
            for load in loads:
                first = read_load(&self.s, &l, load, NO_RECORD)
                if load is not None and len(load) == 8:
                    describe(&self.s, &l, load[7], self.tables, first)
                works.append((l.more, l.wake_hist))
            for i in range(len(works) if wakes else 0):
                hist = new_hist(&self.s.more)
                if hist == NO_RECORD:
                    raise MemoryError
                works[i] = (works[i][0], hist)
        except BaseException:
            for work, hist in works:
                if work != NO_RECORD:
                    free_work(&self.s.more, work)
                free_hist(&self.s.more, hist)
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
            read_params(self.plugin, self.policy, params, [v.param[i] for i in range(4)]))
        if self.plugin is not None:
            self.plugin.admit(&self.s, number, &values, v.worlds)
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
        quota, period = read_limit(limit)
        self._begin()
        set_world_limit(&self.s, id, quota, period)
        self._end()

    # --- state as a value ---

    def _state(self):
        """Everything that changes, as values; addresses in this process are left out."""
        self._check()
        return state_of(self)

    def _set_state(self, state):
        """Back to what `_state` gave, of a scheduler with the same policy and CPUs."""
        self._check()
        set_state(self, state)
