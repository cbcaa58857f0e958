"""Policies of `pyvirt.sched` that are plugged in, and policies from outside: events a second."""

from __future__ import annotations

import collections
import ctypes
import pathlib
import subprocess
import sys

from pyvirt.sched import (
    Bvt,
    Cfs,
    Esx,
    HyperV,
    NativePolicy,
    Numa,
    PerCpu,
    PythonPolicy,
    Scheduler,
    Topology,
    get_include,
)

from .sched import FOREVER, QUANTUM, host, rate, simpy_round_robin, weights
from .timing import paired, seconds, target, unit


def esx_host(worlds: int, cpus: int, threads: int = 1, **policy) -> Scheduler:
    """VMs of 1, 2 and 4 vCPUs with drawn shares, every fourth with a limit that it reaches."""
    topology = Topology(sockets=2, cores=cpus // 2 // threads, threads=threads)
    made = Scheduler(topology=topology, policy=Esx(quantum_ns=QUANTUM, **policy))
    shares = iter(weights(worlds))
    added = 0
    while added < worlds:
        number = len(made.counters()) and int(made.counters()["vm"][-1]) + 1
        vcpus = min((1, 2, 4)[number % 3], worlds - added)
        limit = cpus * vcpus * 10**9 // (2 * worlds) if number % 4 == 0 else None
        made.add_vm(vcpus, weight=vcpus * next(shares), limit=limit)
        added += vcpus
    made.run(FOREVER, events=4 * worlds)
    return made


class SchedEsx:
    """The ESX policy: ends of slices and of limits, skews, with all counters kept."""

    params = ["1000 on 8", "1000 on 64"]
    param_names = ["worlds on CPUs"]

    def rate(self, parameter: str, threads: int = 1, **policy) -> float:
        worlds, cpus = map(int, parameter.split(" on "))
        return rate(esx_host(worlds, cpus, threads, **policy), 1_000_000)

    @target(">=", {"1000 on 64": 10.0})
    @unit("million events/s")
    def track_relaxed(self, parameter):
        return self.rate(parameter)

    @target(">=", {"1000 on 64": 10.0})
    @unit("million events/s")
    def track_relaxed_with_threads(self, parameter):
        return self.rate(parameter, threads=2)

    @unit("million events/s")
    def track_strict(self, parameter):
        return self.rate(parameter, cosched="strict")

    @unit("million events/s")
    def track_balance(self, parameter):
        return self.rate(parameter, cosched="balance")

    @unit("million events/s")
    def track_none(self, parameter):
        return self.rate(parameter, cosched="none")


class SchedXen:
    """Events of Xen's policies: ends of turns, periods, and what is done in them for all worlds.

    Of `credit` also simulated seconds a second: each 30 ms it pays every world, with few events.
    """

    params = ["1000 on 8", "1000 on 64"]
    param_names = ["worlds on CPUs"]

    def setup(self, parameter):
        self.worlds, self.cpus = map(int, parameter.split(" on "))

    def host(self, policy: str) -> Scheduler:
        made = Scheduler(self.cpus, policy=policy)
        for i, weight in enumerate(weights(self.worlds)):
            params = {}
            if policy == "rtds":
                period = 10_000_000 + 1000 * i
                params = {"period_ns": period, "budget_ns": period * self.cpus // self.worlds}
            made.add_vm(1, weight=weight, **params)
        made.run(FOREVER, events=2 * self.worlds)
        return made

    @unit("million events/s")
    def track_credit(self, parameter):
        return rate(self.host("credit"), 100_000)

    @unit("simulated seconds a second")
    def track_credit_time(self, parameter):
        made = self.host("credit")
        began = made.now_ns
        spent = seconds(lambda: made.run(began + 100_000_000_000))
        return 100 / spent

    @unit("million events/s")
    def track_credit2(self, parameter):
        return rate(self.host("credit2"), 500_000)

    @unit("million events/s")
    def track_rtds(self, parameter):
        return rate(self.host("rtds"), 500_000)


class SchedOtherPolicies:
    """BVT, CFS and Hyper-V, which are plugged in: always running worlds of random weights."""

    params = ["1000 on 8", "1000 on 64"]
    param_names = ["worlds on CPUs"]

    def rate(self, policy, parameter: str) -> float:
        worlds, cpus = map(int, parameter.split(" on "))
        return rate(host(policy, worlds, cpus), 500_000)

    @unit("million events/s")
    def track_bvt(self, parameter):
        return self.rate(Bvt(allowance_ns=QUANTUM), parameter)

    @unit("million events/s")
    def track_cfs(self, parameter):
        return self.rate(Cfs(), parameter)

    @unit("million events/s")
    def track_hyperv(self, parameter):
        return self.rate(HyperV("classic", quantum_ns=QUANTUM), parameter)


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


class PlugEvents:
    """Policies from outside pyvirt: the same stride in C and in Numba, beside the built-in one.

    Always running worlds, so that it is the hook `turns` that is called.
    """

    timeout = 300
    params = ["1000 on 8", "1000 on 64"]
    param_names = ["worlds on CPUs"]
    events = 500_000

    def setup_cache(self) -> str:
        folder = pathlib.Path(__file__).parents[2] / "docs" / "guide" / "policies"
        include = ["-I", get_include()]
        command = ["cc", "-O3", "-shared", "-fPIC", *include, str(folder / "stride.c")]
        try:
            subprocess.run([*command, "-o", "stride.so"], check=True)
        except FileNotFoundError:
            raise NotImplementedError("there is no C compiler") from None
        return str(pathlib.Path("stride.so").resolve())

    def c_policy(self, library: str) -> NativePolicy:
        capsule = ctypes.pythonapi.PyCapsule_New
        capsule.restype = ctypes.py_object
        capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        table = ctypes.addressof(ctypes.c_char.in_dll(ctypes.CDLL(library), "stride"))
        return NativePolicy("stride", capsule(table, b"pyvirt.sched.plug", None))

    def numba_policy(self) -> NativePolicy:
        sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "docs" / "guide" / "policies"))
        try:
            from jitstride import jit_stride
        finally:
            del sys.path[0]
        return jit_stride()

    def rate(self, policy, parameter: str) -> float:
        return rate(host(policy, *map(int, parameter.split(" on "))), 1_000_000)

    def over_built_in(self, policy, parameter: str) -> float:
        """Speed as a part of that of the built-in stride."""
        worlds, cpus = map(int, parameter.split(" on "))
        ours, theirs = host("stride", worlds, cpus), host(policy, worlds, cpus)
        return paired(
            lambda: theirs.run(FOREVER, events=self.events),
            lambda: ours.run(FOREVER, events=self.events),
        ).ratio

    @unit("million events/s")
    def track_c(self, library, parameter):
        return self.rate(self.c_policy(library), parameter)

    @unit("million events/s")
    def track_numba(self, library, parameter):
        return self.rate(self.numba_policy(), parameter)

    @target(">=", 0.9)
    @unit("of the speed of the built-in stride")
    def track_c_over_built_in(self, library, parameter):
        return self.over_built_in(self.c_policy(library), parameter)

    @target(">=", 0.9)
    @unit("of the speed of the built-in stride")
    def track_numba_over_built_in(self, library, parameter):
        return self.over_built_in(self.numba_policy(), parameter)

    @unit("million events/s")
    def track_fixed_priorities(self, library, parameter):
        return self.rate("fixed", parameter)


class Turns(PythonPolicy):
    """Round robin in Python."""

    def __init__(self):
        self.line = collections.deque()

    def enqueue(self, id, why):
        self.line.append(id)
        if why == "new":
            for cpu in range(self.cpu_count):
                if self.running(cpu) is None and not self.asked(cpu):
                    self.ask(cpu)
                    break

    def dequeue(self, id):
        self.line.remove(id)

    def pick(self, cpu):
        return self.line.popleft() if self.line else None


class PlugPython:
    """A policy in Python, 1,000 worlds on 8 CPUs, against SimPy in the same run."""

    timeout = 120
    peer_quanta = 20_000
    ours = 300_000

    @target(">=", 20.0)
    @unit("times SimPy's slices a second, round robin")
    def track_over_simpy(self):
        made = host(Turns(), 1000, 8)
        pair = paired(
            lambda: made.run(FOREVER, events=self.ours),
            lambda: simpy_round_robin(1000, 8, self.peer_quanta),
        )
        return pair.ratio * self.ours / self.peer_quanta
