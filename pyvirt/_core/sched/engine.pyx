"""The owner of one host's scheduling, and its door to Python."""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

import numpy as np

from pyvirt._core.arrays cimport as_int
from pyvirt._core.sched.changes cimport (
    add_world,
    block_world,
    remove_world,
    set_world_limit,
    set_world_queue,
    set_world_weight,
    submit_work,
    wake_world,
)
from pyvirt._core.sched.due cimport move_timer_base
from pyvirt._core.sched.loop cimport next_event, run_until
from pyvirt._core.sched.policies.eevdf cimport has_deadlines
from pyvirt._core.sched.queue cimport (
    find_queue,
    free_queue,
    make_room,
    new_queue,
    set_serves,
)
from pyvirt._core.sched.random cimport draw_time
from pyvirt._core.sched.state cimport (
    EXPONENTIAL,
    FIXED,
    GONE,
    HAS_JOBS,
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
    NO_WORLD,
    POLICY_EEVDF,
    POLICY_HSTRIDE,
    POLICY_LINUX,
    POLICY_LOTTERY,
    POLICY_RR,
    POLICY_STRIDE,
    READY,
    RUN,
    SOURCE_CLOSED,
    SOURCE_NONE,
    SOURCE_OPEN,
    UNIFORM,
    WAIT,
    cpu_t,
    hnode_t,
    load_t,
    queue_t,
    sched_t,
    world_t,
)
from pyvirt._core.sched.timeline cimport Recorder, switch_t
from pyvirt._core.sched.winner cimport winner_clear
from pyvirt._core.types cimport ns_t
from pyvirt.errors import InvalidTypeError, InvalidValueError

POLICIES = {
    "rr": POLICY_RR,
    "stride": POLICY_STRIDE,
    "hstride": POLICY_HSTRIDE,
    "lottery": POLICY_LOTTERY,
    "eevdf": POLICY_EEVDF,
}
_SOURCES = {None: SOURCE_NONE, "open": SOURCE_OPEN, "closed": SOURCE_CLOSED}
_KINDS = {"fixed": FIXED, "exponential": EXPONENTIAL, "uniform": UNIFORM}
STATES = ("gone", "wait", "ready", "run", "limited")

COUNTER_DTYPE = np.dtype([
    ("state", "u1"), ("cpu", "<i4"), ("weight", "<u4"),
    ("run", "<i8"), ("rdy", "<i8"), ("mlmtd", "<i8"), ("wait", "<i8"), ("elapsed", "<i8"),
    ("switches", "<u8"), ("migrations", "<u8"),
    ("jobs", "<i8"), ("jobs_done", "<u8"), ("job_time", "<i8"),
    ("wakes", "<u8"), ("wake_time", "<i8"), ("wake_most", "<i8"),
])
CPU_DTYPE = np.dtype([("world", "<i4"), ("run", "<i8"), ("idle", "<i8"), ("switches", "<u8")])

