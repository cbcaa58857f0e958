"""`pyvirt.sched.Scheduler`: events a second, against SimPy and a heap in plain Python."""

from __future__ import annotations

import heapq

import numpy as np

from pyvirt.sched import Numa, PerCpu, Scheduler, Topology

from .timing import paired, seconds, target, unit

QUANTUM = 1_000_000
FOREVER = 1 << 60
REPEATS = 5


def weights(worlds: int) -> list[int]:
    return np.random.default_rng(1).integers(1, 1000, worlds).tolist()


def host(policy: str, worlds: int, cpus: int) -> Scheduler:
    made = Scheduler(cpus, policy=policy, quantum_ns=QUANTUM)
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


class SchedPerCpu:
    """Ends of slices with a queue for each CPU, two threads a core, and home nodes."""

    params = ["1000 on 8", "1000 on 64"]
    param_names = ["worlds on CPUs"]

    def made(self, parameter: str, threads: int, numa: Numa | None) -> Scheduler:
        worlds, cpus = map(int, parameter.split(" on "))
        topology = Topology(sockets=2, cores=cpus // 2 // threads, threads=threads)
        policy = PerCpu(timeslice_ns=QUANTUM, numa=numa)
        made = Scheduler(topology=topology, policy=policy)
        for weight in weights(worlds):
            made.add(weight=weight)
        made.run(FOREVER, events=2 * worlds)
        return made

    @unit("million events/s")
    def track_plain(self, parameter):
        return rate(self.made(parameter, 1, None), 1_000_000)

    @unit("million events/s")
    def track_threads_and_homes(self, parameter):
        return rate(self.made(parameter, 2, Numa()), 1_000_000)
