"""`pyvirt.sched.Scheduler`: events a second, against SimPy, SimSo and a heap in plain Python."""

from __future__ import annotations

import heapq
import statistics
import time

import numpy as np

from pyvirt.sched import (
    Barrier,
    Demand,
    Lock,
    LogNormal,
    OnOff,
    Periodic,
    Poisson,
    Scheduler,
    run_hosts,
)

from . import simso_peer
from .timing import paired, seconds, target, unit

QUANTUM = 1_000_000
FOREVER = 1 << 60
REPEATS = 5


def weights(worlds: int) -> list[int]:
    return np.random.default_rng(1).integers(1, 1000, worlds).tolist()


def host(policy, worlds: int, cpus: int) -> Scheduler:
    made = Scheduler(cpus, policy=policy, quantum_ns=QUANTUM)
    made.fast_forward = False  # each event is to happen
    for weight in weights(worlds):
        made.add(weight=weight)
    made.run(FOREVER, events=2 * worlds)
    return made


def rate(made: Scheduler, events: int) -> float:
    """Million events a second of CPU time, the best of some runs."""
    return (
        events
        / min(seconds(lambda: made.run(FOREVER, events=events)) for _ in range(REPEATS))
        / 1e6
    )


class SchedEvents:
    """Ends of slices, with all counters kept."""

    params = ["64 on 8", "1000 on 8", "1000 on 64", "100000 on 64"]
    param_names = ["worlds on CPUs"]

    def rate(self, policy: str, parameter: str) -> float:
        worlds, cpus = map(int, parameter.split(" on "))
        return rate(host(policy, worlds, cpus), 2_000_000)

    @target(">=", {"1000 on 8": 40.0, "1000 on 64": 30.0, "100000 on 64": 6.0})
    @unit("million events/s")
    def track_stride(self, parameter):
        return self.rate("stride", parameter)

    @unit("million events/s")
    def track_rr(self, parameter):
        return self.rate("rr", parameter)

    @unit("million events/s")
    def track_hstride(self, parameter):
        return self.rate("hstride", parameter)

    @unit("million events/s")
    def track_lottery(self, parameter):
        return self.rate("lottery", parameter)

    @unit("million events/s")
    def track_eevdf(self, parameter):
        return self.rate("eevdf", parameter)


