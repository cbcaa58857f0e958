"""What the worlds and CPUs of one host did: counters as arrays."""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

import numpy as np

from pyvirt._core.arrays cimport as_int
from pyvirt._core.sched.owner cimport Owner
from pyvirt._core.sched.pace cimport work_in
from pyvirt._core.sched.state cimport (
    COSTOP,
    FULL_SPEED,
    GONE,
    HELD,
    LATENCY_BUCKETS,
    LIMITED,
    NEVER,
    NO_CPU,
    NO_NODE,
    NO_WORLD,
    PAUSE_SWAP,
    READY,
    RUN,
    WAIT,
    cpu_t,
    load_t,
    pace_t,
    sched_t,
    world_t,
)
from pyvirt._core.sched.topology cimport DISTANCES
from pyvirt._core.sched.work cimport NO_RECORD, PHASE_SPIN, RESPONSE_BUCKETS, work_t
from pyvirt._core.types cimport ns_t

from pyvirt.errors import InvalidValueError

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


cdef class Counted(Owner):
    """What worlds and CPUs did up to now, as arrays."""

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
        return self._sum_of_hists(worlds, False)

    def wake_counts(self, worlds=None):
        """Give the histogram of the times from a wake-up to the run, of some worlds.

        Parameters
        ----------
        worlds : int or iterable of int, optional
            Worlds that were added with ``wakes=True``; their counts are added up. Default: all
            such worlds.

        Returns
        -------
        ndarray of uint64
            Counts, in the buckets of `response_counts`. `latency_counts` has those of all worlds,
            in coarser ones.

        Raises
        ------
        InvalidValueError
            A world whose wake-ups are not recorded.
        """
        return self._sum_of_hists(worlds, True)

    cdef object _sum_of_hists(self, object worlds, bint wakes):
        """Of these worlds, or of all that have one."""
        cdef uint32_t id, hist
        cdef size_t j
        cdef uint64_t *from_
        counts = np.zeros(RESPONSE_BUCKETS, np.uint64)
        cdef uint64_t[::1] into = counts
        self._check()
        if worlds is None:
            worlds = [i for i in range(self.s.world_count) if self._hist(i, wakes) != NO_RECORD]
        elif not hasattr(worlds, "__iter__"):
            worlds = [worlds]
        for world in worlds:
            id = self._world(world)
            hist = self._hist(id, wakes)
            if hist == NO_RECORD:
                what = "wakes" if wakes else "responses"
                raise InvalidValueError(f"world {id} was not added with {what}=True")
            from_ = &self.s.more.hists[<size_t>hist * RESPONSE_BUCKETS]
            for j in range(RESPONSE_BUCKETS):
                into[j] += from_[j]
        return counts

    cdef uint32_t _hist(self, uint32_t id, bint wakes) noexcept:
        """The number of a world's histogram, of its wake-ups or responses, or NO_RECORD."""
        cdef load_t *l = &self.s.loads[id]
        if wakes:
            return l.wake_hist
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