cdef class SchedCore:
    """Worlds, CPUs and run queues of one host.

    Parameters
    ----------
    policy : str
        One of POLICIES.
    cpus : int
        How many.
    seed : int
        Of what the policy draws, not 0.
    capacity : int
        Worlds that there is room for at first.
    tick : int, optional
        Of Linux's way of EEVDF, in ns.
    """

    def __init__(self, policy, cpus, seed, capacity, tick=None):
        cdef sched_t *s = &self.s
        cdef uint32_t cpu
        cdef uint64_t mask[MASK_WORDS]
        if self.begun:
            raise InvalidTypeError("this scheduler is initialised already, or failed to be")
        if not isinstance(policy, str) or policy not in POLICIES:
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
        self.policy = policy
        self.free_ids = []
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
            s.cpus[cpu].running = NO_WORLD
            s.cpus[cpu].event = NEVER
            mask[cpu >> 6] |= <uint64_t>1 << (cpu & 63)
        memcpy(s.idle, mask, sizeof(mask))
        s.idle_count = s.cpu_count
        self._grow(capacity)
        if new_queue(s, mask) == MOST_QUEUES:
            raise MemoryError

    def __dealloc__(self):
        free_queues(self.s.queues, self.s.queue_count)
        free(self.s.serves)
        free(self.s.cpus)
        free(self.s.due)
        free(self.s.worlds)
        free(self.s.loads)
        free(self.s.timers)

    cdef sched_t *pointer(self) noexcept nogil:
        return &self.s

    cdef object _check(self):
        if self.s.worlds == NULL:
            raise InvalidTypeError("this scheduler was not initialised")
        # set and read with the GIL held
        if self.busy:
            raise InvalidValueError("this scheduler runs in another thread")

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
        s.capacity = <uint32_t>capacity
        move_timer_base(s, s.now)

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
        """Add a world; `load` is None or (source, work, kind, gap, kind, start, seed).

        A start of None: the first job comes after a gap.
        """
        cdef sched_t *s = &self.s
        cdef load_t l
        cdef uint32_t id, w, slice
        cdef ns_t first = NEVER
        self._check()
        w = as_int(weight, "weight", 1, MOST_WEIGHT)
        slice = as_int(slice_ns, "slice_ns", 1, MOST_SLICE)
        quota, period = self._limit(limit)
        memset(&l, 0, sizeof(l))
        if load is not None:
            source, work, work_kind, gap, gap_kind, start, seed = load
            l.source = _SOURCES[source]
            l.work_kind, l.gap_kind = _KINDS[work_kind], _KINDS[gap_kind]
            l.work = as_int(work, "work_ns", 0 if source is None else 1, 1 << 50)
            l.gap = as_int(gap, "gap_ns", 0 if source is None else 1, 1 << 50)
            l.random = as_int(seed, "seed", 1, 0xFFFFFFFFFFFFFFFF)
            if start is not None:
                first = s.now + <ns_t>as_int(start, "start_ns", 0, 1 << 50)
            elif source is not None:
                first = s.now + draw_time(&l.random, l.gap_kind, l.gap)
        queue = self._queue(affinity)
        if self.free_ids:
            id = self.free_ids.pop()
        else:
            if s.world_count == MOST_WORLDS:
                raise InvalidValueError(f"a host has at most {MOST_WORLDS:,} worlds")
            self._grow(s.world_count + 1)
            id = s.world_count
            s.world_count += 1
        add_world(s, id, queue, w, slice, &l, load is not None, first)
        if quota:
            set_world_limit(s, id, quota, period)
        return id

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
        remove_world(&self.s, id)
        self.free_ids.append(id)

    def block(self, world):
        """Take a world off its CPU or queue until `wake`; jobs may arrive meanwhile.

        Parameters
        ----------
        world : int
            From `add`. One that is blocked already stays so.
        """
        block_world(&self.s, self._world(world))

    def wake(self, world):
        """End what `block` began; the world competes if it has work.

        Parameters
        ----------
        world : int
            From `add`.
        """
        wake_world(&self.s, self._world(world))

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
        if self.s.loads[id].left + <int64_t>work > <int64_t>1 << 60:
            raise InvalidValueError(f"world {id} has {self.s.loads[id].left:,} ns of work already")
        submit_work(&self.s, id, work)

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
        set_world_weight(&self.s, id, as_int(weight, "weight", 1, MOST_WEIGHT))

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
        set_world_queue(&self.s, id, self._queue(affinity))

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
        set_world_limit(&self.s, id, quota, period)

    # --- time ---

    def _run(self, until, most):
        """Let events up to `until` happen, at most `most`, or any number for None."""
        cdef ns_t end
        cdef uint64_t limit = 0xFFFFFFFFFFFFFFFF, count
        self._check()
        end = as_int(until, "until_ns", self.s.now, MOST_TIME)
        if most is not None:
            limit = as_int(most, "events", 0, 0xFFFFFFFFFFFFFFFF)
        self.busy = True
        with nogil:
            count = run_until(&self.s, end, limit)
            if count < limit:
                self.s.now = end
        self.busy = False
        return count

    def step(self):
        """Let the next event happen, and make its time the present.

        Returns
        -------
        bool
            False if nothing will ever happen.
        """
        self._check()
        return run_until(&self.s, MOST_TIME, 1) == 1

    def next_event_time(self):
        """Give the time of the next event in ns; None if nothing will ever happen."""
        cdef ns_t when
        self._check()
        when = next_event(&self.s)
        return None if when == NEVER else when

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
        size = self.s.capacity * (sizeof(world_t) + sizeof(load_t) + 16)
        size += self.s.cpu_count * sizeof(cpu_t) + self.s.cpu_leaves * 16 + sizeof(sched_t)
        for i in range(self.s.queue_count):
            size += self.s.queues[i].leaves * 20 + sizeof(queue_t)
            size += pending_size(&self.s, self.s.queues[i].leaves)
            size += groups_size(&self.s, self.s.queues[i].leaves)
        return size

    # --- counters ---

    def counters(self):
        """Give what each world did up to now, one row for each number.

        Returns
        -------
        ndarray of COUNTER_DTYPE
            ``state`` (an index into `STATES`), ``cpu`` (where it runs or ran last, or -1),
            ``weight``; times in ns: ``run``, ``rdy``, ``mlmtd`` (it would run, but has used up
            its limit), ``wait``, which together are ``elapsed`` since it was added; ``switches``
            (it came to run after another world or idleness), ``migrations``; ``jobs`` in the
            system, ``jobs_done``, ``job_time`` (the sum of the times that jobs spent in the
            system); ``wakes`` that led to a run, ``wake_time`` from them to the run, and the
            longest. What is counted begins when the world is added. The row of a removed world
            keeps its last values.
        """
        cdef sched_t *s = &self.s
        cdef world_t *w
        cdef load_t *l
        cdef uint32_t i
        cdef ns_t part
        cdef int64_t[:, ::1] into
        table = np.zeros((s.world_count, 16), np.int64)
        into = table
        for i in range(s.world_count):
            w = &s.worlds[i]
            l = &s.loads[i]
            part = 0 if w.state == GONE else s.now - w.since
            into[i, 0] = w.state
            into[i, 1] = -1 if w.cpu == NO_CPU else w.cpu
            into[i, 2] = w.weight
            into[i, 3] = w.run + (part if w.state == RUN else 0)
            into[i, 4] = w.rdy + (part if w.state == READY else 0)
            into[i, 5] = w.mlmtd + (part if w.state == LIMITED else 0)
            into[i, 6] = w.wait + (part if w.state == WAIT else 0)
            into[i, 7] = (w.since if w.state == GONE else s.now) - l.born
            into[i, 8] = <int64_t>w.switches
            into[i, 9] = <int64_t>w.migrations
            into[i, 10] = l.jobs
            into[i, 11] = <int64_t>l.done
            into[i, 12] = l.area + (0 if w.state == GONE else l.jobs * (s.now - l.area_since))
            into[i, 13] = <int64_t>l.wakes
            into[i, 14] = l.wake_sum
            into[i, 15] = l.wake_most
        rows = np.zeros(s.world_count, COUNTER_DTYPE)
        for column, name in enumerate(COUNTER_DTYPE.names):
            rows[name] = table[:, column]
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
        plain.serves, plain.due, plain.timers, plain.timeline = NULL, NULL, NULL, NULL
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
            (<char *>s.cpus)[:s.cpu_count * sizeof(cpu_t)],
            (<char *>s.due)[:2 * s.cpu_leaves * sizeof(uint64_t)],
            queues,
            list(self.free_ids),
        )

    def _set_state(self, state):
        """Back to what `_state` gave, of a scheduler with the same policy and CPUs."""
        cdef sched_t *s = &self.s
        cdef sched_t plain
        cdef queue_t *made
        cdef queue_t q
        cdef bytes kept, worlds, loads, cpus, due, nodes, owners, pending, groups
        cdef uint32_t count
        self._check()
        kept, worlds, loads, cpus, due, queues, free_ids = state
        if len(kept) == sizeof(sched_t):
            memcpy(&plain, <const char *>kept, sizeof(sched_t))
        if (len(kept) != sizeof(sched_t) or plain.policy != s.policy
                or plain.cpu_count != s.cpu_count
                or len(worlds) != plain.world_count * sizeof(world_t)
                or len(loads) != plain.world_count * sizeof(load_t)
                or len(cpus) != s.cpu_count * sizeof(cpu_t)
                or len(due) != 2 * s.cpu_leaves * sizeof(uint64_t)
                or len(queues) != plain.queue_count):
            raise InvalidValueError("this snapshot is of a scheduler with other arguments")
        self._grow(max(1, plain.world_count))
        made = <queue_t *>calloc(plain.queue_count, sizeof(queue_t))
        if made == NULL:
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
                raise MemoryError
            memcpy(q.node, <const char *>nodes, 2 * q.leaves * sizeof(uint64_t))
            memcpy(q.owner, <const char *>owners, q.leaves * sizeof(uint32_t))
            memcpy(q.pending, <const char *>pending, pending_size(s, q.leaves))
            memcpy(q.groups, <const char *>groups, groups_size(s, q.leaves))
            made[count] = q
            count += 1
        free_queues(s.queues, s.queue_count)
        plain.queues, plain.serves, plain.cpus, plain.due = made, s.serves, s.cpus, s.due
        plain.worlds, plain.loads, plain.timers = s.worlds, s.loads, s.timers
        plain.capacity, plain.timeline = s.capacity, s.timeline
        s[0] = plain
        memcpy(s.worlds, <const char *>worlds, len(worlds))
        memcpy(s.loads, <const char *>loads, len(loads))
        memcpy(s.cpus, <const char *>cpus, len(cpus))
        memcpy(s.due, <const char *>due, len(due))
        move_timer_base(s, s.timer_base)
        self.free_ids = list(free_ids)
        if self.recorder is not None:
            self._begin_recording()
        if not set_serves(s):
            raise MemoryError


cdef void free_queues(queue_t *queues, uint32_t count) noexcept nogil:
    cdef uint32_t i
    for i in range(count):
        free_queue(&queues[i])
    free(queues)


cdef size_t pending_size(const sched_t *s, uint32_t leaves) noexcept nogil:
    return (2 * <size_t>leaves if has_deadlines(s) else 1) * sizeof(uint64_t)


cdef size_t groups_size(const sched_t *s, uint32_t leaves) noexcept nogil:
    return (2 * <size_t>leaves if s.policy == POLICY_HSTRIDE else 1) * sizeof(hnode_t)