def simpy_round_robin(worlds: int, cpus: int, quanta: int) -> None:
    """Worlds that take turns on CPUs: a process each, the CPUs a resource."""
    try:
        import simpy
    except ImportError:
        raise NotImplementedError("simpy is not installed") from None
    env = simpy.Environment()
    machine = simpy.Resource(env, cpus)

    def world():
        while True:
            with machine.request() as turn:
                yield turn
                yield env.timeout(QUANTUM)

    for _ in range(worlds):
        env.process(world())
    env.run(until=QUANTUM * quanta // cpus + 1)


def heap_stride(worlds: int, cpus: int, quanta: int) -> list[int]:
    """Stride with two heaps in plain Python: one of passes, one of ends of slices."""
    strides = [QUANTUM * 1024 // weight for weight in weights(worlds)]
    run = [0] * worlds
    ready = [(stride, world) for world, stride in enumerate(strides)]
    heapq.heapify(ready)
    ends = [(QUANTUM, cpu, *heapq.heappop(ready)) for cpu in range(cpus)]
    heapq.heapify(ends)
    for _ in range(quanta):
        now, cpu, passed, world = ends[0]
        run[world] += QUANTUM
        passed, world = heapq.heappushpop(ready, (passed + strides[world], world))
        heapq.heapreplace(ends, (now + QUANTUM, cpu, passed, world))
    return run


class SchedPeers:
    """1,000 worlds on 8 CPUs, the same number of slices, in the same run."""

    timeout = 120
    peer_quanta = 20_000
    ours = 2_000_000

    def ratio(self, policy: str, peer) -> float:
        made = host(policy, 1000, 8)
        pair = paired(
            lambda: made.run(FOREVER, events=self.ours),
            lambda: peer(1000, 8, self.peer_quanta),
        )
        return pair.ratio * self.ours / self.peer_quanta

    @target(">=", 100.0)
    @unit("times SimPy's slices a second, round robin")
    def track_over_simpy(self):
        return self.ratio("rr", simpy_round_robin)

    @unit("times the slices a second of heaps in Python, stride")
    def track_over_python_heaps(self):
        return self.ratio("stride", heap_stride)


class SchedMemory:
    """Room that each of 100,000 worlds takes."""

    @unit("bytes")
    def track_bytes_per_world(self):
        return host("stride", 100_000, 64).nbytes / 100_000


class SchedWorkloads:
    """Events of 1,000 worlds with work of their own on 8 CPUs, round robin."""

    def rate(
        self, workloads: list, vcpus: int = 1, *, responses: bool = True, wakes: bool = False
    ) -> float:
        made = Scheduler(8, policy="rr", quantum_ns=QUANTUM)
        for _ in range(1000 // (vcpus * len(workloads))):
            for workload in workloads:
                made.add_vm(vcpus, workload, responses=responses, wakes=wakes)
        made.run(FOREVER, events=20_000)
        return rate(made, 1_000_000)

    @unit("million events/s")
    def track_on_off_and_poisson(self):
        return self.rate([OnOff(QUANTUM, 100 * QUANTUM), Poisson(QUANTUM, 120 * QUANTUM)])

    @unit("million events/s")
    def track_without_histograms(self):
        return self.rate([OnOff(QUANTUM, 100 * QUANTUM)], responses=False)

    @unit("million events/s")
    def track_wakes(self):
        return self.rate([OnOff(QUANTUM, 100 * QUANTUM)], responses=False, wakes=True)

    @unit("million events/s")
    def track_lognormal(self):
        return self.rate([Poisson(LogNormal(QUANTUM, 1.0), 120 * QUANTUM)])

    @unit("million events/s")
    def track_demand(self):
        return self.rate([Demand.sampled([0.002, 0.01], 1000 * QUANTUM, repeat=True)])

    @unit("million events/s")
    def track_barriers(self):
        return self.rate([Barrier(QUANTUM, spin_ns=0)], 4)

    @unit("million events/s")
    def track_locks(self):
        return self.rate([Lock(QUANTUM, QUANTUM // 9, lock="test_and_set")], 4)


class SchedSimSo:
    """64 periodic tasks on 8 CPUs for a second, CPU time against CPU time.

    SimSo under its global EDF, which prints (to nowhere here), and under PD2, which shares fairly;
    here stride, with slices of 1 ms. All work is done within its period in all of them.
    """

    timeout = 300
    params = ["EDF", "PD2"]
    param_names = ["SimSo's scheduler"]

    def ours(self) -> Scheduler:
        made = Scheduler(simso_peer.CPUS, policy="stride", quantum_ns=simso_peer.MS)
        for work, period in simso_peer.tasks():
            made.add(Periodic(work, period))
        return made

    @unit("times SimSo's simulated time in a second of CPU time")
    def track_over_simso(self, scheduler):
        end = simso_peer.LENGTH_MS * simso_peer.MS - 1
        times = []
        for _ in range(21):
            made = self.ours()
            times.append(seconds(lambda made=made: made.run(end)))
        peer = simso_peer.simso(scheduler)
        done = int(made.counters()["jobs_done"].sum())
        # What is not done yet at the end differs, by a job of each task at most.
        assert abs(peer["jobs"] - done) <= simso_peer.TASKS
        return peer["seconds"] / statistics.median(times)


class SchedTimeline:
    """What it costs to record the last 10,000 switches, of 1,000 worlds on 8 CPUs."""

    timeout = 120
    events = 2_000_000

    @unit("times the time without")
    def track_recording(self):
        off, on = host("stride", 1000, 8), host("stride", 1000, 8)
        on.record(ring=10_000)
        pair = paired(
            lambda: off.run(FOREVER, events=self.events),
            lambda: on.run(FOREVER, events=self.events),
        )
        return pair.ratio


class SchedHosts:
    """A million worlds on 1,000 hosts of 16 CPUs, in as many threads as there are CPUs."""

    timeout = 300

    @unit("million events/s of wall time")
    def track_million_worlds(self):
        hosts = [host("stride", 1000, 16) for _ in range(1000)]
        start = max(each.now_ns for each in hosts)
        events = 0

        def run() -> None:
            nonlocal events
            events = int(run_hosts(hosts, start + 500 * QUANTUM).sum())

        elapsed = seconds(run, time.perf_counter)
        return events / elapsed / 1e6
