"""`pyvirt.Scenario`: a cluster for a day, and hosts in threads."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

import pyvirt as pv
from pyvirt.spec import (
    ClusterSpec,
    DemandSpec,
    DPMSpec,
    DRSSpec,
    HASpec,
    HostSpec,
    MemoryLoadSpec,
    PolicySpec,
    PoolSpec,
    ScenarioSpec,
    VMSpec,
    WorkloadSpec,
)

from .timing import seconds, target, unit

SECOND = 10**9
HOSTS, MACHINES, HOURS, STEPS = 64, 4000, 24, 288
REPEATS = 3
POLICIES = {
    "no policies": PolicySpec(),
    "DRS, DPM, HA": PolicySpec(drs=DRSSpec(), dpm=DPMSpec(), ha=HASpec()),
}


def day(folder: Path, policies: PolicySpec) -> ScenarioSpec:
    """A cluster under 5-minute demand that goes up and down with the hours."""
    rng = np.random.default_rng(0)
    phase, level = rng.random((MACHINES, 1)) * 2 * np.pi, rng.random((MACHINES, 1)) * 0.5
    hours = np.arange(STEPS) / STEPS * 2 * np.pi
    wave = level + 0.3 * np.sin(hours + phase) + 0.1 * rng.random((MACHINES, STEPS))
    file = folder / "demand.npz"
    names = [f"vm{i}" for i in range(MACHINES)]
    np.savez(file, util=np.clip(wave, 0, 1).astype(np.float32), name=np.array(names))
    hosts = [
        HostSpec(f"h{i}", cpus=32, mhz=2600, memory=256 << 30, power_w=np.linspace(100, 200, 11))
        for i in range(HOSTS)
    ]
    work = WorkloadSpec(
        cpu=DemandSpec("trace", file=str(file), mhz=2000.0),
        memory=MemoryLoadSpec(active_fraction=0.3),
    )
    vms = [
        VMSpec(name, vcpus=2, memory=4 << 30, host=f"h{i % HOSTS}", workload=work)
        for i, name in enumerate(names)
    ]
    return ScenarioSpec(
        ClusterSpec(hosts=hosts, vms=vms),
        HOURS * 3600 * SECOND,
        mode="demand",
        step_ns=300 * SECOND,
        policies=policies,
    )


class DayOfACluster:
    """64 hosts and 4,000 VMs over 24 hours, in steps of 5 minutes."""

    params = list(POLICIES)
    param_names = ["policies"]
    timeout = 600

    def setup(self, name):
        self.folder = tempfile.TemporaryDirectory()
        self.scenario = pv.Scenario(day(Path(self.folder.name), POLICIES[name]))
        self.scenario.run("1h")

    def teardown(self, name):
        self.folder.cleanup()

    @target("<=", dict.fromkeys(params, 10.0))
    @unit("s")
    def track_seconds(self, name):
        """On two cores."""
        return min(
            seconds(lambda: self.scenario.run(threads=2), time.perf_counter) for _ in range(REPEATS)
        )


class DayOfPools:
    """The same without policies, in three resource pools, one in another and with a limit."""

    timeout = 600

    def setup(self):
        self.folder = tempfile.TemporaryDirectory()
        spec = day(Path(self.folder.name), PolicySpec())
        pools = [PoolSpec("p", cpu="high"), PoolSpec("q", cpu_limit=1e6), PoolSpec("r", parent="q")]
        names = ("", "p", "q", "r")
        vms = [vm.replace(pool=names[i // HOSTS % 4]) for i, vm in enumerate(spec.cluster.vms)]
        cluster = spec.cluster.replace(pools=pools, vms=vms)
        self.scenario = pv.Scenario(spec.replace(cluster=cluster))
        self.scenario.run("1h")

    def teardown(self):
        self.folder.cleanup()

    @unit("s")
    def track_seconds(self):
        return min(
            seconds(lambda: self.scenario.run(threads=2), time.perf_counter) for _ in range(REPEATS)
        )


def exact() -> ScenarioSpec:
    """Hosts with schedulers that are exact."""
    hosts = [HostSpec(f"h{i}", cpus=16, mhz=2000, memory=64 << 30) for i in range(4)]
    work = WorkloadSpec(
        cpu=DemandSpec("onoff", on_ns=2_000_000, off_ns=8_000_000, distribution="exponential")
    )
    vms = [
        VMSpec(f"vm{i}", vcpus=1, memory=1 << 30, host=f"h{i % 4}", workload=work)
        for i in range(200)
    ]
    return ScenarioSpec(ClusterSpec(hosts=hosts, vms=vms), 300 * SECOND, step_ns=20 * SECOND)


class ExactHosts:
    """Four hosts with 50 VMs each for five minutes, 100 wake-ups a second for each vCPU."""

    @unit("times real time")
    def track_one_thread(self):
        return self.run(1)

    @unit("times real time")
    def track_two_threads(self):
        return self.run(2)

    def run(self, threads: int) -> float:
        scenario = pv.Scenario(exact())
        return 300 / min(
            seconds(lambda: scenario.run(threads=threads), time.perf_counter)
            for _ in range(REPEATS)
        )
