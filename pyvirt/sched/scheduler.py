"""The scheduler of one host's CPUs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from pyvirt._core.sched.engine import SchedCore
from pyvirt._core.sched.plug import Plug
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.sched.demand import Demand
from pyvirt.sched.loads import described, team
from pyvirt.sched.policies import PLUGS
from pyvirt.sched.responses import percentiles
from pyvirt.sched.timeline import Timeline
from pyvirt.sched.topology import Topology
from pyvirt.sched.workloads import Always, Barrier, Lock, Workload

__all__ = ["VM", "Scheduler", "SchedulerSnapshot", "latency_bounds"]

Policy: TypeAlias = (
    Literal[
        "rr",
        "stride",
        "hstride",
        "lottery",
        "eevdf",
        "fixed",
        "esx",
        "credit",
        "credit2",
        "rtds",
        "bvt",
        "cfs",
        "hyperv",
        "percpu",
    ]
    | Plug
)

_SEED_END = 1 << 64


class SchedulerSnapshot:
    """The state of a scheduler at some time, for `Scheduler.restore`; it can be pickled."""

    __slots__ = ("_made", "_state")

    def __init__(self, made: Any, state: Any) -> None:
        self._made = made
        self._state = state


class VM:
    """A virtual machine: its number, and those of its worlds when it was added."""

    __slots__ = ("number", "worlds")

    def __init__(self, number: int, worlds: list[int]) -> None:
        self.number = number
        self.worlds = worlds

    def __repr__(self) -> str:
        return f"<VM {self.number} worlds={self.worlds}>"


class Scheduler(SchedCore):
    """Worlds (virtual CPUs, tasks) that share the CPUs of one host under a policy.

    Time is an integer number of nanoseconds, from 0. Nothing happens but in `run`, `advance`
    and `step`; whatever else is called takes effect at the present time.

    Parameters
    ----------
    cpus : int, optional
        Number of CPUs, up to 1,024; default: those of the topology, or 1.
    policy : str or Plug, default "stride"
        ``rr``, ``stride``, ``hstride``, ``lottery``, ``eevdf``: see `Notes`. Or the name of a
        plug-in policy of `pyvirt.sched.policies`, or one that was made with arguments.
    quantum_ns : int, default 10 ms
        Slice of a world that is added without one of its own.
    linux_tick_ns : int, optional
        For ``eevdf``: as Linux does it, which looks at the clock at ticks of this length.
    topology : Topology, optional
        Which CPUs share a core, a cache, a NUMA node, a socket; default: each CPU is a core, and
        they share one cache. A world that wakes up prefers an idle CPU near its last one.
    rng : int or numpy.random.Generator, optional
        Seed of workloads and of policies that draw; default 0. Each world draws from a state of
        its own (xorshift64*), so that what it does is independent of the others.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        For what cannot be; the message names the argument.

    Notes
    -----
    The worlds that may run on the same set of CPUs share one run queue, from which these CPUs
    take the best; a CPU that serves several queues takes the best of all. A world that becomes
    ready gets an idle CPU at once: its last one, else one of a core whose threads are all idle,
    else an idle thread; of these the nearest to its last one, then the lowest number. At equal
    times limits and jobs come first, by the number of the world, then CPUs, by their number; and
    of equal worlds the one with the lowest number runs.

    No world interrupts another before the end of its slice, but under plug-in policies, which
    decide that, and where a world that becomes ready is to run, by themselves.

    Worlds belong to virtual machines (`add_vm`); `add` makes one of its own for a world. The
    policies named above know weights of worlds alone.

    ``rr`` is round robin: first in, first out. ``stride`` is that of Waldspurger and Weihl
    (MIT/LCS/TM-528, 1995): a world's *pass* grows with its CPU time over its weight, and the
    least pass runs; one that stops to compete, and rejoins, keeps what it was ahead of the
    queue's pass, and a new one joins one slice ahead. Passes are exact: remainders are kept.
    ``hstride`` is hierarchical stride (the same): worlds are leaves of a balanced binary tree.
    ``lottery`` (Waldspurger and Weihl, OSDI 1994) draws a ticket for each slice, without
    compensation tickets. ``eevdf`` (Stoica and Abdel-Wahab, TR-95-22, 1995) runs the world with
    the earliest deadline of those whose virtual time is not after the mean of all; with
    `linux_tick_ns` it looks at the clock at ticks, and the first deadline of a new world is half
    a slice away.

    Virtual times of the worlds that are ready on the same CPUs are at most 8.59 s of CPU time at
    weight 1 apart; who is ahead by more is put back to that. It takes weights that ask for more
    than one CPU to get there.

    `fast_forward` (an attribute, True at first) lets `run` leap over what repeats itself: with
    ``rr``, ``stride`` and ``eevdf``, workloads that draw nothing, and queues that share no CPU, it
    looks for two times at which all that decides what follows is the same, and multiplies what came
    to pass between them. Counters, clocks and what follows are the same to the nanosecond as
    without. So it does with ``esx``, where there are no limits of VMs and pools, home nodes
    or `balance_ns`, and no siblings are co-scheduled (``strict``, ``relaxed``), and with
    ``credit2``, where no VM has a cap.

    A world's time in the states ``run``, ``rdy``, ``mlmtd`` and ``wait`` adds up to the time
    since it was added. esxtop's %RDY contains %MLMTD; here they are apart.

    Examples
    --------
    >>> from pyvirt.sched import Scheduler
    >>> host = Scheduler(cpus=1, policy="stride")
    >>> web, batch = host.add(weight=2000), host.add(weight=1000)
    >>> host.run(until_ns=3_000_000_000)
    300
    >>> (host.counters()["run"] // 10**6).tolist()
    [2000, 1000]
    """

    def __init__(
        self,
        cpus: int | None = None,
        *,
        policy: Policy = "stride",
        quantum_ns: int = 10_000_000,
        linux_tick_ns: int | None = None,
        topology: Topology | None = None,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        if rng is None or isinstance(rng, (int, np.integer)):
            if rng is not None and rng < 0:
                raise InvalidValueError(f"rng must not be negative, got {rng}")
            rng = np.random.default_rng(0 if rng is None else rng)
        if not isinstance(rng, np.random.Generator):
            raise InvalidTypeError(f"rng must be a seed or a numpy Generator, got {rng!r:.80}")
        if topology is None:
            numbers = None
            cpus = 1 if cpus is None else cpus
        elif isinstance(topology, Topology):
            numbers = (topology._array(), topology._speeds(), topology._costs())
            if cpus is not None and cpus != topology.cpus:
                raise InvalidValueError(
                    f"cpus is {cpus!r:.80}, and the topology has {topology.cpus} CPUs"
                )
            cpus = topology.cpus
        else:
            raise InvalidTypeError(f"topology must be a Topology, got {topology!r:.80}")
        self._rng = rng
        self._made = (policy, cpus, linux_tick_ns, topology)
        self.quantum_ns = quantum_ns
        if isinstance(policy, str) and policy in PLUGS:
            policy = PLUGS[policy]()
        super().__init__(policy, cpus, self._seed(), 4, linux_tick_ns, numbers)

    def _seed(self) -> int:
        return int(self._rng.integers(1, _SEED_END, dtype=np.uint64, endpoint=False))

    def add(
        self,
        workload: Workload | None = None,
        *,
        weight: int = 1,
        slice_ns: int | None = None,
        affinity: Iterable[int] | None = None,
        limit: tuple[int, int] | None = None,
        responses: bool = False,
        wakes: bool = False,
    ) -> int:
        """Add a world at the present time.

        Parameters
        ----------
        workload : Always, Jobs, OnOff, Poisson, Periodic or Demand, optional
            What it does; default: it always wants the CPU.
        weight : int, default 1
            Its shares, 1 to 2**20.
        slice_ns : int, optional
            How long it may run at a time; default: the scheduler's quantum.
        affinity : iterable of int, optional
            The CPUs that it may run on; default: all.
        limit : (int, int), optional
            Quota and period in ns: it runs at most `quota` in each period, which begin now.
        responses : bool, default False
            Whether the response times of its jobs are recorded, which takes 11 kB; see
            `response_percentiles`.
        wakes : bool, default False
            Whether the times from its wake-ups to its runs are recorded, which takes 11 kB; see
            `wake_percentiles`.

        Returns
        -------
        int
            Its number, which the other methods take. Numbers of removed worlds are given again.

        Raises
        ------
        InvalidValueError, InvalidTypeError
            For what cannot be; nothing is added then.
        """
        return self._add(
            weight,
            self.quantum_ns if slice_ns is None else slice_ns,
            affinity,
            described(Always() if workload is None else workload, self._seed, responses=responses),
            limit,
            wakes,
        )

    def add_vm(
        self,
        vcpus: int,
        workload: Workload | Sequence[Workload | None] | None = None,
        *,
        weight: int = 1,
        reservation: int | None = None,
        limit: int | None = None,
        slice_ns: int | None = None,
        affinity: Iterable[int] | None = None,
        responses: bool = False,
        wakes: bool = False,
        **params: int,
    ) -> VM:
        """Add a virtual machine at the present time: worlds that belong together.

        Parameters
        ----------
        vcpus : int
            How many worlds.
        workload : Always, Jobs, OnOff, ..., Barrier or Lock, or a sequence of them, optional
            What each world does, or each its own; default: it always wants the CPU. A `Demand`
            that is not in a sequence is that of the whole. Worlds with the same object of `Barrier`
            or `Lock` share it.
        weight : int, default 1
            Shares of the whole, 1 to 2**20; each world's weight is its equal part, at least 1.
        reservation, limit : int, optional
            CPU time in ns per second of time, of the whole, for policies that know of it; the
            limit of single worlds is that of `add` and `set_limit`.
        slice_ns, affinity
            Of each world, as in `add`.
        responses : bool, default False
            As in `add`, for each world that has jobs.
        wakes : bool, default False
            As in `add`, for each world.
        **params : int
            What the policy declares as parameters of virtual machines.

        Returns
        -------
        VM
            Its number and those of its worlds.

        Raises
        ------
        InvalidValueError, InvalidTypeError
            For what cannot be; nothing is added then.
        """
        if isinstance(vcpus, bool) or not isinstance(vcpus, (int, np.integer)):
            raise InvalidTypeError(f"vcpus must be an integer, got {vcpus!r:.80}")
        if not 1 <= vcpus <= 1 << 20:
            raise InvalidValueError(f"vcpus must be 1 to 1,048,576, got {vcpus}")
        works: Sequence[Workload | None]
        if isinstance(workload, Demand):
            works = workload.split(int(vcpus))
        elif workload is None or not isinstance(workload, Sequence):
            works = [workload] * int(vcpus)
        else:
            works = workload
        if len(works) != vcpus:
            raise InvalidValueError(
                f"workload must be one for each of the {vcpus} worlds, got {len(works)}"
            )
        teams: dict[int, int] = {}
        try:
            for work in works:
                if isinstance(work, (Barrier, Lock)) and id(work) not in teams:
                    teams[id(work)] = self._add_team(*team(work), self._seed())
            loads = [
                described(
                    Always() if work is None else work,
                    self._seed,
                    teams.get(id(work)),
                    responses and work is not None and not isinstance(work, Always),
                )
                for work in works
            ]
            number, worlds = self._add_vm(
                weight,
                reservation,
                limit,
                list(params.items()),
                self.quantum_ns if slice_ns is None else slice_ns,
                affinity,
                loads,
                None,
                wakes,
            )
        except BaseException:
            for number in teams.values():
                self._drop_team(number)
            raise
        return VM(number, worlds)

    def set_vm(
        self,
        vm: VM | int,
        *,
        weight: int | None = None,
        reservation: int | None = None,
        limit: int | None = None,
        **params: int,
    ) -> None:
        """Change what is given of a virtual machine, at the present time.

        Parameters
        ----------
        vm : VM or int
            From `add_vm`.
        weight : int, optional
            Shares of the whole; its worlds get equal parts.
        reservation, limit : int, optional
            CPU time in ns per second of time; a limit of -1: none.
        **params : int
            What the policy declares.
        """
        number = vm.number if isinstance(vm, VM) else vm
        self._set_vm(number, weight, reservation, limit, list(params.items()))

    def set_pool(
        self,
        pool: int,
        *,
        shares: float | None = None,
        reservation: int | None = None,
        limit: int | None = None,
    ) -> None:
        """Change what is given of a resource pool of the policy ``esx``, at the present time.

        Parameters
        ----------
        pool : int
            Its number, in the order of `Esx.pools`.
        shares : float, optional
            Against its siblings.
        reservation, limit : int, optional
            CPU time in ns per second of time; a limit of -1: none. What was used of the present
            period stays used.

        Raises
        ------
        InvalidValueError, InvalidTypeError
            Another policy, or what cannot be; nothing is changed then.
        """
        from pyvirt._core.sched.policies.esx import set_pool

        set_pool(self, pool, shares, reservation, limit)

    def run(self, until_ns: int, *, events: int | None = None) -> int:
        """Let time pass.

        Parameters
        ----------
        until_ns : int
            Events up to and at this time happen, and it becomes the present.
        events : int, optional
            Stop after so many events, at the time of the last.

        Returns
        -------
        int
            Events that happened.

        Notes
        -----
        The GIL is not held: several schedulers can run in threads. One that runs refuses what
        other threads ask of it, but for its counters, which may then be of no one moment.
        """
        return self._run(until_ns, events)

    def advance(self, to_ns: int) -> int:
        """Let time pass up to `to_ns`, as `run` does: with `next_event_time`, for co-simulation."""
        return self._run(to_ns, None)

    def response_percentiles(
        self,
        worlds: VM | int | Iterable[int] | None = None,
        q: float | Sequence[float] = (50, 95, 99, 99.9),
    ) -> npt.NDArray[np.float64]:
        """Give percentiles of the response times of jobs that are done.

        Parameters
        ----------
        worlds : VM, int or iterable of int, optional
            Worlds that were added with ``responses=True``, all together; default: all such worlds.
        q : float or sequence of float, default (50, 95, 99, 99.9)
            In percent, more than 0 and up to 100.

        Returns
        -------
        ndarray of float64
            Times in ns from a job's arrival to its end, at most 1/64 (1.6 %) off; NaN without
            jobs. The longest is exact in ``work_counters()["response_most"]``, and the mean is
            ``job_time`` over ``jobs_done`` of `counters`, if no job is in the system.
        """
        numbers = worlds.worlds if isinstance(worlds, VM) else worlds
        return percentiles(self.response_counts(numbers), q)

    def wake_percentiles(
        self,
        worlds: VM | int | Iterable[int] | None = None,
        q: float | Sequence[float] = (50, 95, 99, 99.9),
    ) -> npt.NDArray[np.float64]:
        """Give percentiles of the times from a wake-up to the run.

        Parameters
        ----------
        worlds : VM, int or iterable of int, optional
            Worlds that were added with ``wakes=True``, all together; default: all such worlds.
        q : float or sequence of float, default (50, 95, 99, 99.9)
            In percent, more than 0 and up to 100.

        Returns
        -------
        ndarray of float64
            Times in ns, at most 1/64 (1.6 %) off; NaN without wake-ups that led to a run. Number,
            sum and longest are exact in `counters`: ``wakes``, ``wake_time``, ``wake_most``.
        """
        numbers = worlds.worlds if isinstance(worlds, VM) else worlds
        return percentiles(self.wake_counts(numbers), q)

    def timeline(self, *, clear: bool = False) -> Timeline:
        """Give what was recorded since `record`.

        Parameters
        ----------
        clear : bool, default False
            Forget it, and go on recording from here: for long runs, a part at a time.

        Raises
        ------
        InvalidValueError
            If nothing is recorded.
        """
        switches, before, start, lost = self._switches(clear)
        return Timeline(switches, before, start, self.now_ns, lost)

    # --- state ---

    def snapshot(self) -> SchedulerSnapshot:
        """Give the state of worlds, CPUs, queues and random numbers."""
        return SchedulerSnapshot(
            self._made, (self._state(), self._rng.bit_generator.state, self.quantum_ns)
        )

    def restore(self, snapshot: SchedulerSnapshot) -> None:
        """Go back to a snapshot of this scheduler, or of one with the same policy and CPUs."""
        if not isinstance(snapshot, SchedulerSnapshot):
            raise InvalidTypeError(f"snapshot must be a SchedulerSnapshot, got {snapshot!r:.80}")
        if snapshot._made != self._made:
            raise InvalidValueError("this snapshot is of a scheduler with other arguments")
        state, drawn, quantum = snapshot._state
        self._set_state(state)
        # A generator that was passed in stays the caller's.
        bits = getattr(np.random, drawn["bit_generator"])()
        bits.state = drawn
        self._rng = np.random.Generator(bits)
        self.quantum_ns = quantum

    def __copy__(self) -> Self:
        return self._twin()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self._twin()

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self._made, self.snapshot())

    def _twin(self) -> Self:
        twin: Self = _rebuild(type(self), self._made, self.snapshot())
        return twin

    def __repr__(self) -> str:
        worlds = int(np.count_nonzero(self.counters()["state"]))
        return f"<Scheduler {self.policy} cpus={self.cpus} worlds={worlds} now={self.now_ns} ns>"


def _rebuild(kind: Any, made: Any, snapshot: SchedulerSnapshot) -> Any:
    """Make a scheduler in a given state, for unpickling and copying."""
    policy, cpus, tick, topology = made
    if isinstance(policy, Plug):
        policy = policy._twin()
    twin = kind.__new__(kind)
    Scheduler.__init__(twin, cpus, policy=policy, linux_tick_ns=tick, topology=topology)
    twin.restore(snapshot)
    return twin


def latency_bounds() -> npt.NDArray[np.int64]:
    """Give where each bucket of `Scheduler.latency_counts` begins, in ns.

    Returns
    -------
    ndarray of int64, shape (512,)
        Up to 16 ns one bucket a nanosecond, then eight for each power of two: a latency is known
        to one part in eight. Bounds beyond 2**63 are given as 2**63 - 1.
    """
    first = list(range(16))
    later = [(8 + i) << shift for shift in range(1, 63) for i in range(8)]
    return np.array([min(b, (1 << 63) - 1) for b in first + later][:512], np.int64)
